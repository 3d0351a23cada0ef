import argparse
import datetime
import decimal
import io
import json
import os
import pathlib
import pickle
import re
import types
import uuid
from collections import OrderedDict, defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from places import GOLDEN, REAL
from pytorch_lightning import LightningModule, Trainer
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn.utils import parametrizations
from torch.optim.swa_utils import AveragedModel

from zsteer.networks import checkpoints
from zsteer.networks.checkpoints import load_weights, save_weights
from zsteer.networks.dcgan import DCGANGenerator, Discriminator
from zsteer.networks.tutorial import Classifier, Generator

PUBLISHED = REAL / "pretrained_classifier.pth"


def make(seed=0, hidden_dim=2):
    torch.manual_seed(seed)
    return Generator(z_dim=4, hidden_dim=hidden_dim)


@pytest.fixture
def trained():
    return make(seed=1)


def averaged(state):
    """The state dict of torch's average of a network that has this one."""
    network = make()
    network.load_state_dict(state)
    return AveragedModel(network).state_dict()


def prefixed(state, prefix):
    return {f"{prefix}{name}": tensor for name, tensor in state.items()}


def assert_same(network, other):
    assert network.state_dict().keys() == other.state_dict().keys()
    for name, tensor in network.state_dict().items():
        torch.testing.assert_close(tensor, other.state_dict()[name], rtol=0, atol=0)


def refusal(path, key=None, network=None, role="generator", error: type[Exception] = ValueError):
    """The message with which a file is refused: one line that names the config key and the file."""
    with pytest.raises(error) as caught:
        load_weights(network or make(), path, key, role)
    message = str(caught.value)
    assert "\n" not in message
    assert f"{role}.checkpoint={path}" in message
    return message


def lightning_average(current, average):
    """What Lightning's WeightAveraging makes of a checkpoint."""
    averaging = {"n_averaged": torch.tensor(2)}
    return {"epoch": 1, "current_model_state": current, "state_dict": average, "averaging_state": averaging}


CONTENTS = {
    "state dict": (lambda state: state, None),
    "ordered": (OrderedDict, None),
    "one entry": (lambda state: {"gen": state}, None),
    "entry by key": (lambda state: {"gen": state, "ema": prefixed(state, "no.")}, "gen"),
    "entry beside others": (lambda state: {"epoch": 3, "netG_state_dict": state, "loss": [0.5], "note": "a"}, None),
    "the entry that fits": (lambda state: {"gen": state, "disc": Discriminator(hidden_dim=2).state_dict()}, None),
    "data parallel": (lambda state: prefixed(state, "module."), None),
    "compiled": (lambda state: prefixed(state, "_orig_mod."), None),
    "compiled data parallel": (lambda state: prefixed(state, "module._orig_mod."), None),
    "data parallel compiled": (lambda state: prefixed(state, "_orig_mod.module."), None),
    "data parallel entry": (lambda state: {"gen": prefixed(state, "module.")}, "gen"),
    "a layer compiled": (
        lambda state: {name.replace("gen.0.0.", "gen.0.0._orig_mod."): tensor for name, tensor in state.items()},
        None,
    ),
    "Lightning": (lambda state: {"state_dict": prefixed(state, "generator."), "epoch": 1}, None),
    "Lightning by key": (lambda state: {"state_dict": prefixed(state, "generator.")}, "generator"),
    "Lightning compiled": (lambda state: {"state_dict": prefixed(state, "generator._orig_mod.")}, None),
    "Lightning with a discriminator": (
        lambda state: {
            "state_dict": prefixed(state, "generator.")
            | prefixed(Discriminator(hidden_dim=2).state_dict(), "discriminator.")
        },
        None,
    ),
    "Lightning with an average": (
        lambda state: {
            "state_dict": prefixed(make(seed=7).state_dict(), "generator.") | prefixed(state, "ema_generator.")
        },
        "ema_generator",
    ),
    "Lightning next to an average": (
        lambda state: {
            "state_dict": prefixed(state, "generator.") | prefixed(make(seed=7).state_dict(), "ema_generator.")
        },
        "generator",
    ),
    "torch's average": (averaged, None),
    "torch's average as an entry": (lambda state: {"ema": averaged(state), "step": torch.tensor(3)}, None),
    "torch's average of a Lightning module": (
        lambda state: {"n_averaged": torch.tensor(3)} | prefixed(state, "module.generator."),
        None,
    ),
    "Lightning's averaging by an entry": (
        lambda state: lightning_average(
            prefixed(make(seed=7).state_dict(), "generator."), prefixed(state, "generator.")
        ),
        "state_dict",
    ),
    "batch norm that does not count": (
        lambda state: {name: tensor for name, tensor in state.items() if "num_batches_tracked" not in name},
        None,
    ),
    "state_dict by its name": (lambda state: {"state_dict": state, "optimizer": {"lr": 0.1}}, "state_dict"),
}


