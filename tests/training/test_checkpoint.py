"""Whatever stands in a training checkpoint, a run goes on from it properly or says what is wrong with it."""

import copy
import re
from collections.abc import Mapping

import pytest
import torch
from safetensors.torch import load_file

from zsteer.app import commands
from zsteer.app.composition import compose
from zsteer.training.callbacks import LastCheckpoint
from zsteer.training.checkpoint import Resumed

FACES = ["data.num_train=64", "data.num_val=16", "data.num_test=16", "data.batch_size=16"]
QUIET = [
    "trainer=cpu",
    "trainer.precision=32-true",
    "+trainer.enable_progress_bar=false",
    "trainer.log_every_n_steps=1",
]
WORDS = {
    "train_gan": [
        *QUIET,
        "scores.num_samples=8",
        "generator.network.hidden_dim=4",
        "discriminator.network.hidden_dim=4",
    ],
    "train_classifier": [*QUIET, "classifier.network.hidden_dim=4"],
}


class Killed(Exception):
    """What ends a run without a word."""


@pytest.fixture(scope="module")
def train(tmp_path_factory):
    """Train on faces that are drawn once for this file; the folder and how many images were trained on."""
    root = tmp_path_factory.mktemp("data")

    def run(name, *words):
        folder = tmp_path_factory.mktemp(name)
        cfg = compose(name, [*FACES, *WORDS[name], f"data.root={root}", f"run_folder={folder}", *words])
        return folder, getattr(commands, name).perform(cfg, folder).metrics["num_images"]

    return run


@pytest.fixture(scope="module", params=WORDS)
def interrupted(request, train, tmp_path_factory):
    """A command, and the checkpoint that a kill leaves after two of its batches."""
    path = tmp_path_factory.mktemp("killed") / "last.ckpt"
    save = LastCheckpoint._save

    def killed(self, trainer, module):
        save(self, trainer, module)
        if trainer.datamodule.position == 2:
            path.write_bytes(self.path.read_bytes())
            raise Killed

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch.setattr(LastCheckpoint, "_save", killed)
        train(request.param, "max_images=64", "checkpoint_minutes=1e-5")
    return request.param, path


@pytest.fixture(scope="module")
def checked(interrupted, train, tmp_path_factory):
    """What the interrupted run's checkpoint holds, and a function that has a run of its command look at another."""
    name, path = interrupted
    bad, seen = tmp_path_factory.mktemp("bad") / "last.ckpt", {}

    def stop(self, trainer, module):
        seen.update(trainer=trainer, module=module)
        raise Killed

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Resumed, "on_fit_start", stop)
        train(name, "max_images=64", f"ckpt_path={path}")

    def look(content):
        torch.save(content, bad)
        resumed = Resumed(bad, seen["module"])
        resumed.setup(seen["trainer"], seen["module"], "fit")
        resumed.on_fit_start(seen["trainer"], seen["module"])

    return torch.load(path, weights_only=True), look


def edited(content, place, change):
    """A copy of nested dicts and lists with another value at a place, or with none where `change` gives `REMOVED`."""
    content = copy.deepcopy(content)
    part = content
    for key in place[:-1]:
        part = part[key]
    if isinstance(part, tuple):
        raise TypeError("edit the whole tuple")
    value = change(part[place[-1]])
    if value is REMOVED:
        del part[place[-1]]
    else:
        part[place[-1]] = value
    return content


