import dataclasses
from collections.abc import Iterator

import pytest
import torch

from zsteer.data import procedural
from zsteer.data.attributes import CELEBA, EXCLUSIVE, RATES
from zsteer.data.procedural import FACTORS, draw, people, render, with_attributes

CROWD = 20_000

# Rows and columns, first and last, that an attribute may change, with room for pose.
EYES, BROWS, LOWER, NECK = (20, 42, 8, 56), (13, 36, 8, 56), (24, 62, 6, 58), (44, 63, 0, 63)
REGIONS = {
    "Arched_Eyebrows": BROWS,
    "Bags_Under_Eyes": (26, 44, 8, 56),
    "Big_Lips": (36, 58, 14, 50),
    "Big_Nose": (22, 48, 14, 50),
    "Bushy_Eyebrows": BROWS,
    "Double_Chin": NECK,
    "Eyeglasses": (18, 44, 0, 63),
    "Goatee": (40, 62, 14, 50),
    "Heavy_Makeup": (16, 42, 4, 60),
    "High_Cheekbones": (26, 54, 6, 58),
    "Mouth_Slightly_Open": (36, 58, 14, 50),
    "Mustache": (34, 58, 14, 50),
    "Narrow_Eyes": EYES,
    "Pointy_Nose": (22, 48, 14, 50),
    "Rosy_Cheeks": (26, 50, 4, 60),
    "Smiling": (36, 58, 10, 54),
    "Wearing_Earrings": (30, 52, 4, 60),
    "Wearing_Lipstick": (36, 58, 14, 50),
    "Wearing_Necklace": NECK,
    "Wearing_Necktie": (52, 63, 16, 48),
    "5_o_Clock_Shadow": LOWER,
    "Wearing_Hat": (0, 32, 0, 63),
    "Bangs": (0, 36, 4, 60),
    "Sideburns": (20, 48, 4, 60),
}


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Threads that wait for one another are many times slower on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module", params=["celeba", "none"])
def crowd(request: pytest.FixtureRequest) -> procedural.People:
    return people(torch.arange(CROWD), correlation=request.param)


@pytest.fixture(scope="module")
def by_name() -> dict[str, torch.Tensor]:
    attributes = people(torch.arange(CROWD)).attributes
    return {name: attributes[:, index] > 0.5 for index, name in enumerate(CELEBA)}


def share(present: torch.Tensor, among: torch.Tensor) -> float:
    return present[among].float().mean().item()


def plain(count: int) -> procedural.People:
    """People with nothing on that would hide a change: no hat, beard, glasses, bangs or blur."""
    crowd = people(torch.arange(count), seed=5)
    hiding = ("Blurry", "Wearing_Hat", "Bangs", "Bald", "Eyeglasses", "Receding_Hairline", "5_o_Clock_Shadow")
    beards = {"Goatee": False, "Mustache": False, "Sideburns": False, "No_Beard": True}
    return with_attributes(crowd, dict.fromkeys(hiding, False) | beards)


def test_images_do_not_depend_on_batching() -> None:
    images, attributes, factors = draw(torch.arange(64))
    assert images.shape == (64, 3, 64, 64) and images.dtype == torch.uint8
    assert attributes.shape == (64, 40) and factors.shape == (64, len(FACTORS))
    for size in (1, 7):
        batches = [draw(indices) for indices in torch.arange(64).split(size)]
        for whole, parts in zip((images, attributes, factors), zip(*batches, strict=True), strict=True):
            assert torch.equal(whole, torch.cat(parts))
    order = torch.randperm(64, generator=torch.Generator().manual_seed(0))
    assert torch.equal(draw(order)[0], images[order])


def test_blocks_of_people_are_joined_in_order() -> None:
    images, _, _ = draw(torch.arange(100))
    assert torch.equal(images[90:], draw(torch.arange(90, 100))[0])


def test_nobody_is_drawn_for_no_indices() -> None:
    assert draw(torch.arange(0))[0].shape == (0, 3, 64, 64)


def test_seed_changes_people() -> None:
    first, second = people(torch.arange(1000), seed=0), people(torch.arange(1000), seed=1)
    assert not torch.equal(first.attributes, second.attributes)
    correlation = torch.corrcoef(torch.stack([first.style[:, 0], second.style[:, 0]]))[0, 1]
    assert abs(correlation) < 0.1


def test_style_is_uniform_and_uncorrelated() -> None:
    style = people(torch.arange(CROWD), correlation="none").style
    assert style.min() >= 0 and style.max() < 1
    assert (style.mean(0) - 0.5).abs().max() < 0.02
    assert (torch.corrcoef(style.T) - torch.eye(style.shape[1])).abs().max() < 0.05


def test_unknown_correlation() -> None:
    with pytest.raises(ValueError, match="data.correlation=some must be one of celeba, none"):
        people(torch.arange(2), correlation="some")


def test_excluded_pairs_never_meet(crowd: procedural.People) -> None:
    for first, second in EXCLUSIVE:
        both = crowd.attributes[:, CELEBA.index(first)] * crowd.attributes[:, CELEBA.index(second)]
        assert both.sum() == 0, (first, second)


def test_rates_follow_celeba(crowd: procedural.People) -> None:
    for name, rate in zip(CELEBA, crowd.attributes.mean(0) * 100, strict=True):
        assert abs(rate - RATES[name]) < max(1.5, 0.15 * RATES[name]), (name, rate)


