"""Real processes: the scripts from a clone, the wheel from anywhere, and what they import."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
import zipfile

import pytest
from places import ROOT
from served import tensorboard

OWN_NETWORKS = '''
import torch
from torch import nn


class Stripes(nn.Module):
    """24x32 images of three noise numbers."""

    def __init__(self):
        super().__init__()
        self.z_dim = 3
        self.register_buffer("waves", torch.linspace(0, 6, 3 * 24 * 32).sin().view(1, 3, 24, 32))

    def forward(self, noise):
        return torch.tanh(noise[:, :, None, None] + self.waves)


class Tones(nn.Module):
    """How bright, and how red."""

    def forward(self, images):
        red, green, blue = images.mean(dim=(2, 3)).unbind(1)
        return torch.stack([red + green + blue, red - green], dim=1)
'''


def run(*words, cwd=ROOT, check=True, **environment):
    return subprocess.run(
        [str(word) for word in words],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=check,
    )


def test_somebody_elses_networks_are_steered_without_a_change_to_the_code(tmp_path):
    (tmp_path / "networks_of_mine.py").write_text(OWN_NETWORKS)
    for group, text in {
        "generator": "network: {_target_: networks_of_mine.Stripes}",
        "classifier": "network: {_target_: networks_of_mine.Tones}\nattributes: [bright, red]",
    }.items():
        (tmp_path / "configs" / group).mkdir(parents=True)
        (tmp_path / "configs" / group / "mine.yaml").write_text(text)
    run(
        *(sys.executable, "scripts/steer.py", "--config-dir", tmp_path / "configs", "generator=mine"),
        *("classifier=mine", "judge=none", "target=Red", "num_steps=5", f"hydra.run.dir={tmp_path / 'run'}"),
        PYTHONPATH=str(tmp_path),
        LC_ALL="C",
        PYTHONCOERCECLOCALE="0",
        PYTHONUTF8="0",  # so that text is ASCII unless told otherwise
    )
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["target"] == "red"
    assert metrics["gain_classifier"] > 0
    assert metrics["gain_judge"] is None


@pytest.mark.parametrize("words", [["--help"], ["target=Smilling"], ["nonsense=1"]])
def test_help_and_config_errors_come_without_importing_torch(tmp_path, words):
    program = (
        "import sys; from zsteer.app.commands import steer; sys.argv = ['steer.py', *sys.argv[1:]]\n"
        "try: steer()\n"
        "except SystemExit: pass\n"
        "print('torch' in sys.modules)"
    )
    ended = run(sys.executable, "-c", program, *words, f"hydra.run.dir={tmp_path}")
    assert ended.stdout.splitlines()[-1] == "False"


@pytest.mark.parametrize(
    ("number", "code", "said"), [(signal.SIGHUP, 143, "terminated"), (signal.SIGINT, 130, "interrupted")]
)
def test_a_run_that_is_ended_says_so_and_does_not_exit_as_if_all_were_well(tmp_path, number, code, said):
    words = ("num_steps=5000", "judge=none", "trainer=cpu", f"hydra.run.dir={tmp_path / 'run'}")
    status = tmp_path / "run" / "status.json"
    command = [sys.executable, "scripts/steer.py", *words]

    def heard() -> None:  # also where the tests were started by nohup, which a run respects
        signal.signal(number, signal.SIG_DFL)

    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, preexec_fn=heard) as process:
        try:
            for _ in range(600):
                if status.is_file():
                    break
                time.sleep(0.1)
            time.sleep(3)
            process.send_signal(number)
            _, err = process.communicate(timeout=120)
        finally:
            process.kill()
    assert (process.returncode, err.splitlines()[-1]) == (code, f"error: {said}")
    assert json.loads(status.read_text())["error"] == said


def test_two_runs_that_start_together_have_folders_of_their_own(tmp_path):
    program = (
        "import zsteer.app.composition; from omegaconf import OmegaConf; print(OmegaConf.create('${zsteer.run_name:}'))"
    )
    program = program.replace(
        "OmegaConf.create('${zsteer.run_name:}')", "OmegaConf.create({'n': '${zsteer.run_name:}'}).n"
    )
    names = {run(sys.executable, "-c", program, "target=Male").stdout.strip() for _ in range(2)}
    assert len(names) == 2
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d_target-Male_[0-9a-f]{6}", name) for name in names)


def test_the_wheel_carries_everything_and_runs_from_another_folder(tmp_path):
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    entry_points = next((tmp_path / "site").glob("*.dist-info/entry_points.txt")).read_text()
    for name in (
        "steer",
        "train-gan",
        "train-classifier",
        "evaluate",
        "prepare-data",
        "summarize",
        "invert",
        "export",
        "explore",
        "reproduce",
        "doctor",
    ):
        assert f"zsteer-{name} = zsteer.app.commands:{name.replace('-', '_')}" in entry_points
    assert (tmp_path / "site" / "hydra_plugins" / "zsteer_launchers.py").is_file()  # where Hydra looks for launchers
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    program = "from zsteer.app import commands, composition; print(composition.CONFIGS); commands.steer()"
    ended = run(
        *(sys.executable, "-c", program, "num_steps=1", "num_images=1"),
        cwd=elsewhere,
        PYTHONPATH=str(tmp_path / "site"),
    )
    assert ended.stdout.splitlines()[0] == str(tmp_path / "site" / "zsteer" / "configs")
    assert len(list(elsewhere.glob("outputs/steer/*/metrics.json"))) == 1


def fetch(address, **content):
    """What a page of TensorBoard's browser side would get."""
    data = json.dumps(content).encode() if content else None
    request = urllib.request.Request(address, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        body = answer.read()
        return json.loads(body) if answer.headers.get_content_type() == "application/json" else body


def test_tensorboard_shows_a_sweep_under_readable_names(command, tmp_path):
    words = ("target=Smiling,Eyeglasses", "penalty_weight=0,0.1,1", "num_steps=2", "num_images=2")
    folder = command("steer", *words, sweep=True).folder
    jobs = {path.parent.name for path in folder.glob("*/metrics.json")}
    assert len(jobs) == 6
    assert "1_target-Smiling_penalty_weight-0.1_num_steps-2_num_images-2" in jobs
    tags = {}
    with tensorboard(folder, tmp_path / "log") as address:
        for _ in range(100):
            if set(tags := fetch(f"{address}/data/plugin/images/tags")) >= jobs:
                break
            time.sleep(0.1)
        assert set(tags) >= jobs
        job = sorted(jobs)[0]
        assert tags[job]["steer/images"]["samples"] == 1
        (first, *_) = fetch(f"{address}/data/plugin/images/images?run={job}&tag=steer/images&sample=0")
        picture = fetch(f"{address}/data/plugin/images/individualImage?{first['query']}")
        assert picture.startswith(b"\x89PNG")
        experiment = fetch(f"{address}/data/plugin/hparams/experiment", experimentName="")
        assert {"target", "penalty_weight", "method"} <= {column["name"] for column in experiment["hparamInfos"]}
        metrics = {column["name"]["tag"] for column in experiment["metricInfos"]}
        assert {"figure/gain_judge", "figure/attribute_dependency"} <= metrics
        groups = fetch(
            f"{address}/data/plugin/hparams/session_groups",
            **{"experimentName": "", "allowedStatuses": ["STATUS_UNKNOWN", "STATUS_SUCCESS", "STATUS_RUNNING"]},
            **{"colParams": [{"metric": name["name"]} for name in experiment["metricInfos"]], "sliceSize": 100},
        )
        weights = {(g["hparams"]["target"], g["hparams"]["penalty_weight"]) for g in groups["sessionGroups"]}
        assert weights == {(target, weight) for target in ("Smiling", "Eyeglasses") for weight in (0.0, 0.1, 1.0)}
