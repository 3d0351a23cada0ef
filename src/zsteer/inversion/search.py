"""The search for a picture's noise: many starts for each picture, the best of them kept."""

from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate
from jaxtyping import Float, Int
from omegaconf import DictConfig
from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import LambdaCallback
from torch import Tensor, nn
from tqdm import tqdm

from zsteer.files import is_main_process
from zsteer.inversion.distance import Distance, FeatureSpace
from zsteer.inversion.given import Given, given_pictures
from zsteer.inversion.likeness import likeness
from zsteer.inversion.module import LatentInversion
from zsteer.inversion.results import Inverted, inverted
from zsteer.networks.inference import frozen, noise_of, num_free
from zsteer.networks.loading import Networks, load_networks, try_generator
from zsteer.status import interrupt_of
from zsteer.steering.methods import check_uncoupled
from zsteer.steering.module import TRAINER_SETTINGS
from zsteer.training.fitting import made_by_lightning, misconfiguration_told

BATCH_SIZE = 128
NUM_COMPARED = 128  # samples between which distances are 1 on average


def invert(cfg: DictConfig, folder: Path | None, image: Any) -> Inverted:
    """The noise whose images are nearest to the pictures that are given as `image` (see `given_pictures`).

    Raises:
        ValueError, FileNotFoundError: a network does not fit, there is no picture, or no start gets anywhere.
    """
    torch.manual_seed(cfg.seed)  # for networks that come without a checkpoint
    dtype = torch.float64 if cfg.trainer.precision == "64-true" else torch.float32
    networks = load_networks(cfg, dtype)
    _, _, height, width = try_generator(networks.generator).shape
    given = given_pictures(image, height, width)
    search = Search(cfg, networks, dtype)
    noise, losses = search.find(given.images)
    result = search.measure(given, noise, losses)
    if folder is not None and is_main_process():
        result.write(folder)
    return result


