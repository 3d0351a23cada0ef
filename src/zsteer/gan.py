"""GAN training: the LightningModule that alternates discriminator and generator steps, and the generator's average."""

import copy

import torch
from jaxtyping import Float
from pytorch_lightning import LightningModule
from pytorch_lightning.core.optimizer import LightningOptimizer
from torch import Tensor, nn

from zsteer.losses import bce_discriminator, bce_generator, r1_penalty
from zsteer.networks import OptimizerFactory, z_dim_of


class GANModule(LightningModule):
    """Non-saturating GAN with a lazy R1 penalty and an exponential moving average (EMA) of the generator.

    One batch is one iteration: a discriminator step, then a generator step. Lightning's `global_step` counts both.

    Args:
        r1_gamma: γ of γ/2 · ‖∇D(x)‖² (Mescheder et al. 2018); 0 leaves the penalty out.
        r1_every: the penalty is taken every so many iterations, that many times as strong (Karras et al. 2020).
        ema_half_life: images after which a weight's share in the average has halved; at first a twentieth of the images
            seen so far, so that the average does not show its start for long.
        seed: of the noise; each rank draws its own.
    """

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module,
        optimizer_g: OptimizerFactory,
        optimizer_d: OptimizerFactory,
        r1_gamma: float = 0.2,
        r1_every: int = 4,
        ema_half_life: int = 10_000,
        seed: int = 0,
    ):
        super().__init__()
        self.automatic_optimization = False
        self.z_dim = z_dim_of(generator)
        self.generator = generator.to(memory_format=torch.channels_last)
        self.discriminator = discriminator.to(memory_format=torch.channels_last)
        self.ema_generator = copy.deepcopy(self.generator).requires_grad_(False)
        self.optimizer_factories = (optimizer_g, optimizer_d)
        self.r1_gamma, self.r1_every = r1_gamma, r1_every
        self.ema_half_life = ema_half_life
        self.seed = seed
        self.num_iterations = 0
        self.num_images = 0
        self._noise_state: Tensor | None = None  # of a checkpoint that this run goes on from

    def forward(self, noise: Float[Tensor, "n z_dim"]) -> Float[Tensor, "n 3 h w"]:
        """Images in [-1, 1] of the averaged generator."""
        return self.ema_generator(noise)

    def on_fit_start(self) -> None:
        self._noise_source = torch.Generator(self.device).manual_seed(self.seed + self.global_rank)
        if self._noise_state is not None:
            self._noise_source.set_state(self._noise_state)

    def draw_noise(self, num: int) -> Float[Tensor, "n z_dim"]:
        """Standard normal noise from this rank's own generator."""
        return torch.randn(num, self.z_dim, device=self.device, generator=self._noise_source)

    def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> None:
        real_images, _labels = batch
        optimizers = self.optimizers()
        assert isinstance(optimizers, list)
        optimizer_g, optimizer_d = optimizers
        terms = self._discriminator_step(real_images, optimizer_d) | self._generator_step(len(real_images), optimizer_g)
        self.num_iterations += 1
        self.num_images += len(real_images) * self.trainer.world_size
        self.update_average(len(real_images) * self.trainer.world_size)
        self.log_dict({f"train/{name}": value for name, value in terms.items()})
        self.log_dict({name: terms[name] for name in ("loss_g", "loss_d")}, prog_bar=True, logger=False)

    def _discriminator_step(self, real_images: Tensor, optimizer: LightningOptimizer) -> dict[str, Tensor]:
        with torch.no_grad():
            fake_images = self.generator(self.draw_noise(len(real_images)))
        penalised = self.r1_gamma > 0 and self.num_iterations % self.r1_every == 0
        real_images = real_images.detach().requires_grad_(penalised)
        real, fake = self.discriminator(real_images), self.discriminator(fake_images)
        loss = bce_discriminator(real, fake)
        terms = {"loss_d": loss.detach(), "logits_real": real.detach().mean(), "logits_fake": fake.detach().mean()}
        if penalised:
            penalty = r1_penalty(real, real_images)
            loss = loss + self.r1_every * self.r1_gamma / 2 * penalty
            terms["r1"] = penalty.detach()
        optimizer.zero_grad()
        self.manual_backward(loss)
        optimizer.step()
        return terms

    def _generator_step(self, num: int, optimizer: LightningOptimizer) -> dict[str, Tensor]:
        self.discriminator.requires_grad_(False)  # its gradients are not needed here, only those that pass through it
        loss = bce_generator(self.discriminator(self.generator(self.draw_noise(num))))
        optimizer.zero_grad()
        self.manual_backward(loss)
        optimizer.step()
        self.discriminator.requires_grad_(True)
        return {"loss_g": loss.detach()}

    @torch.no_grad()
    def update_average(self, num_images: int) -> None:
        """Move the averaged weights towards the generator's; buffers (batch norm's own averages) are copied."""
        half_life = min(self.ema_half_life, self.num_images / 20)
        share = 1 - 0.5 ** (num_images / half_life)
        for average, weight in zip(self.ema_generator.parameters(), self.generator.parameters(), strict=True):
            average.lerp_(weight, share)
        for average, buffer in zip(self.ema_generator.buffers(), self.generator.buffers(), strict=True):
            average.copy_(buffer)

    def on_save_checkpoint(self, checkpoint: dict) -> None:
        checkpoint["progress"] = {"num_iterations": self.num_iterations, "num_images": self.num_images}
        checkpoint["noise_source"] = self._noise_source.get_state()

    def on_load_checkpoint(self, checkpoint: dict) -> None:
        self.num_iterations = checkpoint["progress"]["num_iterations"]
        self.num_images = checkpoint["progress"]["num_images"]
        self._noise_state = checkpoint["noise_source"]

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        factory_g, factory_d = self.optimizer_factories
        return [factory_g(self.generator.parameters()), factory_d(self.discriminator.parameters())]
