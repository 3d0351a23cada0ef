"""How people are drawn: 64x64 RGB portraits, by operations that IEEE 754 rounds exactly."""

import dataclasses
from collections.abc import Callable

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from zsteer.data.attributes import CELEBA
from zsteer.data.procedural.population import BEARDS, FACTORS, STYLE, People, people

SIZE = 64

# Rendering. Coordinates run from -1 to 1 over the image, y downwards; a pixel is 1/32 wide.

_BLOCK = 64  # people drawn at once: their intermediates stay in the cache
_EYE_X, _EYE_Y, _MOUTH_Y, _HEAD_Y = 0.245, -0.06, 0.4, -0.05

_SKIN = ((0.94, 0.76, 0.64), (0.87, 0.66, 0.51), (0.74, 0.51, 0.37), (0.47, 0.31, 0.22))
_PALE = ((0.96, 0.91, 0.89), (0.94, 0.88, 0.85))
_HAIR = {
    "Black_Hair": ((0.065, 0.055, 0.065), (0.12, 0.10, 0.10)),
    "Blond_Hair": ((0.90, 0.74, 0.40), (0.93, 0.83, 0.58)),
    "Brown_Hair": ((0.27, 0.165, 0.09), (0.40, 0.255, 0.15)),
    "Gray_Hair": ((0.62, 0.63, 0.65), (0.84, 0.84, 0.86)),
}
_OTHER_HAIR = ((0.52, 0.17, 0.07), (0.70, 0.31, 0.11))
_IRIS = ((0.20, 0.11, 0.06), (0.33, 0.20, 0.09), (0.28, 0.42, 0.28), (0.28, 0.46, 0.66))
_CLOTHES = ((0.16, 0.20, 0.34), (0.45, 0.16, 0.18), (0.25, 0.40, 0.36), (0.55, 0.55, 0.58), (0.88, 0.87, 0.84))
_BACKGROUND = ((0.32, 0.40, 0.50), (0.62, 0.66, 0.68), (0.58, 0.52, 0.44), (0.35, 0.42, 0.33))
_TIE = ((0.62, 0.06, 0.10), (0.10, 0.16, 0.50), (0.10, 0.35, 0.20))
_HAT = ((0.14, 0.15, 0.20), (0.48, 0.12, 0.14), (0.22, 0.34, 0.54), (0.78, 0.70, 0.54))
_EYESHADOW = ((0.42, 0.22, 0.50), (0.22, 0.32, 0.58), (0.52, 0.20, 0.36))
_LIPSTICK = ((0.78, 0.05, 0.14), (0.82, 0.12, 0.36), (0.55, 0.03, 0.16))
_BEARD = (0.17, 0.115, 0.085)


def _per_pixel(numbers: Tensor) -> Tensor:
    return numbers[:, None, None]


def _ramp(place: Tensor, colours: tuple[tuple[float, float, float], ...]) -> Tensor:
    """The colour at each place in [0, 1) along a row of colours, [n, 3]."""
    table = torch.tensor(colours)
    at = place * (len(colours) - 1)
    low = at.long().clamp(0, len(colours) - 2)
    return table[low] + (at - low)[:, None] * (table[low + 1] - table[low])


def _edge(distance: Tensor, softness: float = 1 / 32) -> Tensor:
    """Coverage in [0, 1] of a shape, given the distance inwards from its edge."""
    return (distance * (1 / softness) + 0.5).clamp_(0, 1)


def _blob(x: Tensor, y: Tensor, radius_x: Tensor | float, radius_y: Tensor | float) -> Tensor:
    """A soft bump: 1 in the middle, 0 from the ellipse on."""
    x, y = x / radius_x, y / radius_y
    bump = (1 - x * x - y * y).clamp_(min=0)
    return bump * bump


def _band(distance: Tensor, radius: Tensor | float) -> Tensor:
    """A soft line: 1 in its middle, 0 from the radius on."""
    distance = distance / radius
    bump = (1 - distance * distance).clamp_(min=0)
    return bump * bump


def _wave(phase: Tensor) -> Tensor:
    """A parabolic sine of period 1, between -1 and 1."""
    t = phase - phase.floor() - 0.5
    return t * (t.abs() * 16 - 8)


def _segment(x: Tensor, y: Tensor, start: tuple[float, float], end: tuple[float, float]) -> Tensor:
    """Distance to a line segment."""
    along_x, along_y = end[0] - start[0], end[1] - start[1]
    x, y = x - start[0], y - start[1]
    t = ((x * along_x + y * along_y) * (1 / (along_x * along_x + along_y * along_y))).clamp_(0, 1)
    x, y = x - t * along_x, y - t * along_y
    return (x * x + y * y).sqrt_()


