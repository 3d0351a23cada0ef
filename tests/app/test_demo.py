"""`make demo` draws the same faces at the start, and at the end of each of two runs."""

import re
import runpy

import numpy as np
from PIL import Image
from places import ROOT


def test_the_picture_has_a_line_for_each_run(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small = ("num_images=2", "num_steps=2", "trainer=cpu")
    recipe = re.search(r"^demo:.*?\n\n", (ROOT / "Makefile").read_text(), flags=re.MULTILINE | re.DOTALL)
    assert recipe is not None
    for number, words in enumerate(re.findall(r"scripts/steer\.py ?(.*)", recipe[0])):
        ended = command("steer", *words.split(), *small, f"hydra.run.dir=outputs/steer/{number}")
        assert ended.code == 0, ended.err
    runpy.run_path(str(ROOT / "examples" / "demo.py"), run_name="__main__")
    picture = np.asarray(Image.open(tmp_path / "outputs" / "demo.png")).astype(int)
    start, plain, kept = np.split(picture[2 : 2 + 3 * 98, -196:], 3)
    assert 2 < abs(plain - start).mean() < 60
    assert 1 < abs(plain - kept).mean() < 60
