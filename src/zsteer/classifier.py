"""Training of attribute classifiers and regressors: the LightningModule and its metrics per attribute."""

from collections.abc import Callable, Mapping, Sequence

import torch
from jaxtyping import Bool, Float
from pytorch_lightning import LightningModule
from pytorch_lightning.loggers import TensorBoardLogger
from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.functional import r2_score
from torchmetrics.functional.classification import binary_average_precision, binary_calibration_error
from torchmetrics.utilities import dim_zero_cat
from torchmetrics.utilities.distributed import gather_all_tensors

from zsteer.losses import attribute_loss
from zsteer.networks import OptimizerFactory

Figures = dict[str, dict[str, float | None]]  # figure → attribute → value
Scale = Sequence[float]  # mean and standard deviation


class AttributeMetrics(Metric):
    """Figures of each attribute, from a network's outputs; exact over uneven shards.

    Of a label (0 or 1): accuracy, balanced accuracy, F1, the logit's average precision, and the expected calibration
    error of its probability (15 bins; Guo et al. 2017, eq. 5). Where all images have an attribute, or none, balanced
    accuracy is the rate over the one state that there is; F1 and average precision without any are None. Of a
    continuous target: R², and the mean absolute error in the target's own unit.

    Args:
        scales: mean and standard deviation of each continuous target, whose outputs are standardised by them.
    """

    full_state_update = False
    outputs: list[Tensor]
    targets: list[Tensor]

    def __init__(self, names: Sequence[str], scales: Mapping[str, Scale] | None = None):
        super().__init__()
        self.names, self.scales = tuple(names), dict(scales or {})
        self.add_state("outputs", [], dist_reduce_fx="cat")
        self.add_state("targets", [], dist_reduce_fx="cat")

    def update(self, outputs: Float[Tensor, "n k"], targets: Float[Tensor, "n k"]) -> None:
        self.outputs.append(outputs.detach().float())
        self.targets.append(targets.float())

    def compute(self) -> Figures:
        """Each figure by attribute."""
        outputs, targets = dim_zero_cat(self.outputs), dim_zero_cat(self.targets)
        labels, continuous = (
            [column for column, name in enumerate(self.names) if (name in self.scales) is wanted]
            for wanted in (False, True)
        )
        figures: Figures = {}
        if labels:
            figures |= self._by_name(labels, _label_figures(outputs[:, labels], targets[:, labels] > 0.5))
        if continuous:
            o, t = outputs[:, continuous].double(), targets[:, continuous].double()
            deviation = torch.tensor([self.scales[self.names[column]][1] for column in continuous], device=t.device)
            columns = {
                "r2": r2_score(o, t, multioutput="raw_values").reshape(-1).tolist(),
                "mean_absolute_error": ((o - t).abs().mean(dim=0) * deviation).tolist(),
            }
            figures |= self._by_name(continuous, columns)
        return figures

    def _by_name(self, columns: Sequence[int], figures: Mapping[str, Sequence[float | None]]) -> Figures:
        names = [self.names[column] for column in columns]
        return {figure: dict(zip(names, values, strict=True)) for figure, values in figures.items()}


def _label_figures(logits: Float[Tensor, "n k"], present: Bool[Tensor, "n k"]) -> dict[str, list[float | None]]:
    right = (logits > 0) == present
    rates = torch.stack([_share(right & state, state) for state in (present, ~present)])
    precision = [
        binary_average_precision(column, state.long()).item() if state.any() else None
        for column, state in zip(logits.T, present.T, strict=True)
    ]
    f1 = (2 * (right & present).sum(dim=0).double() / ((logits > 0).sum(dim=0) + present.sum(dim=0))).tolist()
    calibration = [
        binary_calibration_error(column.sigmoid(), state.long(), n_bins=15).item()
        for column, state in zip(logits.T, present.T, strict=True)
    ]
    return {
        "accuracy": right.double().mean(dim=0).tolist(),
        "balanced_accuracy": rates.nanmean(dim=0).tolist(),
        "f1": [value if state.any() else None for value, state in zip(f1, present.T, strict=True)],
        "average_precision": precision,
        "calibration_error": calibration,
    }


def _share(part: Bool[Tensor, "n k"], whole: Bool[Tensor, "n k"]) -> Float[Tensor, " k"]:
    return part.sum(dim=0).double() / whole.sum(dim=0)  # NaN of nothing


def means(figures: Figures) -> dict[str, float | None]:
    """The mean of each figure over the attributes that have it."""
    known = {figure: [v for v in values.values() if v is not None] for figure, values in figures.items()}
    return {figure: sum(values) / len(values) if values else None for figure, values in known.items()}


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
        self.augment = augment
        self.network = network.to(memory_format=torch.channels_last)
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

    def configure_optimizers(self) -> dict:
        optimizer = self.optimizer_factory(self.parameters())
        total = int(self.trainer.estimated_stepping_batches)
        if self._ended_epochs:  # of which each was the whole stream so far; see `zsteer.training.fit`
            total //= self._ended_epochs + 1
        rise = 0.1 + 1e-9  # a rise of exactly one step, as a tenth of ten is, would divide by zero
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, self.max_lr, total_steps=total, pct_start=rise)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_load_checkpoint(self, checkpoint: dict) -> None:
        # The cycle is as long as this run, which may be longer than the one that was saved.
        self._ended_epochs = checkpoint["epoch"]
        for schedule in checkpoint["lr_schedulers"]:
            for part in ("total_steps", "_schedule_phases"):
                del schedule[part]
