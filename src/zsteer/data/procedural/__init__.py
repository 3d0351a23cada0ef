"""Procedural faces: 64x64 RGB portraits with CelebA's forty attributes and the continuous factors behind them.

A face is a function of (seed, index): a counter-based hash gives every person a row of uniform numbers, from which come
the attributes, the continuous factors and everything else (`style`). The renderer uses only operations that IEEE 754
rounds exactly (no exp, no sin, no reduction, no fused multiply-add), so that a picture is the same to the byte however
people are batched.

Most attributes draw what they say. The soft ones draw, where they are present:

- Attractive: even skin, symmetric features, larger eyes; absent: blotches, a crooked mouth, uneven eyes and brows
- Young: smooth skin; absent: forehead lines, crow's feet, nasolabial folds, deeper with age
- Chubby: wide cheeks and lower face
- Double_Chin: a second fold of skin under the chin
- High_Cheekbones: a bright cheekbone over a dark hollow
- Oval_Face: a longer, narrower face with a tapering jaw; absent: shorter, with a square jaw
- Pointy_Nose: a narrow ridge with a V-shaped tip; absent: a round tip
- Big_Nose: wide nostrils and a longer nose
- Straight_Hair: parallel glossy strands. Wavy_Hair: waves in strands and outline. Neither: matt and tousled
- Pale_Skin: almost white, little colour; absent: light tan to dark brown
- Heavy_Makeup: coloured eyeshadow and thick liner
- Male: broad jaw and neck, brow ridge, heavier brows; absent: slender neck, lashes
- No_Beard: absent without one of the four kinds of beard: a full beard
- Blurry: the whole image out of focus
"""

from zsteer.data.procedural.drawing import SIZE, draw, render
from zsteer.data.procedural.population import FACTORS, People, people, with_attributes

__all__ = ["FACTORS", "SIZE", "People", "draw", "people", "render", "with_attributes"]
