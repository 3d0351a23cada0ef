"""Work that does not fit into memory at once is done in halves, and says where one row is too much."""

import pytest
import torch

from zsteer.networks.memory import in_parts

GPU = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
CPU = RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory")


def doubled(most, error, sizes):
    """A function of a slice of seven numbers that takes so many at most."""

    def compute(part):
        rows = torch.arange(7)[part]
        sizes.append(len(rows))
        if len(rows) > most:
            raise error
        return 2 * rows

    return compute


@pytest.mark.parametrize("error", [GPU, CPU, MemoryError("Unable to allocate 8.00 GiB")])
def test_halves_of_halves_are_joined_in_order(error):
    sizes = []
    assert torch.equal(in_parts(doubled(2, error, sizes), 7, torch.cat), 2 * torch.arange(7))
    assert sizes == [7, 3, 1, 2, 4, 2, 2]


def test_one_row_that_does_not_fit_is_a_line_with_the_remedy():
    with pytest.raises(ValueError, match="one image alone does not fit into memory .*2.00 GiB.*; use smaller networks"):
        in_parts(doubled(0, GPU, []), 7, torch.cat)


def test_other_errors_are_not_tried_again():
    sizes = []
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        in_parts(doubled(2, RuntimeError("mat1 and mat2 shapes cannot be multiplied"), sizes), 7, torch.cat)
    assert sizes == [7]
