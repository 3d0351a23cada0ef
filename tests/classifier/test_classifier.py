import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from hydra.utils import instantiate
from pytorch_lightning import Callback, Trainer
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from zsteer.app.composition import compose
from zsteer.classifier.metrics import AttributeMetrics, means
from zsteer.classifier.module import ClassifierModule

NAMES = ("Smiling", "Male", "Young")


def random_case(seed, num=40):
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(num, 3, generator=generator)
    targets = (torch.rand(num, 3, generator=generator) < torch.tensor([0.2, 0.5, 0.8])).float()
    return logits, targets


def counted(logits, targets, name):
    """The figures of an attribute by counting."""
    column = NAMES.index(name)
    pairs = list(zip(logits[:, column].tolist(), targets[:, column].tolist(), strict=True))
    right = {state: sum((logit > 0) == (target == 1) for logit, target in pairs if target == state) for state in (0, 1)}
    total = {state: sum(target == state for _, target in pairs) for state in (0, 1)}
    hits = sum(logit > 0 and target == 1 for logit, target in pairs)
    precisions, found = [], 0
    for rank, (_, target) in enumerate(sorted(pairs, reverse=True), start=1):
        found += target == 1
        if target == 1:
            precisions.append(found / rank)
    return {
        "accuracy": (right[0] + right[1]) / len(pairs),
        "balanced_accuracy": (right[0] / total[0] + right[1] / total[1]) / 2,
        "average_precision": sum(precisions) / len(precisions),
        "f1": 2 * hits / (sum(logit > 0 for logit, _ in pairs) + total[1]),
        "calibration_error": calibration_error(pairs),
    }


def calibration_error(pairs):
    """The gap between mean probability and rate in each of 15 bins of probability, weighted by their size."""
    bins = {}
    for logit, target in pairs:
        probability = 1 / (1 + math.exp(-logit))
        bins.setdefault(min(int(probability * 15), 14), []).append((probability, target))
    gaps = [abs(sum(p for p, _ in own) - sum(t for _, t in own)) for own in bins.values()]
    return sum(gaps) / len(pairs)


@pytest.mark.parametrize("seed", range(3))
def test_metrics_equal_counting(seed):
    logits, targets = random_case(seed)
    metrics = AttributeMetrics(NAMES)
    metrics.update(logits, targets)
    found = metrics.compute()
    for name in NAMES:
        expected = counted(logits, targets, name)
        assert {figure: values[name] for figure, values in found.items()} == pytest.approx(expected, abs=1e-6)


def test_metrics_do_not_depend_on_how_images_are_batched():
    logits, targets = random_case(0)
    one, other = AttributeMetrics(NAMES), AttributeMetrics(NAMES)
    one.update(logits, targets)
    for part in torch.arange(40).split([1, 30, 9]):
        other.update(logits[part], targets[part])
    whole, parts = one.compute(), other.compute()
    for figure in whole:
        assert parts[figure] == pytest.approx(whole[figure])


def test_guessing_the_commoner_state_is_no_better_than_chance_when_balanced():
    targets = torch.zeros(100, 3)
    targets[:3] = 1
    metrics = AttributeMetrics(NAMES)
    metrics.update(torch.full((100, 3), -5.0), targets)
    figures = means(metrics.compute())
    assert figures["accuracy"] == pytest.approx(0.97)
    assert figures["balanced_accuracy"] == pytest.approx(0.5)


def test_logits_beyond_the_sigmoids_precision_count_by_their_sign():
    logits = torch.tensor([200.0, -200.0, 1e-3, -1e-3])[:, None].expand(4, 3)
    metrics = AttributeMetrics(NAMES)
    metrics.update(logits, (logits > 0).float())
    assert set(metrics.compute()["accuracy"].values()) == {1.0}


def test_one_attribute_is_enough():
    metrics = AttributeMetrics(["Male"])
    metrics.update(torch.tensor([[2.0], [-1.0], [1.0], [-2.0]]), torch.tensor([[1.0], [0.0], [0.0], [0.0]]))
    found = metrics.compute()
    assert found["accuracy"]["Male"] == pytest.approx(3 / 4)
    assert found["balanced_accuracy"]["Male"] == pytest.approx((1 + 2 / 3) / 2)


