import itertools

import pytest

from zsteer.data import attributes
from zsteer.data.attributes import CELEBA, EXCLUSIVE, RATES, canonical, entailed, find, resolve

# The header of CelebA's list_attr_celeba.txt.
HEADER = """
5_o_Clock_Shadow Arched_Eyebrows Attractive Bags_Under_Eyes Bald Bangs Big_Lips Big_Nose Black_Hair Blond_Hair Blurry
Brown_Hair Bushy_Eyebrows Chubby Double_Chin Eyeglasses Goatee Gray_Hair Heavy_Makeup High_Cheekbones Male
Mouth_Slightly_Open Mustache Narrow_Eyes No_Beard Oval_Face Pale_Skin Pointy_Nose Receding_Hairline Rosy_Cheeks
Sideburns Smiling Straight_Hair Wavy_Hair Wearing_Earrings Wearing_Hat Wearing_Lipstick Wearing_Necklace
Wearing_Necktie Young
""".split()

# The list in the tutorial, in its own spelling.
TUTORIAL = """
5oClockShadow ArchedEyebrows Attractive BagsUnderEyes Bald Bangs BigLips BigNose BlackHair BlondHair Blurry BrownHair
BushyEyebrows Chubby DoubleChin Eyeglasses Goatee GrayHair HeavyMakeup HighCheekbones Male MouthSlightlyOpen Mustache
NarrowEyes NoBeard OvalFace PaleSkin PointyNose RecedingHairline RosyCheeks Sideburn Smiling StraightHair WavyHair
WearingEarrings WearingHat WearingLipstick WearingNecklace WearingNecktie Young
""".split()


def test_names_are_the_forty_of_celeba_in_its_order():
    assert list(CELEBA) == HEADER
    assert len(CELEBA) == 40


def test_rates_are_celebas_per_cent():
    per_cent = {"Bald": 2.2, "5_o_Clock_Shadow": 11.1, "Eyeglasses": 6.5, "Male": 41.7, "Smiling": 48.2, "Young": 77.4}
    assert {name: RATES[name] for name in per_cent} == per_cent


@pytest.mark.parametrize("change", [str, str.upper, str.lower, str.swapcase])
@pytest.mark.parametrize("position", range(40))
def test_find_accepts_the_tutorials_and_celebas_spellings_in_any_case(position, change):
    for spelling in (HEADER[position], TUTORIAL[position]):
        assert find(change(spelling), CELEBA) == position
        assert canonical(change(spelling)) == HEADER[position]


def test_find_accepts_any_spelling_among_the_names_too():
    assert find("Wearing_Hat", ["wearinghat", "Sideburn"]) == 0
    assert find("Sideburns", ["wearinghat", "Sideburn"]) == 1


def test_find_uses_the_position_in_the_names_given():
    assert find("Young", ["Young", "Male"]) == 0
    assert find("age", ["hair_length", "Age"]) == 1


def test_canonical_leaves_other_names_alone():
    assert canonical("hair_length") == "hair_length"


def test_joined_names_are_spelled_as_freely_as_their_parts():
    assert canonical("Sideburn+wearing hat") == "Sideburns+Wearing_Hat"
    assert find("sideburn+Smiling", ["Smiling", "Sideburns", "Sideburns+Smiling"]) == 2


@pytest.mark.parametrize(
    "misspelt, meant", [("Smilling", "Smiling"), ("eye_glases", "Eyeglasses"), ("WearingHats", "Wearing_Hat")]
)
def test_find_suggests_the_nearest_name(misspelt, meant):
    with pytest.raises(ValueError, match=f"target='{misspelt}' .*did you mean '{meant}'"):
        find(misspelt, CELEBA)


def test_find_lists_the_names_where_none_is_near():
    with pytest.raises(ValueError) as error:
        find("xyzzy", CELEBA)
    assert all(name in str(error.value) for name in CELEBA)


def test_find_names_key_and_owner():
    with pytest.raises(ValueError, match=r"^where='Nose' is not an attribute of the judge; .*"):
        find("Nose", ["Big_Nose"], key="where", owner="the judge")


@pytest.mark.parametrize("name", ["", "_", "None"])
def test_find_refuses_what_is_no_name(name):
    with pytest.raises(ValueError, match="target="):
        find(name, CELEBA)


def test_every_exclusive_attribute_is_celebas():
    assert {name for pair in EXCLUSIVE for name in pair} <= set(CELEBA)


def test_no_attribute_excludes_itself_and_no_pair_is_listed_twice():
    assert all(len(set(pair)) == 2 for pair in EXCLUSIVE)
    assert len({frozenset(pair) for pair in EXCLUSIVE}) == len(EXCLUSIVE)


def test_entailed_is_symmetric():
    for one, other in itertools.product(CELEBA, repeat=2):
        assert (one in entailed(other)) == (other in entailed(one))


def test_entailed_is_both_sides_of_the_exclusive_pairs():
    assert entailed("Goatee") == {"No_Beard"}
    assert {"Black_Hair", "Brown_Hair", "Gray_Hair", "Bald"} == entailed("Blond_Hair")
    assert entailed("Smiling") == frozenset()


def test_resolve_celeba_is_the_forty():
    assert resolve("celeba") == CELEBA


def test_resolve_makes_names_canonical_and_keeps_their_order():
    assert resolve(["young", "Sideburn", "hair_length"]) == ("Young", "Sideburns", "hair_length")


@pytest.mark.parametrize("names", [[], ["Male", "male"], ["Sideburn", "Sideburns"], ["age", "Age"]])
def test_resolve_refuses_no_names_and_the_same_name_twice(names):
    with pytest.raises(ValueError, match=r"^judge\.attributes=\["):
        resolve(names, "judge.attributes")


def test_resolve_refuses_another_word():
    with pytest.raises(ValueError, match=r"classifier\.attributes='imagenet' must be 'celeba' or a list"):
        resolve("imagenet")


def test_misspelling_is_found_without_loading_torch():
    assert not {"torch", "numpy", "hydra"} & set(vars(attributes))


def test_a_name_that_is_a_label_and_a_factor_is_refused():
    section = {"attributes": ["hat", "Age"], "regressor": {"attributes": ["age", "height"]}}
    with pytest.raises(
        ValueError, match=r"judge.attributes and judge.regressor.attributes both have 'Age'; .*~judge.reg"
    ):
        attributes.steerable(section, "judge")
    section["attributes"] = ["hat", "smile"]
    assert attributes.steerable(section, "judge") == ("hat", "smile", "age", "height")
