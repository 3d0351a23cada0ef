"""Measures of disentanglement, on codes whose right value is known by hand."""

import json
import math
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from sklearn.ensemble import RandomForestRegressor
from sklearn.linear_model import Lasso
from sklearn.metrics import mutual_info_score
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from zsteer.evaluation import codes as codes_of_noise
from zsteer.evaluation.codes import activeness_of, effects_of, ends_of, on_the_way, path_length, slerp
from zsteer.evaluation.disentanglement import (
    bins_of,
    dci,
    importances_of,
    intervals,
    measures,
    mutual_information_gap,
    separated_predictability,
    states_of,
)
from zsteer.networks.checkpoints import save_weights
from zsteer.networks.conditional import ConditionalGenerator, conditioned
from zsteer.networks.tutorial import Generator

LASSO = partial(Lasso, alpha=0.01)


@pytest.fixture
def codes():
    return np.random.default_rng(0).standard_normal((4000, 3))


def test_dci_of_importances_by_hand():
    assert dci(np.eye(3)) == (1.0, 1.0)
    assert dci(np.ones((3, 3))) == (pytest.approx(0), pytest.approx(0))
    # Two factors, three codes: the first two codes matter to the first factor alike, the last to the second alone.
    assert dci(np.array([[1.0, 1, 0], [0, 0, 2]])) == (1.0, pytest.approx((1 - math.log(2, 3) + 1) / 2))
    # One code that matters to both factors, 3 to 1, and with it three quarters of all; one to the second alone.
    shared = 1 + (0.75 * math.log2(0.75) + 0.25 * math.log2(0.25))
    by_factor = [1.0, 1 + (3 / 7 * math.log2(3 / 7) + 4 / 7 * math.log2(4 / 7))]
    found = dci(np.array([[9.0, 0.0], [3.0, 4.0]]))
    assert found == (pytest.approx(0.75 * shared + 0.25), pytest.approx(sum(by_factor) / 2))
    assert dci(np.zeros((2, 2))) == (0.0, 0.0)


@pytest.mark.parametrize("regressor", [LASSO, partial(RandomForestRegressor, n_estimators=5, random_state=0)])
def test_importances_are_those_of_the_regressor(codes, regressor):
    factors = np.stack([codes[:, 1], -2 * codes[:, 0]], axis=1)
    importances, r2 = importances_of(codes, factors, regressor)
    assert importances.argmax(axis=1).tolist() == [1, 0]
    assert dci(importances)[0] > 0.95 and r2.min() > 0.95


def test_each_code_its_factor_is_perfect_and_a_mixture_is_not(codes):
    labels = np.array([True, True, True])
    perfect = measures(codes, codes, labels, LASSO)
    assert perfect.dci_disentanglement > 0.99 and perfect.dci_completeness > 0.99 and perfect.sap > 0.95
    assert perfect.mig > 0.9  # a median cuts through a bin
    turned = np.stack([codes[:, 0] + codes[:, 1], codes[:, 0] - codes[:, 1]], axis=1)
    mixed = measures(codes[:, :2], turned, labels[:2], LASSO)
    assert max(mixed.dci_disentanglement, mixed.dci_completeness, mixed.mig, mixed.sap) < 0.05
    assert mixed.dci_informativeness > 0.99


def test_the_gap_is_that_of_mutual_information(codes):
    factors = np.stack([codes[:, 0] + 0.5 * codes[:, 1], codes[:, 2] ** 2], axis=1)
    states = states_of(factors, np.array([True, False]))
    assert set(states[:, 0]) == {0, 1} and np.unique(states[:, 1], return_counts=True)[1].tolist() == [200] * 20
    gaps = []
    for state in states.T:
        shared = sorted(mutual_info_score(state, bins_of(code)) for code in codes.T)
        gaps.append((shared[-1] - shared[-2]) / mutual_info_score(state, state))
    assert mutual_information_gap(codes, states) == pytest.approx(np.mean(gaps), rel=1e-4)
    assert mutual_information_gap(codes, np.zeros((4000, 1), int)) == 0.0


def test_separated_predictability_is_a_gap_of_squared_correlations(codes):
    factor = codes[:, 0] + 0.5 * codes[:, 1]
    r2 = sorted(np.corrcoef(factor, code)[0, 1] ** 2 for code in codes.T)
    assert separated_predictability(codes, factor[:, None]) == pytest.approx(r2[-1] - r2[-2])


def test_intervals_narrow_with_the_number_of_images(codes):
    noisy = codes + np.random.default_rng(2).standard_normal(codes.shape)
    labels = np.array([True, True, True])
    wide, narrow = (intervals(codes[:num], noisy[:num], labels, LASSO) for num in (250, 4000))
    for name in ("dci_informativeness", "mig", "sap"):
        assert wide[name] / narrow[name] == pytest.approx(4, rel=0.6)


