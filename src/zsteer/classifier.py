"""Attribute classifier training: the LightningModule and its metrics per attribute."""

from collections.abc import Callable, Iterable, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pytorch_lightning import LightningModule
from torch import Tensor, nn
from torchmetrics import MetricCollection
from torchmetrics.classification import (
    MultilabelAccuracy,
    MultilabelAveragePrecision,
    MultilabelRecall,
    MultilabelSpecificity,
)

OptimizerFactory = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]


class AttributeMetrics(nn.Module):
    """Accuracy, balanced accuracy and average precision of each attribute, from logits; exact over uneven shards."""

    def __init__(self, names: Sequence[str]):
        super().__init__()
        self.names = tuple(names)
        settings = {"num_labels": len(self.names), "average": "none"}
        self.metrics = MetricCollection(
            {
                "accuracy": MultilabelAccuracy(**settings),
                "recall": MultilabelRecall(**settings),
                "specificity": MultilabelSpecificity(**settings),
                "average_precision": MultilabelAveragePrecision(**settings),
            },
            compute_groups=False,
        )

    def update(self, logits: Float[Tensor, "n k"], targets: Float[Tensor, "n k"]) -> None:
        self.metrics.update(logits.float().sigmoid(), targets.int())

    def compute(self) -> dict[str, dict[str, float]]:
        """Each figure by attribute."""
        values = {name: value.tolist() for name, value in self.metrics.compute().items()}
        balanced = [(r + s) / 2 for r, s in zip(values["recall"], values["specificity"], strict=True)]
        kept = {"accuracy": values["accuracy"], "balanced_accuracy": balanced}
        kept["average_precision"] = values["average_precision"]
        return {figure: dict(zip(self.names, column, strict=True)) for figure, column in kept.items()}

    def reset(self) -> None:
        self.metrics.reset()


def means(figures: dict[str, dict[str, float]]) -> dict[str, float]:
    """The mean of each figure over the attributes."""
    return {figure: sum(values.values()) / len(values) for figure, values in figures.items()}


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
        self.figures: dict[str, dict[str, float]] = {}

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
        self.log_dict({f"{stage}/{figure}": value for figure, value in means(self.figures).items()})

    def configure_optimizers(self) -> dict:
        optimizer = self.optimizer_factory(self.parameters())
        total = int(self.trainer.estimated_stepping_batches)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, self.max_lr, total_steps=total, pct_start=0.1)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
