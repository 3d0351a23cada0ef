"""The parts of the page as HTML: faces, pictures, bars, warnings, edits."""

import base64
from collections.abc import Sequence
from pathlib import Path

import jinja2
from jaxtyping import UInt8
from torch import Tensor
from torchvision.transforms.functional import to_pil_image

from zsteer.data import attributes
from zsteer.explore.edits import Edit, View
from zsteer.pictures import encoded
from zsteer.steering.metrics import sigma_of

ENVIRONMENT = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
PARTS = ENVIRONMENT.from_string((Path(__file__).parent / "parts.html").read_text(encoding="utf-8")).module
RANGE = 3.0  # σ on both sides of the mean over samples, that a bar shows
LEAST = 0.05  # σ of change that is told


def address(image: UInt8[Tensor, "3 h w"]) -> str:
    """An image as an address that needs no server."""
    return f"data:image/png;base64,{base64.b64encode(encoded(to_pil_image(image)).data).decode()}"


def _part(name: str, *arguments: object) -> str:
    return str(getattr(PARTS, name)(*arguments))


def faces(images: UInt8[Tensor, "n 3 h w"], chosen: int | None) -> str:
    """The row of faces, of which one or all are chosen."""
    return _part("faces", [address(image) for image in images], chosen)


def pictures(views: Sequence[tuple[str, View]]) -> str:
    """The faces at the start, and as one or two methods have them now, each with its name and what it changed."""
    columns = [{"side": "start", "title": "start", "lines": [], "images": list(map(address, views[0][1].before))}]
    for number, (method, view) in enumerate(views):
        lines = [f"{view.gain:+.2f} σ" + ("" if view.side_effect is None else f", others {view.side_effect:.2f} σ")]
        images = list(map(address, view.now))
        columns.append({"side": ("now", "rival")[number], "title": method, "lines": lines, "images": images})
    return _part("pictures", columns)


def bars(view: View, target: str, held: Sequence[str], judge: str) -> str:
    """What is seen of the faces, their mean: each attribute's logit at the start and now, and its change in σ."""
    scored = view.judged
    sigma, mean = sigma_of(scored.reference), scored.reference.double().mean(dim=0)
    then, now = (((logits.double() - mean) / sigma).mean(dim=0).tolist() for logits in (scored.before, scored.after))
    present = (scored.after.mean(dim=0) > 0).tolist()
    changes = scored.change.mean(dim=0).tolist()
    parts = {target, *attributes.parts(target)}
    rows = []
    for name, start, end, change, there in zip(scored.names, then, now, changes, present, strict=True):
        places = _place(start), _place(end)
        told = abs(change) >= LEAST
        rows.append(
            {
                "name": name,
                "aim": name in parts,
                "held": name in held,
                "present": there,
                "change": change,
                "told": f"{change:+.1f}" if told else "",
                "way": ("up" if change > 0 else "down") if told else "",
                "then": places[0],
                "now": places[1],
                "left": min(places),
                "width": abs(places[1] - places[0]),
            }
        )
    return _part("bars", rows, judge)


def _place(sigmas: float) -> float:
    """Where on a bar, in per cent of its length."""
    return 50.0 + 50.0 * max(-1.0, min(1.0, sigmas / RANGE))


def notes(warnings: Sequence[str]) -> str:
    """What to beware of."""
    return _part("notes", list(warnings))


def chips(made: Sequence[Edit], current: Edit | None) -> str:
    """The edits so far, those before the slider's with a button that has them made earlier."""
    told = [{"text": _named(edit), "movable": number > 0} for number, edit in enumerate(made)]
    return _part("chips", [*told, *({"text": _named(edit), "movable": False} for edit in [current] if edit)])


def _named(edit: Edit) -> str:
    return f"{edit.aim.target.replace('_', ' ')} {edit.gain:+.1f} σ · {edit.aim.method}"