@dataclasses.dataclass
class _Portraits:
    """A canvas [n, 3, h, w] with what is known of each of its people, and planes [n, h, w] that locate its pixels.

    `x`, `y` belong to the picture, `head_x`, `head_y` to the head, and `u`, `v` to its features, which turn with it.
    `radius` is 0 in the middle of the face and 1 on its outline, `face` the face's coverage.
    """

    crowd: People
    colours: dict[str, Tensor]
    planes: dict[str, Tensor]

    canvas = property(lambda self: self.planes["canvas"])
    x = property(lambda self: self.planes["x"])
    y = property(lambda self: self.planes["y"])
    head_x = property(lambda self: self.planes["head_x"])
    head_y = property(lambda self: self.planes["head_y"])
    u = property(lambda self: self.planes["u"])
    v = property(lambda self: self.planes["v"])
    radius = property(lambda self: self.planes["radius"])
    face = property(lambda self: self.planes["face"])

    def has(self, name: str) -> Tensor:
        return _per_pixel(self.crowd.attributes[:, CELEBA.index(name)])

    def style(self, name: str) -> Tensor:
        return _per_pixel(self.crowd.style[:, STYLE.index(name)])

    def factor(self, name: str) -> Tensor:
        return _per_pixel(self.crowd.factors[:, FACTORS.index(name)])

    def between(self, name: str, absent: tuple[float, float], present: tuple[float, float], style: str) -> Tensor:
        """A measure in one of two ranges, by the attribute, placed in it by the style."""
        has, place = self.has(name), self.style(style)
        low = absent[0] + has * (present[0] - absent[0])
        high = absent[1] + has * (present[1] - absent[1])
        return low + place * (high - low)

    def window(self, top: int, bottom: int, left: int = 0, right: int = SIZE) -> "_Portraits":
        """The same portraits seen through a window; painting in it paints on them."""
        planes = {name: plane[..., top:bottom, left:right] for name, plane in self.planes.items()}
        return _Portraits(self.crowd, self.colours, planes)

    def only(self, wanted: Tensor, paint: Callable[["_Portraits"], None]) -> None:
        """Paint on the portraits of some people only, as most do not wear a hat or a necktie."""
        rows = wanted.reshape(-1).nonzero()[:, 0]
        if len(rows) == 0:
            return
        planes = {name: plane[rows] for name, plane in self.planes.items()}
        some = _Portraits(self.crowd[rows], {name: colour[rows] for name, colour in self.colours.items()}, planes)
        paint(some)
        self.planes["canvas"][rows] = some.canvas

    def paint(self, coverage: Tensor, colour: Tensor | tuple[float, float, float], shade: Tensor | None = None) -> None:
        """Lay a colour, [n, 3] or one for all, over the canvas; `shade` [n, h, w] lightens or darkens it."""
        colour = colour[:, :, None, None] if isinstance(colour, Tensor) else torch.tensor(colour)[None, :, None, None]
        if shade is not None:
            colour = colour * shade[:, None]
        canvas = self.canvas
        canvas += coverage[:, None] * (colour - canvas)

    def darken(self, amount: Tensor) -> None:
        self.canvas.mul_((1 - amount)[:, None])

    def tint(self, amount: Tensor, colour: tuple[float, float, float]) -> None:
        """Multiply by a colour where the amount is 1."""
        self.canvas.mul_(1 - amount[:, None] * (1 - torch.tensor(colour)[None, :, None, None]))


def _pose(crowd: People) -> _Portraits:
    """An empty canvas with its coordinates: shift, roll and scale move the head, yaw and pitch its features."""
    style = {name: _per_pixel(crowd.style[:, STYLE.index(name)]) for name in STYLE}
    yaw = _per_pixel(crowd.factors[:, FACTORS.index("yaw")])
    pitch = _per_pixel(crowd.factors[:, FACTORS.index("pitch")])
    line = (torch.arange(SIZE) + 0.5) * (2 / SIZE) - 1
    y, x = torch.meshgrid(line, line, indexing="ij")
    x, y = x.expand(len(crowd), SIZE, SIZE), y.expand(len(crowd), SIZE, SIZE)
    roll = 0.14 * (style["roll"] - 0.5)
    zoom = 0.96 + 0.08 * style["scale"]
    across, down = x - 0.08 * (style["shift_x"] - 0.5), y - 0.07 * (style["shift_y"] - 0.5)
    head_x = (across + roll * down) * zoom
    head_y = (down - roll * across) * zoom
    # Features slide over a rounded head: far in its middle, not at all at its edge.
    u = head_x - 0.11 * yaw * (1 - head_x * head_x * 3.2).clamp_(min=0)
    v = head_y - 0.05 * pitch
    planes = {"x": x, "y": y, "head_x": head_x, "head_y": head_y, "u": u, "v": v}
    at = _Portraits(crowd, _colours(crowd), planes | {"canvas": torch.zeros(len(crowd), 3, SIZE, SIZE)})
    at.planes["radius"] = _face_radius(at)
    at.planes["face"] = _edge((1 - at.radius) * 0.47)
    return at


