"""How well a network tells attributes, each by itself."""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.functional import r2_score
from torchmetrics.functional.classification import binary_average_precision, binary_calibration_error
from torchmetrics.utilities import dim_zero_cat

from zsteer.statistics import mean_known

Figures = dict[str, dict[str, float | None]]  # figure → attribute → value
Scale = Sequence[float]  # mean and standard deviation
LABELS_FIGURES = ("accuracy", "balanced_accuracy", "f1", "average_precision", "calibration_error")
CONTINUOUS_FIGURES = ("r2", "mean_absolute_error")


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

    @property
    def figure_names(self) -> tuple[str, ...]:
        """What `compute` gives, as far as it can be known."""
        labels, continuous = len(self.scales) < len(self.names), bool(self.scales)
        return LABELS_FIGURES * labels + CONTINUOUS_FIGURES * continuous

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
            r2 = r2_score(o, t, multioutput="raw_values").reshape(-1).tolist()
            error = ((o - t).abs().mean(dim=0) * deviation).tolist()
            figures |= self._by_name(continuous, dict(zip(CONTINUOUS_FIGURES, (r2, error), strict=True)))
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
    accuracy, balanced = right.double().mean(dim=0).tolist(), rates.nanmean(dim=0).tolist()
    f1 = [value if state.any() else None for value, state in zip(f1, present.T, strict=True)]
    return dict(zip(LABELS_FIGURES, (accuracy, balanced, f1, precision, calibration), strict=True))


def _share(part: Bool[Tensor, "n k"], whole: Bool[Tensor, "n k"]) -> Float[Tensor, " k"]:
    return part.sum(dim=0).double() / whole.sum(dim=0)  # NaN of nothing


def means(figures: Figures) -> dict[str, float | None]:
    """The mean of each figure over the attributes that have it."""
    return {figure: mean_known(values.values()) for figure, values in figures.items()}
