import copy
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.loggers import Logger
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from zsteer.data.faces import FaceData
from zsteer.data.store import build_store
from zsteer.gan import module as gan
from zsteer.gan.callbacks import SampleGrid, samples
from zsteer.gan.cuda_graphs import check_one_gpu
from zsteer.gan.description import Description
from zsteer.gan.losses import (
    AdversarialLoss,
    bce_discriminator,
    bce_generator,
    critic_generator,
    hinge_discriminator,
    relativistic,
    wasserstein_discriminator,
)
from zsteer.gan.module import GANModule
from zsteer.gan.regularizers import HessianPenalty, InfoGAN, OrthogonalJacobian, Supervised
from zsteer.gan.schedules import Cosine
from zsteer.networks.checkpoints import load_weights, save_weights
from zsteer.networks.conditional import ConditionalGenerator
from zsteer.training.callbacks import SeededSteps

BATCH = 4
BCE = AdversarialLoss(bce_discriminator, bce_generator)
LOSSES = {
    "bce": (BCE, {"r1_gamma": 0.2, "penalty_every": 2}),
    "hinge": (AdversarialLoss(hinge_discriminator, critic_generator), {}),
    "wgan_gp": (
        AdversarialLoss(wasserstein_discriminator, critic_generator),
        {"gp_weight": 10.0, "discriminator_steps": 3},
    ),
    "r3gan": (AdversarialLoss(relativistic, relativistic, paired=True), {"r1_gamma": 0.2, "r2_gamma": 0.3}),
}
every_loss = pytest.mark.parametrize("name", LOSSES)


class TinyGenerator(nn.Module):
    """Images of 2×2 pixels, with a batch norm."""

    def __init__(self, z_dim=3):
        super().__init__()
        self.z_dim = z_dim
        self.layers = nn.Sequential(nn.Linear(z_dim, 12), nn.BatchNorm1d(12), nn.Tanh())

    def forward(self, noise):
        return self.layers(noise).view(-1, 3, 2, 2)


class TinyDiscriminator(nn.Module):
    def __init__(self, num_conditions=0):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(12, 6), nn.Tanh(), nn.Linear(6, 1 + num_conditions))

    def forward(self, images):
        return self.layers(images).squeeze(1)


class BlackGenerator(nn.Module):
    """Black images whatever the noise and whatever it learns, so that a linear discriminator sees nothing."""

    def __init__(self):
        super().__init__()
        self.z_dim = 3
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, noise):
        return (0 * self.weight * noise[:, :1, None, None]).expand(-1, 3, 2, 2)


class LinearDiscriminator(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(12))

    def forward(self, images):
        return images.flatten(1) @ self.weight


class Rows(Logger):
    """A logger that remembers what it is given."""

    def __init__(self):
        super().__init__()
        self.rows = []

    @property
    def name(self):
        return "rows"

    @property
    def version(self):
        return "rows"

    def log_metrics(self, metrics, step=None):
        self.rows.append(dict(metrics))

    def log_hyperparams(self, *_, **__):
        pass


def make(seed=0, loss=BCE, **settings):
    torch.manual_seed(seed)
    adam = partial(torch.optim.Adam, lr=0.05, betas=(0.5, 0.99))
    told = settings.get("description")
    discriminator = TinyDiscriminator(0 if told is None else len(told.names))
    return GANModule(TinyGenerator(), discriminator, adam, adam, loss, **settings)


def module_of(name, seed=0, **settings):
    """A module of one of the losses, with its own settings."""
    loss, own = LOSSES[name]
    return make(seed, loss, **own, **settings)


def batches(num, images=None, targets=None, size=BATCH):
    """A loader of `num` batches of images and labels."""
    if images is None:
        images = torch.rand(num * size, 3, 2, 2, generator=torch.Generator().manual_seed(1)) * 2 - 1
    dataset = TensorDataset(images, torch.zeros(num * size, 1) if targets is None else targets)
    return DataLoader(dataset, sampler=torch.arange(num * size).split(size), batch_size=None, collate_fn=tuple)


def trainer_of(*callbacks, logger: Logger | bool = False, **settings):
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    return Trainer(
        accelerator="cpu",
        devices=1,
        max_epochs=1,
        log_every_n_steps=1,
        use_distributed_sampler=False,
        logger=logger,
        callbacks=list(callbacks),
        **quiet,
        **settings,
    )