REMOVED = object()
STATE = ("optimizer_states", 0, "state", 0)
LOOP = ("loops", "fit_loop")
BATCHES = (*LOOP, "epoch_loop.batch_progress")
STREAM = ("ProceduralFaces",)
# Where, what becomes of it, and what is said of it.
DAMAGE = [
    ((*STATE, "exp_avg"), lambda _: torch.zeros(3), r"optimizer_states.0.state.0.exp_avg is \[3\] floating, not"),
    ((*STATE, "exp_avg"), lambda _: REMOVED, "exp_avg is missing"),
    ((*STATE, "exp_avg"), lambda value: value.long(), "exp_avg is .* whole, not"),
    ((*STATE, "exp_avg"), lambda value: value.to_sparse(), "exp_avg is .* sparse floating, not"),
    ((*STATE, "exp_avg"), lambda value: torch.zeros(()).expand(value.shape), "exp_avg lies otherwise in memory"),
    ((*STATE, "exp_avg"), lambda value: value.to("meta"), "exp_avg is .* meta floating, not"),
    ((*STATE, "exp_avg_sq"), lambda value: value / 0, "exp_avg_sq is NaN or infinite"),
    ((*STATE, "exp_avg"), lambda _: "none", "exp_avg is 'none', not"),
    ((*STATE, "step"), lambda _: torch.tensor(1e12), "step is 1e[+]12, more than there were steps"),
    ((*STATE, "step"), lambda _: torch.tensor(-1.0), "step is -1, more than"),
    (STATE, lambda _: [], "optimizer_states.0.state.0 is a list of 0, not a dict"),
    (STATE[:3], lambda state: {**state, 999: state[0]}, "state.999 belongs to no weight"),
    (STATE[:3], lambda _: None, "state is None, not a dict"),
    (STATE[:3], lambda _: {}, "optimizer_states.0.state is empty"),
    (STATE[:2], lambda _: REMOVED, "optimizer_states is a list of .*, not a list of"),
    (STATE[:1], lambda _: {}, "optimizer_states is a dict of 0, not a list"),
    (STATE[:1], lambda _: REMOVED, "optimizer_states is missing"),
    (("optimizer_states", 0, "param_groups", 0, "params"), lambda params: params[::-1], "params are not this run's"),
    (
        ("optimizer_states", 0, "param_groups", 0, "params"),
        lambda params: params[1:],
        "params is a list of .*, not a list of",
    ),
    (("optimizer_states", 0, "param_groups", 0, "lr"), lambda _: float("nan"), "lr is nan, not a finite number"),
    (("optimizer_states", 0, "param_groups", 0, "lr"), lambda _: -1.0, "lr is -1"),
    (("optimizer_states", 0, "param_groups", 0, "lr"), lambda _: REMOVED, "lr is missing"),
    (("optimizer_states", 0, "param_groups", 0, "betas"), lambda _: (0.5, 5.0), "betas is 5"),
    (("optimizer_states", 0, "param_groups", 0, "betas"), lambda _: (0.5,), "betas is a tuple of 1, not a list of 2"),
    (("optimizer_states", 0, "param_groups", 0, "fused"), lambda _: torch.ones(3), "fused is .*, not true or false"),
    (("lr_schedulers",), lambda _: REMOVED, "lr_schedulers is missing"),
    (("lr_schedulers",), lambda states: [*states, {}], "lr_schedulers(.0)? is a (list|dict) of .*, not a"),
    (("epoch",), lambda _: -1, "epoch is -1, not a count"),
    (("epoch",), lambda _: 10**9, "epoch is 1000000000, but epoch_progress.total.completed is 0"),
    (("epoch",), lambda _: True, "epoch is True, not a count"),
    (("global_step",), lambda _: 2**80, "global_step is .*, not a count"),
    (("global_step",), lambda steps: steps + 1, "global_step is .*, but the optimizers' steps is"),
    (("pytorch-lightning_version",), lambda _: "0.1", "is 0.1, not a release of Lightning 2"),
    (("pytorch-lightning_version",), lambda _: REMOVED, "is None, not a release of Lightning 2"),
    (("state_dict",), lambda _: [1, 2], "state_dict does not map names to tensors"),
    (("state_dict",), lambda state: {**state, next(iter(state)): 3}, "state_dict does not map names to tensors"),
    (("state_dict",), lambda state: dict(list(state.items())[1:]), "does not fit this run's networks: 1 missing"),
    (("state_dict",), lambda state: {name: value / 0 for name, value in state.items()}, "state_dict.* is NaN or inf"),
    (LOOP[:1], lambda _: REMOVED, "loops is missing"),
    (LOOP[:1], lambda _: {}, "loops.fit_loop is missing"),
    ((*LOOP, "epoch_progress"), lambda _: REMOVED, "loops.fit_loop.epoch_progress is missing"),
    (
        (*LOOP, "epoch_progress", "current", "processed"),
        lambda _: 1,
        "epochs that ended is 1, but epoch_progress.total.processed",
    ),
    ((*LOOP, "state_dict"), lambda _: {"combined_loader": [{}, {}]}, "has a place in data that keep none there"),
    ((*LOOP, "epoch_loop.state_dict", "_batches_that_stepped"), lambda _: "x", "_batches_that_stepped is 'x', not"),
    ((*BATCHES, "current", "ready"), lambda _: 10**9, "epoch_loop.batch_progress.current has counts that cannot be"),
    ((*BATCHES, "current", "ready"), lambda _: 1.5, "current.ready is 1.5, not a count"),
    ((*BATCHES, "total"), lambda total: {key: 7 for key in total}, "start is 2, but epoch_loop.batch_progress.total"),
    ((*BATCHES, "is_last_batch"), lambda _: [], r"is_last_batch is a list of 0, not true or false"),
    (("callbacks",), lambda _: REMOVED, "callbacks does not map names to states"),
    (("callbacks", "ConfiguredOptimizers"), lambda _: {}, "callbacks.ConfiguredOptimizers.optimizers is missing"),
    (
        ("callbacks", "ConfiguredOptimizers", "optimizers"),
        lambda names: [1] * len(names),
        "optimizers.0 is 1, not a word",
    ),
    (STREAM, lambda _: REMOVED, "ProceduralFaces is missing: the data were others"),
    (STREAM, lambda _: {}, "ProceduralFaces.start is missing"),
    ((*STREAM, "start"), lambda _: 0, "start is 0, but epoch_loop.batch_progress.total.ready is 2"),
    ((*STREAM, "start"), lambda _: -3, "start is -3, not a count"),
    ((*STREAM, "drawn"), lambda _: 10**9, "drawn is 1000000000, of which 32 counted"),
    (
        (*STREAM, "counted"),
        lambda _: 0,
        "(counted is 0, but progress.num_images is 32|drawn is 32, of which 0 counted)",
    ),
]
OF_GANS = [
    (("progress",), lambda _: REMOVED, "progress is missing"),
    (("progress", "num_images"), lambda _: 10**9, "counted is 32, but progress.num_images is 1000000000"),
    (("progress", "num_iterations"), lambda _: 0, "start is 2, but progress.num_iterations is 0"),
    (("callbacks", "SampleGrid", "next_at"), lambda _: None, "callbacks.SampleGrid.next_at is None, not"),
]
OF_CLASSIFIERS = [
    (
        ("lr_schedulers", 0, "last_epoch"),
        lambda _: 10**6,
        "lr_schedulers.0.last_epoch is 1000000, but global_step is 2",
    ),
    (("lr_schedulers", 0, "_step_count"), lambda _: 0, "_step_count is 0, but global_step [+] 1 is 3"),
    (("lr_schedulers", 0), lambda _: {}, "lr_schedulers.0.total_steps is missing"),
]


