"""`make demo`: what the last two runs of `steer` made of the same faces, as one picture, `outputs/demo.png`."""

from pathlib import Path

import numpy as np
from PIL import Image
from safetensors.torch import load_file

import zsteer
from zsteer.files import BUNDLE, HISTORY, read_json
from zsteer.networks.inference import images_of
from zsteer.pictures import save_picture, sheet, to_uint8

PICTURE = Path("outputs", "demo.png")
SIDE = 96  # of a face, in pixels


def main() -> None:
    """Draw the faces at the start, then at the end of each run, the one with the lower penalty first."""
    newest = sorted(Path("outputs", "steer").glob("*/metrics.json"), key=lambda path: path.stat().st_mtime)[-2:]
    runs = sorted((read_json(path)["penalty_weight"], path.parent) for path in newest)
    lines = [("at the start", row_of(runs[0][1], step=0))]
    for penalty, folder in runs:
        figures = read_json(folder / "metrics.json")
        words = f"{figures['method']}, penalty {penalty:g}", f"gain {figures['gain_judge']:.1f} σ"
        label = "\n".join([*words, f"others change {figures['attribute_dependency']:.2f} σ"])
        lines.append((label, row_of(folder, step=-1)))
    save_picture(PICTURE, sheet(lines))


def row_of(folder: Path, step: int) -> list[np.ndarray]:
    """The faces of a run's noise at a step, enlarged."""
    noise = load_file(folder / HISTORY)["noise"][step]
    images = to_uint8(images_of(zsteer.load(BUNDLE / "generator.safetensors"), noise)).permute(0, 2, 3, 1).numpy()
    return [np.asarray(Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.LANCZOS)) for image in images]


if __name__ == "__main__":
    main()