def _colours(crowd: People) -> dict[str, Tensor]:
    """The colours of each person's parts, [n, 3]."""
    style = {name: crowd.style[:, STYLE.index(name)] for name in STYLE}

    def has(name: str) -> Tensor:
        return crowd.attributes[:, CELEBA.index(name), None]

    tone = style["skin"] * (0.35 + 0.65 * style["skin"])
    skin = _ramp(tone, _SKIN)
    hair = _ramp(style["hair"], _OTHER_HAIR)
    for name, colours in _HAIR.items():
        hair = hair + has(name) * (_ramp(style["hair"], colours) - hair)
    return {
        "skin": skin + has("Pale_Skin") * (_ramp(tone, _PALE) - skin),
        "hair": hair,
        "iris": _ramp(style["iris"], _IRIS),
        "clothes": _ramp(style["clothes"], _CLOTHES) * (0.85 + 0.25 * style["clothes_tone"][:, None]),
        "background": _ramp(style["background"], _BACKGROUND) * (0.75 + 0.4 * style["background_tone"][:, None]),
        "tie": _ramp(style["tie"], _TIE),
        "hat": _ramp(style["hat"], _HAT),
        "eyeshadow": _ramp(style["makeup"], _EYESHADOW),
        "lipstick": _ramp(style["lipstick"], _LIPSTICK),
        "metal": _ramp(style["metal"], ((0.98, 0.83, 0.35), (0.93, 0.94, 0.98))),
    }


def _background(at: _Portraits) -> None:
    light = _blob(at.x - 2 * at.style("background_x") + 1, at.y - at.style("background_y") + 0.8, 1.5, 1.5)
    at.paint(torch.ones_like(at.x), at.colours["background"], 0.72 + 0.5 * light - 0.12 * at.y)


def _jaw(at: _Portraits) -> tuple[Tensor, Tensor]:
    """Half width of the face at eye level and distance from the head's middle to the chin, [n, 1, 1] each."""
    width = at.between("Oval_Face", (0.475, 0.495), (0.415, 0.435), "jaw") + 0.02 * at.has("Male")
    return width, at.between("Oval_Face", (0.655, 0.675), (0.755, 0.775), "jaw")


def _cheeks(at: _Portraits) -> Tensor:
    """How much wider the face is than at eye level, for its rows."""
    low = (at.head_y - 0.36) * 2.2
    return 1 + (0.29 * at.has("Chubby") + 0.03 * at.has("Male")) * (1 - low * low).clamp(min=0)


def _face_radius(at: _Portraits) -> Tensor:
    """0 in the middle of the face, 1 on its outline."""
    width, chin = _jaw(at)
    down = at.head_y - _HEAD_Y
    cheeks = _cheeks(at)
    x = at.head_x / (width * cheeks)
    y = down / torch.where(down > 0, chin, 0.68)
    y = y * y
    square = at.between("Oval_Face", (0.35, 0.5), (0.0, 0.06), "jaw") + 0.22 * at.has("Male")
    y = torch.where(down > 0, y * (1 + square * (y - 1)), y)
    return (x * x + y).sqrt_()


def _body(at: _Portraits) -> None:
    """Neck, a second chin, shoulders, clothes."""
    male = at.has("Male")
    x, y = at.head_x, at.head_y
    neck = 0.235 + 0.115 * male + 0.07 * at.has("Chubby")
    # The neck is darkest under the chin and away from the light.
    shade = 0.62 + 0.5 * (y - 0.6).clamp(0, 0.5) + 0.35 * x * at.factor("light")
    spread = (y - 0.78).clamp(min=0)
    at.paint(_edge(neck + 2.2 * spread * spread - x.abs()) * _edge(y - 0.2), at.colours["skin"], shade)

    at.only(at.has("Double_Chin") > 0.5, _double_chin)
    aside = at.x.abs()
    top = 0.83 - 0.04 * male + 0.12 * aside + 0.55 * (0.27 + 0.10 * male - aside).clamp(min=0)
    folds = 0.05 * _wave(at.x * 2.1 + at.style("clothes_tone"))
    shade = 0.95 + 0.25 * at.x * at.factor("light") - 0.25 * aside * aside + folds
    at.paint(_edge(at.y - top), at.colours["clothes"], shade)
    at.darken(0.25 * _band(at.y - top + 0.02, 0.05) * _edge(neck - aside))


def _double_chin(at: _Portraits) -> None:
    width, chin = _jaw(at)
    x, y = at.head_x / (0.82 * width), (at.head_y - _HEAD_Y - chin + 0.09) / 0.23
    radius = (x * x + y * y).sqrt_()
    throat = _edge(0.26 + 0.115 * at.has("Male") - at.head_x.abs(), 0.06)
    at.darken(0.5 * _edge(1.2 - radius, 0.3) * throat)
    at.paint(_edge((1 - radius) * 0.3), at.colours["skin"], 1.02 - 0.5 * (radius - 0.5).clamp(min=0))


