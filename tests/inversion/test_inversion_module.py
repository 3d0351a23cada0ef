"""Descent on noise, on a generator whose noise is its image, so that what is nearest is known."""

from functools import partial

import pytest
import torch
from pytorch_lightning import Trainer
from torch import nn

from zsteer.inversion.distance import Distance, FeatureSpace
from zsteer.inversion.module import LatentInversion
from zsteer.steering.module import TRAINER_SETTINGS

STEPS = 150
PRIOR = torch.randn(16, 48, generator=torch.Generator().manual_seed(1)) / 4


class Mirror(nn.Module):
    """4×4 images that are their noise."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, noise):
        return self.scale * noise.view(-1, 3, 4, 4)


@pytest.fixture
def invert():
    """Run a module of some pictures and starts on the CPU."""
    torch.manual_seed(0)
    classifier = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Tanh(), nn.Flatten(), nn.Linear(64, 2)).requires_grad_(False)
    generator = Mirror().requires_grad_(False)
    samples = generator(PRIOR)
    distance = Distance.over(samples, FeatureSpace.over(samples, classifier, "classifier"), 0.5)

    def run(pictures, starts, radii=(0.0, 10.0)):
        optimizer = partial(torch.optim.Adam, lr=0.05)
        scheduler = partial(torch.optim.lr_scheduler.CosineAnnealingLR, T_max=STEPS)
        module = LatentInversion(generator, distance, pictures, starts, optimizer, scheduler, radii)
        trainer = Trainer(**TRAINER_SETTINGS, accelerator="cpu", enable_progress_bar=False)
        trainer.fit(module, range(STEPS))
        return module

    return run


def test_noise_is_the_only_parameter_and_ends_at_its_own_picture(invert):
    module = invert(PRIOR[:3].view(3, 3, 4, 4), PRIOR[3:6])
    assert [name for name, _ in module.named_parameters()] == ["noise"]
    assert list(module.state_dict()) == ["noise"]
    torch.testing.assert_close(module.noise.detach(), PRIOR[:3], rtol=0, atol=0.02)


def test_losses_are_those_before_each_step_and_after_the_last(invert):
    module = invert(PRIOR[:2].view(2, 3, 4, 4), PRIOR[2:4])
    losses = torch.stack(module.losses)
    assert losses.shape == (STEPS + 1, 2)
    features = module._distance.space.look(PRIOR[:2].view(2, 3, 4, 4))[0]
    for step, noise in ((0, PRIOR[2:4]), (-1, module.noise.detach())):
        expected = module._distance.pairs(noise.view(2, 3, 4, 4), PRIOR[:2].view(2, 3, 4, 4), features)
        torch.testing.assert_close(losses[step], expected)
    assert (losses[-1] < 0.05 * losses[0]).all()


def test_a_row_ends_where_it_would_alone(invert):
    pictures = PRIOR[:3].view(3, 3, 4, 4)
    together = invert(pictures, PRIOR[3:6])
    alone = invert(pictures[1:2], PRIOR[4:5])
    torch.testing.assert_close(together.noise[1:2], alone.noise, rtol=1e-4, atol=1e-5)


def test_the_norm_stays_between_the_radii(invert):
    far, near = torch.full((1, 48), 0.9), torch.full((1, 48), 0.01)
    module = invert(torch.cat([far, near]).view(2, 3, 4, 4), PRIOR[:2], radii=(1.0, 2.0))
    torch.testing.assert_close(module.noise.norm(dim=1), torch.tensor([2.0, 1.0]))