@pytest.mark.parametrize("name", CONTENTS)
def test_weights_load_from_any_layout(name, tmp_path, trained):
    arrange, key = CONTENTS[name]
    torch.save(arrange(trained.state_dict()), tmp_path / "a.pth")
    assert_same(load_weights(make(), tmp_path / "a.pth", key), trained)


def test_each_part_of_several_that_fit_can_be_had_by_the_name_that_is_offered(tmp_path, trained):
    states = {"current_model_state": make(seed=7).state_dict(), "state_dict": trained.state_dict()}
    content = lightning_average(*(prefixed(state, "generator.") for state in states.values()))
    torch.save(content, tmp_path / "a.ckpt")
    names = re.findall("'(.*?)'", refusal(tmp_path / "a.ckpt").partition("one of")[2])
    assert len(names) == 2
    for name, state in zip(names, states.values(), strict=True):
        loaded = load_weights(make(), tmp_path / "a.ckpt", name)
        assert torch.equal(loaded.state_dict()["gen.0.0.weight"], state["gen.0.0.weight"])
    torch.save({"a": states, "b": {"a": states}}, tmp_path / "b.ckpt")
    names = re.findall("'(.*?)'", refusal(tmp_path / "b.ckpt").partition("one of")[2])
    assert len(set(names)) == 4
    for name in names:
        load_weights(make(), tmp_path / "b.ckpt", name)


@pytest.mark.filterwarnings("ignore:.*weight_norm.*is deprecated:FutureWarning")
def test_weight_norms_old_names_are_taken_as_torch_takes_them(tmp_path):
    old, new = (nn.Sequential(wrap(nn.Linear(2, 3))) for wrap in (nn.utils.weight_norm, parametrizations.weight_norm))
    torch.save(old.state_dict(), tmp_path / "a.pth")
    assert torch.equal(load_weights(new, tmp_path / "a.pth")(torch.eye(2)), old(torch.eye(2)))


BESIDE = {
    "NumPy's scalar": np.float32(1),
    "NumPy's array": np.arange(3.0),
    "NumPy's random state": np.random.RandomState(0),
    "NumPy's generator": np.random.default_rng(0),
    "namespace": argparse.Namespace(lr=0.1, out=pathlib.Path("runs")),
    "simple namespace": types.SimpleNamespace(lr=0.1),
    "path of another system": pathlib.PureWindowsPath("runs"),
    "OmegaConf": OmegaConf.create({"a": [1, {"b": "${oc.env:HOME}"}], "c": None}),
    "defaultdict": defaultdict(list, {"loss": [0.5]}),
    "time": [datetime.datetime(2020, 1, 1), datetime.timedelta(1)],
    "numbers": [decimal.Decimal("0.1"), complex(1, 2), 2**80, frozenset([1]), slice(1, 2), range(3), uuid.UUID(int=1)],
    "torch's version": torch.__version__,
}


