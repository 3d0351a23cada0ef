"""Whatever is asked of `steer` starts, or is refused in one line that names the key; and what ran can be run again.

`make test` tries a few combinations, the same each time; `make torture` hundreds of new ones.
"""

import json
from unittest import mock

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from places import GOLDEN_NETWORKS
from safetensors.torch import load_file
from swept import history_of, jobs_of

import zsteer
from zsteer.data.attributes import CELEBA
from zsteer.settings import MAX_SEED
from zsteer.steering.history import History
from zsteer.sweeps.hydra_internals import word_of

MANY = settings.get_profile(
    settings.get_current_profile_name()
).max_examples  # 10 in `make test`, 200 in `make torture`
NETWORKS = (*GOLDEN_NETWORKS, "trainer=cpu")
# As users write them.
SPELT = st.sampled_from(CELEBA).flatmap(
    lambda name: st.sampled_from([name, name.lower(), name.upper(), name.replace("_", "")])
)
SIZE = st.floats(1e-6, 10) | st.just("auto")
VALID = {
    "method": st.sampled_from(["ascent", "tutorial", "penalty", "projected", "direction", "best_of"]),
    "target": SPELT,
    "edit": st.sampled_from(["add", "remove"]),
    "penalty_weight": st.floats(0, 1000) | st.integers(0, 1000),
    "preserve": st.sampled_from(["all", "others", []]),
    "until": st.none() | st.floats(0.001, 0.999),
    "step_size": SIZE,
    "last_step_size": SIZE,
    "show_every": st.integers(1, 5),
    "max_rows": st.integers(1, 5),
    "seed": st.integers(0, MAX_SEED),
    "where": st.sampled_from(["auto", None, {}]),
    "objective": st.sampled_from([None, "gain_classifier", ["gain_classifier", "num_steps"]]),
    "trainer.precision": st.sampled_from(["32-true", "64-true", "bf16-mixed"]),
    "logger": st.sampled_from(["none", "tensorboard"]),
}
SMALL = {"num_steps": st.integers(1, 3), "num_images": st.integers(1, 3)}
WORDS = st.fixed_dictionaries(SMALL, optional=VALID)


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory):
    """A new folder at each call."""
    return lambda: tmp_path_factory.mktemp("made") / "run"


@given(WORDS)
def test_any_valid_words_start(chosen):
    steered = zsteer.steer(*NETWORKS, *(word_of(key, value) for key, value in chosen.items()))
    assert len(steered.history.noise) == chosen["num_steps"] + 1
    assert steered.noise.shape == (chosen["num_images"], 64) and steered.noise.isfinite().all()
    for key in set(chosen) & {"edit", "penalty_weight", "seed"}:
        assert steered.settings[key] == chosen[key]


NO_NUMBER = ["null", "true", "nan", "inf", "-inf", "word", "[1]", "{a: 1}", "'1'"]
NO_COUNT = [*NO_NUMBER, "0", "-1", "1.5", "1e3", str(2**70)]
NO_NAME = ["null", "true", "3", "0.5", "[]", "[Male]", "{}", "Smilling", "''", "Smiling+", "+"]
NO_SIZE = [*NO_NUMBER, "0", "-0.1"]
INVALID = {
    "target": NO_NAME,
    "edit": ["null", "true", "Add", "[add]", "''"],
    "penalty_weight": [*NO_NUMBER, "-1e-9"],
    "preserve": ["null", "3", "some", "[Smilling]", "[Smiling]", "[3]", "{Male: true}"],
    "until": ["true", "nan", "word", "0", "1", "-0.5", "[0.5]"],
    "num_steps": NO_COUNT,
    "step_size": NO_SIZE,
    "last_step_size": NO_SIZE,
    "show_every": NO_COUNT,
    "record_every": NO_COUNT,
    "max_rows": NO_COUNT,
    "num_images": NO_COUNT,
    "seed": ["null", "true", "1.5", "-1", str(MAX_SEED + 1), "word"],
    "where": ["true", "Male", "[Male]", "{Male: 1}", "{Mail: true}", "{3: true}"],
    "condition": ["true", "3", "[Smiling]", "{Smiling: true}"],
    "noise": ["nowhere.safetensors", "3", "[]"],
    "objective": ["3", "true", "[]", "[3]", "{gain_judge: 1}"],
    "run_folder": ["here"],
    "method": ["null", "3", "[1]", "1.5", "ascend", "''"],
    "generator": ["null", "3", "[null]", "nothing"],
    "logger": ["null", "3", "nothing"],
    "trainer": ["null", "3", "nothing"],
    "trainer.precision": ["null", "16-mixed", "32", "true"],
    "trainer.accelerator": ["null", "3", "abacus"],
    "trainer.devices": ["0", "null", "-1.5"],
    "generator.checkpoint": ["null", "nowhere.pth", "3"],
    "generator.network.z_dim": ["null", "0", "-1", "word", "1.5"],
    "classifier.attributes": ["null", "3", "[]", "[Smiling,Smiling]", "celebs"],
    "method.on_shell": ["null", "3", "word"],
    "method.run.num_step": ["3"],
    "steering._target_": ["null", "3", "nowhere.Steering", "torch.nn.Linear"],
}


