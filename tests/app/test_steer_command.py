"""A steering run from the command line to its files, on the golden networks; and every kind of bad input."""

import json
import math
import re

import pytest
import torch
from places import GOLDEN, GOLDEN_NETWORKS
from safetensors.torch import load_file, save_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import zsteer
from zsteer.locks import in_use

CONTRACT_FIGURES = {
    *("gain_classifier", "gain_judge", "agreement", "hacking_gap"),
    *("attribute_dependency", "attribute_dependency_max", "attribute_dependency_all"),
    *("success_rate", "preservation_rate", "noise_norm_percentile"),
}
CONTRACT_SETTINGS = {"target", "edit", "method", "penalty_weight", "num_steps", "num_images", "seed"}
QUICK = ("num_steps=2", "num_images=2", "method=ascent")


@pytest.fixture
def noise_file(tmp_path):
    path = tmp_path / "noise.safetensors"
    save_file({"noise": load_file(GOLDEN / "history.safetensors")["noise0"]}, path)
    return path


def assert_one_clear_line(ended, *words):
    """Not 0, six lines at most, no traceback, the words in it; in the folder only Hydra's files and status.json."""
    assert ended.code != 0
    lines = ended.err.strip().splitlines()
    assert len(lines) <= 6, ended.err
    assert "Traceback" not in ended.err
    for word in words:
        assert str(word) in lines[-1], ended.err
    if ended.folder.is_dir():
        written = {path.name for path in ended.folder.iterdir()}
        assert written <= {".hydra", "steer.log", "status.json"}, written
    if (ended.folder / "status.json").is_file():
        status = json.loads((ended.folder / "status.json").read_text())
        assert status["state"] == "failed"
        assert "Traceback" in status["traceback"]


@pytest.mark.parametrize(("case", "penalty"), [("smiling_plain", "0"), ("smiling_penalty0.1", "0.1")])
def test_published_run_is_reproduced(command, noise_file, case, penalty):
    golden = load_file(GOLDEN / "history.safetensors")
    ended = command(
        *("steer", "experiment=tutorial", "trainer.precision=64-true", f"noise={noise_file}"),
        *(f"penalty_weight={penalty}", *GOLDEN_NETWORKS),
    )
    assert ended.code == 0, ended.err
    history = load_file(ended.folder / "history.safetensors")
    torch.testing.assert_close(history["noise"], golden[f"{case}.noise"], rtol=0, atol=1e-9)
    assert history["logits"].shape == (11, 4, 40)
    torch.testing.assert_close(history["score"].float(), golden[f"{case}.score"], rtol=0, atol=1e-6)


def test_a_run_leaves_every_file_of_the_contract(command):
    ended = command("steer", "num_steps=4", "num_images=3", "show_every=2", "seed=5")
    assert ended.code == 0, ended.err
    metrics = json.loads((ended.folder / "metrics.json").read_text())
    assert set(metrics) >= CONTRACT_FIGURES | CONTRACT_SETTINGS
    assert (metrics["target"], metrics["edit"], metrics["method"]) == ("Smiling", "add", "projected")
    assert (metrics["num_steps"], metrics["num_images"], metrics["seed"]) == (4, 3, 5)
    assert all(metrics[name] is not None for name in CONTRACT_FIGURES - {"success_rate", "preservation_rate"})
    assert json.loads((ended.folder / "status.json").read_text())["state"] == "completed"
    assert (ended.folder / "steering.png").read_bytes().startswith(b"\x89PNG")
    events = EventAccumulator(str(ended.folder), size_guidance={"images": 0}).Reload()
    for tag, count in (
        ("steer/score", 4),
        ("steer/target_logit", 5),
        ("steer/other_change", 5),
        ("steer/noise_norm", 5),
    ):
        assert [event.step for event in events.Scalars(tag)] == list(range(count))
    assert [event.step for event in events.Images("steer/images")] == [0, 2, 4]
    assert len(events.Images("steer/history")) == 1
    assert not [path for path in ended.folder.rglob("*") if path.name.startswith(".") and path.is_file()]


