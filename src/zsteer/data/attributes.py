"""CelebA's 40 binary face attributes: names, accepted spellings, how often each is present, which exclude one another.

Liu et al., "Deep Learning Face Attributes in the Wild", ICCV 2015. This file imports nothing heavy, so that a misspelt
attribute is reported before torch is loaded.
"""

import difflib
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

# Share of CelebA's images that have the attribute, in per cent, in the order of CelebA's annotation file.
RATES = {
    "5_o_Clock_Shadow": 11.1,
    "Arched_Eyebrows": 26.7,
    "Attractive": 51.3,
    "Bags_Under_Eyes": 20.5,
    "Bald": 2.2,
    "Bangs": 15.2,
    "Big_Lips": 24.1,
    "Big_Nose": 23.5,
    "Black_Hair": 23.9,
    "Blond_Hair": 14.8,
    "Blurry": 5.1,
    "Brown_Hair": 20.5,
    "Bushy_Eyebrows": 14.2,
    "Chubby": 5.8,
    "Double_Chin": 4.7,
    "Eyeglasses": 6.5,
    "Goatee": 6.3,
    "Gray_Hair": 4.2,
    "Heavy_Makeup": 38.7,
    "High_Cheekbones": 45.5,
    "Male": 41.7,
    "Mouth_Slightly_Open": 48.3,
    "Mustache": 4.2,
    "Narrow_Eyes": 11.5,
    "No_Beard": 83.5,
    "Oval_Face": 28.4,
    "Pale_Skin": 4.3,
    "Pointy_Nose": 27.7,
    "Receding_Hairline": 8.0,
    "Rosy_Cheeks": 6.6,
    "Sideburns": 5.7,
    "Smiling": 48.2,
    "Straight_Hair": 20.8,
    "Wavy_Hair": 32.0,
    "Wearing_Earrings": 18.9,
    "Wearing_Hat": 4.9,
    "Wearing_Lipstick": 47.2,
    "Wearing_Necklace": 12.3,
    "Wearing_Necktie": 7.3,
    "Young": 77.4,
}

CELEBA = tuple(RATES)

# Pairs of which an image has at most one, because they contradict each other or because one hides the other. Whoever
# steers one attribute of a pair may push the other down: that is entailed, not a side effect.
EXCLUSIVE = (
    ("Black_Hair", "Blond_Hair"),
    ("Black_Hair", "Brown_Hair"),
    ("Black_Hair", "Gray_Hair"),
    ("Blond_Hair", "Brown_Hair"),
    ("Blond_Hair", "Gray_Hair"),
    ("Brown_Hair", "Gray_Hair"),
    ("Straight_Hair", "Wavy_Hair"),
    ("No_Beard", "5_o_Clock_Shadow"),
    ("No_Beard", "Goatee"),
    ("No_Beard", "Mustache"),
    ("No_Beard", "Sideburns"),
    ("Pale_Skin", "Rosy_Cheeks"),
    ("Bald", "Bangs"),
    ("Bald", "Black_Hair"),
    ("Bald", "Blond_Hair"),
    ("Bald", "Brown_Hair"),
    ("Bald", "Gray_Hair"),
    ("Bald", "Receding_Hairline"),
    ("Bald", "Straight_Hair"),
    ("Bald", "Wavy_Hair"),
    ("Bangs", "Receding_Hairline"),
    ("Wearing_Hat", "Bald"),
    ("Wearing_Hat", "Bangs"),
    ("Wearing_Hat", "Receding_Hairline"),
)

# Labels that are thresholds of a continuous factor: whoever steers the one steers the other.
MEASURED = (("Young", "age"), ("Bald", "hair_length"), ("Smiling", "smile"))

# What is known of CelebA's labels beyond most, from Wu et al., "Consistency and Accuracy of CelebA Attribute Values",
# CVPR workshops 2023: two annotators agreed on at least 95 % of the images for 12 of the 40 attributes only.
LABEL_QUALITY = {
    "High_Cheekbones": "annotators agree as if at random",
    "Oval_Face": "annotators agree as if at random",
    "Pointy_Nose": "annotators agree as if at random",
    "Mouth_Slightly_Open": "about 20 % of 1 and 2 % of -1 are wrong",
    "No_Beard": "annotators can agree on 95 %, yet up to 40 % of -1 are wrong",
}


# What can be done to an attribute, and the sign of the change of its logit that is then a success.
EDITS = {"add": 1.0, "remove": -1.0}


@cache
def _key(name: str) -> str:
    return "".join(character for character in name.casefold() if character.isalnum())


# The tutorial writes the names without underscores, and `Sideburn` for `Sideburns`.
_SPELLINGS = {_key(name): name for name in CELEBA} | {"sideburn": "Sideburns"}