def test_a_whole_checkpoint_is_taken(checked):
    content, look = checked
    look(content)


def test_each_damaged_entry_is_named(checked):
    content, look = checked
    for place, change, said in DAMAGE + (OF_GANS if "progress" in content else OF_CLASSIFIERS):
        with pytest.raises(ValueError, match="^ckpt_path=.*/last.ckpt") as caught:
            look(edited(content, place, change))
        message = str(caught.value)
        assert "\n" not in message and re.search(said, message), (place, message)


def test_no_entry_of_lightnings_loops_can_be_of_another_kind(checked):
    content, look = checked
    places = list(leaves(content["loops"]["fit_loop"], LOOP))
    assert len(places) > 40
    for number, place in enumerate(places):
        wrong = ("x", -1, [], {}, 0.5, 2**70, torch.zeros(2))[number % 7]
        with pytest.raises(ValueError, match=f"{re.escape('.'.join(place))} "):
            look(edited(content, place, lambda _, wrong=wrong: wrong))


@pytest.mark.parametrize("number", range(0, len(DAMAGE), 11))
def test_nothing_is_trained_from_a_damaged_checkpoint(interrupted, train, tmp_path, monkeypatch, number):
    name, path = interrupted
    place, change, said = DAMAGE[number]
    torch.save(edited(torch.load(path, weights_only=True), place, change), tmp_path / "bad.ckpt")
    module = "zsteer.gan.module.GANModule" if name == "train_gan" else "zsteer.classifier.module.ClassifierModule"
    monkeypatch.setattr(f"{module}.training_step", lambda *_: pytest.fail("it trains"))
    with pytest.raises(ValueError, match=said):
        train(name, "max_images=64", f"ckpt_path={tmp_path / 'bad.ckpt'}")