def test_parts_of_the_images_and_some_of_the_steps_are_as_all(command):
    words = ("num_steps=5", "num_images=5", "method=ascent", "trainer.precision=64-true", "show_every=3")
    whole = command("steer", *words)
    ended = command("steer", *words, "max_rows=2", "record_every=2")
    assert ended.code == 0, ended.err
    expected, history = (load_file(run.folder / "history.safetensors") for run in (whole, ended))
    assert expected["steps"].tolist() == [0, 1, 2, 3, 4, 5]
    assert history["steps"].tolist() == [0, 2, 4, 5]
    for name in ("noise", "logits"):
        torch.testing.assert_close(history[name], expected[name][history["steps"]], rtol=0, atol=1e-9)
    torch.testing.assert_close(history["score"], expected["score"], rtol=0, atol=1e-9)
    events = EventAccumulator(str(ended.folder), size_guidance={"images": 0}).Reload()
    assert [event.step for event in events.Scalars("steer/target_logit")] == [0, 2, 4, 5]
    assert [event.step for event in events.Scalars("steer/score")] == [0, 1, 2, 3, 4]
    assert [event.step for event in events.Images("steer/images")] == [0, 3, 5]


def test_without_a_judge_figures_are_null_and_the_gain_is_called_unconfirmed(command):
    ended = command("steer", *QUICK, "judge=none")
    metrics = json.loads((ended.folder / "metrics.json").read_text())
    assert {name for name in CONTRACT_FIGURES if metrics[name] is None} == CONTRACT_FIGURES - {
        *("gain_classifier", "noise_norm_percentile")
    }
    assert "unconfirmed" in ended.out


@pytest.mark.parametrize("target", ["hair_length", "Age"])
def test_a_factor_is_steered_and_judged_by_regressors_beside_the_labels(command, target):
    ended = command("steer", f"target={target}", "method=ascent", "num_images=4")
    assert ended.code == 0, ended.err
    metrics = json.loads((ended.folder / "metrics.json").read_text())
    assert metrics["target"] == target.lower()
    assert metrics["gain_classifier"] > 1
    assert metrics["gain_judge"] > 0.5
    history = load_file(ended.folder / "history.safetensors")
    assert history["logits"].shape[1:] == (4, 46)  # the forty labels are kept in place too


def test_several_attributes_are_steered_as_one_that_is_there_where_all_of_them_are(command):
    words = ("num_images=4", "num_steps=24", "method=ascent", "preserve=all", "judge=none")
    ended = command("steer", "target=smiling+Eyeglasses", *words)
    assert ended.code == 0, ended.err
    metrics = json.loads((ended.folder / "metrics.json").read_text())
    assert metrics["target"] == "Smiling+Eyeglasses"
    logits = load_file(ended.folder / "history.safetensors")["logits"].double()
    assert logits.shape == (25, 4, 41)
    both = logits[:, :, 31].sigmoid() * logits[:, :, 15].sigmoid()
    torch.testing.assert_close(logits[:, :, 40], both.log() - (1 - both).log(), rtol=1e-3, atol=1e-3)
    assert logits[-1, :, 40].min() > logits[0, :, 40].max()
    events = EventAccumulator(str(ended.folder)).Reload()
    others = [k for k in range(40) if k not in (31, 15)]
    drift = (logits[-1] - logits[0])[:, others].norm(dim=1).mean().item()
    assert events.Scalars("steer/other_change")[-1].value == pytest.approx(drift, rel=1e-4)


def test_remove_lowers_what_add_raises(command):
    logits = {}
    for edit in ("add", "remove"):
        history = load_file(command("steer", f"edit={edit}", *QUICK[1:], "num_steps=3").folder / "history.safetensors")
        logits[edit] = history["logits"][:, :, 31].mean(dim=1)
    assert logits["add"][-1] > logits["add"][0]
    assert logits["remove"][-1] < logits["remove"][0]


def test_images_stop_once_the_classifier_is_as_sure_as_asked(command):
    words = ("method=ascent", "step_size=1", "target=Bangs", "until=0.9", "num_images=4", "judge=none")
    for edit, wanted in (("add", 1), ("remove", -1)):
        ended = command("steer", *words, f"edit={edit}", f"where={{Bangs: {str(edit == 'remove').lower()}}}")
        assert ended.code == 0, ended.err
        history = load_file(ended.folder / "history.safetensors")
        sure = (wanted * history["logits"][:, :, 5]).sigmoid() >= 0.9
        moved = history["noise"].diff(dim=0).abs().amax(dim=2) > 0
        assert torch.equal(moved, ~sure[:-1])
        assert sure.any()


