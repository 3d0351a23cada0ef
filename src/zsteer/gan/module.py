"""GAN training: the LightningModule that alternates discriminator and generator steps, and the generator's average."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
import torch
from jaxtyping import Float
from pytorch_lightning import LightningModule
from pytorch_lightning.core.optimizer import LightningOptimizer
from torch import Tensor, nn

from zsteer.data.faces import FaceData
from zsteer.data.streams import random_source
from zsteer.gan.cuda_graphs import CapturedStep, Draw, check_capturable
from zsteer.gan.description import Description
from zsteer.gan.flows import fit
from zsteer.gan.losses import AdversarialLoss, one_centred_penalty, zero_centred_penalty
from zsteer.gan.regularizers import Prepared, Regularizer
from zsteer.gan.schedules import Cosine, Setting, value
from zsteer.networks.conditional import ConditionalGenerator, condition_of, conditioned
from zsteer.networks.described import DescribedGenerator, described
from zsteer.networks.inference import channels_last, copied, noise_of, z_dim_of
from zsteer.optimizers import OptimizerFactory
from zsteer.settings import real_number, whole_number

SCHEDULED = ("lr", "beta2")

Terms = dict[str, Tensor]


class GANModule(LightningModule):
    """Any adversarial loss with any gradient penalty, and an exponential moving average (EMA) of the generator.

    One batch of the loader is one iteration: as many discriminator steps as asked for, each on real images of its own,
    then a generator step. Lightning's `global_step` counts them all; settings count iterations or images.

    All random numbers are a function of (seed, iteration), and each rank takes its share of them: so the noise differs
    between ranks, and neither their number nor an interruption changes what is drawn.

    Args:
        r1_gamma, r2_gamma: γ of γ/2 · ‖∇D(x)‖² on real and on generated images (Mescheder et al. 2018); 0 takes none.
        gp_weight: λ of λ · (‖∇D(x)‖ − 1)² between real and generated images (Gulrajani et al. 2017).
        penalty_every: the penalties are taken every so many iterations, that many times as strong (Karras et al. 2020).
        discriminator_steps: before each generator step.
        accumulate: parts in which the images of a step pass through the networks, to save memory.
        clip_norm: bound on the norm of each network's gradient; null leaves it as it is.
        ema_half_life: images after which a weight's share in the average has halved; at first a twentieth of the images
            seen so far, so that the average does not show its start for long.
        schedules: of the optimizers' `lr` and `beta2`, which are otherwise the optimizers' own.
        regularizers: terms to be added to the generator's loss, by name, each times its weight.
        condition: names of the data's targets that both networks are told: the generator at the end of its noise, whose
            `z_dim` counts them, the discriminator by projection (see `zsteer.networks`).
        description: of the real images, which both networks are told in the same way; afterwards the generator draws it
            from standard normal noise.
        augment: of the images that the discriminator sees, real and generated; differentiable.
        compiled: compile the networks where no penalty differentiates a gradient, which compiled code cannot do.
        cuda_graphs: capture each loss's kernels, with those of its gradients, and launch them together; on one GPU.
        seed: of the random numbers.

    Raises:
        ValueError: a setting out of range, or one that another would override.
    """

    generator: nn.Module

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module,
        optimizer_g: OptimizerFactory,
        optimizer_d: OptimizerFactory,
        loss: AdversarialLoss,
        r1_gamma: Setting = 0.0,
        r2_gamma: Setting = 0.0,
        gp_weight: Setting = 0.0,
        penalty_every: int = 1,
        discriminator_steps: int = 1,
        accumulate: int = 1,
        clip_norm: int | float | None = None,
        ema_half_life: Setting = 10_000,
        schedules: Mapping[str, Cosine] | None = None,
        regularizers: Mapping[str, Regularizer] | None = None,
        condition: str | Sequence[str] = (),
        description: Description | None = None,
        augment: Callable[[Tensor], Tensor] | None = None,
        compiled: bool = False,
        cuda_graphs: bool = False,
        seed: int = 0,
    ):
        super().__init__()
        self.automatic_optimization = False
        self.z_dim = z_dim_of(generator)
        for key, count in (
            ("discriminator_steps", discriminator_steps),
            ("penalty_every", penalty_every),
            ("accumulate", accumulate),
        ):
            whole_number(count, f"gan.{key}", 1)
        for key, weight in (("r1_gamma", r1_gamma), ("r2_gamma", r2_gamma), ("gp_weight", gp_weight)):
            if not isinstance(weight, Cosine):
                real_number(weight, f"gan.{key}", minimum=0.0)
        if not isinstance(ema_half_life, Cosine):
            real_number(ema_half_life, "gan.ema_half_life", above=0.0)
        if clip_norm is not None:
            real_number(clip_norm, "gan.clip_norm", above=0.0)
        for name, regularizer in (regularizers or {}).items():
            if not isinstance(weight := getattr(regularizer, "weight", 1.0), Cosine):
                real_number(weight, f"gan.regularizers.{name}.weight", minimum=0.0)
        _check_schedules(schedules or {}, optimizer_g, optimizer_d)
        if cuda_graphs:
            frozen_in = {"r1_gamma": r1_gamma, "r2_gamma": r2_gamma, "gp_weight": gp_weight}
            check_capturable(frozen_in | {"regularizers": regularizers, "augment": augment})
        generator = conditioned(generator, condition)
        if description is not None:
            if condition_of(generator):
                raise ValueError("gan.description says what gan.condition says; keep one of them")
            generator = described(generator, len(description.names), description.layers, description.width)
        self.generator, self.discriminator = channels_last(generator), channels_last(discriminator)
        self.ema_generator = copied(self.generator).requires_grad_(False)
        self.optimizer_factories = (optimizer_g, optimizer_d)
        self.loss = loss
        self.r1_gamma, self.r2_gamma, self.gp_weight, self.penalty_every = r1_gamma, r2_gamma, gp_weight, penalty_every
        self.discriminator_steps, self.accumulate, self.clip_norm = discriminator_steps, accumulate, clip_norm
        self.ema_half_life, self.schedules = ema_half_life, dict(schedules or {})
        self.regularizers, self.augment = dict(regularizers or {}), augment
        self.trained_regularizers = nn.ModuleDict(
            {name: part for name, part in self.regularizers.items() if isinstance(part, nn.Module)}
        )
        self.description = description
        self.num_conditions = len(condition_of(generator) if description is None else description.names)
        self.seed = seed
        self.num_iterations = 0
        self.num_images = 0  # real ones that the discriminator was trained on
        self._draws = 0
        self.cuda_graphs = cuda_graphs
        self._captured: dict[tuple[str, bool], CapturedStep] = {}
        # Beside the submodules, so that checkpoints keep the networks' own names.
        networks = (self.told_generator, self.discriminator)
        self._fast = tuple(torch.compile(network) for network in networks) if compiled else networks

    def feed_from(self, data: FaceData) -> None:
        """Have a training step's batch hold the real images of all its steps.

        Raises:
            ValueError: they cannot be divided into the parts that `accumulate` asks for.
        """
        if data.batch_size % self.accumulate:
            raise ValueError(f"gan.accumulate={self.accumulate} must divide data.batch_size={data.batch_size}")
        if condition_of(self.generator):
            data.attributes, data.attributes_key = condition_of(self.generator), "gan.condition"
        data.extra_batches = int(self.loss.paired)
        data.batches_per_step = self.batches_per_iteration

    def prepare(self, data: FaceData, fresh: bool = True) -> None:
        """Have regularizers and description see the data, and a generator keep what it needs of them for its prior.

        Args:
            fresh: no checkpoint follows that has what a generator keeps of the data.

        Raises:
            ValueError: they do not fit, or some of the conditions are missing.
        """
        first_told = self.z_dim - self.num_conditions
        taken = dict.fromkeys(range(first_told, self.z_dim), "description") if self.description is not None else {}
        for name, regularizer in self.regularizers.items():
            for number in sorted(getattr(regularizer, "numbers", ())):
                if number in taken:
                    raise ValueError(
                        f"gan.regularizers.{name} and {taken[number]} both give number {number} of the noise a "
                        "meaning; leave it to one of them"
                    )
                taken[number] = name
        for regularizer in self.regularizers.values():
            if isinstance(regularizer, Prepared):
                regularizer.prepare(self.told_generator, data)
        if self.description is not None:
            self.description.prepare(data)
            if fresh:
                self._fit_flow(self.description, data)
        if not condition_of(self.generator):
            return
        targets = data.train_targets()
        for name, values in zip(data.names, targets.T, strict=True):
            if (values == values[0]).all():
                raise ValueError(f"gan.condition: {name} is {values[0]:g} in all training images; leave it out")
        for name, missing in zip(data.names, np.isnan(targets).sum(axis=0).tolist(), strict=True):
            if missing:
                raise ValueError(
                    f"gan.condition: {name} is missing in {missing} training images; complete the data, or leave it out"
                )
        for generator in (self.generator, self.ema_generator):
            assert isinstance(generator, ConditionalGenerator)
            generator.learn(targets, [data.scales.get(name, (0.0, 1.0)) for name in data.names])

    def on_fit_start(self) -> None:
        self._captured.clear()  # they are of the weights that an earlier fit has moved away

    def _fit_flow(self, description: Description, data: FaceData) -> None:
        """Have descriptions drawn as they are in the data."""
        assert isinstance(self.generator, DescribedGenerator) and isinstance(self.ema_generator, DescribedGenerator)
        fit(self.generator.flow, description.of_all(data), description.num_steps, description.dropout, self.seed)
        self.ema_generator.flow.load_state_dict(self.generator.flow.state_dict())

    @property
    def told_generator(self) -> nn.Module:
        """The generator as it is trained: told the description of a real image, and not drawing one."""
        if self.description is None:
            return self.generator
        assert isinstance(self.generator, DescribedGenerator)
        return self.generator.network

    def forward(self, noise: Float[Tensor, "n z_dim"]) -> Float[Tensor, "n c h w"]:
        """Images in [-1, 1] of the averaged generator."""
        return self.ema_generator(noise)

    def draw(self, num: int, sample: Callable[..., Tensor], *shape: int) -> Tensor:
        """This rank's `[num, *shape]` of the random numbers of all ranks; the next of them at each call."""
        source = random_source(self.seed, self.num_iterations, 2, self._draws)
        self._draws += 1
        # The private attribute, because `trainer` raises where there is none.
        world_size = 1 if self._trainer is None else self._trainer.world_size
        pinned = self.device.type == "cuda"  # or copying would wait for what the GPU still has to do
        numbers = sample(num * world_size, *shape, generator=source, pin_memory=pinned)
        numbers = numbers[self.global_rank * num :][:num]
        return numbers.to(self._a_weight, non_blocking=True)

    @property
    def _a_weight(self) -> Tensor:
        """One of the generator's, whose type and device its noise has; not a whole number, say."""
        return next(weight for weight in self.generator.parameters() if weight.is_floating_point())

    def told_of(self, images: Float[Tensor, "n c h w"], targets: Float[Tensor, "n t"]) -> Float[Tensor, "n k"]:
        """What both networks are told of real images: the condition, their description, or nothing."""
        return targets[:, : self.num_conditions] if self.description is None else self.description(images)

    def draw_noise(self, targets: Float[Tensor, "n k"], draw: Draw | None = None) -> Float[Tensor, "n z_dim"]:
        """Standard normal noise, and at its end what the generator is told."""
        free = (draw or self.draw)(len(targets), torch.randn, self.z_dim - self.num_conditions)
        return torch.cat([free, targets], dim=1)

    def typical_noise(self, num: int, source: torch.Generator) -> Float[Tensor, "n z_dim"]:
        """Noise to look at samples of."""
        return noise_of(self.generator, num, source).to(self._a_weight)

    def discriminate(
        self, network: Callable[[Tensor], Tensor], images: Float[Tensor, "n c h w"], targets: Float[Tensor, "n k"]
    ) -> Tensor:
        """The discriminator's logits `[n]` of images that are augmented where that is asked for, given their targets.

        Raises:
            ValueError: it does not say what each condition adds.
        """
        logits = network(images if self.augment is None else self.augment(images))
        if self.num_conditions:
            if logits.shape != (len(images), 1 + self.num_conditions):
                raise ValueError(
                    f"it must give 1 + {self.num_conditions} numbers for each, one for each that gan.condition or "
                    "gan.description tells it"
                )
            # Around their means, and all of them together as much as one: else they drown what the image is by itself.
            if isinstance(self.generator, ConditionalGenerator):
                targets = targets - self.generator.examples.mean(dim=0)
            logits = logits[:, 0] + (logits[:, 1:] * targets).sum(dim=1) / self.num_conditions**0.5
        return logits.to(torch.promote_types(logits.dtype, torch.float32))  # losses need more than bfloat16's digits

    def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> None:
        optimizers = self.optimizers()
        assert isinstance(optimizers, list)
        optimizer_g, optimizer_d = optimizers
        self._draws = 0
        self._follow_schedules(optimizers)
        images, targets = batch
        batch = (images, self.told_of(images, targets))
        batches = list(zip(*(part.chunk(self.batches_per_iteration) for part in batch), strict=True))
        num_images = self.discriminator_steps * len(batches[0][0]) * self.trainer.world_size

        differentiate = self._replay if self.cuda_graphs else self._differentiate
        terms: Terms = {}
        for real_images, targets in batches[: self.discriminator_steps]:
            terms |= differentiate(self.discriminator_loss, optimizer_d, real_images, targets)
            self._step(optimizer_d, self.discriminator)
        self.discriminator.requires_grad_(False)  # its gradients are not needed here, only those that pass through it
        terms |= differentiate(self.generator_loss, optimizer_g, *batches[-1])
        self._step(optimizer_g, self.generator, self.trained_regularizers)
        self.discriminator.requires_grad_(True)

        self.num_iterations += 1
        self.num_images += num_images
        self.update_average(num_images)
        rates = {f"lr_{name}": each.param_groups[0]["lr"] for name, each in zip("gd", optimizers, strict=True)}
        self.log_dict({f"train/{name}": term for name, term in (terms | rates).items()})
        self.log_dict({name: terms[name] for name in ("loss_g", "loss_d")}, prog_bar=True, logger=False)

    @property
    def batches_per_iteration(self) -> int:
        """How many batches of real images one batch of the loader holds."""
        return self.discriminator_steps + int(self.loss.paired)

    def _differentiate(
        self,
        loss_of: Callable,
        optimizer: LightningOptimizer,
        images: Tensor,
        targets: Tensor,
        draw: Draw | None = None,
    ) -> Terms:
        """Leave a loss's gradients in the weights of an optimizer; the terms of the loss, means over the parts."""
        optimizer.zero_grad()
        logged = []
        for reals, told in self._parts(images, targets):
            loss, terms = loss_of(reals, told, draw)
            self.manual_backward(loss * len(reals) / len(images))
            logged.append(terms)
        return mean_terms(logged)

    def _replay(self, loss_of: Callable, optimizer: LightningOptimizer, images: Tensor, targets: Tensor) -> Terms:
        """The same by kernels that were captured in earlier steps, apart for those with penalties and those without."""
        key = loss_of.__name__, self.num_iterations % self.penalty_every == 0
        if key not in self._captured:
            weights = [weight for group in optimizer.param_groups for weight in group["params"]]
            step = partial(self._differentiate, loss_of, optimizer)
            self._captured[key] = CapturedStep(step, self.draw, weights)
        return self._captured[key](images, targets)

    def _parts(self, *batch: Tensor) -> list[tuple[Tensor, ...]]:
        """A batch in the parts in which it passes through the networks."""
        return list(zip(*(tensor.chunk(self.accumulate) for tensor in batch), strict=True))

    def _follow_schedules(self, optimizers: Sequence[LightningOptimizer]) -> None:
        now = {name: schedule.at(self.num_images) for name, schedule in self.schedules.items()}
        for group in (group for optimizer in optimizers for group in optimizer.param_groups):
            if "lr" in now:
                group["lr"] = now["lr"]
            if "beta2" in now:
                group["betas"] = (group["betas"][0], now["beta2"])

    def discriminator_loss(
        self, reals: Tensor, targets: Tensor, draw: Draw | None = None
    ) -> tuple[Float[Tensor, ""], Terms]:
        """The loss with its penalties, and what of it is logged; the logits are means."""
        with torch.no_grad():
            fakes = self._fast[0](self.draw_noise(targets, draw)).to(reals.dtype)  # which autocast makes bfloat16
        penalised = self.num_iterations % self.penalty_every == 0
        r1, r2 = (value(gamma, self.num_images) if penalised else 0.0 for gamma in (self.r1_gamma, self.r2_gamma))
        reals, fakes = reals.detach().requires_grad_(r1 > 0), fakes.detach().requires_grad_(r2 > 0)
        network = self.discriminator if r1 > 0 or r2 > 0 else self._fast[1]
        real, fake = (self.discriminate(network, images, targets) for images in (reals, fakes))
        loss = self.loss.discriminator(real, fake)
        terms = {"loss_d": loss, "logits_real": real.mean(), "logits_fake": fake.mean()}
        for name, gamma, logits, images in (("r1", r1, real, reals), ("r2", r2, fake, fakes)):
            if gamma > 0:
                terms[name] = zero_centred_penalty(logits, images)
                loss = loss + self.penalty_every * gamma / 2 * terms[name]
        gp_weight = value(self.gp_weight, self.num_images) if penalised else 0.0
        if gp_weight > 0:
            shares = (draw or self.draw)(len(reals), torch.rand, 1, 1, 1)
            mixed = reals.detach().lerp(fakes.detach(), shares).requires_grad_()
            terms["gp"] = one_centred_penalty(self.discriminate(self.discriminator, mixed, targets), mixed)
            loss = loss + self.penalty_every * gp_weight * terms["gp"]
        return loss, {name: term.detach() for name, term in terms.items()}

    def generator_loss(
        self, reals: Tensor, targets: Tensor, draw: Draw | None = None
    ) -> tuple[Float[Tensor, ""], Terms]:
        """The loss with its regularizers, and what of it is logged; only a paired loss looks at the real images."""
        generator, discriminator = self._fast
        noise = self.draw_noise(targets, draw)
        images = generator(noise)
        fake = self.discriminate(discriminator, images, targets)
        if self.loss.paired:
            with torch.no_grad():
                real = self.discriminate(discriminator, reals, targets)
            loss = self.loss.generator(fake, real)
        else:
            loss = self.loss.generator(fake)
        terms = {"loss_g": loss}
        for name, regularizer in self.regularizers.items():
            terms[name] = regularizer(self.told_generator, noise, images)
            loss = loss + value(getattr(regularizer, "weight", 1.0), self.num_images) * terms[name]
        return loss, {name: term.detach() for name, term in terms.items()}

    def _step(self, optimizer: LightningOptimizer, *networks: nn.Module) -> None:
        if self.clip_norm is not None:
            weights = [weight for network in networks for weight in network.parameters()]
            nn.utils.clip_grad_norm_(weights, self.clip_norm)
        optimizer.step()

    @torch.no_grad()
    def update_average(self, num_images: int) -> None:
        """Move the averaged weights towards the generator's; buffers (batch norm's own averages) are copied."""
        half_life = min(value(self.ema_half_life, self.num_images), self.num_images / 20)
        share = 1 - 0.5 ** (num_images / half_life) if half_life > 0 else 1.0  # a schedule may start at 0
        for average, weight in zip(self.ema_generator.parameters(), self.generator.parameters(), strict=True):
            if weight.requires_grad:  # and not, say, a whole number
                average.lerp_(weight, share)
        for average, buffer in zip(self.ema_generator.buffers(), self.generator.buffers(), strict=True):
            average.copy_(buffer)

    def share_statistics(self) -> None:
        """Give all processes the first one's batch norm statistics, which are of each one's own images."""
        if self.trainer.world_size > 1:
            for buffer in self.ema_generator.buffers():
                torch.distributed.broadcast(buffer, src=0)

    def on_save_checkpoint(self, checkpoint: dict) -> None:
        checkpoint["progress"] = {"num_iterations": self.num_iterations, "num_images": self.num_images}

    def on_load_checkpoint(self, checkpoint: dict) -> None:
        self.num_iterations = checkpoint["progress"]["num_iterations"]
        self.num_images = checkpoint["progress"]["num_images"]

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        factory_g, factory_d = self.optimizer_factories
        trained = [*self.told_generator.parameters(), *self.trained_regularizers.parameters()]
        return [factory_g(trained), factory_d(self.discriminator.parameters())]


def mean_terms(logged: Sequence[Terms]) -> Terms:
    """The mean of each term over the parts of a batch."""
    return {name: torch.stack([terms[name] for terms in logged]).mean() for name in logged[0]}


def _check_schedules(
    schedules: Mapping[str, Cosine], optimizer_g: OptimizerFactory, optimizer_d: OptimizerFactory
) -> None:
    for name in schedules:
        if name not in SCHEDULED:
            raise ValueError(f"gan.schedules.{name} must be one of {', '.join(SCHEDULED)}")
    own = [getattr(optimizer, "keywords", {}).get("lr") for optimizer in (optimizer_g, optimizer_d)]
    if "lr" in schedules and own[0] != own[1]:
        raise ValueError(f"gan.optimizer_d.lr={own[1]} cannot differ from the generator's under gan.schedules.lr")
