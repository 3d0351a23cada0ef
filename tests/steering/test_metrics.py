import math
import statistics

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from zsteer.data.attributes import CELEBA, others_of
from zsteer.steering import metrics
from zsteer.steering.metrics import (
    Scored,
    agreement,
    figures,
    gain,
    noise_norm_percentile,
    preservation_rate,
    side_effects,
    success_rate,
)

NAMES = ("Smiling", "No_Beard", "Goatee", "Mustache", "Male")
quick = settings(max_examples=50)

KEYS = """
gain_classifier gain_judge agreement hacking_gap attribute_dependency attribute_dependency_max attribute_dependency_all
success_rate preservation_rate noise_norm_percentile
""".split()


def scored(before, after, reference=None, names=NAMES):
    before, after = torch.as_tensor(before, dtype=torch.float64), torch.as_tensor(after, dtype=torch.float64)
    if reference is None:
        reference = torch.tensor([[-1.0], [1.0]], dtype=torch.float64).expand(2, before.shape[1])
    return Scored(names, before, after, torch.as_tensor(reference, dtype=torch.float64))


def random_scored(seed, num=9, names=NAMES):
    generator = torch.Generator().manual_seed(seed)
    draw = [torch.randn(n, len(names), generator=generator, dtype=torch.float64) for n in (num, num, 30)]
    scale = 0.1 + 3 * torch.rand(len(names), generator=generator, dtype=torch.float64)
    return Scored(names, *(logits * scale for logits in draw))


def sigma(view, column):
    return statistics.stdev(view.reference[:, column].tolist())


def mean_change(view, column):
    return statistics.mean((view.after - view.before)[:, column].tolist())


def mean_absolute_change(view, column):
    return statistics.mean(abs(value) for value in (view.after - view.before)[:, column].tolist())


# Logits before and after of up to 16 images and 3 attributes, often exactly 0 or unchanged.
logit = st.sampled_from([-2.0, -0.5, 0.0, 0.25, 3.0])
three = st.tuples(logit, logit, logit)
runs = st.lists(st.tuples(three, three), min_size=1, max_size=16).map(lambda images: tuple(zip(*images, strict=True)))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_gain_is_the_mean_change_of_the_target_in_sigmas_turned_by_the_sign(seed, sign):
    view = random_scored(seed)
    assert gain(view, "Goatee", sign) == pytest.approx(sign * mean_change(view, 2) / sigma(view, 2))


def test_gain_accepts_any_spelling_of_the_target():
    view = random_scored(0)
    assert gain(view, "nobeard", 1.0) == gain(view, "No_Beard", 1.0)


def test_gain_does_not_depend_on_the_scale_of_the_logits():
    view = random_scored(1)
    scaled = Scored(NAMES, 10 * view.before, 10 * view.after, 10 * view.reference)
    assert gain(scaled, "Male", 1.0) == pytest.approx(gain(view, "Male", 1.0))


def test_gain_of_float32_logits_is_taken_in_float64():
    before = torch.full((4, 1), 0.1)
    reference = torch.randn(2048, 1, generator=torch.Generator().manual_seed(0)) * 1e-3 + 1e4
    view = Scored(("Male",), before, before + 1, reference)
    expected = float((before + 1 - before).mean()) / float(np.std(reference.numpy().astype(np.float64), ddof=1))
    assert gain(view, "Male", 1.0) == pytest.approx(expected, rel=1e-9)


def test_logit_that_never_varies_counts_as_unchanged():
    view = scored(torch.zeros(3, 5), torch.ones(3, 5), torch.zeros(20, 5))
    assert gain(view, "Smiling", 1.0) == 0
    assert set(side_effects(view, ["Male", "Goatee"]).values()) == {0}


@pytest.mark.parametrize("seed", range(3))
def test_agreement_is_the_correlation_of_the_target_logits(seed):
    classifier, judge = random_scored(seed), random_scored(seed + 10, names=("Male", "Smiling"))
    expected = np.corrcoef(classifier.reference[:, 4].numpy(), judge.reference[:, 0].numpy())[0, 1]
    assert agreement(classifier, judge, "Male") == pytest.approx(expected)


def test_agreement_is_one_for_a_scaled_and_minus_one_for_a_negated_judge():
    classifier = random_scored(0)
    for factor, expected in ((3.0, 1.0), (-0.5, -1.0)):
        judge = Scored(NAMES, classifier.before, classifier.after, factor * classifier.reference + 1)
        assert agreement(classifier, judge, "Smiling") == pytest.approx(expected)


def test_agreement_with_a_constant_judge_is_zero():
    classifier = random_scored(0)
    judge = Scored(NAMES, classifier.before, classifier.after, torch.ones_like(classifier.reference))
    assert agreement(classifier, judge, "Smiling") == 0


@pytest.mark.parametrize("seed", range(3))
def test_side_effects_are_mean_absolute_changes_in_sigmas(seed):
    view = random_scored(seed)
    expected = {n: mean_absolute_change(view, NAMES.index(n)) / sigma(view, NAMES.index(n)) for n in ("Male", "Goatee")}
    assert side_effects(view, ["Male", "Goatee"]) == pytest.approx(expected)