def test_only_what_is_to_be_preserved_is_penalised(command):
    change = {}
    for preserve in ("[]", "[Male]"):
        words = ("method=penalty", "penalty_weight=50", "target=Bangs", "judge=none", "num_images=4", "num_steps=6")
        history = load_file(command("steer", *words, f"preserve={preserve}").folder / "history.safetensors")
        change[preserve] = (history["logits"][-1] - history["logits"][0])[:, 20].abs().mean()
    assert change["[Male]"] < 0.9 * change["[]"]


@pytest.mark.parametrize("spelling", ["WearingHat", "wearing_hat", "WEARING_HAT"])
def test_every_spelling_of_a_target_is_the_same_attribute(command, spelling):
    ended = command("steer", f"target={spelling}", "num_steps=1", "num_images=1", "judge=none")
    assert json.loads((ended.folder / "metrics.json").read_text())["target"] == "Wearing_Hat"


def test_a_step_that_follows_the_noises_length_is_recorded_as_it_was(command):
    ended = command("steer", "method=direction", "num_steps=1", "num_images=2", "judge=none")
    metrics = json.loads((ended.folder / "metrics.json").read_text())
    noise = load_file(ended.folder / "history.safetensors")["noise"]
    assert metrics["step_size"] == math.sqrt(noise.shape[2]) / 32
    torch.testing.assert_close((noise[1] - noise[0]).norm(dim=1), torch.full((2,), metrics["step_size"]))


def test_noise_of_a_file_overrules_number_seed_and_where(command, noise_file):
    words = ("generator=tutorial", "num_images=2", "seed=9", "where={Male: true}", "num_steps=1")
    ended = command("steer", f"noise={noise_file}", *words)
    noise = load_file(ended.folder / "history.safetensors")["noise"]
    assert torch.equal(noise[0], load_file(noise_file)["noise"])
    assert json.loads((ended.folder / "metrics.json").read_text())["num_images"] == 4


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_noise_may_be_any_float_type(command, tmp_path, dtype):
    path = tmp_path / "any.safetensors"
    save_file({"noise": torch.randn(2, 256).to(dtype)}, path)
    assert command("steer", f"noise={path}", "num_steps=1", "judge=none").code == 0


def test_where_starts_only_from_samples_that_the_classifier_sees_so(command):
    ended = command("steer", "where={Male: false, young: true}", "num_images=4", "num_steps=1", "method=ascent")
    assert ended.code == 0, ended.err
    first = load_file(ended.folder / "history.safetensors")["logits"][0]
    assert (first[:, 20] <= 0).all()
    assert (first[:, 39] > 0).all()


@pytest.mark.parametrize(("edit", "has_it"), [("add", False), ("remove", True)])
def test_by_default_images_lack_what_is_wanted(command, edit, has_it):
    ended = command("steer", f"edit={edit}", "num_images=4", "num_steps=1", "method=ascent")
    first = load_file(ended.folder / "history.safetensors")["logits"][0]
    assert ((first[:, 31] > 0) == has_it).all()


@pytest.mark.parametrize("words", [("where=null",), GOLDEN_NETWORKS, ("target=smile",)])
def test_elsewhere_any_image_is_a_start(command, words):
    ended = command("steer", *words, "num_images=4", "num_steps=1", "seed=3", "method=ascent")
    noise = load_file(ended.folder / "history.safetensors")["noise"][0]
    assert torch.equal(noise, torch.randn(noise.shape, generator=torch.Generator().manual_seed(3)))


def test_too_few_images_that_lack_it_are_no_failure(command, monkeypatch):
    monkeypatch.setattr("zsteer.steering.start.MAX_SAMPLES", 200)
    ended = command("steer", "target=Bald", "edit=remove", *QUICK, "num_images=20", "judge=none")
    assert ended.code == 0 and "starting from any" in ended.out


def test_a_factor_is_not_mistaken_for_its_label(command):
    out = command("steer", "target=smile", *QUICK).out
    assert "smile is a number, not the label Smiling: target=Smiling would steer that" in out


