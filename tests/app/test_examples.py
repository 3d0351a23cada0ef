"""The example of real faces: its configs always; the published classifier where its file is at hand."""

import json

import pytest
import torch
from places import REAL, ROOT

EXAMPLE = ("--config-dir", str(ROOT / "examples" / "faces"), "experiment=glasses")
PUBLISHED = REAL / "pretrained_classifier.pth"


@pytest.fixture
def generator_file(tmp_path):
    """A file in the public generator's format, with random weights."""
    from zsteer.networks.dcgan import DCGANGenerator

    path = tmp_path / "weights.tar"
    torch.save({"netG_state_dict": DCGANGenerator().state_dict()}, path)
    return path


def test_weights_that_nobody_gave_are_named(command):
    ended = command("steer", *EXAMPLE)
    assert ended.code != 0
    assert "generator.checkpoint is missing" in ended.err.splitlines()[-1]


@pytest.mark.skipif(not PUBLISHED.is_file(), reason="the published classifier is not at hand")
def test_the_published_classifier_steers_a_dcgan(command, generator_file):
    paths = (f"generator.checkpoint={generator_file}", f"classifier.checkpoint={PUBLISHED}")
    ended = command("steer", *EXAMPLE, *paths, "num_steps=2", "num_images=2")
    assert ended.code == 0, ended.err
    metrics = json.loads((ended.folder / "metrics.json").read_text())
    assert (metrics["target"], metrics["num_steps"]) == ("Eyeglasses", 2)
    assert metrics["gain_judge"] is None
    assert metrics["gain_classifier"] > 0