def _necktie(at: _Portraits) -> None:
    aside, y = at.x.abs(), at.y
    collar = _edge(0.33 - aside) * _edge(y - 0.76 - 0.45 * (0.30 - aside).clamp(min=0) + 0.1 * aside)
    at.paint(collar, (0.95, 0.95, 0.97), 1.0 - 0.5 * (aside - 0.16).abs())
    tie = _edge(0.075 + 0.35 * (y - 0.90).abs() - aside) * _edge(y - 0.835)
    at.paint(tie, at.colours["tie"], 1.0 - 0.5 * _band(y - 0.91, 0.03))


def _ears(at: _Portraits) -> None:
    width, _ = _jaw(at)
    x = at.head_x.abs() - width - 0.01 + 0.045 * at.factor("yaw") * at.head_x.sign()
    y = at.head_y - 0.03
    at.paint(_edge(_blob(x, y, 0.085, 0.17) - 0.12, 0.2), at.colours["skin"], 0.86 - 0.24 * _blob(x, y, 0.05, 0.1))


def _skin(at: _Portraits) -> None:
    """The face's surface: rounded by the light, with cheekbones, blotches, lines and blush."""
    u, v, aside = at.u, at.v, at.u.abs()
    # A lit ellipsoid, then soft hills and hollows.
    shade = 1.06 - 0.30 * at.radius * at.radius + 0.38 * at.factor("light") * at.head_x - 0.12 * v
    shade = shade + 0.07 * _blob(u, v + 0.40, 0.4, 0.2)
    shade = shade - 0.16 * _blob(aside - _EYE_X, v - _EYE_Y + 0.02, 0.20, 0.13)
    shade = shade - 0.10 * _blob(aside - 0.08, v + 0.10, 0.07, 0.16)
    shade = shade - 0.14 * _blob(u, v - _MOUTH_Y - 0.105, 0.17, 0.06)
    shade = shade - at.has("Male") * 0.20 * _blob(u, v + 0.17, 0.5, 0.075)
    high = at.has("High_Cheekbones")
    shade = shade + high * 0.20 * _blob(aside - 0.30, v - 0.10 + 0.25 * (aside - 0.3), 0.17, 0.095)
    shade = shade - high * 0.30 * _blob(aside - 0.36, v - 0.285 + 0.6 * (aside - 0.33), 0.19, 0.115)
    plump = at.has("Chubby")
    shade = shade + plump * 0.15 * _blob(aside - 0.37, v - 0.30, 0.17, 0.20)
    shade = shade - plump * 0.13 * _blob(aside - 0.27 + 0.3 * (v - 0.44), v - 0.44, 0.07, 0.17)
    at.paint(at.face, at.colours["skin"], shade)

    at.only(at.has("Young") < 0.5, _wrinkles)
    at.only(at.has("Attractive") < 0.5, _blotches)
    rosy = at.has("Rosy_Cheeks") * _blob(aside - 0.29, v - 0.19, 0.20, 0.16) * at.face
    at.paint(0.68 * rosy, (0.93, 0.20, 0.25))


def _wrinkles(at: _Portraits) -> None:
    """Forehead lines, folds beside nose and mouth, crow's feet: deeper with age."""
    depth = 0.75 + 0.25 * (at.factor("age") - 45) * (1 / 35)
    aside, v = at.u.abs(), at.v
    bend = v - 0.25 * aside * aside
    lines = 0 * v
    for height in (-0.44, -0.36, -0.29):
        lines = lines + 0.42 * _band(bend - height, 0.025) * _edge(0.32 - aside, 0.12)
    for start, end in (((0.125, 0.20), (0.235, 0.42)), ((0.235, 0.47), (0.20, 0.60))):
        lines = lines + 0.60 * _edge(0.004 - _segment(aside, v, start, end), 0.05)
    for rise in (-0.06, 0.0, 0.06):
        start, end = (0.385, -0.05 + rise / 2), (0.45, -0.05 + rise)
        lines = lines + 0.30 * _edge(0.002 - _segment(aside, v, start, end), 0.035)
    at.darken(lines.clamp(max=0.6) * depth * at.face)


def _blotches(at: _Portraits) -> None:
    """Reddish spots and patches, strewn by the style."""
    place = at.style("blotches")
    spots = 0 * at.u
    for index in range(6):
        across, down = place * (3 + 2 * index) + 0.37 * index, place * (5 + 3 * index) + 0.61 * index
        x, y = 0.7 * (across - across.floor()) - 0.35, 0.85 * (down - down.floor()) - 0.40
        spots = spots + _blob(at.u - x, at.v - y, 0.065, 0.055)
    patches = _wave(at.u * 1.7 + place * 5) * _wave(at.v * 1.9 + place * 3)
    at.tint((0.9 * spots + 0.3 * patches.clamp(min=0)).clamp(max=1) * at.face, (0.84, 0.60, 0.56))