def test_a_refused_run_leaves_no_folder_and_a_good_one_no_empty_log(command):
    ended = command("steer", "target=Smilling", *QUICK)
    assert ended.code == 1 and not ended.folder.exists()
    ended = command("steer", *GOLDEN_NETWORKS, *QUICK)
    assert ended.code == 0 and not [path for path in ended.folder.iterdir() if path.suffix == ".log"]


def test_the_version_is_zsteers(command):
    assert command("steer", "--version").out == f"zsteer {zsteer.__version__}\n"


def test_help_explains_the_keys(command):
    out = command("steer", "--help").out
    assert "penalty_weight: 0.1 # λ ≥ 0, on the change of what is preserved" in out and "${method.run.num_steps}" in out
    assert "method: ascent, best_of" in out and "hydra:" not in out
    out = command("sample", "--help").out
    assert "generator: bundled" in out and "trainer:" not in out  # which it has no use for
    assert "group=name" not in command("summarize", "--help").out


def test_where_that_nobody_fits_ends_with_the_count(command, monkeypatch):
    monkeypatch.setattr("zsteer.steering.start.MAX_SAMPLES", 400)
    everything = ", ".join(f"{name}: true" for name in ("Bald", "Bangs", "Wearing_Hat", "Goatee", "Heavy_Makeup"))
    ended = command("steer", f"where={{{everything}}}")
    assert_one_clear_line(ended, "where", "of 400 samples", "num_images=8")


@pytest.mark.parametrize("precision", ["64-true", "bf16-mixed"])
def test_other_precisions_work(command, precision):
    ended = command("steer", *QUICK, f"trainer.precision={precision}", "judge=none")
    assert ended.code == 0, ended.err
    wanted = torch.float64 if precision == "64-true" else torch.float32
    assert load_file(ended.folder / "history.safetensors")["noise"].dtype == wanted


def test_seed_decides_the_noise(command):
    starts = [
        load_file(
            command("steer", f"seed={seed}", "num_steps=1", "num_images=2", "method=ascent").folder
            / "history.safetensors"
        )
        for seed in (0, 0, 1)
    ]
    assert torch.equal(starts[0]["noise"], starts[1]["noise"])
    assert not torch.equal(starts[0]["noise"], starts[2]["noise"])


def test_scores_that_are_not_finite_end_the_run_and_keep_the_steps_before(command):
    ended = command("steer", "step_size=1e39", "num_images=2", "penalty_weight=0")
    assert ended.code != 0
    assert "not finite at step" in ended.err.splitlines()[-1]
    assert "rows [" in ended.err
    assert len(load_file(ended.folder / "history.safetensors")["noise"]) >= 1