def fit(module, num, *callbacks, **settings):
    trainer = trainer_of(*callbacks, **settings)
    trainer.fit(module, batches(num))
    return trainer


def weights(network):
    return [parameter.detach().clone() for parameter in network.parameters()]


class Each(Callback):
    """Calls a function after each batch."""

    def __init__(self, function):
        self.function = function

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.function(trainer, pl_module)


def differ(one, other):
    return not all(torch.allclose(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("num", [1, 2, 3, 7])
def test_average_differs_from_where_training_began(num):
    module = make()
    start = weights(module.ema_generator)
    fit(module, num)
    assert differ(weights(module.ema_generator), start)


@pytest.mark.parametrize("num", [2, 3, 7])
def test_average_differs_from_the_live_weights(num):
    module = make(ema_half_life=BATCH)
    fit(module, num)
    module.num_images = 10**9
    live = weights(module.generator)
    assert differ(weights(module.ema_generator), live)


def test_weights_share_in_the_average_halves_after_the_half_life():
    module = make(ema_half_life=1000)
    module.num_images = 10**6
    before = weights(module.ema_generator)
    with torch.no_grad():
        for parameter in module.generator.parameters():
            parameter.add_(1.0)
    for _ in range(10):
        module.update_average(100)
    for average, start in zip(weights(module.ema_generator), before, strict=True):
        torch.testing.assert_close(average, start + 0.5)


@pytest.mark.parametrize("half_life", [8, 10_000])
def test_average_after_training_is_the_weighted_sum_of_the_live_weights(half_life):
    module, lives = make(ema_half_life=half_life), []
    average = weights(module.ema_generator)
    fit(module, 5, Each(lambda _, module: lives.append(weights(module.generator))))
    for i, live in enumerate(lives):
        seen = BATCH * (i + 1)
        kept = 2 ** (-BATCH / min(half_life, seen / 20))
        average = [kept * a + (1 - kept) * w for a, w in zip(average, live, strict=True)]
    for found, expected in zip(weights(module.ema_generator), average, strict=True):
        torch.testing.assert_close(found, expected)


def test_average_has_forgotten_its_start_when_a_half_life_of_images_has_not_passed():
    module = make(ema_half_life=10_000)
    with torch.no_grad():
        for parameter in module.ema_generator.parameters():
            parameter.fill_(1000.0)
    fit(module, 4)
    assert all(parameter.abs().max() < 10 for parameter in module.ema_generator.parameters())


def test_averages_buffers_are_the_generators():
    module = make()
    fit(module, 5)
    moved = dict(module.generator.named_buffers())
    assert moved["layers.1.num_batches_tracked"] > 0
    for name, buffer in module.ema_generator.named_buffers():
        assert torch.equal(buffer, moved[name])


def test_average_is_not_trained():
    module = make()
    optimizers = module.configure_optimizers()
    trained = {
        id(parameter) for optimizer in optimizers for group in optimizer.param_groups for parameter in group["params"]
    }
    assert trained == {id(p) for network in (module.generator, module.discriminator) for p in network.parameters()}
    assert not any(parameter.requires_grad for parameter in module.ema_generator.parameters())


@pytest.mark.filterwarnings("ignore:.*_norm.*is deprecated:FutureWarning")
@pytest.mark.parametrize("norm", [nn.utils.weight_norm, nn.utils.parametrizations.weight_norm])
@every_loss
def test_networks_with_weight_norm_are_trained_and_averaged(norm, name):
    loss, own = LOSSES[name]
    generator, discriminator = TinyGenerator(), TinyDiscriminator()
    norm(generator.layers[0])
    norm(discriminator.layers[1])
    generator.register_parameter("order", nn.Parameter(torch.arange(3), requires_grad=False))
    sgd = partial(torch.optim.SGD, lr=0.05)
    module = GANModule(generator, discriminator, sgd, sgd, loss, ema_half_life=1e-9, **own)
    biases = [generator.get_parameter("layers.0.bias"), discriminator.get_parameter("layers.1.bias")]
    starts = [bias.detach().clone() for bias in biases]
    trainer_of().fit(module, batches(2, size=BATCH * module.batches_per_iteration))
    assert differ(biases, starts)
    noise = torch.randn(2, 3)
    network: Any = generator
    generated = network.eval()(noise)
    torch.testing.assert_close(samples(module, noise), generated)  # an average that forgets at once


def test_forward_is_the_averaged_generator():
    module = make(ema_half_life=50)
    fit(module, 3)
    module.eval()
    noise = torch.randn(5, 3)
    torch.testing.assert_close(module(noise), module.ema_generator(noise))
    assert differ([module(noise)], [module.generator(noise)])


@pytest.mark.parametrize("num", [1, 5])
def test_an_iteration_is_one_step_of_each_optimizer(num):
    module, rows = make(), Rows()
    trainer = fit(module, num, logger=rows)
    assert module.num_iterations == num
    assert module.num_images == num * BATCH
    assert trainer.global_step == 2 * num
    for optimizer in trainer.optimizers:
        assert {int(state["step"]) for state in optimizer.state.values()} == {num}
    assert len([row for row in rows.rows if "train/loss_g" in row]) == num


def test_each_optimizer_moves_its_own_network():
    still = partial(torch.optim.SGD, lr=0.0)
    for position, (moving, resting) in enumerate([("generator", "discriminator"), ("discriminator", "generator")]):
        module = make()
        of_g, of_d = module.optimizer_factories
        module.optimizer_factories = (of_g, still) if position == 0 else (still, of_d)
        before = {name: weights(getattr(module, name)) for name in (moving, resting)}
        fit(module, 2)
        assert differ(weights(getattr(module, moving)), before[moving])
        assert not differ(weights(getattr(module, resting)), before[resting])


def test_discriminator_learns_to_tell_real_from_fake():
    rows = Rows()
    module = make()
    module.optimizer_factories = (partial(torch.optim.SGD, lr=0.0), module.optimizer_factories[1])
    real = torch.full((20 * BATCH, 3, 2, 2), 1.0) + 0.01 * torch.randn(20 * BATCH, 3, 2, 2)
    trainer_of(logger=rows).fit(module, batches(20, real))
    logits = [(row["train/logits_real"], row["train/logits_fake"]) for row in rows.rows if "train/loss_d" in row]
    assert logits[-1][0] > logits[-1][1] + 1
    assert logits[-1][0] - logits[-1][1] > logits[0][0] - logits[0][1]


def test_generator_learns_what_the_discriminator_likes():
    module = GANModule(
        TinyGenerator(),
        LinearDiscriminator(),
        partial(torch.optim.Adam, lr=0.1),
        partial(torch.optim.SGD, lr=0.0),
        BCE,
    )
    with torch.no_grad():
        module.discriminator.get_parameter("weight").fill_(1.0)
    before = samples(module, torch.randn(64, 3)).mean()
    fit(module, 12)
    assert samples(module, torch.randn(64, 3)).mean() > before + 0.3


@pytest.mark.parametrize("every, num, expected", [(1, 3, [0, 1, 2]), (4, 9, [0, 4, 8]), (3, 5, [0, 3])])
def test_penalties_are_taken_every_few_iterations_only(every, num, expected, monkeypatch):
    taken, module = [], make(penalty_every=every, r1_gamma=0.1)
    original = gan.zero_centred_penalty
    monkeypatch.setattr(
        gan, "zero_centred_penalty", lambda *args: taken.append(module.num_iterations) or original(*args)
    )
    fit(module, num)
    assert taken == expected


def test_penalties_of_weight_zero_are_never_taken(monkeypatch):
    monkeypatch.setattr(gan, "zero_centred_penalty", None)
    monkeypatch.setattr(gan, "one_centred_penalty", None)
    fit(make(), 2)


@pytest.mark.parametrize("every", [1, 4])
@pytest.mark.parametrize("r1, r2", [(0.0, 0.0), (0.1, 0.0), (0.0, 0.2), (0.1, 0.2)])
def test_penalties_shrink_a_linear_discriminators_weight_at_full_strength_whatever_their_interval(every, r1, r2):
    # On black images cross entropy has no gradient, and γ/2 ‖w‖² has γ w: a step leaves 1 - lr · interval · Σγ of w.
    sgd = partial(torch.optim.SGD, lr=0.5)
    settings = {"r1_gamma": r1, "r2_gamma": r2, "penalty_every": every}
    module = GANModule(BlackGenerator(), LinearDiscriminator(), sgd, sgd, BCE, **settings)
    before = weights(module.discriminator)[0]
    trainer_of().fit(module, batches(8, torch.zeros(8 * BATCH, 3, 2, 2)))
    expected = before * (1 - 0.5 * every * (r1 + r2)) ** (8 // every)
    torch.testing.assert_close(weights(module.discriminator)[0], expected)


def test_gradient_penalty_pulls_a_linear_discriminators_slope_to_one():
    # λ (‖w‖ - 1)² has the gradient 2 λ (‖w‖ - 1) w / ‖w‖, whatever the images.
    sgd = partial(torch.optim.SGD, lr=0.01)
    module = GANModule(BlackGenerator(), LinearDiscriminator(), sgd, sgd, BCE, gp_weight=10.0)
    (before,) = weights(module.discriminator)
    trainer_of().fit(module, batches(1, torch.zeros(BATCH, 3, 2, 2)))
    slope = before.norm()
    expected = before * (1 - 0.01 * 20 * (slope - 1) / slope)
    torch.testing.assert_close(weights(module.discriminator)[0], expected)


def test_a_schedule_sets_the_penalty_and_the_optimizers_by_the_images_seen():
    schedules = {"lr": Cosine(0.1, 0.0, 3 * BATCH), "beta2": Cosine(0.9, 0.99, 3 * BATCH)}
    module, seen = make(schedules=schedules, r1_gamma=Cosine(2.0, 0.2, 3 * BATCH)), []

    def look(trainer, module):
        seen.append([(group["lr"], *group["betas"]) for o in trainer.optimizers for group in o.param_groups])

    fit(module, 4, Each(look))
    shares = [0.5 + 0.5 * np.cos(np.pi * i / 3) for i in range(4)]
    assert np.allclose(seen, [[(0.1 * w, 0.5, 0.99 - 0.09 * w)] * 2 for w in shares])


def test_a_step_in_parts_is_the_step_of_the_whole(monkeypatch):
    # Of networks without batch norm, on the mean of a loss.
    moved = []
    for parts in (1, 2, 4):
        module = module_of("r3gan", accumulate=parts)
        module.generator.set_submodule("layers.1", nn.Identity())
        module.ema_generator = copy.deepcopy(module.generator)
        numbers = iter(torch.randn(2, BATCH, 3, generator=torch.Generator().manual_seed(5)).split(1))
        whole = [next(numbers)[0], next(numbers)[0]]
        draws = [part for noise in whole for part in noise.chunk(parts)]
        monkeypatch.setattr(module, "draw", lambda *_, draws=draws: draws.pop(0))
        trainer_of().fit(module, batches(1, torch.linspace(-1, 1, 24 * BATCH).view(2 * BATCH, 3, 2, 2), size=2 * BATCH))
        moved.append(weights(module.generator) + weights(module.discriminator))
    for other in moved[1:]:
        for one, two in zip(moved[0], other, strict=True):
            torch.testing.assert_close(one, two)


@pytest.mark.parametrize("bound", [1e-3, 1e9])
def test_gradients_are_bounded_by_their_norm(bound):
    module, norms = make(clip_norm=bound), []

    class BeforeStep(Callback):
        def on_before_optimizer_step(self, trainer, pl_module, optimizer):
            gradients = [p.grad for group in optimizer.param_groups for p in group["params"]]
            norms.append(torch.cat([gradient.flatten() for gradient in gradients]).norm().item())

    fit(module, 2, BeforeStep())
    assert len(norms) == 4
    assert all(norm == pytest.approx(bound, rel=1e-3) for norm in norms) == (bound < 1)


def test_regularizers_are_added_to_the_generators_loss_only():
    seen = []

    def brightness(generator, noise, images):
        seen.append((generator, noise.shape, images.shape))
        return 1000 * images.mean()

    rows, module = Rows(), make(regularizers={"brightness": brightness})
    trainer_of(logger=rows).fit(module, batches(8))
    assert all(generator is module.generator for generator, *_ in seen)
    assert {shapes for _, *shapes in map(tuple, seen) for shapes in [tuple(shapes)]} == {((BATCH, 3), (BATCH, 3, 2, 2))}
    assert "train/brightness" in rows.rows[0]
    assert samples(module, torch.randn(64, 3)).mean() < -0.1


def test_condition_is_the_end_of_the_noise_and_projected_by_the_discriminator():
    class Told(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(12, 3)

        def forward(self, images):
            return self.layer(images.flatten(1))

    torch.manual_seed(0)
    adam = partial(torch.optim.Adam, lr=0.01)
    discriminator = Told()
    module = GANModule(TinyGenerator(z_dim=6), discriminator, adam, adam, BCE, condition=["Smiling", "age"])
    noises, original = [], module.draw_noise
    module.draw_noise = lambda targets, draw=None: noises.append((targets, original(targets))) or noises[-1][1]
    targets = torch.rand(2 * BATCH, 2, generator=torch.Generator().manual_seed(2))
    trainer_of().fit(module, batches(2, targets=targets))
    assert len(noises) == 4
    for wanted, noise in noises:
        assert noise.shape == (BATCH, 6)
        assert torch.equal(noise[:, 4:], wanted)
    images, layer = torch.randn(BATCH, 3, 2, 2), discriminator.layer
    # ψ(φ) + cᵀVφ, V being the last layer's rows behind the first, c around its mean and over √2.
    assert isinstance(module.generator, ConditionalGenerator)
    module.generator.examples.copy_(torch.tensor([0.25, -1.0]))
    told = (targets[:BATCH] - torch.tensor([0.25, -1.0])) / 2**0.5
    rows = layer.weight[0] + told @ layer.weight[1:]
    expected = (rows * images.flatten(1)).sum(dim=1) + layer.bias[0] + told @ layer.bias[1:]
    torch.testing.assert_close(module.discriminate(module.discriminator, images, targets[:BATCH]), expected)


def test_condition_leaves_room_for_noise():
    with pytest.raises(ValueError, match="gan.condition has 3 names, which must be fewer than the generator's z_dim=3"):
        make(condition=["Smiling", "Male", "Young"])


@every_loss
def test_each_loss_trains_both_networks_and_logs_its_terms(name):
    rows, module = Rows(), module_of(name)
    before = weights(module.generator), weights(module.discriminator)
    size = BATCH * (module.discriminator_steps + module.loss.paired)
    trainer_of(logger=rows).fit(module, batches(3, size=size))
    assert differ(weights(module.generator), before[0]) and differ(weights(module.discriminator), before[1])
    assert module.num_images == 3 * BATCH * module.discriminator_steps
    penalties = {"bce": {"r1"}, "hinge": set(), "wgan_gp": {"gp"}, "r3gan": {"r1", "r2"}}[name]
    terms = {"loss_g", "loss_d", "logits_real", "logits_fake", "lr_g", "lr_d"} | penalties
    assert {key.removeprefix("train/") for key in rows.rows[0] if key.startswith("train/")} == terms


def test_each_discriminator_step_has_images_of_its_own_and_a_paired_generator_too():
    module, seen = module_of("r3gan", discriminator_steps=2), []
    original = module.discriminate
    module.discriminate = lambda network, images, targets: (
        seen.append(images.detach()) or original(network, images, targets)
    )
    images = torch.rand(3 * BATCH, 3, 2, 2)
    trainer_of().fit(module, batches(1, images, size=3 * BATCH))
    real = [batch for batch in seen if any(torch.equal(batch, part) for part in images.split(BATCH))]
    assert len(real) == 3 and all(torch.equal(a, b) for a, b in zip(real, images.split(BATCH), strict=True))


@pytest.mark.filterwarnings("ignore:.*attribute of a Tensor that is not a leaf.*:UserWarning")  # inside of dynamo
def test_compiled_networks_have_the_gradients_of_eager_ones(monkeypatch):
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))  # needs no C++ compiler
    states = []
    for compiled in (False, True):
        module = module_of("bce", compiled=compiled)
        fit(module, 3)
        states.append(module.state_dict())
    assert states[0].keys() == states[1].keys()
    for name, tensor in states[0].items():
        torch.testing.assert_close(states[1][name], tensor, rtol=1e-4, atol=1e-5)


def test_discriminator_can_be_trained_on_after_each_batch():
    module, states = make(), []
    fit(module, 3, Each(lambda _, module: states.append([p.requires_grad for p in module.discriminator.parameters()])))
    assert states == [[True] * 4] * 3


def test_generators_step_leaves_no_gradients_in_the_discriminator():
    module, gradients = make(), []

    def compare(trainer, module):
        gradients.append([p.grad.clone() for p in module.discriminator.parameters()])

    class BeforeG(Callback):
        def on_before_optimizer_step(self, trainer, pl_module, optimizer):
            compare(trainer, pl_module)

    fit(module, 1, BeforeG(), Each(compare))
    of_d, at_g, at_end = gradients
    assert not differ(of_d, at_g) and not differ(of_d, at_end)


def drawn(seed=0, rank=0, world_size=1, num=6):
    module = make(seed=seed)
    module.seed = seed
    vars(module)["_trainer"] = SimpleNamespace(world_size=world_size, global_rank=rank)
    return module.draw_noise(torch.zeros(num, 1))


def test_noise_differs_between_ranks_and_seeds():
    one = drawn(rank=0, world_size=2)
    assert not torch.equal(one, drawn(rank=1, world_size=2))
    assert not torch.equal(one, drawn(seed=5, world_size=2))


def test_noise_is_the_same_however_many_ranks_share_it():
    assert torch.equal(drawn(num=6), torch.cat([drawn(rank=rank, world_size=3, num=2) for rank in range(3)]))


def test_noise_is_reproducible():
    one = drawn(seed=7)
    torch.manual_seed(123)
    assert torch.equal(one, drawn(seed=7))


def test_noise_is_new_at_each_draw_and_iteration_and_standard_normal():
    module = make()
    targets = torch.zeros(4000, 0)
    one, other = module.draw_noise(targets), module.draw_noise(targets)
    module.num_iterations, module._draws = 1, 0
    later = module.draw_noise(targets)
    assert not torch.equal(one, other) and not torch.equal(one, later) and not torch.equal(other, later)
    assert one.shape == (4000, 3)
    assert abs(one.mean().item()) < 4 / 12_000**0.5
    assert one.std().item() == pytest.approx(1, abs=0.03)


def test_training_is_reproducible():
    finals = []
    for _ in range(2):
        module = make()
        fit(module, 3)
        finals.append(weights(module))
    assert all(torch.equal(a, b) for a, b in zip(*finals, strict=True))


PLAIN = (int, float, str, bool, type(None), torch.Tensor)


def not_plain(content, path="checkpoint"):
    """Where in a checkpoint there is something other than plain containers, numbers, strings and tensors."""
    if isinstance(content, dict):
        return [place for key, value in content.items() for place in not_plain(value, f"{path}[{key!r}]")]
    if type(content) in (list, tuple):
        return [place for i, value in enumerate(content) for place in not_plain(value, f"{path}[{i}]")]
    return [] if type(content) in PLAIN else [path]


@pytest.fixture
def saved(tmp_path):
    module = make()
    fit(module, 3).save_checkpoint(tmp_path / "last.ckpt")
    return tmp_path / "last.ckpt", module


def test_checkpoint_holds_plain_types_only_and_loads_safely(saved):
    content = torch.load(saved[0], weights_only=True)
    assert not_plain(content) == []


def test_checkpoints_average_loads_as_a_generator(saved):
    path, module = saved
    network = load_weights(TinyGenerator(), path, "ema_generator", "generator")
    assert not differ(weights(network), weights(module.ema_generator))


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    """A store of random images of 2×2 pixels."""

    def fill(indices):
        images = np.random.default_rng(0).integers(0, 256, (100, 3, 2, 2), np.uint8)
        return images[indices], np.zeros((len(indices), 1), np.float32)

    folder = tmp_path_factory.mktemp("faces") / "store"
    build_store(folder, fill, np.zeros(30, int), ["none"], "random2", {}, size=2)
    return partial(FaceData, root=folder, batch_size=BATCH, flip=True)


def test_resumed_module_goes_on_counting_and_drawing(faces, tmp_path):
    at_save, at_start = {}, {}

    def state(module):
        module._draws = 0
        noise = module.draw_noise(torch.zeros(5, 1))
        return {"images": module.num_images, "noise": noise, "weights": weights(module)}

    def save(trainer, module):
        if module.num_iterations == 2:
            trainer.save_checkpoint(tmp_path / "part.ckpt")
            at_save.update(state(module))

    class Look(Callback):
        def on_train_start(self, trainer, pl_module):
            at_start.update(state(pl_module))

    trainer_of(Each(save)).fit(make(), faces(max_images=3 * BATCH))
    resumed = make(seed=9)
    trainer_of(Look()).fit(resumed, faces(max_images=3 * BATCH), ckpt_path=tmp_path / "part.ckpt")
    assert at_start["images"] == at_save["images"] == 2 * BATCH
    assert torch.equal(at_start["noise"], at_save["noise"])
    assert not differ(at_start["weights"], at_save["weights"])


@every_loss
@pytest.mark.parametrize("stop", [1, 3, 5])
def test_resumed_training_equals_training_without_a_break(name, stop, faces, tmp_path):
    def save(trainer, module):
        if module.num_iterations == stop:
            trainer.save_checkpoint(tmp_path / "part.ckpt")

    def blurred(images):
        return images + 0.1 * torch.randn_like(images)

    settings = {"augment": blurred, "schedules": {"lr": Cosine(0.1, 0.01, 20)}, "ema_half_life": Cosine(0.0, 50.0, 20)}
    whole, resumed = (module_of(name, seed, **settings) for seed in (0, 4))
    resumed.seed = whole.seed
    for module, path in ((whole, None), (resumed, tmp_path / "part.ckpt")):
        data = faces(max_images=6 * BATCH * module.discriminator_steps)
        module.feed_from(data)
        torch.manual_seed(hash(path) % 1000)  # of which nothing may depend
        callbacks = [SeededSteps(0)] if path else [SeededSteps(0), Each(save)]
        trainer_of(*callbacks).fit(module, data, ckpt_path=path)
    assert resumed.num_iterations == whole.num_iterations == 6
    for key, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[key]), key


class Head(nn.Module):
    def __init__(self, n_classes):
        super().__init__()
        self.layer = nn.Linear(12, n_classes)

    def forward(self, images):
        return self.layer(images.flatten(1))


def looks(folder):
    """A classifier's section that looks at the pixels as they are."""
    layers = [{"_target_": "torch.nn.Flatten"}, {"_target_": "torch.nn.Linear", "in_features": 12, "out_features": 2}]
    save_weights(nn.Sequential(nn.Flatten(), nn.Linear(12, 2)), folder / "classifier.safetensors", {})
    section = {"network": {"_target_": "torch.nn.Sequential", "_args_": layers}, "attributes": ["Smiling", "Male"]}
    return section | {"checkpoint": str(folder / "classifier.safetensors"), "checkpoint_key": None}


REGULARIZERS = {
    "infogan": lambda _: InfoGAN(Head, num_gaussian=1, categories=[2]),
    "hessian_penalty": lambda _: HessianPenalty(),
    "orojar": lambda _: OrthogonalJacobian(),
    "supervised": lambda folder: Supervised(looks(folder), indices={"Male": 1}),
}
OPTIONS = {
    **{name: lambda folder, name=name: {"regularizers": {name: REGULARIZERS[name](folder)}} for name in REGULARIZERS},
    "description": lambda folder: {"description": Description(looks(folder), layers=2, width=4, num_steps=20)},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_a_resumed_training_with_an_option_equals_one_without_a_break(name, faces, tmp_path):
    def save(trainer, module):
        if module.num_iterations == 3:
            trainer.save_checkpoint(tmp_path / "part.ckpt")

    torch.manual_seed(1)
    whole, resumed = (make(seed, **OPTIONS[name](tmp_path), clip_norm=1.0) for seed in (0, 4))
    resumed.seed = whole.seed
    first = weights(whole.trained_regularizers)
    for module, path in ((whole, None), (resumed, tmp_path / "part.ckpt")):
        data = faces(max_images=6 * BATCH)
        module.feed_from(data)
        module.prepare(data, fresh=path is None)
        callbacks = [SeededSteps(0)] if path else [SeededSteps(0), Each(save)]
        trainer_of(*callbacks).fit(module, data, ckpt_path=path)
    for key, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[key]), key
    assert differ(weights(whole.trained_regularizers), first) == (name == "infogan")


def test_no_two_regularizers_give_a_number_its_meaning(faces, tmp_path):
    both = {"infogan": REGULARIZERS["infogan"](tmp_path), "supervised": REGULARIZERS["supervised"](tmp_path)}
    with pytest.raises(ValueError, match="gan.regularizers.supervised and infogan both give number 1 of the noise a"):
        make(0, regularizers=both).prepare(faces(max_images=BATCH))


def test_a_regularizers_weight_may_follow_a_schedule():
    class Brightness:
        weight: Any = Cosine(0.0, 1000.0, 10 * BATCH)

        def __call__(self, generator, noise, images):
            return images.mean()

    module = make(regularizers={"brightness": Brightness()})
    untold = torch.zeros(BATCH, 0)
    without, _ = make().generator_loss(torch.zeros(BATCH, 3, 2, 2), untold)
    for images, weight in ((0, 0.0), (5 * BATCH, 500.0), (20 * BATCH, 1000.0)):
        module.num_images, module._draws = images, 0
        loss, terms = module.generator_loss(torch.zeros(BATCH, 3, 2, 2), untold)
        torch.testing.assert_close(loss, without + weight * terms["brightness"], rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match="gan.regularizers.brightness.weight=-1 must be a finite number, 0 or more"):
        Brightness.weight = -1
        make(regularizers={"brightness": Brightness()})


def test_samples_leave_the_average_in_its_mode():
    module = make()
    for training in (True, False):
        module.ema_generator.train(training)
        buffers = copy.deepcopy(dict(module.ema_generator.named_buffers()))
        images = samples(module, torch.randn(5, 3))
        assert module.ema_generator.training == training
        assert not images.requires_grad
        assert all(torch.equal(buffer, buffers[name]) for name, buffer in module.ema_generator.named_buffers())


def test_a_sample_does_not_depend_on_the_others():
    module, noise = make(), torch.randn(5, 3)
    torch.testing.assert_close(samples(module, noise)[:1], samples(module, noise[:1]))


@pytest.mark.parametrize("every, num, expected", [(8, 6, [4, 8, 16, 24]), (5, 4, [4, 8, 12, 16]), (1000, 3, [4])])
def test_grids_are_drawn_at_the_first_batch_and_every_so_many_images(every, num, expected, tmp_path, monkeypatch):
    drawn_at, module = [], make()
    grid = SampleGrid(tmp_path, every_images=every, num_samples=4)
    original = grid.act
    monkeypatch.setattr(grid, "act", lambda *args: drawn_at.append(module.num_images) or original(*args))
    fit(module, num, grid)
    assert drawn_at == sorted({*expected, num * BATCH})  # and one more at the end
    resumed = SampleGrid(tmp_path, every_images=every, num_samples=4)
    resumed.load_state_dict(grid.state_dict())
    assert resumed.next_at == grid.next_at > num * BATCH
    assert (tmp_path / "samples.png").is_file()
    sooner = SampleGrid(tmp_path, every_images=4, num_samples=4)
    sooner.load_state_dict(grid.state_dict())
    sooner.on_train_start(Trainer(logger=False, enable_checkpointing=False), module)
    assert sooner.next_at == (num + 1) * BATCH


@pytest.mark.parametrize(
    ("key", "setting"),
    [
        ("gp_weight", Cosine(10.0, 1.0, 100)),
        ("augment", lambda images: images),
        ("regularizers", {"penalty": HessianPenalty()}),
    ],
)
def test_what_a_captured_step_would_repeat_is_refused(key, setting):
    with pytest.raises(ValueError, match=f"gan.cuda_graphs=true would repeat what gan.{key} does at first; leave one"):
        make(cuda_graphs=True, **{key: setting})


def test_steps_are_captured_on_one_gpu_only():
    with pytest.raises(ValueError, match="gan.cuda_graphs=true needs one CUDA GPU, as of trainer=gpu; leave it out"):
        check_one_gpu(trainer_of())
