"""Training of attribute classifiers and regressors: the LightningModule."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from jaxtyping import Float
from pytorch_lightning import LightningModule
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim.lr_scheduler import OneCycleLR
from torchmetrics.utilities import dim_zero_cat
from torchmetrics.utilities.distributed import gather_all_tensors

from zsteer.classifier.losses import attribute_loss
from zsteer.classifier.metrics import AttributeMetrics, Figures, Scale, means
from zsteer.networks.inference import channels_last
from zsteer.optimizers import OptimizerFactory, SchedulerFactory
from zsteer.settings import real_number
from zsteer.training.checkpoint import epochs_of

# A rise of exactly one step, as a tenth of ten is, would divide by zero.
ONE_CYCLE = partial(OneCycleLR, pct_start=0.1 + 1e-9)
# What some schedules of torch's call the number of their steps, which is the run's, whatever a checkpoint's was.
LENGTHS = ("total_steps", "T_max")


class ClassifierModule(LightningModule):
    """Train a network of K outputs: a logit for each label, a standardised number for each continuous target.

    The losses are the binary cross entropy and the squared error.

    Args:
        names: of the K attributes, in the order of the outputs.
        max_lr: what a schedule with a peak has for it.
        scheduler: of the learning rate, at each step; one cycle (Smith & Topin 2018), which peaks after a tenth of the
            training, unless given. What has a `max_lr`, `total_steps` or `T_max` is told them. Null leaves the rate to
            the optimizer.
        scales: mean and standard deviation of each continuous target, by which the data standardise it.
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
        scheduler: SchedulerFactory | None = ONE_CYCLE,
        scales: Mapping[str, Scale] | None = None,
        augment: Callable[[Tensor], Tensor] | None = None,
        rates: Sequence[float] | None = None,
    ):
        super().__init__()
        real_number(max_lr, "training.max_lr", above=0.0)
        self.augment = augment
        self.network = channels_last(network)
        self.names = tuple(names)
        self.optimizer_factory, self.scheduler_factory = optimizer, scheduler
        self.max_lr = max_lr
        self.metrics = AttributeMetrics(names, scales)
        mask = torch.tensor([name in self.metrics.scales for name in names])
        self.register_buffer("continuous", mask, persistent=False)
        self.register_buffer("rates", None if rates is None else torch.tensor(rates), persistent=False)
        self.figures: Figures = {}
        self._ended_epochs = 0

    def forward(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n k"]:
        return self.network(images)

    def on_train_batch_start(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self.log("train/lr", self.trainer.optimizers[0].param_groups[0]["lr"])

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

    @property
    def monitored(self) -> list[str]:
        """The figures that a callback can monitor."""
        return [*(f"val/{name}" for name in ("loss", *self.metrics.figure_names)), "train/loss"]

    def on_validation_epoch_end(self) -> None:
        self._finish("val")

    def on_test_epoch_end(self) -> None:
        self._draw_curves()
        self._finish("test")

    def _seen(self) -> tuple[Tensor, Tensor]:
        """Outputs and targets `[n, K]` of all processes since the metrics were reset."""
        with self.metrics.sync_context(dist_sync_fn=gather_all_tensors):
            return dim_zero_cat(self.metrics.outputs), dim_zero_cat(self.metrics.targets)

    def _draw_curves(self) -> None:
        """Each label's precision and recall at every threshold, in TensorBoard."""
        outputs, targets = self._seen()
        for logger in (logger for logger in self.loggers if isinstance(logger, TensorBoardLogger)):
            for column, name in enumerate(self.names):
                known = ~targets[:, column].isnan()
                if not self.continuous[column] and known.any():
                    curve = targets[known, column] > 0.5, outputs[known, column].sigmoid()
                    logger.experiment.add_pr_curve(f"test/{name}", *curve, global_step=self.global_step)

    def _finish(self, stage: str) -> None:
        self.log(f"{stage}/loss", attribute_loss(*self._seen(), self.continuous, self.rates))
        self.figures = self.metrics.compute()
        self.metrics.reset()
        for figure, value in means(self.figures).items():
            if value is not None:
                self.log(f"{stage}/{figure}", value)

    def on_load_checkpoint(self, checkpoint: dict) -> None:
        self._ended_epochs = epochs_of(checkpoint)
        for state in checkpoint["lr_schedulers"]:  # which take up their place, not the length of the run before
            for name in (*LENGTHS, "_schedule_phases"):
                state.pop(name, None)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimizer = self.optimizer_factory(self.parameters())
        mixed = "mixed" in str(self.trainer.precision)
        if mixed and self.trainer.gradient_clip_val is not None and optimizer.defaults.get("fused"):
            raise ValueError(
                f"trainer.gradient_clip_val={self.trainer.gradient_clip_val} cannot clip for a fused optimizer under "
                f"trainer.precision={self.trainer.precision}; add training.optimizer.fused=false"
            )
        if self.scheduler_factory is None:
            return optimizer
        # A run that goes on with one that ended is that one's next epoch; its schedule is its own.
        epochs = self.trainer.max_epochs or 1
        total = int(self.trainer.estimated_stepping_batches) // epochs * (epochs - self._ended_epochs)
        known = {"max_lr": self.max_lr, **dict.fromkeys(LENGTHS, total)}
        given = getattr(self.scheduler_factory, "keywords", {})
        asked = [name for name in inspect.signature(self.scheduler_factory).parameters if name not in given]
        scheduler = self.scheduler_factory(optimizer, **{name: known[name] for name in asked if name in known})
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}