@pytest.mark.parametrize("name", BESIDE)
def test_data_beside_the_weights_do_no_harm_and_are_named_where_they_are_not_read(name, tmp_path, trained):
    content = {"args": BESIDE[name], "gen": trained.state_dict()}
    torch.save(content, tmp_path / "a.pth")
    assert_same(load_weights(make(), tmp_path / "a.pth"), trained)
    torch.save(content, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    message = refusal(tmp_path / "old.pth")
    assert re.search(r"refused: it holds [\w.]+, not only tensors, numbers and words; save a plain", message)


def test_nothing_of_a_config_beside_the_weights_is_resolved(tmp_path, trained, monkeypatch):
    OmegaConf.register_new_resolver("test.marked", lambda: (tmp_path / "mark").touch(), replace=True)
    torch.save({"cfg": OmegaConf.create({"a": "${test.marked:}"}), "gen": trained.state_dict()}, tmp_path / "a.pth")
    assert_same(load_weights(make(), tmp_path / "a.pth"), trained)
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize("protocol", [4, 5])
def test_another_pickle_protocol_is_named(protocol, tmp_path, trained):
    torch.save(trained.state_dict(), tmp_path / "a.pth", pickle_protocol=protocol)
    assert "saved with a pickle_protocol other than torch's own" in refusal(tmp_path / "a.pth")


def nested(depth, width, innermost):
    content = innermost
    for _ in range(depth):
        content = {str(number): content for number in range(width)}
    return content


def in_itself(state):
    content = {"gen": state}
    content["again"] = content
    return content


@pytest.mark.parametrize(
    "arrange",
    [
        in_itself,
        lambda state: {"gen": state, "more": nested(200, 1, {})},
        lambda state: {"gen": state, "more": nested(20, 20, {})},
    ],
    ids=["in itself", "deep", "wide"],
)
def test_a_file_that_has_no_end_is_refused(arrange, tmp_path, trained):
    torch.save(arrange(trained.state_dict()), tmp_path / "a.pth")
    message = refusal(tmp_path / "a.pth")
    assert "more than 100,000 entries, or dicts more than 30 deep or in themselves" in message


FORMS = {
    "sparse": lambda tensor: tensor.to_sparse(),
    "meta": lambda tensor: tensor.to("meta"),
    "quantized": lambda tensor: torch.quantize_per_tensor(tensor, 0.1, 0, torch.qint8),
}


@pytest.mark.filterwarnings("ignore:.*:UserWarning")  # torch's, of quantized and sparse tensors
@pytest.mark.parametrize("name", FORMS)
def test_tensors_of_another_form_are_named(name, tmp_path, trained):
    state = trained.state_dict()
    torch.save({**state, "gen.0.0.weight": FORMS[name](state["gen.0.0.weight"])}, tmp_path / "a.pth")
    network = make(seed=5)
    message = refusal(tmp_path / "a.pth", network=network)
    assert f"1 misshapen (gen.0.0.weight [4, 16, 3, 3] {name} for [4, 16, 3, 3])" in message
    assert_same(network, make(seed=5))


@pytest.mark.parametrize("key", [None, "gen"])
def test_weights_load_from_torchs_old_format(key, tmp_path, trained):
    torch.save({"gen": trained.state_dict()}, tmp_path / "a.pth", _use_new_zipfile_serialization=False)
    assert_same(load_weights(make(), tmp_path / "a.pth", key), trained)


@pytest.mark.parametrize("name", ["state dict", "data parallel", "compiled data parallel"])
def test_weights_load_from_safetensors(name, tmp_path, trained):
    save_file(dict(CONTENTS[name][0](trained.state_dict())), tmp_path / "a.safetensors")
    assert_same(load_weights(make(), tmp_path / "a.safetensors"), trained)


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".tar", ".ckpt", ""])
def test_any_suffix_is_a_torch_file(suffix, tmp_path, trained):
    torch.save(trained.state_dict(), tmp_path / f"a{suffix}")
    assert_same(load_weights(make(), str(tmp_path / f"a{suffix}")), trained)


def test_half_precision_weights_load_into_a_float32_network(tmp_path, trained):
    torch.save(trained.half().state_dict(), tmp_path / "a.pth")
    network = load_weights(make(), tmp_path / "a.pth")
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}
    assert_same(network, trained.float())


