"""Training of attribute classifiers and regressors: the LightningModule."""

from collections.abc import Callable, Mapping, Sequence

import torch
from jaxtyping import Float
from pytorch_lightning import LightningModule
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torch.optim.lr_scheduler import OneCycleLR
from torchmetrics.utilities import dim_zero_cat
from torchmetrics.utilities.distributed import gather_all_tensors

from zsteer.classifier.losses import attribute_loss
from zsteer.classifier.metrics import AttributeMetrics, Figures, Scale, means
from zsteer.networks.inference import channels_last
from zsteer.optimizers import OptimizerFactory
from zsteer.settings import real_number


class ClassifierModule(LightningModule):
    """Train a network of K outputs: a logit for each label, a standardised number for each continuous target.

    The losses are the binary cross entropy and the squared error; the learning rate goes through one cycle (Smith &
    Topin 2018).

    Args:
        names: of the K attributes, in the order of the outputs.
        scales: mean and standard deviation of each continuous target, by which the data standardise it.
        max_lr: peak of the learning rate, reached after a tenth of the training.
        augment: of the training images, `[n, 3, h, w]` in [-1, 1].
        rates: how often each label is 1 in the training images, to weigh both of its states alike; null weighs all
            images alike.

    Raises:
        ValueError: a learning rate that is not positive.
    """

    continuous: Tensor
    rates: Tensor | None

    def __init__(
        self,
        network: nn.Module,
        names: Sequence[str],
        optimizer: OptimizerFactory,
        max_lr: float = 2e-3,
        scales: Mapping[str, Scale] | None = None,
        augment: Callable[[Tensor], Tensor] | None = None,
        rates: Sequence[float] | None = None,
    ):
        super().__init__()
        real_number(max_lr, "training.max_lr", above=0.0)
        self.augment = augment
        self.network = channels_last(network)
        self.names = tuple(names)
        self.optimizer_factory = optimizer
        self.max_lr = max_lr
        self.metrics = AttributeMetrics(names, scales)
        mask = torch.tensor([name in self.metrics.scales for name in names])
        self.register_buffer("continuous", mask, persistent=False)
        self.register_buffer("rates", None if rates is None else torch.tensor(rates), persistent=False)
        self.figures: Figures = {}
        self._ended_epochs = 0

    def forward(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n k"]:
        return self.network(images)

    def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
        images, targets = batch
        if self.augment is not None:
            images = self.augment(images)
        loss = attribute_loss(self(images), targets, self.continuous, self.rates)
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], _: int) -> None:
        images, targets = batch
        self.metrics.update(self(images), targets)

    test_step = validation_step

    def on_validation_epoch_end(self) -> None:
        self._finish("val")

    def on_test_epoch_end(self) -> None:
        self._draw_curves()
        self._finish("test")

    def _draw_curves(self) -> None:
        """Each label's precision and recall at every threshold, in TensorBoard."""
        with self.metrics.sync_context(dist_sync_fn=gather_all_tensors):
            outputs, targets = dim_zero_cat(self.metrics.outputs), dim_zero_cat(self.metrics.targets)
        for logger in (logger for logger in self.loggers if isinstance(logger, TensorBoardLogger)):
            for column, name in enumerate(self.names):
                if not self.continuous[column]:
                    curve = targets[:, column] > 0.5, outputs[:, column].sigmoid()
                    logger.experiment.add_pr_curve(f"test/{name}", *curve, global_step=self.global_step)

    def _finish(self, stage: str) -> None:
        self.figures = self.metrics.compute()
        self.metrics.reset()
        for figure, value in means(self.figures).items():
            if value is not None:
                self.log(f"{stage}/{figure}", value)

    def on_load_checkpoint(self, checkpoint: dict) -> None:
        self._ended_epochs = checkpoint["epoch"]

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        optimizer = self.optimizer_factory(self.parameters())
        # A run that goes on with one that ended is that one's next epoch; its cycle is its own.
        epochs = self.trainer.max_epochs or 1
        total = int(self.trainer.estimated_stepping_batches) // epochs * (epochs - self._ended_epochs)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": Cycle(optimizer, self.max_lr, total), "interval": "step"},
        }


class Cycle(OneCycleLR):
    """One cycle of the learning rate, as long as this run, which may be longer than the one that it goes on with."""

    def __init__(self, optimizer: torch.optim.Optimizer, max_lr: float, total_steps: int):
        rise = 0.1 + 1e-9  # a rise of exactly one step, as a tenth of ten is, would divide by zero
        super().__init__(optimizer, max_lr, total_steps=total_steps, pct_start=rise)

    def get_lr(self) -> list[float | Tensor]:
        """The last rate goes on where accumulating, cut by an interruption, makes more steps than were to be."""
        return super().get_lr() if self.last_epoch <= self.total_steps else self.get_last_lr()

    def load_state_dict(self, state_dict: dict) -> None:
        """Take up the place in the cycle; all else is this run's."""
        super().load_state_dict({key: state_dict[key] for key in ("last_epoch", "_step_count", "_last_lr")})
