"""Who the drawn people are: a counter-based hash gives everybody attributes, continuous factors and a style.

A person is a function of (seed, index).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from zsteer.data.attributes import CELEBA, RATES, entailed, find
from zsteer.settings import choice

# Continuous factors, in this order:
#   age          years: 18 to 38 where Young, 45 to 80 where not
#   hair_length  0 (none) to 1 (below the shoulders): under 0.05 where Bald, at least 0.15 where not
#   yaw          -1 (turned to the picture's left by about 25 degrees) to 1 (to its right)
#   pitch        -1 (looking up by about 10 degrees) to 1 (down)
#   smile        0 (none) to 1 (broad): at most 0.3 where not Smiling, at least 0.65 where Smiling
#   light        -1 (from the picture's left) to 1 (from its right)
FACTORS = ("age", "hair_length", "yaw", "pitch", "smile", "light")
# What else distinguishes people: uniform numbers in [0, 1).
STYLE = tuple(
    (
        "age hair_length yaw pitch smile light shift_x shift_y scale roll "
        "skin jaw iris gaze eyes brows nose lips mouth blotches crooked "
        "hair hair_phase hairline background background_tone background_x background_y "
        "clothes clothes_tone makeup lipstick glasses hat metal tie"
    ).split()
)
CORRELATIONS = ("celeba", "none")  # CelebA's main dependencies between attributes, or none

BEARDS = ("5_o_Clock_Shadow", "Goatee", "Mustache", "Sideburns")
# Share of each (sex, age) group among people: young women, older women, young men, older men.
_GROUPS = (0.4956, 0.0874, 0.2780, 0.1390)
# How often an attribute is present in each of those groups, relative to one another; an attribute not listed is equally
# frequent in all. The order is the order of drawing: excluders and causes come first.
_RELATIVE = {
    "Smiling": (56, 50, 42, 36),
    "Attractive": (70, 25, 38, 12),
    "Heavy_Makeup": (100, 55, 0.4, 0.4),
    "Wearing_Lipstick": (100, 90, 0.5, 0.5),
    "Arched_Eyebrows": (100, 70, 25, 15),
    "Bags_Under_Eyes": (6, 12, 14, 20),
    "Big_Lips": (12, 6, 9, 6),
    "Big_Nose": (5, 10, 15, 22),
    "Bushy_Eyebrows": (5, 3, 19, 15),
    "Chubby": (3, 15, 10, 35),
    "Double_Chin": (2, 20, 6, 40),
    "Eyeglasses": (3, 15, 10, 35),
    "High_Cheekbones": (120, 100, 75, 70),
    "Oval_Face": (11, 8, 9, 8),
    "Pale_Skin": (12, 9, 8, 6),
    "Pointy_Nose": (12, 8, 9, 7),
    "Rosy_Cheeks": (160, 80, 2, 2),
    "Bald": (0, 0, 6, 30),
    "Gray_Hair": (0.2, 20, 1, 40),
    "Black_Hair": (10, 4, 14, 5),
    "Blond_Hair": (150, 120, 30, 15),
    "Brown_Hair": (11, 8, 10, 6),
    "Straight_Hair": (9, 8, 12, 10),
    "Wavy_Hair": (15, 11, 4, 3),
    "Bangs": (13, 9, 5, 3),
    "Receding_Hairline": (3, 12, 10, 40),
    "Wearing_Hat": (5, 3, 20, 10),
    "Wearing_Earrings": (150, 170, 5, 5),
    "Wearing_Necklace": (160, 180, 8, 10),
    "Wearing_Necktie": (1, 1, 100, 200),
    "No_Beard": (100, 100, 60.4, 60.4),
    "5_o_Clock_Shadow": (0, 0, 11, 8),
    "Goatee": (0, 0, 1, 1),
    "Mustache": (0, 0, 8, 13),
    "Sideburns": (0, 0, 1, 1),
}
# How many times as frequent an attribute is where its cause is present as where it is absent, within a group.
_CAUSES = {
    "High_Cheekbones": ("Smiling", 4.0),
    "Mouth_Slightly_Open": ("Smiling", 2.4),
    "Wearing_Lipstick": ("Heavy_Makeup", 1.5),
    "Arched_Eyebrows": ("Heavy_Makeup", 1.6),
    "Rosy_Cheeks": ("Heavy_Makeup", 5.0),
    "Double_Chin": ("Chubby", 5.0),
}


@dataclass(frozen=True)
class People:
    """Everything that `render` needs to know of n people: attributes (0 or 1), factors (`FACTORS`), style (`STYLE`)."""

    attributes: Float[Tensor, "n 40"]
    factors: Float[Tensor, "n factors"]
    style: Float[Tensor, "n style"]

    def __len__(self) -> int:
        return len(self.attributes)

    def __getitem__(self, rows: slice | Tensor) -> "People":
        return People(self.attributes[rows], self.factors[rows], self.style[rows])


def _mix(bits: Tensor) -> Tensor:
    # splitmix64's finaliser; int64 wraps like uint64, but its right shift copies the sign, hence the masks.
    bits = (bits ^ ((bits >> 30) & 0x3FFFFFFFF)) * -0x40A7B892E31B1A47
    bits = (bits ^ ((bits >> 27) & 0x1FFFFFFFFF)) * -0x6B2FB644ECCEEE15
    return bits ^ ((bits >> 31) & 0x1FFFFFFFF)


def _uniform(indices: Tensor, seed: int, channels: int) -> Tensor:
    """Uniform numbers in [0, 1), [n, channels], each a hash of (seed, index, channel)."""
    golden = -0x61C8864680B583EB
    key = _mix(torch.tensor(seed, dtype=torch.int64) * golden + 1)
    rows = _mix(key + indices.to(torch.int64) * golden)
    bits = _mix(rows[:, None] + torch.arange(1, channels + 1) * golden)
    return ((bits >> 40) & 0xFFFFFF).float() / 0x1000000


def _group_rates(correlation: str) -> dict[str, Tensor]:
    """Probability of each attribute in the four groups of `_GROUPS`; the mean over the groups is CelebA's rate."""
    share = torch.tensor(_GROUPS)
    rates = {}
    for name in [*_RELATIVE, *(name for name in CELEBA if name not in _RELATIVE)]:
        relative = torch.tensor(_RELATIVE.get(name, (1.0,) * 4)) if correlation == "celeba" else torch.ones(4)
        rates[name] = RATES[name] / 100 * relative / (share * relative).sum()
    return rates


