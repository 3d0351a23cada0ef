"""A comparison as one page that opens from disk: tables, pictures, and the frames of every trial to scrub through."""

import base64
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from zsteer.files import whole
from zsteer.pictures import Png

if TYPE_CHECKING:
    from zsteer.comparison import Comparison

TEMPLATE = Path(__file__).parent / "report.html"


def write_report(
    path: Path, comparison: "Comparison", rows: Sequence[Mapping[str, Any]], pictures: Mapping[str, Png]
) -> None:
    """Write the page. Nothing in it is loaded from elsewhere: pictures are data URIs, and the script is its own.

    Args:
        rows: the figures, as `comparison.figures` gives them.
        pictures: by title.
    """
    figures: dict[tuple[str, str], dict[float, Mapping[str, Any]]] = {}
    for row in rows:
        figures.setdefault((row["contender"], row["target"]), {})[row["level"]] = row
    trials = {
        target: [
            {
                "contender": name,
                "figures": figures[name, target],
                "frames": _uri(_sprite(trial.frames), "webp"),
                "gains": json.dumps([[round(gain, 2) for gain in moment] for moment in trial.gains.tolist()]),
                "arrived": (~trial.step[-1].isnan())[: trial.frames.shape[1]].tolist(),
            }
            for name, trial in ((name, comparison.trials[name, target]) for name in comparison.contenders)
        ]
        for target in comparison.targets
    }
    moments, _, _, height, width = next(iter(comparison.trials.values())).frames.shape
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    page = environment.from_string(TEMPLATE.read_text()).render(
        trials=trials,
        contenders=comparison.contenders,
        levels=sorted({row["level"] for row in rows}),
        num_images=rows[0]["num_images"],
        figures=figures,
        pictures={title: _uri(picture.data, "png") for title, picture in pictures.items()},
        last=moments - 1,
        height=height,
        width=width,
    )
    with whole(path) as temporary:
        temporary.write_text(page)


def _sprite(frames: UInt8[Tensor, "f m 3 h w"]) -> bytes:
    """All frames as one picture: images across, moments downwards."""
    moments, images, _, height, width = frames.shape
    picture = frames.permute(0, 3, 1, 4, 2).reshape(moments * height, images * width, 3)
    file = io.BytesIO()
    Image.fromarray(picture.numpy()).save(file, format="WEBP", quality=85)
    return file.getvalue()


def _uri(data: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