def test_missing_targets_are_left_out_of_every_figure():
    logits, targets = random_case(0)
    known = torch.rand(40, 3, generator=torch.Generator().manual_seed(1)) < 0.7
    known[:, 2] = False
    numbers = torch.randn(40, 1, generator=torch.Generator().manual_seed(2))
    known = torch.cat([known, known[:, :1]], dim=1)
    outputs, targets = torch.cat([logits, numbers + 0.1], dim=1), torch.cat([targets, numbers], dim=1)
    metrics = AttributeMetrics([*NAMES, "age"], {"age": (40.0, 10.0)})
    metrics.update(outputs, targets.where(known, torch.nan))
    found = metrics.compute()
    for column, name in enumerate(NAMES[:2]):
        rows = known[:, column]
        expected = counted(logits[rows], targets[rows][:, :3], name)
        assert {figure: found[figure][name] for figure in expected} == pytest.approx(expected, abs=1e-6)
        assert found["accuracy"]["Young"] is None and found["average_precision"]["Young"] is None
    rows = known[:, 3]
    variance = (numbers[rows] - numbers[rows].mean()).square().mean().item()
    assert found["mean_absolute_error"] == {"age": pytest.approx(1.0, rel=1e-5)}
    assert found["r2"] == {"age": pytest.approx(1 - 0.1**2 / variance, rel=1e-4)}
    accuracies = [counted(logits[known[:, i]], targets[known[:, i]][:, :3], NAMES[i])["accuracy"] for i in (0, 1)]
    assert means(found)["accuracy"] == pytest.approx(sum(accuracies) / 2)


def test_logits_of_a_mixed_precision_run_are_accepted():
    logits, targets = random_case(0)
    metrics = AttributeMetrics(NAMES)
    metrics.update(logits.bfloat16(), targets.bfloat16())
    assert set(metrics.compute()["accuracy"]) == set(NAMES)


def test_reset_forgets():
    logits, targets = random_case(0)
    metrics, fresh = AttributeMetrics(NAMES), AttributeMetrics(NAMES)
    metrics.update(*random_case(1))
    metrics.reset()
    for one in (metrics, fresh):
        one.update(logits, targets)
    assert metrics.compute() == fresh.compute()


@pytest.mark.parametrize("state", [0.0, 1.0], ids=["none", "all"])
def test_balanced_accuracy_of_an_attribute_of_none_or_all_images_is_over_the_one_state_there_is(state):
    logits, targets = random_case(0)
    targets[:, 1] = state
    metrics = AttributeMetrics(NAMES)
    metrics.update(logits, targets)
    right = sum((logit > 0) == (state == 1) for logit in logits[:, 1].tolist()) / 40
    found = metrics.compute()
    assert found["accuracy"]["Male"] == pytest.approx(right)
    assert found["balanced_accuracy"]["Male"] == pytest.approx(right)


def test_means_are_over_the_attributes():
    assert means({"accuracy": {"a": 0.5, "b": 1.0}, "other": {"a": 0.0, "b": 0.5}}) == {"accuracy": 0.75, "other": 0.25}


def make(seed=0, lr=0.02, outputs=3):
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, outputs))
    return ClassifierModule(network, NAMES, partial(torch.optim.AdamW, weight_decay=0.0), max_lr=lr)


def test_training_images_are_augmented_and_no_others_are():
    images, targets = separable(8)
    module, plain = make(), make()
    module.augment = lambda seen: -2 * seen
    for each in (module, plain):
        each.log = lambda *_, **__: None  # there is no trainer to log to
    torch.testing.assert_close(
        module.training_step((images, targets), 0), plain.training_step((-2 * images, targets), 0)
    )
    module.validation_step((images, targets), 0)
    assert torch.equal(module.metrics.outputs[0], plain(images))