@pytest.mark.parametrize(
    "make_network, file, key",
    [
        (lambda: Generator(hidden_dim=8), "pretrained_celeba.pth", "gen"),
        (lambda: Generator(hidden_dim=8), "pretrained_celeba.pth", None),
        (lambda: Classifier(hidden_dim=8), "pretrained_classifier.pth", "classifier"),
        (lambda: Classifier(hidden_dim=8), "pretrained_classifier.pth", None),
    ],
)
def test_golden_checkpoints_load_strictly(make_network, file, key):
    network = load_weights(make_network(), GOLDEN / file, key)
    (state,) = torch.load(GOLDEN / file, weights_only=True).values()
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, state[name])


@pytest.mark.skipif(not PUBLISHED.is_file(), reason="the published classifier is not here")
@pytest.mark.parametrize("key", ["classifier", None])
def test_published_classifier_saved_on_cuda_loads(key):
    network = load_weights(Classifier(), PUBLISHED, key, "classifier")
    assert {parameter.device.type for parameter in network.parameters()} == {"cpu"}
    assert all(tensor.isfinite().all() for tensor in network.state_dict().values())


class Pair(LightningModule):
    """A Lightning module with a generator, its average and a discriminator, as GAN training has them."""

    def __init__(self):
        super().__init__()
        self.generator, self.ema_generator = make(seed=2), make(seed=3)
        self.discriminator = Discriminator(hidden_dim=2)

    def training_step(self, batch, _):
        return self.discriminator(self.generator(batch)).mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.fixture(scope="module")
def lightning_file(tmp_path_factory):
    folder, module = tmp_path_factory.mktemp("lightning"), Pair()
    trainer = Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, torch.randn(1, 4, 4))
    trainer.save_checkpoint(folder / "last.ckpt")
    return folder / "last.ckpt", module


@pytest.mark.parametrize("key", ["generator", "ema_generator"])
def test_weights_load_from_a_file_that_a_trainer_wrote(key, lightning_file):
    path, module = lightning_file
    assert_same(load_weights(make(), path, key), getattr(module, key))


def test_the_only_fitting_part_of_a_trainers_file_needs_no_key(lightning_file):
    path, module = lightning_file
    assert_same(load_weights(Discriminator(hidden_dim=2), path), module.discriminator)


def test_which_of_two_fitting_parts_must_be_said(lightning_file):
    message = refusal(lightning_file[0])
    assert "generator.checkpoint_key" in message
    assert "'generator'" in message and "'ema_generator'" in message


def test_which_of_two_fitting_entries_must_be_said(tmp_path, trained):
    torch.save({"gen": trained.state_dict(), "ema": make().state_dict()}, tmp_path / "a.pth")
    assert "generator.checkpoint_key, one of ['ema', 'gen']" in refusal(tmp_path / "a.pth")


@pytest.mark.parametrize(
    "content, known",
    [
        (lambda state: {"gen": state, "disc": state, "epoch": 1}, ["gen", "disc"]),
        (lambda state: {"state_dict": prefixed(state, "generator.")}, ["generator"]),
        (lambda state: state, ["gen"]),
    ],
)
def test_key_that_is_not_there_is_named_with_those_that_are(content, known, tmp_path, trained):
    torch.save(content(trained.state_dict()), tmp_path / "a.pth")
    message = refusal(tmp_path / "a.pth", key="netG")
    assert "'netG'" in message and "generator.checkpoint_key" in message
    assert all(repr(name) in message for name in known)


def test_entry_that_holds_no_tensors_is_not_taken_for_weights(tmp_path, trained):
    torch.save({"gen": trained.state_dict(), "epoch": 3}, tmp_path / "a.pth")
    message = refusal(tmp_path / "a.pth", key="epoch")
    assert "'epoch'" in message and "'gen'" in message


def test_missing_file_is_named(tmp_path):
    assert "no such file" in refusal(tmp_path / "none.pth", error=FileNotFoundError)


def test_folder_is_not_a_file(tmp_path):
    assert "no such file" in refusal(tmp_path, error=FileNotFoundError)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_empty_file_says_so(suffix, tmp_path):
    (tmp_path / f"a{suffix}").touch()
    assert "empty" in refusal(tmp_path / f"a{suffix}")