def _draw_attributes(uniform: Tensor, correlation: str) -> Tensor:
    rates = _group_rates(correlation)
    numbers = dict(zip(CELEBA, uniform.unbind(1), strict=True))
    male = numbers["Male"] < RATES["Male"] / 100
    young_women = _GROUPS[0] / (_GROUPS[0] + _GROUPS[1])
    young_men = _GROUPS[2] / (_GROUPS[2] + _GROUPS[3])
    by_sex = torch.where(male, young_men, young_women)
    young = numbers["Young"] < (by_sex if correlation == "celeba" else RATES["Young"] / 100)
    group = 2 * male.long() + (~young).long()
    present = {"Male": male, "Young": young}
    for name, by_group in rates.items():
        if name in present or (name == "No_Beard" and correlation == "none"):
            continue
        # Drawn among those who may have it, so that what excludes it does not lower its rate. The excluders that
        # matter for one attribute exclude each other, so their probabilities add up.
        earlier = [other for other in entailed(name) if other in present]
        possible = 1 - sum((rates[other] for other in earlier), torch.zeros(4))
        probability = (by_group / possible.clamp(min=1e-6))[group]
        if name in _CAUSES and correlation == "celeba":
            cause, times = _CAUSES[name]
            scale = 1 + (times - 1) * rates[cause][group]
            probability = probability * torch.where(present[cause], times, 1.0) / scale
        present[name] = numbers[name] < probability
        for other in earlier:
            present[name] &= ~present[other]
    if correlation == "none":
        # Kinds of beard must be independent of one another, which leaves No_Beard to those without any.
        present["No_Beard"] = ~torch.stack([present[name] for name in BEARDS]).any(0)
    return torch.stack([present[name] for name in CELEBA], 1).float()


def _factors(attributes: Tensor, style: Tensor) -> Tensor:
    """The continuous factors, [n, factors]: the style's place within the range that the attributes leave."""
    number = {name: style[:, STYLE.index(name)] for name in FACTORS}
    has = {name: attributes[:, CELEBA.index(name)] > 0.5 for name in ("Young", "Bald", "Smiling")}
    columns = {
        "age": torch.where(has["Young"], 18 + 20 * number["age"], 45 + 35 * number["age"]),
        "hair_length": torch.where(has["Bald"], 0.049 * number["hair_length"], 0.15 + 0.85 * number["hair_length"]),
        "yaw": 2 * number["yaw"] - 1,
        "pitch": 2 * number["pitch"] - 1,
        "smile": torch.where(has["Smiling"], 0.65 + 0.35 * number["smile"], 0.3 * number["smile"]),
        "light": 2 * number["light"] - 1,
    }
    return torch.stack([columns[name] for name in FACTORS], 1)


def people(indices: Int[Tensor, " n"], seed: int = 0, correlation: str = "celeba") -> People:
    """The people of a seed, each a hash of (seed, index).

    Args:
        correlation: `celeba` draws CelebA's rates and main dependencies (on sex, age and smile); `none` draws
            attributes independently at CelebA's rates, apart from the pairs of `EXCLUSIVE`.

    Raises:
        ValueError: another correlation.
    """
    choice(correlation, "data.correlation", CORRELATIONS)
    uniform = _uniform(indices, seed, len(CELEBA) + len(STYLE))
    attributes, style = _draw_attributes(uniform[:, : len(CELEBA)], correlation), uniform[:, len(CELEBA) :].clone()
    # Most heads are nearly frontal, so yaw and pitch lean towards the middle.
    for name in ("yaw", "pitch"):
        turn = 2 * style[:, STYLE.index(name)] - 1
        style[:, STYLE.index(name)] = 0.5 + 0.5 * turn * (0.4 + 0.6 * turn.abs())
    if correlation == "celeba":
        length = style[:, STYLE.index("hair_length")]
        men = 0.6 * length * length * length
        style[:, STYLE.index("hair_length")] = torch.where(
            attributes[:, CELEBA.index("Male")] > 0.5, men, 0.3 + 0.7 * length
        )
    return People(attributes, _factors(attributes, style), style)


def with_attributes(crowd: People, changes: Mapping[str, bool]) -> People:
    """The same people with some attributes set, the factors that these imply with them, and all else equal.

    What `EXCLUSIVE` contradicts is switched off; who loses the last kind of beard gets No_Beard.
    """
    attributes = crowd.attributes.clone()
    for name, present in changes.items():
        column = find(name, CELEBA, key="changes", owner="the procedural faces")
        had_beard = attributes[:, [CELEBA.index(kind) for kind in BEARDS]].amax(1)
        attributes[:, column] = float(present)
        if present:
            attributes[:, [CELEBA.index(other) for other in entailed(CELEBA[column])]] = 0.0
        elif CELEBA[column] in BEARDS:
            has_beard = attributes[:, [CELEBA.index(kind) for kind in BEARDS]].amax(1)
            attributes[:, CELEBA.index("No_Beard")] += had_beard - has_beard
    return People(attributes, _factors(attributes, crowd.style), crowd.style)
