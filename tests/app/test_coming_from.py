"""The classes of docs/coming_from.md take the files that they are for."""

import re
import sys
from types import ModuleType

import pytest
import torch
from places import ROOT
from torch import nn

from zsteer.app.composition import compose
from zsteer.networks.inference import images_of
from zsteer.networks.loading import load_network, try_generator

PAGE = (ROOT / "docs" / "coming_from.md").read_text()


class StyleGAN2(nn.Module):
    """What is used of rosinality's generator: noise as a list, an image and a latent back."""

    def __init__(self, size, style_dim, n_mlp):
        super().__init__()
        self.style = nn.Sequential(*(nn.Linear(style_dim, style_dim) for _ in range(n_mlp)))
        self.conv = nn.Parameter(torch.randn(1, 3, style_dim, 1, 1))  # of five dimensions, as its convolutions have
        self.register_buffer("noise", torch.zeros(1, 1, size, size))

    def forward(self, noise, randomize_noise):
        assert not randomize_noise
        pixels = self.style(noise[0]) @ self.conv[0, :, :, 0, 0].T
        return (pixels[:, :, None, None] + self.noise).tanh(), None


class SNGANGenerator64(nn.Module):
    """What is used of mimicry's generator."""

    def __init__(self, nz):
        super().__init__()
        self.l1 = nn.Linear(nz, 3 * 64 * 64)

    def forward(self, noise):
        return self.l1(noise).view(-1, 3, 64, 64).tanh()


def module(name, **content):
    made = ModuleType(name)
    vars(made).update(content)
    return made


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """The page's files in a folder, and stand-ins for the repositories whose classes they wrap."""
    for block in re.findall(r"```(?:python|yaml)\n(.*?)```", PAGE, flags=re.S):
        path = tmp_path / re.findall(r"^# (\S+)", block)[0]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block)
    for name in ("torch_mimicry", "torch_mimicry.nets"):
        monkeypatch.setitem(sys.modules, name, module(name))
    sngan = module("torch_mimicry.nets.sngan", SNGANGenerator64=SNGANGenerator64)
    monkeypatch.setitem(sys.modules, "torch_mimicry.nets.sngan", sngan)
    monkeypatch.setitem(sys.modules, "model", module("model", Generator=StyleGAN2))
    for name in ("mine_stylegan2", "mine_mimicry"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", ["stylegan2", "sngan64"])
def test_generators_of_other_repositories_are_taken(name, mine):
    torch.manual_seed(1)
    if name == "stylegan2":
        trained, z_dim = StyleGAN2(16, 512, 8), 512
        other = StyleGAN2(16, 512, 8)  # the one that is not averaged
        content = {"g": other.state_dict(), "d": {"x": torch.zeros(1)}, "g_ema": trained.state_dict(), "args": None}
        expected = trained([torch.ones(2, 512)], randomize_noise=False)[0]
    else:
        trained, z_dim = SNGANGenerator64(128), 128
        content = {"model_state_dict": trained.state_dict(), "optimizer_state_dict": {}, "global_step": 100_000}
        expected = trained(torch.ones(2, 128))
    cfg = compose("steer", [f"generator={name}"], mine / "my_configs")
    torch.save(content, mine / cfg.generator.checkpoint)
    size = ["generator.network.size=16"] if name == "stylegan2" else []
    words = [f"generator={name}", f"generator.checkpoint={mine / cfg.generator.checkpoint}", *size]
    generator = load_network(compose("steer", words, mine / "my_configs").generator, "generator")
    try_generator(generator)
    torch.testing.assert_close(images_of(generator, torch.ones(2, z_dim)), expected.detach(), rtol=1e-4, atol=1e-5)