def _beard(at: _Portraits) -> None:
    """Stubble, chin, lip and side hair; a full beard on who has none of them and yet a beard."""
    u, v, aside = at.u, at.v, at.u.abs()
    width, chin = _jaw(at)
    grain = 1 + 0.12 * _wave(u * 7.3 + v * 2.1) * _wave(v * 8.7 - u * 2.3)
    jaw = _edge(v - 0.255 - 0.9 * (0.20 - aside).clamp(min=0) + 1.4 * (aside - 0.33).clamp(min=0), 0.10) * at.face
    at.tint(at.has("5_o_Clock_Shadow") * jaw * 0.85 * grain, (0.52, 0.57, 0.63))
    full = 1 - torch.stack([at.has(name) for name in BEARDS]).amax(0)
    lip = _edge((1 - (u / 0.21) ** 2) * 0.05 - (v - 0.315 - 0.9 * u * u).abs(), 0.04)
    goatee = _edge((_blob(u, v - _HEAD_Y - chin + 0.04, 0.21, 0.20) - 0.25) * 0.2, 0.05)
    side = _edge(0.062 + 0.05 * v.clamp(min=0) - (at.head_x.abs() - width + 0.055).abs(), 0.04)
    side = side * _edge(0.33 - v, 0.05) * _edge(v + 0.25)
    hair = full * jaw + at.has("Mustache") * lip + at.has("Goatee") * goatee + at.has("Sideburns") * side
    at.paint(0.93 * hair.clamp(max=1) * at.face, _BEARD, grain)


def _nose(at: _Portraits) -> None:
    pointy = at.has("Pointy_Nose")
    big = at.has("Big_Nose")
    half = at.between("Big_Nose", (0.07, 0.082), (0.158, 0.172), "nose")
    base = 0.20 + 0.03 * big
    u, v = at.u, at.v
    aside = u.abs()
    light = at.factor("light")
    # The ridge is lit, its far side is in shadow; both widen towards the tip.
    down = ((v + 0.12) * 3.0).clamp(0, 1) * _edge(base + 0.02 - v, 0.06)
    ridge = _band(u, 0.07 - 0.028 * pointy) * down
    flank = _band(aside - half * (0.35 + 0.5 * down * (1 - 0.4 * pointy)), 0.5 * half + 0.01) * down
    shade = (0.10 + 0.20 * pointy) * ridge - (0.08 + 0.22 * pointy) * flank * (1 + 0.7 * light * u.sign())
    # Round: a ball with wide wings. Pointy: a bright wedge that ends below the nostrils.
    ball = _blob(u, v - base + 0.035, 0.75 * half + 0.01, 0.085)
    shade = shade + (1 - pointy) * 0.24 * ball
    wedge = _edge((base + 0.06 - v) * 0.5 - aside, 0.05) * _edge(v - base + 0.09, 0.10)
    shade = shade + pointy * 0.13 * wedge
    at.canvas.mul_((1 + shade)[:, None])
    slope = pointy * (0.11 - 1.1 * aside.clamp(max=0.11)) + (1 - pointy) * (0.02 - 0.10 * aside)
    under = _band(v - base - 0.02 - slope, 0.045) * _edge(half + 0.015 - aside, 0.05)
    wing = _blob(aside - half, v - base + 0.03, 0.03, 0.075)
    nostril = _blob(aside - 0.5 * half, v - base - 0.01 + 0.02 * pointy, 0.035 + 0.12 * half, 0.03)
    dark = (0.40 + 0.25 * pointy) * under + 0.36 * (1 - pointy) * wing + (0.6 - 0.42 * pointy) * nostril
    at.darken(dark.clamp(max=0.75))


def _crooked(at: _Portraits) -> Tensor:
    """Which way features are uneven: -1 or 1, and 0 where Attractive."""
    return (1 - at.has("Attractive")) * (at.style("crooked") - 0.5).sign()