def test_changes_in_both_directions_do_not_cancel():
    view = scored([[0.0] * 5] * 2, [[1.0] * 5, [-1.0] * 5])
    assert gain(view, "Male", 1.0) == 0
    assert side_effects(view, ["Male"])["Male"] == pytest.approx(1 / math.sqrt(2))  # σ of {-1, 1} is √2


def test_others_leave_out_the_target_and_what_excludes_it():
    assert others_of("Goatee", NAMES) == ["Smiling", "Mustache", "Male"]
    assert others_of("No_Beard", NAMES) == ["Smiling", "Male"]
    assert others_of("Goatee+Male", [*NAMES, "Goatee+Male"]) == ["Smiling", "Mustache"]
    assert "No_Beard" in others_of("Goatee+Male", [*NAMES, "Goatee+Male"], with_entailed=True)
    assert others_of("Smiling", CELEBA) == [name for name in CELEBA if name != "Smiling"]


def test_all_others_leave_out_the_target_alone():
    assert others_of("Goatee", NAMES, with_entailed=True) == ["Smiling", "No_Beard", "Mustache", "Male"]


def test_others_of_a_spelling_are_those_of_the_attribute():
    assert others_of("goatee", NAMES) == others_of("Goatee", NAMES)


@quick
@given(run=runs, sign=st.sampled_from([1.0, -1.0]))
def test_success_rate_is_the_share_that_reached_the_wanted_state(run, sign):
    view = scored(*run, names=("Smiling", "Male", "Young"))

    def wanted(logit):
        return logit > 0 if sign > 0 else not logit > 0

    pairs = zip(view.before[:, 1].tolist(), view.after[:, 1].tolist(), strict=True)
    without = [after for before, after in pairs if not wanted(before)]
    rate = success_rate(view, "Male", sign)
    if without:
        assert rate == pytest.approx(sum(wanted(after) for after in without) / len(without))
    else:
        assert rate is None


@pytest.mark.parametrize("sign, start", [(1.0, 2.0), (-1.0, -2.0)])
def test_success_rate_is_none_where_all_had_the_state(sign, start):
    assert success_rate(scored([[start] * 5] * 6, [[-start] * 5] * 6), "Male", sign) is None


def test_removal_succeeds_where_the_logit_falls_below_zero():
    view = scored([[1.0] * 5] * 4, [[-1.0] * 5] * 3 + [[0.5] * 5])
    assert success_rate(view, "Male", -1.0) == pytest.approx(3 / 4)


@quick
@given(run=runs)
def test_preservation_rate_averages_groups_then_attributes(run):
    view, rates = scored(*run, names=("Smiling", "Male", "Young")), []
    for column in (0, 2):
        shares = []
        for present in (True, False):
            pairs = zip(view.before[:, column].tolist(), view.after[:, column].tolist(), strict=True)
            group = [after for before, after in pairs if (before > 0) == present]
            if len(group) >= 5:
                shares.append(sum((after > 0) == present for after in group) / len(group))
        if shares:
            rates.append(statistics.mean(shares))
    expected = statistics.mean(rates) if rates else None
    assert preservation_rate(view, ["Smiling", "Young"]) == (None if expected is None else pytest.approx(expected))


@pytest.mark.parametrize("num_present, expected", [(4, 1.0), (5, 0.5)])
def test_groups_of_fewer_than_five_images_are_left_out(num_present, expected):
    before = [[1.0]] * num_present + [[-1.0]] * 10  # those that had it lose it, the others keep their state
    view = scored(before, [[-1.0]] * len(before), names=("Male",))
    assert preservation_rate(view, ["Male"]) == pytest.approx(expected)


def test_both_groups_weigh_the_same_whatever_their_size():
    before = [[1.0]] * 5 + [[-1.0]] * 95
    view = scored(before, [[-1.0]] * 100, names=("Male",))
    assert preservation_rate(view, ["Male"]) == pytest.approx(0.5)


def test_preservation_rate_is_none_where_no_group_is_left():
    assert preservation_rate(scored([[1.0] * 5] * 4, [[1.0] * 5] * 4), ["Male"]) is None


def test_preservation_rate_of_no_attributes_is_none():
    assert preservation_rate(random_scored(0), []) is None


# Quantiles from printed χ² tables: degrees of freedom, quantile, per cent.
TABLE = [(1, 3.841, 95), (1, 0.455, 50), (10, 9.342, 50), (10, 18.307, 95), (30, 43.773, 95), (100, 124.342, 95)]


@pytest.mark.parametrize("z_dim, quantile, percent", TABLE)
def test_noise_norm_percentile_is_the_tables(z_dim, quantile, percent):
    noise = torch.zeros(2, z_dim)
    noise[:, 0] = math.sqrt(quantile)
    assert noise_norm_percentile(noise) == pytest.approx(percent, abs=0.05)


