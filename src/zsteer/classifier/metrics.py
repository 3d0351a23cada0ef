"""How well a network tells attributes, each by itself."""

import math
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float, Shaped
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

    Images whose target is NaN, which is missing, are left out, and figures of none are None.

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
            figures |= self._by_name(labels, _label_figures(outputs[:, labels], targets[:, labels]))
        if continuous:
            deviations = [self.scales[self.names[column]][1] for column in continuous]
            columns = _continuous_figures(outputs[:, continuous].double(), targets[:, continuous].double(), deviations)
            figures |= self._by_name(continuous, columns)
        return figures

    def _by_name(self, columns: Sequence[int], figures: Mapping[str, Sequence[float | None]]) -> Figures:
        names = [self.names[column] for column in columns]
        return {figure: dict(zip(names, values, strict=True)) for figure, values in figures.items()}


def _label_figures(logits: Float[Tensor, "n k"], targets: Float[Tensor, "n k"]) -> dict[str, list[float | None]]:
    known, seen = ~targets.isnan(), logits > 0
    present, absent = targets > 0.5, targets <= 0.5
    right = (seen & present) | (~seen & absent)
    rates = torch.stack([_share(right & state, state) for state in (present, absent)])
    f1 = _share(2 * (seen & present), (seen & known).int() + present.int())
    columns = [
        (column[those], state[those].long()) for column, state, those in zip(logits.T, present.T, known.T, strict=True)
    ]
    values = (
        _known(_share(right, known)),
        _known(rates.nanmean(dim=0)),
        _known(f1.where(present.any(dim=0), torch.nan)),
        [binary_average_precision(column, state).item() if state.any() else None for column, state in columns],
        [
            binary_calibration_error(column.sigmoid(), state, n_bins=15).item() if len(state) else None
            for column, state in columns
        ],
    )
    return dict(zip(LABELS_FIGURES, values, strict=True))


def _continuous_figures(
    outputs: Float[Tensor, "n k"], targets: Float[Tensor, "n k"], deviations: Sequence[float]
) -> dict[str, list[float | None]]:
    known = ~targets.isnan()
    r2 = [
        r2_score(o[those], t[those]).item() if those.sum() > 1 else None
        for o, t, those in zip(outputs.T, targets.T, known.T, strict=True)
    ]
    errors = (outputs - targets).abs().nanmean(dim=0) * torch.tensor(deviations, device=targets.device)
    return dict(zip(CONTINUOUS_FIGURES, (r2, _known(errors)), strict=True))


def _share(part: Shaped[Tensor, "n k"], whole: Shaped[Tensor, "n k"]) -> Float[Tensor, " k"]:
    return part.sum(dim=0).double() / whole.sum(dim=0)  # NaN of nothing


def _known(values: Float[Tensor, " k"]) -> list[float | None]:
    return [None if math.isnan(value) else value for value in values.tolist()]


def means(figures: Figures) -> dict[str, float | None]:
    """The mean of each figure over the attributes that have it."""
    return {figure: mean_known(values.values()) for figure, values in figures.items()}