def _mouth(at: _Portraits) -> None:
    smile = at.factor("smile")
    crooked = _crooked(at)
    width = 0.14 + 0.10 * smile
    u = at.u - 0.015 * crooked
    across = u / width
    arc = (1 - across * across).clamp_(min=0)
    # The corners of a smile rise, those of a straight face sag a little.
    sag = (0.03 - 0.16 * smile) * (1 - arc)
    v = at.v - _MOUTH_Y - 0.05 * smile - sag + 0.14 * crooked * u
    opening = at.has("Mouth_Slightly_Open") * (0.05 + 0.012 * at.style("mouth")) * arc
    bow = 1 - 0.25 * _band(across, 0.3)
    upper = at.between("Big_Lips", (0.026, 0.034), (0.070, 0.078), "lips") * bow
    lower = at.between("Big_Lips", (0.034, 0.042), (0.086, 0.096), "lips")
    above = opening + upper * (0.25 + 0.75 * arc) + v
    below = opening + lower * arc - v
    inside = _edge(width - u.abs() + 0.01)
    lips = _edge(torch.minimum(above, below)) * inside
    painted = at.has("Wearing_Lipstick")[:, :, 0]
    natural = at.colours["skin"] * torch.tensor((0.88, 0.62, 0.60))
    colour = natural + painted * (at.colours["lipstick"] - natural)
    at.paint(lips, colour, 1.0 - 0.18 * (v < 0) + 0.30 * _blob(across, v - opening - 0.5 * lower, 0.6, 0.03))
    gap = _edge(opening - v.abs()) * inside * at.has("Mouth_Slightly_Open")
    at.paint(gap, (0.20, 0.05, 0.06))
    teeth = gap * _edge(0.35 * opening + 0.01 - v) * _edge(0.8 - across.abs(), 0.2)
    at.paint(teeth, (0.93, 0.91, 0.87))
    at.darken((1 - at.has("Mouth_Slightly_Open")) * 0.55 * _band(v, 0.028) * inside)
    # A smile folds the cheek beside its corners.
    corner = _blob(u.abs() - width - 0.025, at.v - _MOUTH_Y + 0.08 * smile, 0.045, 0.085)
    at.darken(0.27 * corner * smile)


def _eyes(at: _Portraits) -> None:
    attractive, male, makeup = at.has("Attractive"), at.has("Male"), at.has("Heavy_Makeup")
    crooked = _crooked(at)
    side = at.u.sign()
    x = at.u.abs() - _EYE_X
    y = at.v - _EYE_Y - 0.022 * crooked * side
    wide = 0.118 + 0.016 * attractive
    tall = at.between("Narrow_Eyes", (0.066, 0.074), (0.026, 0.032), "eyes") * (1 + 0.14 * attractive)
    across = x / wide
    arc = 1 - across * across
    upper, lower = tall * arc + y, 0.8 * tall * arc - y
    at.paint(makeup * 0.80 * _blob(x - 0.01, y + 0.085, 0.19, 0.105), at.colours["eyeshadow"])
    # Bags: a dark crescent below a puffy rim.
    bag = _blob(x + 0.01, y - 0.125, 0.15, 0.055) - _blob(x + 0.01, y - 0.075, 0.13, 0.04)
    at.tint(at.has("Bags_Under_Eyes") * bag.clamp(0, 1), (0.47, 0.37, 0.46))
    ball = _edge(torch.minimum(upper, lower))
    at.paint(ball, (0.93, 0.92, 0.92), 1.0 - 0.25 * _band(upper, 0.05))
    look = 0.03 * (at.style("gaze") - 0.5) * side
    distance = ((x - look) ** 2 + y * y).sqrt_()
    at.paint(ball * _edge(0.060 - distance), at.colours["iris"])
    at.paint(ball * _edge(0.030 - distance), (0.03, 0.02, 0.03))
    at.paint(ball * _blob(at.u - side * (_EYE_X + look) + 0.02, y + 0.02, 0.028, 0.028), (1.0, 1.0, 1.0))
    # The lash line, thicker with makeup and with a wing; a fold above it.
    reach = _edge(wide + 0.03 * makeup + 0.02 * (1 - male) - x.abs())
    lid = tall * arc.clamp(min=0) + y
    lift = makeup * (across - 0.7).clamp(min=0) * 0.10
    liner = 0.012 + 0.018 * makeup * (1 - 0.5 * at.has("Narrow_Eyes")) + 0.006 * (1 - male)
    lash = _edge(liner - (lid + lift).abs()) * reach
    at.paint(0.9 * lash, (0.07, 0.05, 0.05))
    at.darken((0.35 + 0.4 * makeup) * _edge(0.008 - lower.abs()) * reach)
    at.darken(0.28 * _edge(0.006 - (lid + 0.045).abs(), 0.04) * reach * (1 - makeup))


def _brows(at: _Portraits) -> None:
    male = at.has("Male")
    crooked = _crooked(at)
    x = at.u.abs() - _EYE_X
    across = (x - 0.01) * (1 / 0.155)
    # A parabola around the peak, straight towards both ends.
    peak = (across - 0.15).abs()
    bend = torch.where(peak < 0.4, peak * peak, 0.8 * peak - 0.16)
    arch = at.between("Arched_Eyebrows", (0.0, 0.015), (0.135, 0.155), "brows")
    height = -0.225 + 0.018 * male - 0.025 * crooked * at.u.sign()
    y = at.v - height + arch * (0.5 - bend)
    thick = at.between("Bushy_Eyebrows", (0.014, 0.019), (0.048, 0.054), "brows") + 0.005 * male
    taper = (1 - 0.3 * across - 0.45 * across * across).clamp(0, 1.1)
    hairs = 1 + 0.4 * at.has("Bushy_Eyebrows") * _wave(x * 8 + y * 4)
    brow = _edge(thick * taper - y.abs()) * _edge((1 - across.abs()) * 0.155)
    at.paint(0.88 * brow, (0.16, 0.105, 0.075), hairs)