@quick
@given(half=st.integers(1, 40), squared=st.floats(0.0, 200.0))
def test_noise_norm_percentile_of_even_dimensions_is_the_erlang_distribution(half, squared):
    noise = torch.full((1, 2 * half), math.sqrt(squared / (2 * half)), dtype=torch.float64)
    upper = math.fsum(math.exp(-squared / 2) * (squared / 2) ** i / math.factorial(i) for i in range(half))
    assert noise_norm_percentile(noise) == pytest.approx(100 * (1 - upper), abs=1e-6)


def test_noise_norm_percentile_is_the_mean_over_images():
    noise = torch.randn(5, 64, generator=torch.Generator().manual_seed(0))
    alone = [noise_norm_percentile(noise[i : i + 1]) for i in range(5)]
    assert noise_norm_percentile(noise) == pytest.approx(statistics.mean(alone))


def test_noise_from_the_prior_is_typical():
    noise = torch.randn(4000, 64, generator=torch.Generator().manual_seed(0))
    assert noise_norm_percentile(noise) == pytest.approx(50, abs=4 * 100 / math.sqrt(12 * 4000))


@pytest.mark.parametrize("target, sign", [("Goatee", 1.0), ("Smiling", -1.0), ("nobeard", 1.0)])
def test_figures_are_those_of_the_contract(target, sign):
    classifier, judge = random_scored(1, num=40), random_scored(2, num=40)
    noise = torch.randn(40, 8, generator=torch.Generator().manual_seed(0))
    found = figures(target, sign, noise, classifier, judge)
    column = {"Goatee": 2, "Smiling": 0, "nobeard": 1}[target]
    excluded = {"Goatee": {1}, "Smiling": set(), "nobeard": {2, 3}}[target]
    every = [k for k in range(5) if k != column]
    others = [k for k in every if k not in excluded]
    effects = {k: mean_absolute_change(judge, k) / sigma(judge, k) for k in every}
    seen = sign * mean_change(classifier, column) / sigma(classifier, column)
    confirmed = sign * mean_change(judge, column) / sigma(judge, column)
    rho = np.corrcoef(classifier.reference[:, column].numpy(), judge.reference[:, column].numpy())[0, 1]
    expected = {
        "gain_classifier": seen,
        "gain_judge": confirmed,
        "agreement": rho,
        "hacking_gap": rho * seen - confirmed,
        "attribute_dependency": statistics.mean(effects[k] for k in others),
        "attribute_dependency_max": max(effects[k] for k in others),
        "attribute_dependency_all": statistics.mean(effects[k] for k in every),
    }
    assert {key: found[key] for key in expected} == pytest.approx(expected)
    assert found["success_rate"] == success_rate(judge, NAMES[column], sign)
    assert found["preservation_rate"] == preservation_rate(judge, [NAMES[k] for k in others])
    assert found["noise_norm_percentile"] == noise_norm_percentile(noise)


def test_figures_have_the_contracts_keys_in_its_order():
    view, noise = random_scored(0), torch.zeros(9, 4)
    assert list(figures("Male", 1.0, noise, view, view)) == KEYS
    assert list(figures("Male", 1.0, noise, view, None)) == KEYS


def test_figures_without_a_judge_are_none_but_for_the_classifiers_gain_and_the_noise():
    found = figures("Male", 1.0, torch.zeros(9, 4), random_scored(0), None)
    assert {key for key, value in found.items() if value is not None} == {"gain_classifier", "noise_norm_percentile"}


def test_judge_may_name_its_attributes_in_another_order_than_the_classifier():
    classifier, judge = random_scored(0), random_scored(1)
    order = [3, 0, 4, 2, 1]
    shuffled = Scored(
        [NAMES[k] for k in order], judge.before[:, order], judge.after[:, order], judge.reference[:, order]
    )
    noise = torch.zeros(9, 4)
    assert figures("Male", 1.0, noise, classifier, shuffled) == pytest.approx(
        figures("Male", 1.0, noise, classifier, judge)
    )


def test_judge_of_the_target_alone_has_no_side_effects():
    view = random_scored(0, names=("Male",))
    found = figures("Male", 1.0, torch.zeros(9, 4), view, view)
    dependency = ("attribute_dependency", "attribute_dependency_max", "attribute_dependency_all", "preservation_rate")
    assert [found[key] for key in dependency] == [None] * 4


def test_constant_logits_give_finite_figures():
    view = scored(torch.zeros(9, 5), torch.zeros(9, 5), torch.zeros(20, 5))
    found = figures("Male", 1.0, torch.zeros(9, 4), view, view)
    assert all(value is None or math.isfinite(value) for value in found.values())
    assert found["hacking_gap"] == 0


def test_judged_figures_are_the_contracts():
    assert list(metrics.Judged.__annotations__) == KEYS[1:-1]


def test_a_label_that_measures_the_same_is_no_side_effect():
    names = (*CELEBA, "age", "hair_length", "smile")
    assert "Young" not in others_of("age", names)
    assert "Bald" not in others_of("hair_length", names)
    assert "smile" not in others_of("Smiling", names)
    assert "Young" in others_of("age", names, with_entailed=True)
