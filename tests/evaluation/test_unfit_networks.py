"""Networks that give no numbers are named, by every command that reports what they give."""

import torch
from safetensors.torch import save_file

from zsteer.networks.tutorial import Generator


def test_a_generator_that_gives_no_numbers_is_blamed_and_not_the_classifier(command, tmp_path):
    broken = Generator(hidden_dim=4)
    next(broken.parameters()).data.fill_(torch.nan)
    save_file(broken.state_dict(), tmp_path / "broken.safetensors")
    words = ["generator=tutorial", "generator.network.hidden_dim=4"]
    words += [f"generator.checkpoint={tmp_path / 'broken.safetensors'}"]
    few = ["what=generator", "num_images=8", "data.num_train=8", "data.num_val=8", "data.num_test=8"]
    for name, more in (("steer", []), ("evaluate", [*few, f"data.root={tmp_path}"])):
        ended = command(name, *words, *more)
        assert ended.code == 1
        assert "generator.network gives NaN or infinite images" in ended.err.splitlines()[-1]
