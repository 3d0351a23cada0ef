"""A classifier for tests of what a GAN's training is told by one."""

import pytest
import torch

from zsteer.networks.checkpoints import save_weights
from zsteer.networks.tutorial import Classifier


@pytest.fixture(scope="module")
def section(tmp_path_factory):
    """A config's section of a classifier of two labels, with a regressor of a number."""
    folder = tmp_path_factory.mktemp("networks")
    torch.manual_seed(0)

    def network(name, outputs):
        save_weights(Classifier(n_classes=outputs, hidden_dim=2), folder / f"{name}.safetensors", {})
        made = {"_target_": "zsteer.networks.Classifier", "n_classes": outputs, "hidden_dim": 2}
        return {"network": made, "checkpoint": str(folder / f"{name}.safetensors"), "checkpoint_key": None}

    regressor = {**network("regressor", 1), "attributes": ["height"], "scale": 8.0}
    return {**network("classifier", 2), "attributes": ["Smiling", "Male"], "regressor": regressor}