def torch_bytes(content, **settings):
    buffer = io.BytesIO()
    torch.save(content, buffer, **settings)
    return buffer.getvalue()


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "old"])
@pytest.mark.parametrize("share", [0.001, 0.01, 0.1, 0.5, 0.9, 0.999])
def test_truncated_file_is_refused(zipped, share, tmp_path, trained):
    whole = torch_bytes({"gen": trained.state_dict()}, _use_new_zipfile_serialization=zipped)
    (tmp_path / "a.pth").write_bytes(whole[: int(len(whole) * share)])
    refusal(tmp_path / "a.pth")


def test_safetensors_cut_short_is_refused(tmp_path, trained):
    save_file(trained.state_dict(), tmp_path / "whole.safetensors")
    whole = (tmp_path / "whole.safetensors").read_bytes()
    for end in (4, 20, len(whole) // 2, len(whole) - 1):
        (tmp_path / "a.safetensors").write_bytes(whole[:end])
        assert "not a readable checkpoint" in refusal(tmp_path / "a.safetensors")


GARBAGE = {
    "text": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n",
    "page": b"<!DOCTYPE html><html><title>Quota exceeded</title></html>",
    "zeros": bytes(1000),
    "random": np.random.default_rng(0).bytes(1000),
    "pickle opcode": b"\x80",
    "pickle stop": b"\x80\x02.",
    "pickled number": pickle.dumps(3, protocol=2),
    "pickled list": pickle.dumps([1, 2], protocol=2),
    "pickled dict": pickle.dumps({"a": 1}, protocol=2),
    "zip": b"PK\x03\x04" + bytes(100),
    "binary string": b"\x80\x02X\xff\xff\xff\xff",
    "missing memo": b"\x80\x02h\x05.",
}


@pytest.mark.parametrize("name", GARBAGE)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_file_of_another_kind_is_refused(name, suffix, tmp_path):
    (tmp_path / f"a{suffix}").write_bytes(GARBAGE[name])
    refusal(tmp_path / f"a{suffix}")


def test_safetensors_under_a_torch_suffix_is_refused(tmp_path, trained):
    save_file(trained.state_dict(), tmp_path / "a.pth")
    assert "not a readable checkpoint" in refusal(tmp_path / "a.pth")


@pytest.mark.parametrize(
    "content", [torch.zeros(3), [torch.zeros(3)], 5, "weights"], ids=["tensor", "list", "number", "string"]
)
def test_content_other_than_a_dict_is_refused_by_its_kind(content, tmp_path):
    torch.save(content, tmp_path / "a.pth")
    assert f"holds a {type(content).__name__}, not a dict" in refusal(tmp_path / "a.pth")


@pytest.mark.parametrize("content", [{}, {"epoch": 3}, {"gen": {}}, {1: 2}, {1: torch.zeros(2)}])
@pytest.mark.parametrize("key", [None, "gen"])
def test_dict_without_weights_is_refused(content, key, tmp_path):
    torch.save(content, tmp_path / "a.pth")
    refusal(tmp_path / "a.pth", key)


class Malicious:
    """Pickles to a command that leaves a mark when it is unpickled."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.system, (f"touch {self.mark}",)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "old"])
def test_file_that_would_run_code_is_refused_and_does_not_run_it(zipped, tmp_path, trained):
    content = {"gen": trained.state_dict(), "extra": Malicious(tmp_path / "mark")}
    torch.save(content, tmp_path / "a.pth", _use_new_zipfile_serialization=zipped)
    message = refusal(tmp_path / "a.pth")
    assert not (tmp_path / "mark").exists()
    assert "would run code" in message and "system" in message


def test_plain_pickle_that_would_run_code_is_not_run(tmp_path):
    (tmp_path / "a.pth").write_bytes(pickle.dumps(Malicious(tmp_path / "mark"), protocol=2))
    refusal(tmp_path / "a.pth")
    assert not (tmp_path / "mark").exists()


def test_whole_network_instead_of_its_state_dict_is_refused_by_the_class_name(tmp_path, trained):
    torch.save(trained, tmp_path / "a.pth")
    message = refusal(tmp_path / "a.pth")
    assert "Generator" in message and "state_dict()" in message


def test_misshapen_weights_are_named_with_both_shapes(tmp_path, trained):
    torch.save(trained.state_dict(), tmp_path / "a.pth")
    message = refusal(tmp_path / "a.pth", network=make(hidden_dim=3))
    assert "gen.0.0.weight [4, 16, 3, 3] for [4, 24, 3, 3]" in message
    assert "generator.network" in message


def test_missing_and_unexpected_weights_are_named(tmp_path, trained):
    state = trained.state_dict()
    state["gen.9.weight"] = state.pop("gen.4.0.weight")
    torch.save(state, tmp_path / "a.pth")
    message = refusal(tmp_path / "a.pth")
    assert "1 missing (gen.4.0.weight)" in message
    assert "1 unexpected (gen.9.weight)" in message


def test_another_architecture_is_told_without_listing_everything(tmp_path, trained):
    torch.save(trained.state_dict(), tmp_path / "a.pth")
    message = refusal(tmp_path / "a.pth", network=DCGANGenerator(z_dim=4, hidden_dim=2))
    assert "missing" in message and "unexpected" in message and "…" in message
    assert len(message) < 500 + len(str(tmp_path))


def test_refused_weights_leave_the_network_as_it_was(tmp_path, trained):
    state = trained.state_dict()
    del state["gen.4.0.bias"]
    torch.save(state, tmp_path / "a.pth")
    network = make(seed=5)
    refusal(tmp_path / "a.pth", network=network)
    assert_same(network, make(seed=5))


@pytest.mark.parametrize("role", ["generator", "judge"])
def test_message_names_the_role(role, tmp_path):
    (tmp_path / "a.pth").touch()
    refusal(tmp_path / "a.pth", role=role)


def test_saved_weights_load_again(tmp_path, trained):
    save_weights(trained, tmp_path / "new" / "g.safetensors", {})
    assert_same(load_weights(make(), tmp_path / "new" / "g.safetensors"), trained)


def test_config_is_saved_beside_the_weights(tmp_path, trained):
    config = {"z_dim": 4, "name": "Größe", "nested": {"list": [1, None]}}
    save_weights(trained, tmp_path / "g.safetensors", config)
    assert json.loads((tmp_path / "g.json").read_text()) == config


def test_weights_can_be_saved_in_half_the_size_and_counters_stay_whole(tmp_path, trained):
    save_weights(trained, tmp_path / "g.safetensors", {}, torch.float16)
    state = load_file(tmp_path / "g.safetensors")
    assert {tensor.dtype for name, tensor in state.items() if "num_batches" not in name} == {torch.float16}
    assert state["gen.0.1.num_batches_tracked"].dtype == torch.int64
    assert_same(load_weights(make(), tmp_path / "g.safetensors"), trained.half().float())


def test_channels_last_weights_are_saved(tmp_path, trained):
    save_weights(make(seed=1).to(memory_format=torch.channels_last), tmp_path / "g.safetensors", {})
    assert_same(load_weights(make(), tmp_path / "g.safetensors"), trained)


def test_networks_with_shared_weights_are_saved(tmp_path):
    def tied():
        layer = nn.Linear(3, 3)
        return nn.Sequential(layer, layer)

    network = tied()
    save_weights(network, tmp_path / "g.safetensors", {})
    assert_same(load_weights(tied(), tmp_path / "g.safetensors"), network)


def test_failed_save_leaves_the_old_file_and_nothing_else(tmp_path, trained, monkeypatch):
    save_weights(trained, tmp_path / "g.safetensors", {"version": 1})
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def fail(state, path):
        Path(path).write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(checkpoints, "save_file", fail)
    with pytest.raises(OSError, match="disk full"):
        save_weights(make(seed=9), tmp_path / "g.safetensors", {"version": 2})
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
