"""Attribute classifier training: the LightningModule and its metrics per attribute."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from pytorch_lightning import LightningModule
from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.functional.classification import binary_average_precision
from torchmetrics.utilities import dim_zero_cat

from zsteer.networks import OptimizerFactory

Figures = dict[str, dict[str, float | None]]  # figure → attribute → value


class AttributeMetrics(Metric):
    """Accuracy, balanced accuracy and average precision of each attribute, from logits; exact over uneven shards.

    Where all images have an attribute, or none, balanced accuracy is the rate over the one state that there is; average
    precision without any is None.
    """

    full_state_update = False
    logits: list[Tensor]
    targets: list[Tensor]

    def __init__(self, names: Sequence[str]):
        super().__init__()
        self.names = tuple(names)
        self.add_state("logits", [], dist_reduce_fx="cat")
        self.add_state("targets", [], dist_reduce_fx="cat")

    def update(self, logits: Float[Tensor, "n k"], targets: Float[Tensor, "n k"]) -> None:
        self.logits.append(logits.detach().float())
        self.targets.append(targets > 0.5)

    def compute(self) -> Figures:
        """Each figure by attribute."""
        logits, present = dim_zero_cat(self.logits), dim_zero_cat(self.targets)
        right = (logits > 0) == present
        rates = torch.stack([_share(right & state, state) for state in (present, ~present)])
        precision = [
            binary_average_precision(column, state.long()).item() if state.any() else None
            for column, state in zip(logits.T, present.T, strict=True)
        ]
        columns = {
            "accuracy": right.double().mean(dim=0).tolist(),
            "balanced_accuracy": rates.nanmean(dim=0).tolist(),
            "average_precision": precision,
        }
        return {figure: dict(zip(self.names, values, strict=True)) for figure, values in columns.items()}


def _share(part: Bool[Tensor, "n k"], whole: Bool[Tensor, "n k"]) -> Float[Tensor, " k"]:
    return part.sum(dim=0).double() / whole.sum(dim=0)  # NaN of nothing


def means(figures: Figures) -> dict[str, float | None]:
    """The mean of each figure over the attributes that have it."""
    known = {figure: [v for v in values.values() if v is not None] for figure, values in figures.items()}
    return {figure: sum(values) / len(values) if values else None for figure, values in known.items()}


class ClassifierModule(LightningModule):
    """Train a network of K logits with binary cross entropy on each; one-cycle learning rate (Smith & Topin 2018).

    Args:
        names: of the K attributes, in the order of the logits.
        max_lr: peak of the learning rate, reached after a tenth of the training.
    """

    def __init__(self, network: nn.Module, names: Sequence[str], optimizer: OptimizerFactory, max_lr: float = 2e-3):
        super().__init__()
        self.network = network.to(memory_format=torch.channels_last)
        self.names = tuple(names)
        self.optimizer_factory = optimizer
        self.max_lr = max_lr
        self.metrics = AttributeMetrics(names)
        self.figures: Figures = {}

    def forward(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n k"]:
        return self.network(images)

    def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
        images, targets = batch
        loss = F.binary_cross_entropy_with_logits(self(images), targets)
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], _: int) -> None:
        images, targets = batch
        self.metrics.update(self(images), targets)

    test_step = validation_step

    def on_validation_epoch_end(self) -> None:
        self._finish("val")

    def on_test_epoch_end(self) -> None:
        self._finish("test")

    def _finish(self, stage: str) -> None:
        self.figures = self.metrics.compute()
        self.metrics.reset()
        for figure, value in means(self.figures).items():
            if value is not None:
                self.log(f"{stage}/{figure}", value)

    def configure_optimizers(self) -> dict:
        optimizer = self.optimizer_factory(self.parameters())
        total = int(self.trainer.estimated_stepping_batches)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, self.max_lr, total_steps=total, pct_start=0.1)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
