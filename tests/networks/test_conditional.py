"""A conditional generator: its prior, what it is asked for, and how it stands beside its weights."""

import pytest
import torch
from torch import nn

from zsteer.networks.conditional import ConditionalGenerator, conditioned
from zsteer.networks.inference import frozen, noise_of, num_free


class Plain(nn.Module):
    """Images that are the noise itself."""

    z_dim = 12

    def forward(self, noise):
        return noise.view(-1, 3, 2, 2)


NAMES = ("Smiling", "Eyeglasses", "age")


@pytest.fixture
def generator():
    """Of data in which all who smile wear glasses, half of the others do, and ages go from 20 to 69."""
    random = torch.Generator().manual_seed(0)
    smiling = torch.rand(5000, generator=random) < 0.3
    glasses = smiling | (torch.rand(5000, generator=random) < 0.5)
    age = 20 + torch.arange(5000) % 50
    targets = torch.stack([smiling, glasses, age], dim=1).float().numpy()
    generator = ConditionalGenerator(Plain(), NAMES, num_examples=2000)
    generator.learn(targets, [(0.0, 1.0), (0.0, 1.0), (44.5, 10.0)])
    return generator


def drawn(generator, num, **wanted):
    """What the noise says of smiles, glasses and ages."""
    noise = noise_of(generator, num, 0, wanted)
    smiling, glasses, age = noise[:, -3:].T
    return smiling, glasses, age * 10 + 44.5


def test_the_prior_is_normal_noise_beside_conditions_as_they_occur_together(generator):
    noise = noise_of(generator, 4000, 1)
    assert noise.shape == (4000, 12) and num_free(generator) == 9
    free, (smiling, glasses, age) = noise[:, :9], noise[:, 9:].T
    assert free.mean().abs() < 0.02 and (free.std() - 1).abs() < 0.02
    assert {tuple(row) for row in noise[:, 9:].tolist()} <= {tuple(row) for row in generator.examples.tolist()}
    assert (smiling.mean() - 0.3).abs() < 0.04
    assert glasses[smiling == 1].mean() == 1 and (glasses[smiling == 0].mean() - 0.5).abs() < 0.04
    assert torch.equal(noise, noise_of(generator, 4000, 1)) and not torch.equal(noise, noise_of(generator, 4000, 2))
    assert age.min() >= -2.5


def test_what_is_asked_for_is_given_and_the_rest_is_as_in_the_data(generator):
    smiling, glasses, _ = drawn(generator, 500, Smiling=True)
    assert (smiling == 1).all() and (glasses == 1).all()
    smiling, glasses, _ = drawn(generator, 500, smiling=False)
    assert (smiling == 0).all() and 0.4 < glasses.mean() < 0.6
    smiling, _, age = drawn(generator, 500, age=30, Eyeglasses=False)
    torch.testing.assert_close(age, torch.full((500,), 30.0), rtol=0, atol=1e-4)
    assert (smiling == 0).all()
    smiling, glasses, _ = drawn(generator, 500, Smiling=True, Eyeglasses=False)  # which no example has
    assert (smiling == 1).all() and (glasses == 0).all()


def test_a_factor_brings_what_goes_with_its_value():
    # The old wear glasses and the young do not.
    age = torch.arange(20, 70).repeat(40).float()
    targets = torch.stack([torch.zeros(2000), (age >= 45).float(), age], dim=1)
    targets[0, 0] = 1
    generator = ConditionalGenerator(Plain(), NAMES, 2000)
    generator.learn(targets.numpy(), [(0.0, 1.0), (0.0, 1.0), (44.5, 14.4)])
    for years, glasses in ((30, 0), (60, 1)):
        noise = noise_of(generator, 200, 0, {"age": years})
        assert (noise[:, 10] == glasses).all()
        torch.testing.assert_close(noise[:, 11], torch.full((200,), (years - 44.5) / 14.4))


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        (
            {"Smilling": True},
            "condition='Smilling' is not an attribute of what the generator is conditioned on; did you",
        ),
        ({"Male": True}, "known are Smiling, Eyeglasses, age"),
        ({"Smiling": 2}, "condition={Smiling: 2} must be true or false, or between 0 and 1"),
        ({"Smiling": "yes"}, "condition={Smiling: yes} must be true or false"),
        ({"age": 15}, "condition={age: 15} must be a number from 20 to 69, as in the data"),
        ({"age": float("nan")}, "condition={age: nan} must be a number from 20 to 69"),
        ({"Smiling": 1.0005}, "condition={Smiling: 1.0005} must be true or false"),
        ({"Smiling": True, "smiling": False}, "condition={Smiling: true, smiling: false} names Smiling twice"),
        ({"age": True}, "condition={age: true} must be a number from 20 to 69"),
    ],
)
def test_what_the_generator_cannot_be_told_is_refused(generator, wanted, said):
    with pytest.raises(ValueError) as error:
        noise_of(generator, 4, 0, wanted)
    assert said in str(error.value)


def test_a_generator_without_a_condition_takes_none():
    with pytest.raises(
        ValueError, match=r"condition=\{Smiling: true\}: the generator takes none; train one with gan.cond"
    ):
        noise_of(Plain(), 4, 0, {"Smiling": True})
    assert num_free(Plain()) == 12


def test_a_condition_leaves_room_for_noise_and_stays_what_it_is():
    with pytest.raises(ValueError, match="gan.condition has 12 names, which must be fewer than .* z_dim=12"):
        conditioned(Plain(), [str(number) for number in range(12)])
    plain = Plain()
    assert conditioned(plain, ()) is plain
    made = conditioned(plain, ["Smiling", "hair_length"])
    assert isinstance(made, ConditionalGenerator) and conditioned(made, ["smiling", "hair_length"]) is made
    with pytest.raises(ValueError, match=r"gan.condition=\[\] must be \[Smiling,hair_length\]"):
        conditioned(made, ())
    with pytest.raises(ValueError, match="gan.condition=2 must be 'celeba' or a list of names"):
        conditioned(Plain(), 2)


def test_a_frozen_copy_draws_the_same(generator):
    assert torch.equal(noise_of(frozen(generator, torch.float32), 8, 3), noise_of(generator, 8, 3))
