"""What strangers may send does nothing but fail: no code is run, no memory taken without end, no network asked."""

import json
import subprocess
import sys
import time

import pytest
import torch
from omegaconf import OmegaConf
from runtimes import write_package
from safetensors.torch import save_file

import zsteer
from zsteer.app.composition import compose
from zsteer.files import MOST_VALUES, check_aliases
from zsteer.runs import read_config, section_of
from zsteer.sweeps.jobs import given_to

# All of the package is imported, and one small run of each command made, where no address can be looked up or reached;
# the live page is another test's (`served.HERE_ALONE`).
OFFLINE = """
import importlib, pkgutil, sys

def refuse(event, arguments):
    if event in ("socket.connect", "socket.bind", "socket.sendto", "socket.sendmsg", "socket.getaddrinfo"):
        raise RuntimeError(f"{event} {arguments}")

sys.addaudithook(refuse)
import zsteer
for module in pkgutil.walk_packages(zsteer.__path__, "zsteer."):
    importlib.import_module(module.name)
from zsteer.app import commands

faces = ("data.num_train=8", "data.num_val=4", "data.num_test=4", "data.batch_size=4")
small = (*faces, "max_images=4", "trainer=cpu", "trainer.precision=32-true", "trainer.log_every_n_steps=1")
narrow = ("generator.network.hidden_dim=2", "discriminator.network.hidden_dim=2")
zsteer.steer("num_images=1", "num_steps=1", "trainer=cpu", "where=null", folder="steered")
zsteer.sample(n=1)
zsteer.train_gan(*small, *narrow, "judge=none", folder="gan")
zsteer.train_classifier(*small, "classifier.network.hidden_dim=2", folder="classifier")
zsteer.evaluate(*faces[:3], classifier="classifier")
zsteer._call("sample", ("generator=./gan", "num_images=1"), {}, None, "sampled")
zsteer.invert("sampled/images/00000.png", "num_samples=2", "starts=1", "num_steps=1", "trainer=cpu")
zsteer.directions(source="sefa")
assert zsteer.reproduce("steered").equal
zsteer.prepare_data("data=procedural", *faces[:3])
own = ("generator=./gan", "classifier=./classifier", "judge=./classifier")
zsteer.export(*own, "runtime=package", "sliders=[Bangs]")
for words in (
    ["steer.py", "-m", *own, "num_images=1", "num_steps=1", "trainer=cpu", "seed=0,1", "hydra.sweep.dir=sweep"],
    ["summarize.py", "sweep", "hydra.run.dir=summary"],
    ["doctor.py", "hydra.run.dir=examined"],
):
    sys.argv = words
    getattr(commands, words[0].partition(".")[0])()
"""


def bomb(depth):
    """YAML of a few lines that stands for 10**depth values."""
    lines = ["a0: &a0 [" + ", ".join(["x"] * 10) + "]"]
    lines += [f"a{n}: &a{n} [" + ", ".join([f"*a{n - 1}"] * 10) + "]" for n in range(1, depth)]
    return "\n".join(lines) + "\n"


def test_no_command_asks_the_network(tmp_path):
    write_package(tmp_path / "package")
    program = [sys.executable, "-W", "ignore", "-c", OFFLINE]
    ended = subprocess.run(program, cwd=tmp_path, capture_output=True, text=True, timeout=900)
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert "self-test" in ended.stdout


def test_the_guard_of_that_test_holds():
    lines = OFFLINE.partition("import zsteer\n")[0] + "import socket\nsocket.create_connection(('127.0.0.1', 9))\n"
    ended = subprocess.run([sys.executable, "-c", lines], capture_output=True, text=True)
    assert ended.returncode == 1 and "RuntimeError: socket.getaddrinfo" in ended.stderr


def test_aliases_may_stand_for_no_more_than_a_config_has(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(bomb(9))
    started = time.monotonic()
    with pytest.raises(ValueError, match=f"{path} has YAML aliases that stand for [0-9,]{{10,}} values, more than"):
        read_config(path)
    assert time.monotonic() - started < 10  # read as it is, it would take days
    path.write_text(bomb(2))
    assert len(read_config(path).a1) == 10
    assert len(OmegaConf.to_yaml(compose("train_gan")).splitlines()) * 10 < MOST_VALUES


@pytest.mark.parametrize("text", ["", "a: [", "a: *b", "a: '*'", "- \x00*"])
def test_what_is_no_bomb_is_left_to_its_reader(tmp_path, text):
    path = tmp_path / "config.yaml"
    path.write_text(text)
    check_aliases(path)


@pytest.mark.parametrize("text", ["a: &x\n  b: *x\n", "a: &x [*x]\n", "a: " + 500 * "[" + "*b" + 500 * "]"])
def test_what_contains_itself_is_refused(tmp_path, text):
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match="nests too deeply, or contains itself"):
        check_aliases(path)


def test_a_strangers_sweep_is_refused_in_a_line(command, tmp_path):
    job = tmp_path / "sweep" / "0_job"
    (job / ".hydra").mkdir(parents=True)
    (job / "status.json").write_text(json.dumps({"state": "completed"}))
    (job / ".hydra" / "overrides.yaml").write_text(bomb(9))
    with pytest.raises(ValueError, match="overrides.yaml has YAML aliases"):
        given_to(job)
    ended = command("summarize", str(tmp_path / "sweep"))
    assert ended.code == 1 and ended.err.splitlines()[-1].startswith(f"error: {job}")


def test_somebodys_configs_are_refused_in_a_line(command, tmp_path):
    (tmp_path / "configs" / "generator").mkdir(parents=True)
    (tmp_path / "configs" / "generator" / "mine.yaml").write_text("network: {_target_: mine.Mine}\n" + bomb(9))
    ended = command("steer", "--config-dir", str(tmp_path / "configs"), "generator=mine")
    assert ended.code == 1 and "mine.yaml has YAML aliases that stand for" in ended.err.splitlines()[-1]
    with pytest.raises(ValueError, match="mine.yaml has YAML aliases that stand for"):
        zsteer.steer("generator=mine", config_dir=tmp_path / "configs")


def described(folder, network):
    """Weights with a description beside them of somebody's making."""
    folder.mkdir()
    save_file({"a": torch.zeros(2)}, folder / "classifier.safetensors")
    about = {"config": {"classifier": {"network": network, "attributes": ["a", "b"]}}, "figures": {}}
    (folder / "classifier.json").write_text(json.dumps(about))
    return folder


@pytest.mark.parametrize("name", ["weights", "weights_backbone", "pretrained"])
def test_weights_that_a_file_asks_for_are_not_fetched(tmp_path, name):
    asked = {"_target_": "torchvision.models.resnet18", "num_classes": 2, name: "DEFAULT"}
    folder = described(tmp_path / "run", asked)
    kept = section_of(folder / "classifier.safetensors", "classifier", "classifier.checkpoint")
    assert kept["network"] == {"_target_": "torchvision.models.resnet18", "num_classes": 2}


def test_torchvisions_own_ways_to_any_network_are_not_taken(tmp_path):
    folder = described(tmp_path / "run", {"_target_": "torchvision.models.get_model", "name": "fcn_resnet50"})
    with pytest.raises(ValueError, match="torchvision.models.get_model, which is neither"):
        zsteer.load(folder)
