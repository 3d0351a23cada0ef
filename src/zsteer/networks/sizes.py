"""Which images a network takes."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor


def check_size(images: Float[Tensor, "n c h w"], sizes: Sequence[int]) -> None:
    """
    Args:
        sizes: pixels a side, ascending.

    Raises:
        ValueError: images of another size than a network takes.
    """
    height, width = images.shape[2:]
    if height not in sizes or width not in sizes:
        taken = f"{sizes[0]}" if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}"
        raise ValueError(f"it takes images of {taken} pixels a side, not of {height}×{width}")
