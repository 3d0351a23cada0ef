"""How near found images are to the given pictures: figures of each."""

from collections.abc import Mapping, Sequence

import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from zsteer.inversion.distance import FeatureSpace
from zsteer.networks.inference import check_finite

BATCH_SIZE = 128
FIGURES = ("pixel_error", "feature_distance_classifier", "feature_distance_judge", "attributes_kept")


@torch.no_grad()
def likeness(
    given: Float[Tensor, "n 3 h w"],
    found: Float[Tensor, "n 3 h w"],
    classifier: FeatureSpace,
    judge: FeatureSpace | None,
    labels: Mapping[str, int],
) -> pd.DataFrame:
    """A row for each picture; what needs a judge is missing without one.

    `pixel_error` is mean |x − y| over images in [-1, 1]; of the judge's attributes, `attributes_kept` is the share of
    those whose state is the same in both, `gained` names those that it sees only in the found image, and `lost` those
    that it sees only in the given picture.

    Args:
        labels: the columns of the judge's logits that have states, by name.

    Raises:
        ValueError: the judge gives NaN or infinity.
    """
    pairs = list(zip(given.split(BATCH_SIZE), found.split(BATCH_SIZE), strict=True))
    table = pd.DataFrame({"pixel_error": (found - given).abs().mean(dim=(1, 2, 3)).tolist()})
    table["feature_distance_classifier"] = _seen(classifier, pairs)[0].tolist()
    table[["feature_distance_judge", "attributes_kept", "gained", "lost"]] = None
    if judge is not None:
        apart, *logits = _seen(judge, pairs)
        check_finite("judge", torch.cat(logits))
        before, after = (part[:, list(labels.values())] > 0 for part in logits)
        table["feature_distance_judge"] = apart.tolist()
        table["attributes_kept"] = (before == after).double().mean(dim=1).tolist()  # NaN of a regressor
        table["gained"], table["lost"] = _names(after & ~before, labels), _names(before & ~after, labels)
    return table


def _seen(space: FeatureSpace, pairs: Sequence[tuple[Tensor, Tensor]]) -> list[Tensor]:
    """How far apart pairs of images are in a classifier's features, and its logits of the one and of the other."""
    seen = []
    for given, found in pairs:
        (one, before), (other, after) = space.look(given), space.look(found)
        seen.append((space.distance(one, other), before, after))
    return [torch.cat(parts).cpu() for parts in zip(*seen, strict=True)]


def _names(states: Bool[Tensor, "n k"], labels: Mapping[str, int]) -> list[str]:
    return [" ".join(name for name, state in zip(labels, row, strict=True) if state) for row in states.tolist()]
