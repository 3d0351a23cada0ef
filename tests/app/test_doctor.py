"""What the doctor finds where something is broken, and that it finds nothing wrong here."""

import json
import re
import sys
import tomllib
import warnings
from importlib import metadata
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from places import ROOT
from safetensors.torch import load_file, save_file
from torture.victims import make_celeba

from zsteer.app import doctor, selftest
from zsteer.app.composition import compose
from zsteer.app.doctor import examine
from zsteer.data.store import build_store


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder to work in, with nothing in it."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


def found(about, *words):
    """The finding of one thing."""
    return {finding.about: finding for finding in examine(compose("doctor", words), None).findings}[about]


def test_nothing_stops_steer_here(command, here):
    ended = command("doctor")
    assert (ended.code, ended.err) == (0, "")
    kept = json.loads((ended.folder / "metrics.json").read_text())
    assert kept["self-test"]["state"] == kept["outputs"]["state"] == kept["versions"]["state"] == "ok"
    assert f"torch {metadata.version('torch')}" in kept["versions"]["said"]
    for about, finding in kept.items():
        assert f"{finding['state']:<7}  {about}" in ended.out
    assert list(here.iterdir()) == []  # nothing was drawn or made


@pytest.mark.parametrize("package", ["torch", "torchvision", "pytorch_lightning"])
def test_a_package_that_is_missing_is_one_line_and_an_exit_code(command, here, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    name = package.replace("_", "-")
    ended = command("doctor")
    assert (ended.code, ended.err) == (1, f"error: steer does not work here: {name}\n")
    assert re.search(f"pip install --force-reinstall .*{name}\n", ended.out)
    kept = json.loads((ended.folder / "metrics.json").read_text())
    assert "self-test" not in kept and kept["outputs"]["state"] == "ok"
    assert "cannot be imported: ModuleNotFoundError" in kept[name]["said"]


def test_a_broken_package_is_not_its_traceback(monkeypatch):
    def broken(name):
        raise OSError("libcudart.so.13: cannot open shared object file")

    monkeypatch.setattr(doctor, "import_module", broken)
    (finding,) = doctor.packages()
    assert finding.said == "cannot be imported: OSError: libcudart.so.13: cannot open shared object file"


def test_a_torchvision_of_another_torch_is_named(monkeypatch):
    monkeypatch.setattr(doctor, "requires", lambda name: ["numpy", "torch==9.8.7", "scipy; extra == 'scipy'"])
    (finding,) = doctor.packages()
    assert finding.about == "torchvision" and finding.state == "problem"
    assert "was built for torch 9.8.7, and this is torch " in finding.said
    assert finding.remedy is not None and finding.remedy.startswith("pip install torch==9.8.7")


def test_the_installed_torchvision_says_what_it_was_built_for():
    assert doctor.torch_of_torchvision() in (None, torch.__version__.partition("+")[0])  # some builds do not say


def test_a_torchvision_that_is_not_there_says_nothing(monkeypatch):
    def none(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(doctor, "requires", none)
    assert doctor.torch_of_torchvision() is None


def test_a_steering_that_ends_elsewhere_is_a_problem(monkeypatch, tmp_path):
    wanted = load_file(selftest.STEERED)["noise"]
    assert wanted.shape == (4, 2, 256) and not torch.equal(wanted[0], wanted[3])
    save_file({"noise": wanted + 1e-3}, tmp_path / "steered.safetensors")
    monkeypatch.setattr(selftest, "STEERED", tmp_path / "steered.safetensors")
    monkeypatch.setattr(selftest, "steered", lambda: wanted)
    finding = doctor.self_test()
    assert finding.said == "noise within 0.001 of the reference, 1e-06 is allowed" and finding.state == "problem"


def test_what_is_written_for_the_self_test_is_what_is_read(monkeypatch, tmp_path):
    monkeypatch.setattr(selftest, "STEERED", tmp_path / "steered.safetensors")
    monkeypatch.setattr(selftest, "steered", lambda: torch.arange(8.0).view(4, 2))
    selftest.save_steered()
    assert selftest.deviation() == 0


def test_a_self_test_that_cannot_run_is_a_finding(here, monkeypatch):
    monkeypatch.setattr(selftest, "STEERED", here / "nowhere.safetensors")
    finding = found("self-test")
    assert finding.state == "problem" and "nowhere.safetensors" in finding.said


def test_extras_are_those_of_the_package():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(doctor.EXTRAS) == set(extras) - {"dev"}


def test_an_extra_that_is_missing_is_said_with_who_needs_it(monkeypatch):
    monkeypatch.setattr(doctor, "find_spec", lambda name: None if name == "gradio" else name)
    findings = {finding.about: finding for finding in doctor.extras()}
    missing = findings.pop("zsteer[explore]")
    assert (missing.state, missing.said) == ("missing", "for explore and export: no gradio")
    assert missing.remedy == "pip install 'zsteer[explore]', or '.[explore]' in a clone"
    assert {finding.state for finding in findings.values()} == {"ok"}


def no_file(**_):
    raise PermissionError(13, "Permission denied")


def test_folders_that_cannot_be_written_are_named(here, monkeypatch):
    monkeypatch.setattr(doctor.tempfile, "TemporaryFile", no_file)
    outputs, cache = doctor.folders()
    assert (outputs.state, outputs.said) == ("problem", f"{here / 'outputs'}: Permission denied")
    assert cache.state == "missing" and "XDG_CACHE_HOME" in str(cache.remedy)


def test_a_full_disk_and_a_missing_home_are_named(here, monkeypatch):
    def homeless():
        raise FileNotFoundError("no home folder is known")

    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda folder: SimpleNamespace(free=2e8))
    monkeypatch.setattr(doctor, "cache_folder", homeless)
    outputs, cache = doctor.folders()
    assert (outputs.state, outputs.said) == ("problem", f"{here / 'outputs'}: 0.2 GB free")
    assert cache.said == "~/.cache: no home folder is known"


def test_drawn_faces_are_not_drawn_for_it(here):
    finding = doctor.data(compose("doctor"))
    assert finding.state == "ok" and finding.said.endswith("is made at the first training")
    assert list(here.iterdir()) == []


def test_a_store_that_is_there_is_opened(here):
    cfg = compose("doctor", ["data.num_train=3", "data.num_val=2", "data.num_test=1"])
    place = doctor.data(cfg).said.split()[0]

    def fill(indices):
        return np.zeros((len(indices), 3, 64, 64), np.uint8), np.zeros((len(indices), 1), np.float32)

    build_store(here / place, fill, np.array([0, 0, 0, 1, 1, 2]), ["a"], "test", {})
    assert doctor.data(cfg).said == f"{place}: 3 train, 2 val, 1 test"
    (here / place / "splits.npy").write_bytes(b"")
    damaged = doctor.data(cfg)
    assert damaged.state == "missing" and "is damaged" in damaged.said


def test_celebas_files_are_looked_for_and_counted(here):
    cfg = compose("doctor", ["data=celeba"])
    absent = doctor.data(cfg)
    assert absent.state == "missing" and "data.root=data: CelebA is incomplete" in absent.said
    files = make_celeba(here / "data")
    assert doctor.data(cfg).said == "data/celeba64 is made at the first training"
    (files / "img_align_celeba" / "1.jpg").unlink()
    incomplete = doctor.data(cfg)
    assert incomplete.state == "missing" and "has 2 images and list_attr_celeba.txt 3 rows" in incomplete.said


def test_a_folder_of_images_is_looked_for(here):
    cfg = compose("doctor", ["data=folder", "data.images=mine"])
    assert doctor.data(cfg).said == "data.images=mine: no such folder"
    (here / "mine").mkdir()
    (here / "mine" / "a.png").write_bytes(b"")
    assert doctor.data(cfg).state == "ok"


def test_a_gpu_is_tried(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "A GPU")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (0, 80 * 2**30))
    monkeypatch.setattr(torch, "ones", lambda *_, **__: SimpleNamespace(sum=lambda: torch.tensor(2.0)))
    assert doctor.devices().said == "2 × A GPU, 80 GiB"

    def broken(*_, **__):
        raise RuntimeError("no kernel image is available")

    monkeypatch.setattr(torch, "ones", broken)
    finding = doctor.devices()
    assert (finding.state, finding.said) == ("problem", "A GPU cannot be used: no kernel image is available")


def test_a_driver_that_is_too_old_is_said(monkeypatch):
    def unavailable():
        warnings.warn("The NVIDIA driver on your system is too old", stacklevel=1)
        return False

    monkeypatch.setattr(torch.cuda, "is_available", unavailable)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    finding = doctor.devices()
    assert finding.state == "missing" and "too old" in finding.said
    monkeypatch.setattr(torch.version, "cuda", None)
    assert doctor.devices().state == "ok"
