"""The damped direction: what an independent formula says, with the digits that there are."""

import pytest
import torch

from zsteer.steering.damping import System


def pair(dtype=torch.float32):
    random = torch.Generator().manual_seed(0)
    return (
        torch.randn(2, 4, 9, generator=random, dtype=torch.float64).to(dtype),
        torch.randn(2, 9, generator=random, dtype=torch.float64).to(dtype),
    )


def test_a_moderate_stiffness_gives_the_plain_solution():
    jacobian, vectors = pair()
    plain = torch.eye(9) + 0.3 * (jacobian.mT @ jacobian)
    torch.testing.assert_close(
        System(jacobian, torch.full((2,), 0.3)).solve(vectors), torch.linalg.solve(plain, vectors)
    )


@pytest.mark.parametrize("stiffness", [1e6, 1e10])
def test_a_great_stiffness_projects_out_what_moves(stiffness):
    jacobian, vectors = pair()
    moving = (torch.linalg.pinv(jacobian.double()) @ jacobian.double() @ vectors.double()[:, :, None]).squeeze(2)
    solution = System(jacobian, torch.full((2,), stiffness)).solve(vectors)
    torch.testing.assert_close(solution, vectors - moving.float(), rtol=1e-3, atol=1e-4)


def test_what_no_digits_are_left_for_is_no_number_in_its_row_alone():
    jacobian, vectors = pair()
    solution = System(jacobian, torch.tensor([0.3, 1e30])).solve(vectors)
    assert solution.isnan().all(dim=1).tolist() == [False, True]


def test_another_metric_counts_too():
    jacobian, vectors = pair(torch.float64)
    metric = torch.eye(9, dtype=torch.float64).expand(2, -1, -1)
    still = System(0 * jacobian, torch.ones(2, dtype=torch.float64), 3.0, metric)
    torch.testing.assert_close(still.solve(vectors), vectors / 4)  # (1 + 3) I d = v


def test_rows_as_long_as_noise_are_solved_after_the_number_of_threads_was_set():
    torch.manual_seed(0)
    jacobian, vectors, num_threads = torch.randn(8, 39, 256), torch.randn(8, 256), torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        solution = System(jacobian, torch.full((8,), 6.4)).solve(vectors)
    finally:
        torch.set_num_threads(num_threads)
    system = torch.eye(256) + 6.4 * jacobian.mT @ jacobian
    torch.testing.assert_close(torch.einsum("rij,rj->ri", system, solution), vectors, rtol=0, atol=2e-3)
