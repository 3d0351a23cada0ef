"""`make demo` draws the same faces at the start, and at the end of each of two runs."""

import runpy

import numpy as np
from PIL import Image
from places import ROOT


def test_the_picture_has_a_line_for_each_run(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for penalty in (0.1, 0):
        folder = f"hydra.run.dir=outputs/steer/{penalty}"
        ended = command("steer", f"penalty_weight={penalty}", "num_images=2", "num_steps=2", "trainer=cpu", folder)
        assert ended.code == 0, ended.err
    runpy.run_path(str(ROOT / "examples" / "demo.py"), run_name="__main__")
    picture = np.asarray(Image.open(tmp_path / "outputs" / "demo.png")).astype(int)
    start, without, penalised = np.split(picture[2 : 2 + 3 * 98, -196:], 3)
    assert 2 < abs(without - start).mean() < 60
    assert 1 < abs(without - penalised).mean() < 60