class Painter(nn.Module):
    """Images whose three channels are the first three numbers of the noise; the fourth does nothing."""

    z_dim = 4

    def forward(self, noise):
        return noise[:, :3, None, None].tanh().expand(-1, -1, 8, 8)


class Means(nn.Module):
    """Logits that are twice the channels' means; features of several positions."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(2.0))
        self.features = nn.Identity()

    def forward(self, images):
        return self.scale * self.features(images).mean(dim=(2, 3))


def test_traversals_measure_what_a_number_changes():
    bases, sigma = torch.zeros(3, 4), torch.tensor([1.0, 2.0, 4.0])
    activeness = activeness_of(Painter(), bases)
    effects = effects_of(Painter(), Means(), bases, sigma, range(4))
    steps = torch.linspace(-2, 2, 9).tanh()
    torch.testing.assert_close(activeness, torch.tensor([1.0, 1, 1, 0]) * steps.var() / 3)
    rise = 2 * 2 * math.tanh(2)
    torch.testing.assert_close(effects, torch.cat([torch.diag(rise / sigma), torch.zeros(1, 3)]))
    frames = on_the_way(Painter(), bases, 0, 9)
    assert frames.shape == (9, 3, 3, 8, 8) and frames[0, 0, 0, 0, 0].item() == pytest.approx(-math.tanh(2))
    conditional = conditioned(Painter(), ["Smiling"])
    assert isinstance(conditional, ConditionalGenerator)
    conditional.learn(np.array([[0.0], [1.0]]), [(0.0, 1.0)])
    assert ends_of(conditional).tolist() == [[-2, -2, -2, 0], [2, 2, 2, 1]]


def test_a_path_is_as_long_as_its_features_move():
    one, other = torch.tensor([[3.0, 0.0]]), torch.tensor([[0.0, 3.0]])
    torch.testing.assert_close(slerp(one, other, torch.tensor([[1 / 3]])), 3 * torch.tensor([[0.75**0.5, 0.5]]))
    shorter, longer = Painter(), Painter()
    shorter.forward = lambda noise: 0.1 * noise[:, :3, None, None].expand(-1, -1, 8, 8)
    longer.forward = lambda noise: 0.1 * (4 * noise[:, :3, None, None]).sin().expand(-1, -1, 8, 8)
    assert path_length(longer, Means(), 0) > 2 * path_length(shorter, Means(), 0)


def test_codes_are_scored_by_a_command(tmp_path, command):
    save_weights(Generator(z_dim=6, hidden_dim=4), tmp_path / "g.safetensors", {})
    words = [f"generator.checkpoint={tmp_path}/g.safetensors", "generator.network.hidden_dim=4", "num_images=200"]
    judge = ["judge=bundled", "attributes=[Smiling,hair_length]"]
    ended = command("evaluate", "what=codes", "generator=tutorial", "generator.network.z_dim=6", *words, *judge)
    assert ended.code == 0, ended.err
    figures = json.loads((ended.folder / "metrics.json").read_text())
    assert figures["num_codes"] == 6 and figures["num_factors"] == 2 and figures["regressor"] == "Lasso(alpha=0.02)"
    assert 0 <= figures["dci_disentanglement"] <= 1 and figures["dci_disentanglement_interval"] > 0
    table = pd.read_csv(ended.folder / "codes.csv")
    assert sorted(table["code"]) == list(range(6)) and table["activeness"].is_monotonic_decreasing
    events = EventAccumulator(str(ended.folder)).Reload()
    assert events.Tags()["images"] == ["traversals"] and "mig" in events.Tags()["scalars"]
    with Image.open(ended.folder / "traversals.png") as picture:
        assert picture.width > 9 * 64


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["attributes=[Smilling]"], "attributes='Smilling' is not an attribute of the judge; did you"),
        (["attributes=Smiling"], "attributes=Smiling must be a list of the judge's, as in attributes=[Smiling]"),
        (["regressor=null"], "regressor=None must have a _target_, one of scikit-learn's regressors"),
        (
            ["regressor._target_=sklearn.neighbors.KNeighborsRegressor", "~regressor.alpha"],
            "has coef_ or feature_importances_",
        ),
        (["regressor._target_=sklearn.ensemble.RandomForestRegressor"], "with settings of its own: "),
        (["num_images=50"], "num_images=50 must be a whole number, 100 or more"),
    ],
)
def test_what_cannot_be_scored_is_said_before_anything_is_drawn(command, words, said, monkeypatch):
    monkeypatch.setattr(codes_of_noise, "logits_of", lambda *_: pytest.fail("it draws"))
    ended = command("evaluate", "what=codes", *words)
    assert ended.code == 1 and said in ended.err.splitlines()[-1]


def test_factors_that_never_vary_are_left_out(codes):
    labels, still = np.array([True, True, True]), np.concatenate([codes[:, :2], np.zeros((4000, 1))], axis=1)
    assert measures(codes, still, labels, LASSO) == measures(codes, codes[:, :2], labels[:2], LASSO)
