import copy
from functools import partial

import numpy as np
import pytest
import torch
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.loggers import Logger
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from zsteer import gan
from zsteer.callbacks import SampleGrid, samples
from zsteer.checkpoints import load_weights
from zsteer.data import FaceData
from zsteer.gan import GANModule
from zsteer.store import build_store

BATCH = 4


class TinyGenerator(nn.Module):
    """Images of 2×2 pixels, with a batch norm."""

    def __init__(self, z_dim=3):
        super().__init__()
        self.z_dim = z_dim
        self.layers = nn.Sequential(nn.Linear(z_dim, 12), nn.BatchNorm1d(12), nn.Tanh())

    def forward(self, noise):
        return self.layers(noise).view(-1, 3, 2, 2)


class TinyDiscriminator(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(12, 6), nn.Tanh(), nn.Linear(6, 1))

    def forward(self, images):
        return self.layers(images).flatten()


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

    name = version = "rows"

    def log_metrics(self, metrics, step=None):
        self.rows.append(dict(metrics))

    def log_hyperparams(self, *_, **__):
        pass


def make(seed=0, **settings):
    torch.manual_seed(seed)
    adam = partial(torch.optim.Adam, lr=0.05, betas=(0.5, 0.99))
    return GANModule(TinyGenerator(), TinyDiscriminator(), adam, adam, **settings)


def batches(num, images=None):
    """A loader of `num` batches of images and labels."""
    if images is None:
        images = torch.rand(num * BATCH, 3, 2, 2, generator=torch.Generator().manual_seed(1)) * 2 - 1
    dataset = TensorDataset(images, torch.zeros(num * BATCH, 1))
    return DataLoader(dataset, sampler=torch.arange(num * BATCH).split(BATCH), batch_size=None, collate_fn=tuple)


def trainer_of(*callbacks, logger=False, **settings):
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

    def on_train_batch_end(self, trainer, module, *_):
        self.function(trainer, module)


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
        factories = list(module.optimizer_factories)
        factories[1 - position] = still
        module.optimizer_factories = tuple(factories)
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
    )
    with torch.no_grad():
        module.discriminator.weight.fill_(1.0)
    before = samples(module, torch.randn(64, 3)).mean()
    fit(module, 12)
    assert samples(module, torch.randn(64, 3)).mean() > before + 0.3


@pytest.mark.parametrize("every, num, expected", [(1, 3, [0, 1, 2]), (4, 9, [0, 4, 8]), (3, 5, [0, 3])])
def test_r1_is_taken_every_few_iterations_only(every, num, expected, monkeypatch):
    taken, module = [], make(r1_every=every)
    original = gan.r1_penalty
    monkeypatch.setattr(gan, "r1_penalty", lambda *args: taken.append(module.num_iterations) or original(*args))
    fit(module, num)
    assert taken == expected


def test_r1_of_gamma_zero_is_never_taken(monkeypatch):
    monkeypatch.setattr(gan, "r1_penalty", None)
    fit(make(r1_gamma=0.0, r1_every=1), 2)


@pytest.mark.parametrize("every", [1, 4])
@pytest.mark.parametrize("gamma", [0.0, 0.1])
def test_r1_shrinks_a_linear_discriminators_weight_at_its_full_strength_whatever_its_interval(every, gamma):
    # On black images cross entropy has no gradient, and γ/2 ‖w‖² has γ w: a step leaves 1 - lr · interval · γ of w.
    module = GANModule(
        BlackGenerator(),
        LinearDiscriminator(),
        partial(torch.optim.SGD, lr=0.5),
        partial(torch.optim.SGD, lr=0.5),
        r1_gamma=gamma,
        r1_every=every,
    )
    before = weights(module.discriminator)[0]
    trainer_of().fit(module, batches(8, torch.zeros(8 * BATCH, 3, 2, 2)))
    expected = before * (1 - 0.5 * every * gamma) ** (8 // every)
    torch.testing.assert_close(weights(module.discriminator)[0], expected)


def test_discriminator_can_be_trained_on_after_each_batch():
    module, states = make(), []
    fit(module, 3, Each(lambda _, module: states.append([p.requires_grad for p in module.discriminator.parameters()])))
    assert states == [[True] * 4] * 3


def test_generators_step_leaves_no_gradients_in_the_discriminator():
    module, gradients = make(), []

    def compare(trainer, module):
        gradients.append([p.grad.clone() for p in module.discriminator.parameters()])

    class BeforeG(Callback):
        def on_before_optimizer_step(self, trainer, module, optimizer):
            gradients.append([p.grad.clone() for p in module.discriminator.parameters()])

    fit(module, 1, BeforeG(), Each(compare))
    of_d, at_g, at_end = gradients
    assert not differ(of_d, at_g) and not differ(of_d, at_end)


def drawn(rank, seed, monkeypatch, num=6):
    monkeypatch.setattr(GANModule, "global_rank", property(lambda _: rank))
    module = make(seed=seed)
    module.seed = seed
    module.on_fit_start()
    return module.draw_noise(num)


def test_noise_differs_between_ranks_and_seeds(monkeypatch):
    one = drawn(0, 0, monkeypatch)
    assert not torch.equal(one, drawn(1, 0, monkeypatch))
    assert not torch.equal(one, drawn(0, 5, monkeypatch))


@pytest.mark.parametrize("rank", [0, 3])
def test_noise_is_reproducible(rank, monkeypatch):
    one = drawn(rank, 7, monkeypatch)
    torch.manual_seed(123)
    assert torch.equal(one, drawn(rank, 7, monkeypatch))


def test_noise_is_new_at_each_draw_and_standard_normal(monkeypatch):
    monkeypatch.setattr(GANModule, "global_rank", property(lambda _: 0))
    module = make()
    module.on_fit_start()
    one, other = module.draw_noise(4000), module.draw_noise(4000)
    assert not torch.equal(one, other)
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
        return {"images": module.num_images, "noise": module.draw_noise(5), "weights": weights(module)}

    def save(trainer, module):
        if module.num_iterations == 2:
            trainer.save_checkpoint(tmp_path / "part.ckpt")
            at_save.update(state(module))

    class Look(Callback):
        def on_train_start(self, trainer, module):
            at_start.update(state(module))

    trainer_of(Each(save)).fit(make(), faces(max_images=3 * BATCH))
    trainer_of(Look()).fit(make(seed=9), faces(max_images=3 * BATCH), ckpt_path=tmp_path / "part.ckpt")
    assert at_start["images"] == at_save["images"] == 2 * BATCH
    assert torch.equal(at_start["noise"], at_save["noise"])
    assert not differ(at_start["weights"], at_save["weights"])


@pytest.mark.parametrize("stop", [1, 2, 5])
def test_resumed_training_equals_training_without_a_break(stop, faces, tmp_path):
    def save(trainer, module):
        if module.num_iterations == stop:
            trainer.save_checkpoint(tmp_path / "part.ckpt")

    whole, resumed = make(r1_every=2), make(seed=4, r1_every=2)
    trainer_of(Each(save)).fit(whole, faces(max_images=6 * BATCH))
    trainer_of().fit(resumed, faces(max_images=6 * BATCH), ckpt_path=tmp_path / "part.ckpt")
    assert resumed.num_iterations == whole.num_iterations == 6
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name


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
    original = grid._draw
    monkeypatch.setattr(grid, "_draw", lambda *args: drawn_at.append(module.num_images) or original(*args))
    fit(module, num, grid)
    assert drawn_at == [*expected, num * BATCH]  # and one more at the end
    assert (tmp_path / "samples.png").is_file()
