"""Runs are made again, bit for bit, and whoever made them, nothing but zsteer's own classes is run."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from places import GOLDEN_NETWORKS
from safetensors.torch import load_file, save_file

import zsteer
from zsteer.app.commands import REPRODUCED
from zsteer.app.composition import compose
from zsteer.app.records import COMPARED, read_record, refuse_strangers
from zsteer.app.reproduction import COMPARE
from zsteer.networks.tutorial import Generator

STEER = (*GOLDEN_NETWORKS, "num_images=2", "num_steps=2", "trainer=cpu", "where=null")
FACES = ("data.num_train=16", "data.num_val=8", "data.num_test=8", "data.batch_size=8")
SMALL = (*FACES, "max_images=8", "trainer=cpu", "trainer.precision=32-true", "trainer.log_every_n_steps=1")


@pytest.fixture(scope="module")
def runs(tmp_path_factory, torture):
    """A run of each command, by its name; of `compare`, which takes the longest, where there is time."""
    folder = tmp_path_factory.mktemp("runs")
    root = f"data.root={folder / 'data'}"
    contenders = {"up": ["method=direction", "num_steps=1", "step_size=2"]}
    networks = ("generator.network.hidden_dim=2", "discriminator.network.hidden_dim=2")
    zsteer.steer(*STEER, folder=folder / "steer")
    zsteer.train_gan(*SMALL, root, *networks, "judge=none", folder=folder / "train_gan")
    zsteer.train_classifier(*SMALL, root, "classifier.network.hidden_dim=2", folder=folder / "train_classifier")
    gan = f"generator={folder / 'train_gan'}"
    zsteer._call("sample", (gan, "num_images=2"), {}, None, folder / "sample")
    photo = folder / "sample" / "images" / "00000.png"
    few = ("num_samples=8", "starts=1", "num_steps=1")
    zsteer.invert(photo, *GOLDEN_NETWORKS, *few, "trainer=cpu", folder=folder / "invert")
    classifier = f"classifier={folder / 'train_classifier'}"
    zsteer.evaluate(root, *FACES[:3], classifier, folder=folder / "evaluate")
    zsteer.directions(*GOLDEN_NETWORKS[:-1], source="sefa", folder=folder / "directions")
    if torture:
        words = (root, *FACES[:3], "~experiment", "targets=[Smiling]", "num_images=2", "second_judge=none")
        zsteer.compare(*words, contenders=contenders, folder=folder / "compare")
    return folder


@pytest.fixture
def copy(runs, tmp_path):
    """A copy of the run that steered."""
    return shutil.copytree(runs / "steer", tmp_path / "copy")


def test_all_commands_that_are_compared_are_there():
    assert set(COMPARED) == set(REPRODUCED)


@pytest.mark.parametrize("name", COMPARED)
def test_a_run_of_each_command_is_made_again_bit_for_bit(runs, name):
    if not (runs / name).is_dir():
        pytest.skip("for make torture")
    again = zsteer.reproduce(runs / name)
    assert again.equal, again
    assert again.differences == [] and len(again.faults) >= 2
    assert again.faults["metrics.json"] is None


def test_data_are_known_by_their_content(runs):
    kept = [read_record(runs / name, trust=False).provenance["data"] for name in ("train_gan", "evaluate")]
    assert kept[0] == kept[1]
    ((folder, fingerprint),) = kept[0].items()
    assert folder.startswith(str(runs / "data" / "procedural-")) and len(fingerprint) == 16


def test_a_run_that_is_not_the_same_is_an_exit_code_with_what_differs(command, copy):
    history = load_file(copy / "history.safetensors")
    history["noise"][1, 0, 3] += 0.25
    save_file(history, copy / "history.safetensors")
    ended = command("reproduce", str(copy))
    assert ended.code == 1
    assert f"error: run={copy} is not the same again: history.safetensors" in ended.err
    assert "history.safetensors: 1 of " in ended.out and "noise by 0.25" in ended.out
    kept = json.loads((ended.folder / "metrics.json").read_text())
    assert kept["equal"] is False and kept["files"]["metrics.json"] is None
    assert (ended.folder / "run" / "history.safetensors").is_file()


def test_what_is_another_now_is_said_before_the_run(command, copy):
    status = json.loads((copy / "status.json").read_text())
    status["provenance"]["versions"]["torch"] = "1.0"
    (copy / "status.json").write_text(json.dumps(status))
    ended = command("reproduce", f"run={copy}")
    assert ended.code == 0, ended.err
    assert ended.out.index("torch: 1.0 then, ") < ended.out.index("history.safetensors: the same, bit for bit")


def changed(copy, **status):
    about = json.loads((copy / "status.json").read_text()) | status
    (copy / "status.json").write_text(json.dumps(about))


def unsaid(copy):
    changed(copy, provenance=None)


def from_an_object(copy):
    about = json.loads((copy / "status.json").read_text())["provenance"]
    changed(copy, provenance={**about, "objects": ["image"]})


def of_data(copy):
    changed(copy, provenance={"name": "prepare_data", "command": "zsteer-prepare-data"})


def of_a_changed_file(copy):
    status = json.loads((copy / "status.json").read_text())
    status["provenance"]["files"]["generator.checkpoint"]["sha256"] = "abc"
    changed(copy, **status)


def of_a_file_that_is_gone(copy):
    status = json.loads((copy / "status.json").read_text())
    status["provenance"]["files"]["noise"] = {"path": "gone.safetensors", "sha256": "abc"}
    changed(copy, **status)


def swept(copy):
    (copy / "multirun.yaml").write_text("")
    shutil.copytree(copy / ".hydra", copy / "0_job")
    shutil.copy(copy / "status.json", copy / "0_job")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (shutil.rmtree, "no such folder"),
        (lambda copy: (copy / "status.json").unlink(), "has no status.json"),
        (lambda copy: (copy / "status.json").write_text("{"), "has failed: .* is damaged"),
        (lambda copy: changed(copy, state="running"), "has not ended"),
        (lambda copy: changed(copy, state="failed", error="too warm"), "has failed: too warm"),
        (lambda copy: (copy / ".hydra" / "config.yaml").write_text("a: ["), "config.yaml cannot be read"),
        (lambda copy: (copy / ".hydra" / "config.yaml").unlink(), "config.yaml cannot be read"),
        (unsaid, "does not say how it was made"),
        (from_an_object, "was given image by Python"),
        (of_data, "is one of prepare_data, of which nothing is compared; it was zsteer-prepare-data"),
        (of_a_changed_file, "generator.checkpoint=.* has changed since the run: its SHA-256 was abc, and is "),
        (of_a_file_that_is_gone, "noise=gone.safetensors: no such file"),
        (swept, "is a sweep; name one of its jobs, as in run=.*0_job"),
    ],
)
def test_what_cannot_be_made_again_is_one_line(copy, change, said):
    change(copy)
    with pytest.raises((ValueError, FileNotFoundError), match=said) as caught:
        zsteer.reproduce(copy)
    assert "\n" not in str(caught.value)


def test_a_job_of_a_sweep_is_a_run(command, runs):
    ended = command("steer", *STEER, "target=Smiling,Male", sweep=True)
    jobs = sorted(path.parent for path in ended.folder.glob("*/status.json"))
    assert zsteer.reproduce(jobs[1]).equal


def test_loggers_and_downloads_are_left_out(copy):
    config = copy / ".hydra" / "config.yaml"
    cfg = OmegaConf.load(config)
    cfg.logger = {"wandb": {"_target_": "pytorch_lightning.loggers.WandbLogger", "project": "mine"}}
    cfg.data = {"download": True}
    OmegaConf.save(cfg, config)
    record = read_record(copy, trust=False)
    assert (record.cfg.logger, record.cfg.data.download) == ({}, False)


class Ran(Generator):
    """A network of somebody's own."""

    calls = 0

    def __init__(self, **settings):
        super().__init__(**settings)
        Ran.calls += 1