@settings(max_examples=2 * MANY)
@given(st.sampled_from([f"{key}={value}" for key, values in INVALID.items() for value in values]), WORDS)
def test_any_invalid_word_is_refused_in_a_line_that_names_its_key(word, chosen):
    key = word.partition("=")[0]
    others = [word_of(other, value) for other, value in chosen.items() if other != key and other != "method"]
    added = word if not key.endswith("num_step") else f"+{word}"
    with pytest.raises((ValueError, FileNotFoundError)) as caught:
        zsteer.steer(*(given for given in NETWORKS if not given.startswith(f"{key}=")), *others, added)
    said = str(caught.value)
    assert "\n" not in said
    # Of an argument, Hydra and Lightning name the section and say what is wrong with it.
    assert all(part.strip("_") in said for part in key.split(".")), said


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=MANY // 3)
@given(WORDS)
def test_the_config_of_a_run_makes_the_same_bits(command, folder_of, chosen):
    first, again = folder_of(), folder_of()
    zsteer.steer(*NETWORKS, *(word_of(key, value) for key, value in chosen.items()), folder=first)
    where = ("--config-path", str(first / ".hydra"), "--config-name", "config", f"hydra.run.dir={again}")
    ended = command("steer", *where)
    assert ended.code == 0, ended.err
    made, expected = (load_file(folder / "history.safetensors") for folder in (again, first))
    assert set(made) == set(expected)
    assert all(torch.equal(made[name], expected[name]) for name in expected)
    figures = [json.loads((folder / "metrics.json").read_text()) for folder in (again, first)]
    assert figures[0] == figures[1]


SWEEP = (*NETWORKS, "method=ascent", "num_steps=2", "num_images=2", "trainer.precision=64-true")
TARGETS, WEIGHTS = ("Smiling", "Male", "Bangs"), ("0", "1")


def swept(command, targets, weights, max_rows, *words):
    grid = (f"target={','.join(targets)}", f"penalty_weight={','.join(weights)}")
    return command("steer", *grid, *SWEEP, f"hydra.launcher.max_rows={max_rows}", *words, sweep=True)


def files_of(folder):
    """What a sweep leaves of each job but TensorBoard's file, which has the time in its name; by what was asked."""
    files = {}
    for row in jobs_of(folder):
        assert row["state"] == "completed", row["error"]
        job = folder / row["job"]
        places = [path for path in job.rglob("*") if path.is_file() and "tfevents" not in path.name]
        files[row["target"], float(row["penalty_weight"])] = {path.relative_to(job): path for path in places}
    return files


@pytest.fixture
def whole(command):
    """What the sweep leaves that is not interrupted."""
    return files_of(swept(command, TARGETS, WEIGHTS, 12).folder)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=MANY // 5, phases=[Phase.generate])
@given(
    targets=st.permutations(TARGETS),
    weights=st.permutations(WEIGHTS),
    max_rows=st.integers(2, 12),
    interrupted_at=st.integers(1, 6),
)
def test_a_sweep_leaves_the_same_in_any_order_and_grouping_and_however_it_is_interrupted(
    command, whole, targets, weights, max_rows, interrupted_at
):
    save, saved = History.save, []

    def interrupted(history, *rest):
        saved.append(history)
        if len(saved) == interrupted_at:
            raise KeyboardInterrupt
        save(history, *rest)

    with mock.patch.object(History, "save", interrupted):
        ended = swept(command, targets, weights, max_rows)
    assert ended.code == 130
    resumed = swept(command, targets, weights, max_rows, f"resume={ended.folder}")
    assert resumed.code == 0, resumed.err
    found = files_of(ended.folder)
    assert set(found) == set(whole) and len(found) == 6
    for job, files in whole.items():
        assert set(found[job]) == set(files)
        for name, path in files.items():
            if name.suffix == ".safetensors":
                for key, tensor in history_of(path.parent).items():
                    torch.testing.assert_close(history_of(found[job][name].parent)[key], tensor, rtol=0, atol=1e-9)
            elif name.name in ("config.yaml", "overrides.yaml"):
                assert found[job][name].read_text() == path.read_text()
            elif name.name == "metrics.json":
                figures = json.loads(found[job][name].read_text())
                for figure, value in json.loads(path.read_text()).items():
                    assert figures[figure] == (pytest.approx(value, abs=1e-6) if isinstance(value, float) else value)