@pytest.mark.parametrize(
    ("name", "cause", "times"),
    [
        ("Heavy_Makeup", "Male", 0.05),
        ("Wearing_Lipstick", "Male", 0.05),
        ("Wearing_Earrings", "Male", 0.2),
        ("Wearing_Necktie", "Male", 10),
        ("Mustache", "Male", 10),
        ("Goatee", "Male", 10),
        ("5_o_Clock_Shadow", "Male", 10),
        ("Sideburns", "Male", 10),
        ("Gray_Hair", "Young", 0.2),
        ("Receding_Hairline", "Young", 0.4),
        ("Eyeglasses", "Young", 0.4),
        ("Chubby", "Young", 0.4),
        ("Double_Chin", "Young", 0.4),
        ("High_Cheekbones", "Smiling", 2),
        ("Mouth_Slightly_Open", "Smiling", 2),
    ],
)
def test_dependencies_of_celeba(by_name: dict[str, torch.Tensor], name: str, cause: str, times: float) -> None:
    """The share with the cause is `times` the share without it, or further from 1."""
    there, not_there = share(by_name[name], by_name[cause]), share(by_name[name], ~by_name[cause])
    assert there > times * not_there if times > 1 else there < times * not_there


def test_women_have_longer_hair(by_name: dict[str, torch.Tensor]) -> None:
    length = people(torch.arange(CROWD)).factors[:, FACTORS.index("hair_length")]
    assert length[~by_name["Male"]].mean() > length[by_name["Male"]].mean() + 0.3


def test_none_means_independent() -> None:
    crowd = people(torch.arange(CROWD), correlation="none")
    phi = torch.corrcoef(crowd.attributes.T).fill_diagonal_(0)
    for first, second in EXCLUSIVE:
        one, other = CELEBA.index(first), CELEBA.index(second)
        phi[one, other] = phi[other, one] = 0
    worst = int(phi.abs().argmax())
    assert phi.abs().max() < 0.05, (CELEBA[worst // 40], CELEBA[worst % 40])


def test_factors_agree_with_attributes(crowd: procedural.People) -> None:
    has = {name: crowd.attributes[:, CELEBA.index(name)] > 0.5 for name in CELEBA}
    factor = dict(zip(FACTORS, crowd.factors.unbind(1), strict=True))
    assert torch.equal(factor["age"] < 40, has["Young"])
    assert torch.equal(factor["smile"] > 0.5, has["Smiling"])
    assert torch.equal(factor["hair_length"] < 0.1, has["Bald"])
    for name in ("yaw", "pitch", "light"):
        assert factor[name].min() >= -1 and factor[name].max() <= 1 and factor[name].std() > 0.3
    for name in ("age", "smile", "hair_length"):
        assert len(factor[name].unique()) > CROWD / 10


@pytest.mark.parametrize("name", CELEBA)
def test_switching_an_attribute_changes_what_it_means(name: str) -> None:
    crowd = plain(16)
    off, on = with_attributes(crowd, {name: False}), with_attributes(crowd, {name: True})
    before, after = render(off), render(on)
    change = (before.float() - after.float()).abs().amax(1)
    assert (change.amax((1, 2)) > 40).float().mean() > 0.9  # visible on nearly everyone
    assert ((change > 12).sum((1, 2)) >= 8).float().mean() > 0.9  # and more than a few pixels
    if name in REGIONS:
        top, bottom, left, right = REGIONS[name]
        change[:, top : bottom + 1, left : right + 1] = 0
        assert change.max() <= 2


def test_switching_keeps_everything_else() -> None:
    crowd = people(torch.arange(50))
    changed = with_attributes(crowd, {"smiling": True, "Bald": True})
    assert torch.equal(changed.style, crowd.style)
    assert changed.attributes[:, CELEBA.index("Bald")].all()
    excluded = {"Bangs", "Black_Hair", "Blond_Hair", "Brown_Hair", "Gray_Hair", "Receding_Hairline", "Straight_Hair"}
    excluded |= {"Wavy_Hair", "Wearing_Hat"}
    kept = [index for index, name in enumerate(CELEBA) if name not in excluded | {"Bald", "Smiling"}]
    assert not changed.attributes[:, [CELEBA.index(name) for name in excluded]].any()
    assert torch.equal(changed.attributes[:, kept], crowd.attributes[:, kept])
    same = [FACTORS.index(name) for name in ("age", "yaw", "pitch", "light")]
    assert torch.equal(changed.factors[:, same], crowd.factors[:, same])
    assert (changed.factors[:, FACTORS.index("smile")] > 0.5).all()


def test_shaving_the_last_beard_leaves_none() -> None:
    bearded = with_attributes(people(torch.arange(20)), {"Goatee": True, "Mustache": True})
    for kind in ("5_o_Clock_Shadow", "Sideburns", "Mustache"):
        bearded = with_attributes(bearded, {kind: False})
    assert not bearded.attributes[:, CELEBA.index("No_Beard")].any()
    assert with_attributes(bearded, {"Goatee": False}).attributes[:, CELEBA.index("No_Beard")].all()


def test_factors_move_the_picture() -> None:
    crowd = plain(16)
    for name, low, high in (("yaw", -1.0, 1.0), ("pitch", -1.0, 1.0), ("light", -1.0, 1.0), ("hair_length", 0.15, 1.0)):
        images = []
        for value in (low, high):
            factors = crowd.factors.clone()
            factors[:, FACTORS.index(name)] = value
            images.append(render(dataclasses.replace(crowd, factors=factors)).float())
        assert ((images[0] - images[1]).abs() > 20).float().mean() > 0.02, name


def test_unknown_attribute() -> None:
    with pytest.raises(ValueError, match="did you mean 'Smiling'"):
        with_attributes(people(torch.arange(2)), {"Smilling": True})