@pytest.mark.parametrize(
    "section",
    [
        {"_target_": "test_reproduction.Ran"},
        {"_target_": "zsteer.networks.Generator", "z_dim": {"_target_": "test_reproduction.Ran"}},
        {"_target_": "${target}"},
        {"_target_": "zsteer.networks.Generator", "z_dim": "${oc.env:HOME}"},
        {"_target_": "zsteer.networks.Generator", "z_dim": "${oc.decode:'{_target_: os.getcwd}'}"},
        {"_target_": "zsteer.networks.Generator", "z_dim": "method={_target_: os.getcwd}"},
        {"_target_": "zsteer.networks.Generator", "z_dim": "+hydra.searchpath=[file:///tmp]"},
        {"_target_": "torchvision.models.get_model", "name": "fcn_resnet50"},
        {"_target_": "zsteer.files.write_json"},
    ],
)
def test_a_strangers_run_names_nothing_but_what_our_configs_do(copy, section):
    config = copy / ".hydra" / "config.yaml"
    cfg = OmegaConf.load(config)
    cfg.generator.network = section
    OmegaConf.save(cfg, config)
    before = Ran.calls
    with pytest.raises(ValueError, match="which no config of zsteer's does; with trust=true"):
        zsteer.reproduce(copy)
    assert Ran.calls == before


def test_every_config_of_ours_may_be_run_again():
    for name in COMPARED:
        words = ["data=folder", "data.images=here"] if name.startswith("train") else []
        refuse_strangers(compose(name, words), Path("run"))


def test_a_class_that_is_trusted_is_run(copy):
    config = copy / ".hydra" / "config.yaml"
    cfg = OmegaConf.load(config)
    cfg.generator.network._target_ = "test_reproduction.Ran"
    OmegaConf.save(cfg, config)
    before = Ran.calls
    assert zsteer.reproduce(copy, trust=True).equal
    assert Ran.calls > before


@pytest.mark.parametrize(
    ("one", "other", "said"),
    [
        ({"a": 1, "b": None}, {"a": 1, "b": 2}, "b was None and is 2"),
        ({"a": 1}, {"a": 1}, None),
        ([], {}, "is damaged"),
    ],
)
def test_figures_are_compared_by_name(tmp_path, one, other, said):
    for name, content in (("one", one), ("other", other)):
        (tmp_path / name).write_text(json.dumps(content))
    assert COMPARE[".json"](tmp_path / "one", tmp_path / "other") == said


def test_tables_and_tensors_are_compared_by_what_is_in_them(tmp_path):
    for name, lines in (("one", "a,b\n1,2\n"), ("other", "a,b\n1,3\n4,5\n")):
        (tmp_path / name).write_text(lines)
    assert COMPARE[".csv"](tmp_path / "one", tmp_path / "other") == "2 of 3 lines differ"
    for name, tensor in (("one", torch.tensor([torch.nan, 0.0])), ("other", torch.zeros(2, dtype=torch.float64))):
        save_file({"a": tensor}, tmp_path / f"{name}.safetensors")
    same = tmp_path / "one.safetensors"
    assert COMPARE[".safetensors"](same, same) is None  # NaN is as good as itself
    assert COMPARE[".safetensors"](same, tmp_path / "other.safetensors") == "has other tensors"