@pytest.mark.parametrize("word", ["hydra.run.dir={}", "++hydra.run.dir={}", "hydra.run.dir='{}'", "experiment=fixed"])
def test_a_completed_run_is_not_overwritten_however_its_folder_is_named(command, tmp_path, word):
    folder = tmp_path / "kept"
    (tmp_path / "configs" / "experiment").mkdir(parents=True)
    preset = tmp_path / "configs" / "experiment" / "fixed.yaml"
    preset.write_text(f"# @package _global_\nhydra:\n  run:\n    dir: {folder}\n")
    words = ("--config-dir", str(preset.parents[1]), "num_steps=1", "num_images=1", "judge=none", word.format(folder))
    elsewhere = () if "hydra" in word else ("hydra.sweep.dir=unused",)  # so that the fixture names no folder
    assert command("steer", *words, *elsewhere).code == 0
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    ended = command("steer", *words, *elsewhere, "target=Male")
    assert ended.code == 1
    assert ended.err.splitlines()[-1] == (
        f"error: hydra.run.dir={folder} already holds a completed run; name another folder"
    )
    assert before == {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_folder_in_use_is_refused_before_anything_is_written(command, tmp_path):
    folder = tmp_path / "run"
    with in_use(folder, "hydra.run.dir"):
        ended = command("steer", "num_steps=1", f"hydra.run.dir={folder}")
        assert [path.name for path in folder.iterdir()] == [".lock"]
    assert ended.code == 1
    assert ended.err.splitlines()[-1] == (
        f"error: hydra.run.dir={folder} is in use by another run; wait for its end, or name another folder"
    )


SETTINGS = {
    "unknown target, the nearest suggested": (["target=Smilling"], ["target='Smilling'", "'Smiling'"]),
    "an unknown one of several targets": (["target=Male+Smilling"], ["target='Smilling'", "'Smiling'"]),
    "a factor among several targets": (["target=Male+age"], ["target=Male+age", "age", "factor", "labels"]),
    "a target joined with itself": (["target=Male+male"], ["target=Male+male", "different"]),
    "one of several targets to be preserved": (["target=Male+Bald", "preserve=[Bald]"], ["must not name the target"]),
    "unknown edit": (["edit=change"], ["edit=change", "add, remove"]),
    "negative penalty": (["penalty_weight=-0.1"], ["penalty_weight=-0.1"]),
    "penalty that is no number": (["penalty_weight=nan"], ["penalty_weight=nan"]),
    "infinite penalty": (["penalty_weight=inf"], ["penalty_weight=inf"]),
    "penalty in words": (["penalty_weight=much"], ["penalty_weight=much"]),
    "a number for a name": (["target=1"], ["target=1 must be a name"]),
    "no steps": (["num_steps=0"], ["num_steps=0"]),
    "negative steps": (["num_steps=-3"], ["num_steps=-3"]),
    "half a step": (["num_steps=1.5"], ["num_steps=1.5"]),
    "steps that are no number": (["num_steps=nan"], ["num_steps=nan"]),
    "no tutorial steps": (["experiment=tutorial", "num_steps=0"], ["num_steps=0"]),
    "infinitely many images": (["num_images=inf"], ["num_images=inf"]),
    "no images": (["num_images=0"], ["num_images=0"]),
    "no step size": (["step_size=0"], ["step_size=0"]),
    "negative step size": (["step_size=-1"], ["step_size=-1"]),
    "last step of no size": (["last_step_size=0"], ["last_step_size=0"]),
    "step size in words": (["step_size=small"], ["step_size=small"]),
    "infinite step size": (["step_size=inf"], ["step_size=inf"]),
    "step size that is no number": (["step_size=nan"], ["step_size=nan"]),
    "negative seed": (["seed=-1"], ["seed=-1"]),
    "unknown attribute in where": (["where={Mail: true}"], ["where", "'Mail'", "'Male'"]),
    "where without true or false": (["where={Male: 2}"], ["where", "Male", "true or false"]),
    "where that is no mapping": (["where=Male"], ["where=", "Male"]),
    "attributes that are no list": (["classifier.attributes=5"], ["classifier.attributes=5"]),
    "a seed beyond all generators": (["seed=99999999999999999999"], ["seed=99999999999999999999"]),
    "a probability above one": (["until=1.5"], ["until=1.5", "between 0 and 1", "label"]),
    "until that is no number": (["until=nan"], ["until=nan"]),
    "something else to preserve": (["preserve=most"], ["preserve=most", "all, others"]),
    "an unknown attribute to preserve": (["preserve=[Mail]"], ["preserve='Mail'", "'Male'"]),
    "the target to be preserved": (["preserve=[Male,smiling]"], ["preserve=", "must not name the target"]),
    "directions from nowhere": (["method=direction", "method.source=sega"], ["method.source=sega", "sefa"]),
    "a Jacobian that is never taken": (["method.refresh_every=0"], ["method.refresh_every=0", "1 or more"]),
    "a negative weight of the image": (["method.image_weight=-1"], ["method.image_weight=-1", "0 or more"]),
    "a negative number of draws": (["method.num_pairs=-1"], ["method.num_pairs=-1", "whole number"]),
    "unknown precision": (["trainer.precision=8"], ["trainer.precision=8"]),
    "no classifier": (["classifier.network=null"], ["classifier.network"]),
    "another number of attributes": (["classifier.attributes=[Smiling,Male]"], ["classifier.attributes", "2", "40"]),
    "an attribute twice": (["classifier.attributes=[Smiling,smiling]"], ["classifier.attributes"]),
    "a target that only the judge lacks": (
        [f"judge.attributes=[{','.join(['Male', *(f'a{i}' for i in range(39))])}]"],
        ["target='Smiling'", "the judge", "judge=none"],
    ),
    "images that the classifier cannot take": (["classifier.network.im_chan=1"], ["classifier"]),
    "a judge that was never trained": (
        ["judge=residual", "judge.checkpoint=null"],
        ["judge.checkpoint=null", "ResidualClassifier untrained"],
    ),
    "a classifier that was never trained": (["classifier=residual"], ["classifier.checkpoint=null", "untrained"]),
    "weights that one must bring": (["generator=dcgan"], ["generator.checkpoint is missing"]),
    "a section that is no section": (["++classifier.regressor=foo"], ["regressor.network._target_ is missing"]),
    "a class that does not exist": (["generator.network._target_=zsteer.networks.Generatr"], ["Generatr"]),
    "a class that is no network": (["generator.network={_target_: builtins.dict}"], ["generator.network"]),
    "an unknown setting of a network": (["+generator.network.depth=3"], ["depth"]),
    "a new key that nothing reads": (["+targt=Male"], ["targt=Male is used by nothing; did you mean target?"]),
    "a new key of a network's": (["+judge.checkpont=x"], ["judge.checkpont=x is used by nothing", "mean checkpoint?"]),
    "a new key of a method's": (
        ["+method.run.until=1"],
        ["method.run.until=1 is used by nothing; there are num_steps"],
    ),
    "a folder by its other key": (["run_folder=here"], ["run_folder=here is the run's own; name it by hydra.run.dir"]),
    "a logger for the Trainer": (["+trainer.logger=true"], ["trainer.logger=True cannot be set; use logger"]),
}


@pytest.mark.parametrize(("words", "said"), SETTINGS.values(), ids=SETTINGS)
def test_a_wrong_setting_ends_in_one_clear_line(command, words, said):
    assert_one_clear_line(command("steer", *words), *said)


HYDRA = {
    "unknown key": (["targt=Smiling"], "targt"),
    "unknown method": (["method=magic"], "magic"),
    "unknown experiment": (["experiment=nothing"], "nothing"),
    "unreadable override": (["target=[Smiling"], "[Smiling"),
}


@pytest.mark.parametrize(("words", "said"), HYDRA.values(), ids=HYDRA)
def test_what_hydra_refuses_is_short_too(command, words, said):
    ended = command("steer", *words)
    assert ended.code != 0
    assert said in ended.err
    assert "Traceback" not in ended.err
    assert len(ended.err.strip().splitlines()) <= 6
    assert not ended.folder.exists()


def test_a_run_folder_that_cannot_be_written_is_named(command, tmp_path):
    (tmp_path / "file").write_text("in the way")
    ended = command("steer", f"hydra.run.dir={tmp_path / 'file' / 'run'}")
    assert ended.code != 0
    assert "hydra.run.dir" in ended.err
    assert str(tmp_path / "file") in ended.err
    assert len(ended.err.strip().splitlines()) <= 6


def write_noise(path, **tensors):
    save_file(tensors, path)


NOISE_FILES = {
    "not there": (lambda path: None, ["no such file"]),
    "no safetensors": (lambda path: path.write_text("hello"), ["not a readable"]),
    "another name": (lambda path: write_noise(path, z=torch.randn(2, 256)), ["no tensor 'noise'", "z"]),
    "another rank": (lambda path: write_noise(path, noise=torch.randn(256)), ["[256]"]),
    "another width": (lambda path: write_noise(path, noise=torch.randn(2, 255)), ["[2, 255]", "256"]),
    "no rows": (lambda path: write_noise(path, noise=torch.randn(0, 256)), ["[0, 256]"]),
    "whole numbers": (lambda path: write_noise(path, noise=torch.ones(2, 256, dtype=torch.int32)), ["int32"]),
    "NaN": (lambda path: write_noise(path, noise=torch.full((2, 256), torch.nan)), ["NaN"]),
    "NaN of eight bits": (
        lambda path: write_noise(path, noise=torch.full((2, 256), torch.nan).to(torch.float8_e4m3fn)),
        ["NaN"],
    ),
}


@pytest.mark.parametrize(("write", "said"), NOISE_FILES.values(), ids=NOISE_FILES)
def test_a_wrong_noise_file_ends_in_one_clear_line(command, tmp_path, write, said):
    path = tmp_path / "start.safetensors"
    write(path)
    assert_one_clear_line(command("steer", f"noise={path}", "judge=none"), f"noise={path}", *said)


class Malicious:
    """A pickle that would create a file."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return (open, (str(self.marker), "w"))


CHECKPOINTS = {
    "not there": (lambda path: None, ["no such file"]),
    "empty": (lambda path: path.write_bytes(b""), ["empty"]),
    "text": (lambda path: path.write_text("not a checkpoint"), ["not a readable checkpoint"]),
    "truncated": (
        lambda path: path.write_bytes((GOLDEN / "pretrained_celeba.pth").read_bytes()[:5000]),
        ["not a readable checkpoint"],
    ),
    "malicious": (lambda path: torch.save(Malicious(path.with_suffix(".ran")), path), ["refused"]),
    "another architecture": (
        lambda path: path.write_bytes((GOLDEN / "pretrained_classifier.pth").read_bytes()),
        ["does not fit", "missing", "unexpected"],
    ),
    "another width": (
        lambda path: path.write_bytes((GOLDEN / "pretrained_celeba.pth").read_bytes()),
        ["misshapen", "gen.0.0.weight"],
    ),
}


@pytest.mark.parametrize(("write", "said"), CHECKPOINTS.values(), ids=CHECKPOINTS)
def test_a_wrong_checkpoint_ends_in_one_clear_line(command, tmp_path, write, said):
    path = tmp_path / "weights.pth"
    write(path)
    ended = command("steer", "generator=tutorial", f"generator.checkpoint={path}")
    assert_one_clear_line(ended, f"generator.checkpoint={path}", *said)
    assert not path.with_suffix(".ran").exists()


def test_a_checkpoint_without_the_named_key_ends_in_one_clear_line(command):
    ended = command("steer", *GOLDEN_NETWORKS, "generator.checkpoint_key=generator")
    assert_one_clear_line(ended, "no entry 'generator'", "generator.checkpoint_key", "gen")


def test_python_gives_what_the_command_writes(command):
    words = ("target=Smiling", "num_steps=2", "num_images=3")
    steered = zsteer.steer(*words)
    metrics = json.loads((command("steer", *words).folder / "metrics.json").read_text())
    assert {**steered.settings, **steered.figures} == metrics
    assert steered.picture.width > 3 * 64
    with pytest.raises(ValueError, match="did you mean 'Smiling'"):
        zsteer.steer("target=Smilling")


@pytest.mark.parametrize(
    ("text", "said", "line"),
    [
        ("a: 1\n\tb: 2\n", "cannot start any token", 2),
        ("a: 1\nb: 2\na: 3\n", "found duplicate key a", 3),
        ("a: [1, 2\nb: 3\n", "expected ',' or ']'", 2),
        ("a: b: c\n", "mapping values are not allowed here", 1),
        ("a: *b\n", "undefined alias", 1),
    ],
    ids=["tab", "duplicate key", "bracket", "colon", "alias"],
)
def test_an_error_of_yaml_is_a_line_with_its_file_and_its_own(command, tmp_path, text, said, line):
    path = tmp_path / "configs" / "method" / "mine.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    ended = command("steer", "--config-dir", str(tmp_path / "configs"), "method=mine")
    assert_one_clear_line(ended, said, f'in "{path}", line {line}')
    with pytest.raises(ValueError, match=re.escape(said)) as caught:
        zsteer.steer("method=mine", config_dir=tmp_path / "configs")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("target: Smiling # caf\u00e9\n".encode("latin-1"), "must be text in UTF-8; its byte 21 is not"),
        ("a: 1\n".encode("utf-16"), "must be text in UTF-8; its byte 0 is not"),
        (b"a: " + 500 * b"[" + 500 * b"]", "nests too deeply, or contains itself"),
        (b"a: &x\n  b: *x\n", "nests too deeply, or contains itself"),
    ],
    ids=["latin-1", "utf-16", "deep", "cyclic"],
)
def test_a_config_that_cannot_be_read_at_all_is_named(command, tmp_path, content, said):
    path = tmp_path / "configs" / "method" / "mine.yaml"
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    (path.parent / "faulty.yaml").write_text("a: 1\n\tb: 2\n")
    ended = command("steer", "--config-dir", str(tmp_path / "configs"), "method=mine")
    assert ended.err == f"error: {path} {said}\n"
    with pytest.raises(ValueError, match=re.escape(f"{path} {said}")):
        zsteer.steer("method=mine", config_dir=tmp_path / "configs")
