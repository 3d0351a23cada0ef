"""A path is what two runs of `steer` go through, and its moments are found by what they changed."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

import zsteer
from zsteer.explore.paths import SteeredPath
from zsteer.pictures import to_uint8


def path_of(gains: list[float], start: int) -> SteeredPath:
    """A path of one face, whose only logit, of unit variance over samples, has these values."""
    logits, reference = torch.tensor(gains)[:, None, None], torch.tensor([[-1.0], [0.0], [1.0]])
    return SteeredPath(
        target="Smiling",
        start=start,
        noise=torch.zeros(len(gains), 1, 4),
        images=torch.zeros(len(gains), 1, 3, 2, 2, dtype=torch.uint8),
        seen=logits,
        judged=logits,
        names=(("Smiling",), ("Smiling",)),
        references=(reference, reference),
        step_size="auto",
    )


@pytest.mark.parametrize("method", ["penalty", "tutorial", "projected"])
def test_its_ends_are_those_of_the_runs_bit_for_bit(studio, tmp_path, method):
    noise = studio.first_faces[:2]
    save_file({"noise": noise}, tmp_path / "noise.safetensors")
    aim, shares = replace(studio.first_aim, method=method, penalty_weight=0.3), []  # which no other test has asked for
    path = studio.path(noise, aim, shares.append)
    assert (len(path), path.start) == (13, 6)
    assert torch.equal(path.noise[6], noise)
    words = (*studio.commands.words(method), f"noise={tmp_path / 'noise.safetensors'}", f"method={method}")
    for edit, moments in {"add": range(6, 13), "remove": range(6, -1, -1)}.items():
        run = zsteer.steer(*words, num_steps=6, edit=edit, target="Smiling", penalty_weight=0.3)
        assert torch.equal(path.noise[list(moments)], torch.stack(run.history.noise))
        assert torch.equal(path.seen[list(moments)], torch.stack(run.history.logits))
        assert torch.equal(path.images[moments[-1]], to_uint8(run.images))
    assert path.reach[0] < 0 < path.reach[1]
    assert shares == sorted(shares)
    assert shares[-1] == 1


def test_the_nearest_moment_is_on_the_side_that_is_wanted():
    path = path_of([-2.5, -1.0, 0.5, 0.0, 0.5, 2.0, 1.9], start=3)
    assert path.gains == pytest.approx([-2.5, -1.0, 0.5, 0.0, 0.5, 2.0, 1.9])
    assert [path.nearest(gain) for gain in (-9.0, -0.8, -0.1, 0.0, 0.4, 1.1, 1.92, 9.0)] == [0, 1, 3, 3, 4, 4, 6, 5]
    assert path.reach == (-2.5, 2.0)


def test_of_two_moments_as_near_the_one_after_fewer_steps_is_taken():
    assert path_of([0.0, 1.0, 1.0, 1.0], start=0).nearest(1.0) == 1


def test_the_judge_is_the_measure_where_there_is_one(studio_of):
    studio = studio_of("trainer=cpu", num_images=1)
    path = studio.path(studio.first_faces, studio.first_aim)
    (run,) = (zsteer.steer("trainer=cpu", "method=penalty", num_images=1, where=None, num_steps=6),)
    assert path.gains[-1] == pytest.approx(run.metrics["gain_judge"], rel=1e-4)
    assert path.gains[path.start] == 0


def test_what_is_closed_steers_no_further(studio_of):
    from places import GOLDEN_NETWORKS

    from zsteer.explore.studio import Ended

    studio = studio_of(*GOLDEN_NETWORKS, "trainer=cpu", num_images=1)

    def close(share):
        if share > 0.3:
            studio.close()

    with pytest.raises(Ended):
        studio.path(studio.first_faces, studio.first_aim, close)
    assert not studio.lock.locked()