class Search:
    """What all pictures share, from a checked config.

    Raises:
        ValueError: nothing can be found with these networks or this optimizer.
    """

    def __init__(self, cfg: DictConfig, networks: Networks, dtype: torch.dtype):
        check_uncoupled(instantiate(cfg.optimizer)([nn.Parameter(torch.zeros(1, 1))]), "optimizer")
        self.cfg, self.dtype = cfg, dtype
        self.device = self._trainer().strategy.root_device
        self.generator = frozen(networks.generator, self.dtype, self.device)
        self.prior = noise_of(networks.generator, cfg.num_samples, cfg.seed).to(self.dtype)
        require_gradient(self.generator, self.prior[:2].to(self.device))
        shares = torch.tensor([0.5 - cfg.shell / 2, 0.5 + cfg.shell / 2], dtype=self.dtype)
        least, largest = self.prior[:, : num_free(networks.generator)].norm(dim=1).quantile(shares).tolist()
        self.radii = (least, largest)
        samples = self.images_of(self.prior[:NUM_COMPARED])
        classifier = frozen(networks.classifier.network, self.dtype, self.device)
        space = FeatureSpace.over(samples, classifier, "classifier")
        self.distance = Distance.over(samples, space, float(cfg.feature_weight))
        self.judge, self.labels = None, {}
        if networks.judge is not None:
            judge = frozen(networks.judge.network, self.dtype, self.device)
            self.judge = FeatureSpace.over(samples, judge, "judge")
            names = networks.judge.names
            self.labels = {name: names.index(name) for name in names if name not in networks.judge.factors}

    def _trainer(self) -> Trainer:
        return made_by_lightning(self.cfg.trainer, **TRAINER_SETTINGS, enable_progress_bar=False)

    @torch.no_grad()
    def images_of(self, noise: Float[Tensor, "n z_dim"]) -> Float[Tensor, "n 3 h w"]:
        """The generator's images of some noise."""
        return torch.cat([self.generator(z.to(self.device)) for z in noise.split(BATCH_SIZE)])

    def find(self, given: Float[Tensor, "n 3 h w"]) -> tuple[Float[Tensor, "n z_dim"], Float[Tensor, "steps n"]]:
        """The noise nearest to each picture, and how its distance went from the start to the end.

        Raises:
            ValueError: all starts of a picture end in NaN.
        """
        cfg, starts = self.cfg, self.starts(given)
        pictures = torch.arange(len(given)).repeat_interleave(cfg.starts)  # each row's
        ends, losses = [], []
        parts = pictures.split(cfg.max_rows)
        hidden = not cfg.trainer.get("enable_progress_bar", True)
        with tqdm(total=len(parts) * cfg.num_steps, desc="Inverting", unit="step", disable=hidden) as bar:
            tick = LambdaCallback(on_train_batch_end=lambda *_: bar.update())
            for part, start in zip(parts, starts.flatten().split(cfg.max_rows), strict=True):
                module = LatentInversion(
                    self.generator,
                    self.distance,
                    given[part],
                    self.prior[start],
                    instantiate(cfg.optimizer),
                    instantiate(cfg.scheduler),
                    self.radii,
                )
                trainer = self._trainer()
                trainer.callbacks.append(tick)  # pyright: ignore[reportAttributeAccessIssue]
                try:
                    with misconfiguration_told():
                        trainer.fit(module, range(cfg.num_steps))
                except SystemExit as error:
                    raise interrupt_of(error) from None
                ends.append(module.noise.detach().cpu())
                losses.append(torch.stack(module.losses).cpu())
        by_start = torch.cat(losses, dim=1).unflatten(1, starts.shape)
        best = torch.arange(len(given)), nearest(by_start[-1])
        return torch.cat(ends).unflatten(0, starts.shape)[best], by_start[:, *best]

    @torch.no_grad()
    def starts(self, given: Float[Tensor, "n 3 h w"]) -> Int[Tensor, "n starts"]:
        """Which of the prior's samples are nearest to each picture, the nearest first."""
        given = given.to(self.device, self.dtype)
        features = torch.cat([self.distance.space.look(part)[0] for part in given.split(BATCH_SIZE)])
        batches = tqdm(self.prior.split(BATCH_SIZE), desc="Looking for starts", leave=False)
        apart = [self.distance.table(self.generator(z.to(self.device)), given, features).cpu() for z in batches]
        return torch.cat(apart, dim=1).topk(self.cfg.starts, dim=1, largest=False).indices

    def measure(self, given: Given, noise: Float[Tensor, "n z_dim"], losses: Float[Tensor, "steps n"]) -> Inverted:
        """How near the images of the noise are to the given pictures."""
        found = self.images_of(noise)
        images = given.images.to(self.device, self.dtype)
        table = likeness(images, found, self.distance.space, self.judge, self.labels)
        settings = {key: self.cfg[key] for key in ("starts", "num_steps", "seed")}
        return inverted(settings, given, noise, found.float().cpu(), table, losses, num_free(self.generator))


def nearest(losses: Float[Tensor, "n starts"]) -> Int[Tensor, " n"]:
    """The start that ended nearest to each picture.

    Raises:
        ValueError: all starts of a picture ended in NaN.
    """
    lost = ~losses.isfinite()
    if lost.all(dim=1).any():
        raise ValueError("all starts of a picture end in NaN; lower optimizer.lr, or use another generator")
    return losses.masked_fill(lost, torch.inf).argmin(dim=1)


def require_gradient(generator: nn.Module, noise: Float[Tensor, "n z_dim"]) -> None:
    """
    Raises:
        ValueError: a generator whose images do not say how they change with the noise.
    """
    noise = noise.clone().requires_grad_()
    images = generator(noise)
    gradient = torch.autograd.grad(images.square().sum(), noise, allow_unused=True)[0] if images.requires_grad else None
    if gradient is None or not gradient.isfinite().all() or not gradient.any():
        name = type(generator).__name__
        raise ValueError(f"generator.network={name} has no gradient for its noise, along which pictures are looked for")