def _hair(at: _Portraits) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Where hair is behind the body and in front of the face, its shade and its gloss, each [n, 64, 64]."""
    straight, wavy, bald = at.has("Straight_Hair"), at.has("Wavy_Hair"), at.has("Bald")
    length = at.factor("hair_length")
    phase = at.style("hair_phase")
    x, y = at.head_x, at.head_y
    width, _ = _jaw(at)
    aside = x.abs()
    # Strands fan out from a parting and fall in parallel below; waves sway them, tousling blurs them.
    parting = 0.5 * (at.style("hairline") - 0.5)
    fan = (x - parting * _edge(-0.1 - y, 0.6)) / (y + 1.6).clamp(0.75, 1.3)
    across = fan + wavy * 0.085 * _wave(y * 1.9 + phase + 0.25 * x.sign())
    tousle = _wave(x * 2.3 + phase * 3 + 0.3 * _wave(y * 2.1)) * _wave(y * 2.7 + phase * 5)
    strands = 0.6 * _wave(across * 4.5 + phase) + 0.5 * _wave(across * 8.5 + phase * 7)
    neither = 1 - straight - wavy
    shade = 0.95 + strands * (0.07 + 0.25 * straight + 0.10 * wavy) + neither * 0.10 * tousle
    shade = shade + wavy * 0.30 * _wave(y * 1.9 + phase + 1.3 * aside)
    gloss = _band(y + 0.50 - 0.35 * x * x, 0.15)
    shade = shade + 0.14 * gloss + 0.30 * x * at.factor("light")
    # Outline: a cap over the skull, then locks that fall straight down to their length.
    volume = width + 0.06 + 0.05 * length + 0.02 * at.style("hairline") + 0.03 * wavy - 0.02 * straight
    volume = volume + 0.3 * at.has("Chubby") * (_cheeks(at) - 1)
    volume = volume + 0.045 * wavy * _wave(y * 3.8 + phase) + 0.012 * neither * tousle
    above = (y + 0.15).clamp(max=0) * (1 / (0.64 + 0.06 * length + 0.03 * wavy))
    cap = (1 - (above * above + (x / volume) ** 2).sqrt_()) * volume
    shade = shade * (0.72 + 0.28 * _edge(cap - 0.05, 0.14))
    bottom = -0.25 + 1.28 * length + (wavy + neither) * 0.03 * _wave(x * 4 + phase) - y
    outline = _edge(torch.minimum(cap, bottom), 0.05) * (1 - bald)
    # The hairline, and the temples beside it.
    receding = at.has("Receding_Hairline")
    u, v = at.u, at.v
    line = -0.52 - receding * 0.06 + 0.8 * (u - 0.6 * parting * (1 - receding)) ** 2
    line = line - receding * 0.22 * _band(u.abs() - 0.24, 0.17)
    temple = 0.94 * width * _cheeks(at) + 0.04 * at.factor("yaw") * x.sign() - aside
    opening = _edge(torch.minimum(v - line, temple), 0.045)
    fringe = -0.27 + 0.035 * _wave(x * 5 + phase) + 0.012 * _wave(x * 13 + phase * 3) - v
    bangs = at.has("Bangs") * _edge(fringe, 0.04) * _edge(0.9 * width - aside + 0.1)
    front = outline * (1 - opening * (1 - bangs))
    return outline, front, shade, straight * gloss * (0.30 + 0.12 * strands)


def _earrings(at: _Portraits) -> None:
    width, _ = _jaw(at)
    x = at.head_x.abs() - width - 0.04 + 0.02 * at.factor("yaw") * at.head_x.sign()
    y = at.head_y - 0.27
    outer = (x * x + y * y * 0.6).sqrt_()
    at.darken(0.5 * _edge(0.085 - outer))
    at.paint(_edge(0.066 - outer), at.colours["metal"], 1.1 - 3.0 * (outer - 0.03).abs())
    at.paint(_blob(x + 0.02, y + 0.03, 0.04, 0.04), (1.0, 1.0, 1.0))


def _necklace(at: _Portraits) -> None:
    x, y = at.head_x, at.head_y
    chain = y - 0.885 + 1.3 * x * x
    beads = 0.75 + 0.35 * _wave(x * 11)
    inside = _edge(0.36 - x.abs()) * _edge(y - 0.66)
    at.darken(0.4 * _edge(0.045 - (chain - 0.02).abs()) * inside)
    at.paint(_edge(0.032 - chain.abs()) * inside, at.colours["metal"], beads)


def _glasses(at: _Portraits) -> None:
    x, y = at.u.abs() - _EYE_X - 0.005, at.v - _EYE_Y - 0.015
    a, b = x / 0.185, y / 0.145
    a, b = a * a, b * b
    radius = (a * a + b * b).sqrt_().sqrt_()
    rim = _edge(0.022 - ((radius - 1) * 0.15).abs())
    bridge = _edge(0.016 - (y + 0.05).abs()) * _edge(-0.17 - x)
    temple = _edge(0.016 - (y + 0.06).abs()) * _edge(x - 0.18) * at.face
    at.paint(0.22 * _edge((1 - radius) * 0.15), (0.75, 0.85, 0.95))
    frame = 0.05 + 0.25 * at.style("glasses")
    colour = torch.cat([frame, 0.6 * frame, 0.5 * frame], 1)[:, :, 0]
    at.paint(torch.maximum(torch.maximum(rim, bridge), temple), colour)


def _hat(at: _Portraits) -> None:
    width, _ = _jaw(at)
    x, y = at.head_x, at.head_y
    brim = y + 0.36 - 0.22 * x * x
    a, b = x / (width + 0.15), (y + 0.36) / 0.58
    dome = _edge((1 - (a * a + b * b).sqrt_()) * 0.6) * _edge(-brim)
    shade = 1.05 - 0.4 * a * a + 0.3 * x * at.factor("light") + 0.06 * _wave(a * 5)
    at.paint(dome, at.colours["hat"], shade)
    band = _edge(0.065 - brim.abs()) * _edge(width + 0.19 - x.abs())
    at.paint(band, at.colours["hat"], 0.62 + 0.3 * x * at.factor("light") + 0 * y)
    at.darken(0.30 * _band(brim - 0.09, 0.07) * at.face)


def _blurred(canvas: Tensor) -> Tensor:
    """Seven passes of the binomial filter 1 2 1 in both directions: a Gaussian of about 1.9 pixels."""
    for _ in range(7):
        for axis in (2, 3):
            ahead = torch.cat([canvas.narrow(axis, 1, SIZE - 1), canvas.narrow(axis, SIZE - 1, 1)], axis)
            behind = torch.cat([canvas.narrow(axis, 0, 1), canvas.narrow(axis, 0, SIZE - 1)], axis)
            canvas = 0.5 * canvas + 0.25 * (ahead + behind)
    return canvas


def _render_block(crowd: People) -> Tensor:
    at = _pose(crowd)
    outline, front, shade, gloss = _hair(at)
    _background(at)
    at.paint(outline, at.colours["hair"], 0.72 * shade)
    _body(at.window(38, 64))
    at.window(52, 64).only(at.has("Wearing_Necktie") > 0.5, _necktie)
    _ears(at.window(22, 44))
    _skin(at)
    at.window(22, 64).only(at.has("No_Beard") < 0.5, _beard)
    _nose(at.window(24, 46, 18, 46))
    _mouth(at.window(38, 58, 14, 50))
    _eyes(at.window(22, 42, 8, 56))
    _brows(at.window(15, 34, 8, 56))
    # Hair throws a shadow two pixels down.
    at.window(2, SIZE).darken(0.25 * front[:, :-2] * at.face[:, 2:])
    at.paint(front, at.colours["hair"], shade)
    at.window(4, 30).paint((front * gloss)[:, 4:30], (1.0, 0.97, 0.92))
    at.window(30, 52).only(at.has("Wearing_Earrings") > 0.5, _earrings)
    at.window(48, 64).only(at.has("Wearing_Necklace") > 0.5, _necklace)
    at.window(18, 44).only(at.has("Eyeglasses") > 0.5, _glasses)
    at.window(0, 32).only(at.has("Wearing_Hat") > 0.5, _hat)
    blurry = (crowd.attributes[:, CELEBA.index("Blurry")] > 0.5).nonzero()[:, 0]
    if len(blurry):
        at.canvas[blurry] = _blurred(at.canvas[blurry])
    return (at.canvas.clamp_(0, 1) * 255 + 0.5).to(torch.uint8)


def render(crowd: People) -> UInt8[Tensor, "n 3 64 64"]:
    """Portraits, RGB in 0 to 255."""
    blocks = [_render_block(crowd[start : start + _BLOCK]) for start in range(0, len(crowd), _BLOCK)]
    return torch.cat(blocks) if blocks else torch.zeros(0, 3, SIZE, SIZE, dtype=torch.uint8)


def draw(
    indices: Int[Tensor, " n"], seed: int = 0, correlation: str = "celeba"
) -> tuple[UInt8[Tensor, "n 3 64 64"], Float[Tensor, "n 40"], Float[Tensor, "n factors"]]:
    """Images, attributes and factors (`FACTORS`) of a seed's people; see `people`."""
    crowd = people(indices, seed, correlation)
    return render(crowd), crowd.attributes, crowd.factors