def separable(num=256, seed=0):
    """Images whose first three pixels say which attributes they have."""
    images = torch.rand(num, 3, 2, 2, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    return images, (images.flatten(1)[:, :3] > 0).float()


def loader(seed=0, num=256, batch_size=32):
    dataset = TensorDataset(*separable(num, seed))
    return DataLoader(dataset, sampler=torch.arange(num).split(batch_size), batch_size=None, collate_fn=tuple)


def trainer_of(epochs=1, **settings):
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    return Trainer(accelerator="cpu", devices=1, max_epochs=epochs, logger=False, **quiet, **settings)


def loss_of(module):
    images, targets = separable(seed=1)
    return F.binary_cross_entropy_with_logits(module(images), targets).item()


def test_training_learns_a_separable_problem():
    module = make(lr=0.5)
    before = loss_of(module)
    trainer = trainer_of(epochs=10)
    trainer.fit(module, loader(), loader(seed=1))
    (figures,) = trainer.test(module, loader(seed=1), verbose=False)
    assert loss_of(module) < before / 2
    assert figures["test/accuracy"] > 0.95
    assert figures["test/average_precision"] > 0.99


def test_training_loss_is_the_mean_cross_entropy():
    module = make()
    images, targets = separable(8)
    module.log = lambda *_, **__: None
    probabilities = module(images).sigmoid()
    expected = -(targets * probabilities.log() + (1 - targets) * (1 - probabilities).log()).mean()
    torch.testing.assert_close(module.training_step((images, targets), 0), expected)


def test_a_regressor_learns_a_continuous_target_beside_labels():
    images, labels = separable()
    brightness = images.flatten(1).mean(dim=1, keepdim=True)
    mean, deviation = brightness.mean().item(), brightness.std().item()
    targets = torch.cat([labels[:, :2], (brightness - mean) / deviation], dim=1)
    batches = torch.arange(len(images)).split(32)
    data = DataLoader(TensorDataset(images, targets), sampler=batches, batch_size=None, collate_fn=tuple)
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    names, optimizer = ("Smiling", "Male", "brightness"), partial(torch.optim.AdamW, weight_decay=0.0)
    module = ClassifierModule(network, names, optimizer, max_lr=0.3, scales={"brightness": (mean, deviation)})
    trainer = trainer_of(epochs=10)
    trainer.fit(module, data, data)
    trainer.test(module, data, verbose=False)
    assert set(module.figures["accuracy"]) == {"Smiling", "Male"}
    residuals = (network(images)[:, 2] * deviation + mean - brightness[:, 0]).detach()
    variance = (brightness - mean).square().sum().item()
    assert module.figures["r2"] == {"brightness": pytest.approx(1 - residuals.square().sum().item() / variance)}
    r2 = module.figures["r2"]["brightness"]
    assert r2 is not None and r2 > 0.9
    error = residuals.abs().mean().item()
    assert module.figures["mean_absolute_error"] == {"brightness": pytest.approx(error, rel=1e-4)}


def test_test_figures_are_those_of_each_attribute():
    module = make()
    trainer_of().test(module, loader(), verbose=False)
    images, targets = separable()
    for name in NAMES:
        expected = counted(module(images).detach(), targets, name)
        assert {figure: values[name] for figure, values in module.figures.items()} == pytest.approx(expected)


def test_validation_figures_are_those_of_one_validation():
    module = make(lr=1e-12)
    trainer = trainer_of(epochs=2)
    trainer.fit(module, loader(), loader(seed=1))
    images, targets = separable(seed=1)
    expected = counted(module(images).detach(), targets, "Male")
    assert {figure: values["Male"] for figure, values in module.figures.items()} == pytest.approx(expected, abs=1e-4)
    assert float(trainer.callback_metrics["val/accuracy"]) == pytest.approx(means(module.figures)["accuracy"])
    assert float(trainer.callback_metrics["val/loss"]) == pytest.approx(loss_of(module), rel=1e-5)


def rates_of(module):
    """The learning rate at each of forty steps."""
    rates = []

    class Look(Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    trainer_of(epochs=5, callbacks=[Look()]).fit(module, loader(), loader(seed=1))
    assert len(rates) == 40
    return rates


@pytest.mark.parametrize("choice", ["cosine", "constant"])
def test_other_schedules_start_at_the_optimizers_rate(choice):
    training = compose("train_classifier", [f"schedule={choice}", "training.max_lr=0.05"]).training
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, len(NAMES)))
    rates = rates_of(instantiate(training, network=network, names=NAMES))
    cosine = [0.05 * (1 + math.cos(math.pi * step / 40)) / 2 for step in range(40)]
    assert rates == pytest.approx(cosine if choice == "cosine" else [0.05] * 40)


def test_learning_rate_peaks_at_max_lr_after_a_tenth_and_ends_near_zero():
    rates = rates_of(make(lr=0.05))
    assert max(rates) == pytest.approx(0.05, rel=0.02)
    assert rates.index(max(rates)) == pytest.approx(4, abs=1)
    assert rates[0] < 0.05 / 10 and rates[-1] < 0.05 / 100


def test_checkpoint_loads_safely(tmp_path):
    module = make()
    trainer = trainer_of()
    trainer.fit(module, loader(), loader(seed=1))
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    state = torch.load(tmp_path / "last.ckpt", weights_only=True)["state_dict"]
    assert set(state) == {"network.1.weight", "network.1.bias"}
