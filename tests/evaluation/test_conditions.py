"""A conditional generator's obedience, on one whose faults are known."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from zsteer.evaluation.conditions import obedience
from zsteer.networks.checkpoints import save_weights
from zsteer.networks.conditional import ConditionalGenerator, conditioned
from zsteer.networks.loading import NamedClassifier
from zsteer.networks.tutorial import Generator

NAMES = ("Smiling", "Eyeglasses", "age")


class Painter(nn.Module):
    """Smiles as it is told; glasses as well, but only where the first number of the noise is positive, and never on who
    smiles; ages as they are told.
    """

    z_dim = 5

    def forward(self, noise):
        smiling, glasses, age = noise[:, 2], noise[:, 3], noise[:, 4]
        drawn = (smiling - 0.5, ((glasses > 0.5) & (smiling < 0.5) & (noise[:, 0] > 0)).float() - 0.5, age)
        return torch.stack(drawn, dim=1)[:, :, None, None].expand(-1, -1, 4, 4)


class Means(nn.Module):
    """The channels' means."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, images):
        return self.scale * images.mean(dim=(2, 3))


def learnt(generator):
    """It, of data in which smiles and glasses are independent."""
    random = np.random.default_rng(0)
    labels = random.random((4096, 2)) < 0.5
    generator.learn(np.column_stack([labels, random.normal(size=4096)]).astype(np.float32), [(0.0, 1.0)] * 3)
    return generator


def test_requests_are_met_and_other_states_kept_as_far_as_they_are():
    generator = conditioned(Painter(), NAMES)
    assert isinstance(generator, ConditionalGenerator)
    judge = NamedClassifier(Means(), NAMES, frozenset({"age"}))
    smiling, glasses, age = obedience(learnt(generator), judge, [0, 1, 2], 4000, 0)
    assert smiling["met_with"] == smiling["met_without"] == smiling["met"] == smiling["changed"] == 1
    # Who is told glasses has them without a smile and with a positive number: a quarter; who is not never has them.
    assert glasses["met_with"] == pytest.approx(1 / 4, abs=0.03) and glasses["met_without"] == 1
    assert glasses["met"] == pytest.approx((1 + glasses["met_with"]) / 2)
    # Another entry changes what is seen in the quarter that may have glasses, and is right in all who lose them.
    assert glasses["changed"] == pytest.approx(1 / 2 + 1 / 8, abs=0.03) and glasses["kept"] == 1
    # A smile takes all glasses away; without, a quarter of those who smile get them: half of who have any of both.
    before = 1 / 8  # of all have glasses
    gained = 1 / 8 / (1 - before)
    assert smiling["kept"] == pytest.approx((0 + 1 - gained) / 2, abs=0.03)
    assert age == {"attribute": "age", "correlation": pytest.approx(1)}


def test_conditions_are_scored_by_a_command(tmp_path, command):
    words = ["generator=tutorial", f"generator.checkpoint={tmp_path}/g.safetensors", "num_images=20"]
    plain = ["generator.network.hidden_dim=4", "generator.network.z_dim=8"]
    save_weights(Generator(z_dim=8, hidden_dim=4), tmp_path / "g.safetensors", {})
    ended = command("evaluate", "what=conditions", *words, *plain)
    assert ended.code == 1
    assert ended.err.splitlines()[-1].endswith("what=conditions needs a generator that was trained with gan.condition")

    trained = [
        "trainer=cpu",
        "trainer.log_every_n_steps=1",
        "max_images=16",
        "data.batch_size=8",
        "data.num_train=64",
        "data.num_val=8",
    ]
    small = [f"data.root={tmp_path}", "data.num_test=8", "scores.num_samples=8", "generator.network.hidden_dim=4"]
    asked = ["gan.condition=[Smiling,hair_length]", "discriminator.network.hidden_dim=4"]
    run = command("train_gan", *trained, *small, *asked)
    assert run.code == 0, run.err
    ended = command("evaluate", "what=conditions", f"generator={run.folder}", "num_images=20")
    assert ended.code == 0, ended.err
    smiling, hair = pd.read_csv(ended.folder / "attributes.csv").to_dict("records")
    assert smiling["attribute"] == "Smiling" and 0 <= smiling["met"] <= 1 and np.isnan(smiling["correlation"])
    assert hair["attribute"] == "hair_length" and abs(hair["correlation"]) <= 1 and np.isnan(hair["met"])
    figures = json.loads((ended.folder / "metrics.json").read_text())
    assert figures["num_entries"] == 2 and figures["met"] == pytest.approx(smiling["met"], abs=1e-4)
    ended = command("evaluate", "what=conditions", f"generator={run.folder}", "attributes=[Male]")
    assert ended.code == 1 and "attributes='Male' is not" in ended.err.splitlines()[-1]