def leaves(content, place):
    for key, value in content.items():
        if isinstance(value, Mapping):
            yield from leaves(value, (*place, key))
        else:
            yield *place, key


def test_a_whole_checkpoint_goes_on_to_the_weights_of_a_run_without_a_break(interrupted, train):
    name, path = interrupted
    file = "generator.safetensors" if name == "train_gan" else "classifier.safetensors"
    whole, resumed = (train(name, "max_images=64", *words) for words in ([], [f"ckpt_path={path}"]))
    assert whole[1] == resumed[1] == 64
    expected = load_file(whole[0] / file)
    assert all(torch.equal(tensor, expected[key]) for key, tensor in load_file(resumed[0] / file).items())


@pytest.mark.parametrize("name", WORDS)
@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_run_that_was_killed_after_its_last_batch_goes_on_to_more_images(
    name, accumulate, train, monkeypatch, tmp_path
):
    words = [] if accumulate == 1 else ["+trainer.accumulate_grad_batches=2"]
    if words and name == "train_gan":
        words = ["gan.accumulate=2"]

    def killed(self, trainer, module):
        (tmp_path / "last.ckpt").write_bytes(self.path.read_bytes())
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(LastCheckpoint, "on_train_end", killed)
        train(name, "max_images=48", "checkpoint_minutes=1e-5", *words)
    assert train(name, "max_images=128", f"ckpt_path={tmp_path / 'last.ckpt'}", *words)[1] == 128
    assert train(name, "max_images=48", f"ckpt_path={tmp_path / 'last.ckpt'}", *words)[1] == 48


def test_optimizers_of_other_kinds_are_compared_too(train):
    sgd = "{_target_: torch.optim.SGD, _partial_: true, lr: 0.01, momentum: 0.9}"
    words = ["~gan.optimizer_g", "~gan.optimizer_d", f"+gan.optimizer_g={sgd}", f"+gan.optimizer_d={sgd}"]
    folder, _ = train("train_gan", *words, "max_images=16")
    path = folder / "checkpoints" / "last.ckpt"
    assert train("train_gan", *words, "max_images=32", f"ckpt_path={path}")[1] == 32
    content = torch.load(path, weights_only=True)
    torch.save(edited(content, (*STATE, "momentum_buffer"), lambda _: torch.zeros(3)), path)
    with pytest.raises(ValueError, match=r"momentum_buffer is \[3\] floating, not"):
        train("train_gan", *words, "max_images=32", f"ckpt_path={path}")


def test_other_data_are_not_taken_up_in_the_middle(interrupted, train, tmp_path):
    name, path = interrupted
    content = torch.load(path, weights_only=True)
    content["CelebA"] = content.pop("ProceduralFaces")
    torch.save(content, tmp_path / "other.ckpt")
    with pytest.raises(ValueError, match="ProceduralFaces is missing: the data were others"):
        train(name, "max_images=64", f"ckpt_path={tmp_path / 'other.ckpt'}")