def canonical(name: str) -> str:
    """CelebA's spelling of an attribute's name, also where `+` joins several; other names stay as they are."""
    return "+".join(_SPELLINGS.get(_key(part), part) for part in str(name).split("+"))


def find(name: str, names: Sequence[str], key: str = "target", owner: str = "the classifier") -> int:
    """The position of an attribute in `names`; case, underscores and the tutorial's spellings do not matter.

    Raises:
        ValueError: no such attribute; the message names the config `key` and suggests the nearest spelling.
    """
    wanted = _key(canonical(name))
    keys = [_key(canonical(other)) for other in names]
    if wanted in keys:
        return keys.index(wanted)
    nearest = difflib.get_close_matches(wanted, keys, n=1, cutoff=0.6)
    hint = f"did you mean {names[keys.index(nearest[0])]!r}?" if nearest else f"known are {', '.join(names)}"
    raise ValueError(f"{key}={name!r} is not an attribute of {owner}; {hint}")


def colliding(names: Sequence[str]) -> tuple[str, str] | None:
    """The first two names that are spellings of one attribute."""
    first: dict[str, str] = {}
    for name in names:
        key = _key(canonical(name))
        if key in first:
            return first[key], name
        first[key] = name
    return None


def resolve(names: Any, key: str = "classifier.attributes") -> tuple[str, ...]:
    """The names that a config's `attributes` stands for: `celeba` for CelebA's forty, or the names themselves.

    Raises:
        ValueError: another word, no names, or a name given twice.
    """
    if isinstance(names, str):
        if names != "celeba":
            raise ValueError(f"{key}={names!r} must be 'celeba' or a list of names")
        return CELEBA
    if not isinstance(names, Sequence):
        raise ValueError(f"{key}={names} must be 'celeba' or a list of names")
    resolved = tuple(canonical(name) for name in names)
    if not resolved or colliding(resolved):
        raise ValueError(f"{key}={list(names)} must be a list of one or more different names")
    return resolved


def parts(target: str) -> tuple[str, ...]:
    """The attributes that a target joins, as in `Smiling+Eyeglasses`; of any other name, itself."""
    return tuple(canonical(part.strip()) for part in str(target).split("+"))


def joined(target: str, names: Sequence[str], owner: str = "the classifier") -> tuple[str, ...]:
    """The attributes that a target joins, as they stand in `names`; none if it is one of `names` itself.

    Raises:
        ValueError: as `find`.
    """
    if "+" not in str(target) or _key(target) in [_key(name) for name in names if "+" in name]:
        return ()
    return tuple(names[find(part, names, owner=owner)] for part in parts(target))


def entailed(name: str) -> frozenset[str]:
    """The attributes that exclude `name` and therefore change with it (see `EXCLUSIVE`)."""
    return _partners(name, EXCLUSIVE)


def measured(name: str) -> frozenset[str]:
    """The factor that a label is a threshold of, or the other way round (see `MEASURED`)."""
    return _partners(name, MEASURED)


def others_of(target: str, names: Sequence[str], with_entailed: bool = False) -> list[str]:
    """All attributes but the target, its parts and, unless `with_entailed`, what changes with them by its meaning."""
    target = names[find(target, names)]
    left_out = {target, *parts(target)}
    if not with_entailed:
        left_out |= entailed(target) | measured(target)
    return [name for name in names if name not in left_out]


def _partners(name: str, pairs: Sequence[tuple[str, str]]) -> frozenset[str]:
    return frozenset(other for part in parts(name) for pair in pairs if part in pair for other in pair if other != part)


def is_regressor(section: Mapping[str, Any]) -> bool:
    """Whether a classifier's config section is that of a regressor, whose outputs are factors and have a `scale`."""
    return "scale" in section


def needs_regressor(section: Mapping[str, Any], target: str) -> bool:
    """Whether a classifier's config section has `target` only among the attributes of its `regressor`."""
    return section.get("regressor") is not None and not _has(section, target) and _has(section["regressor"], target)


def steerable(section: Mapping[str, Any], key: str) -> tuple[str, ...]:
    """All attributes that a classifier's config section can be asked for, those of its `regressor` last.

    Raises:
        ValueError: as `resolve`, or both have an attribute.
    """
    names = resolve(section["attributes"], f"{key}.attributes")
    regressor = section.get("regressor")
    if regressor is None:
        return names
    names += resolve(regressor["attributes"], f"{key}.regressor.attributes")
    if twins := colliding(names):
        raise ValueError(
            f"{key}.attributes and {key}.regressor.attributes both have {twins[0]!r}; leave the regressor out by "
            f"~{key}.regressor"
        )
    return names


def _has(section: Mapping[str, Any], name: str) -> bool:
    return _key(canonical(name)) in map(_key, resolve(section["attributes"]))
