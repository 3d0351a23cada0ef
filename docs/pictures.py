"""`make pictures`: draw the pictures of faces anew, from the renderer and the bundle."""

from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from matplotlib.figure import Figure
from torch import Tensor

import zsteer
from zsteer.app.composition import compose
from zsteer.data import procedural
from zsteer.data.attributes import CELEBA
from zsteer.data.procedural.population import BEARDS
from zsteer.files import atomic_write
from zsteer.networks.inference import noise_of
from zsteer.networks.loading import load_networks
from zsteer.pictures import grid_of, save_picture, to_uint8

FOLDER = Path(__file__).parent
NAMED = tuple(compose("compare").targets)
PER_ROW = 6
PAIRS_PER_ROW = 5
GLASSES = ("target=Eyeglasses", "num_images=6")
RUNS = {  # the words of `steer` above each picture
    "smiling": (),
    "hair_length": ("target=hair_length",),
    "direction": (*GLASSES, "method=direction", "penalty_weight=0", "show_every=8"),
    "gradient": (*GLASSES, "method=ascent", "penalty_weight=0", "show_every=8"),
    "penalty": (*GLASSES, "method=ascent", "penalty_weight=0.3", "show_every=8"),
    "until": (*GLASSES, "method=ascent", "penalty_weight=0.3", "until=0.9999", "num_steps=60", "show_every=30"),
}


def attribute_sheet() -> None:
    """Each attribute off and on, everything else equal (but what excludes it), on a person whom it suits."""
    figure = Figure(figsize=(11, 10.6), layout="constrained")
    axes = figure.subplots(8, PAIRS_PER_ROW)
    for name, axis in zip(CELEBA, axes.flat, strict=True):
        person = _suited(name)
        pair = torch.cat([procedural.render(procedural.with_attributes(person, {name: on})) for on in (False, True)])
        axis.imshow(_row(pair), interpolation="lanczos")
        axis.set_title(name.replace("_", " "), fontsize=9)
        axis.set_axis_off()
    _save(figure, "attributes.png")


def _suited(name: str) -> procedural.People:
    """The first of the people who have the attribute, which makes it likely that the rest of them goes with it.

    Plain hair, no beard, hat, glasses or blur beside it, so that nothing hides it.
    """
    crowd = procedural.people(torch.arange(20_000))
    distracting = ("Wearing_Hat", "Eyeglasses", "Blurry", "Bangs", "Rosy_Cheeks", "Pale_Skin", "Double_Chin", "Chubby")
    has = {attribute: crowd.attributes[:, CELEBA.index(attribute)] > 0 for attribute in CELEBA}
    fits = has[name] & ~torch.stack([has[other] for other in distracting if other != name]).any(0)
    if name not in (*BEARDS, "No_Beard"):
        fits &= has["No_Beard"]
    return crowd[fits.nonzero()[:1, 0]]


@torch.no_grad()
def named_faces() -> None:
    """Ten attributes: drawn faces that have each, and samples in which the judge sees it."""
    networks = load_networks(compose("steer"))
    assert networks.judge is not None
    drawn, labels, _ = procedural.draw(torch.arange(3000))
    noise = noise_of(networks.generator, 3000, seed=0)
    samples = torch.cat([networks.generator(z) for z in noise.split(250)])
    seen = torch.cat([networks.judge.network(images) for images in samples.split(250)])
    figure = Figure(figsize=(11, 1.02 * len(NAMED)), layout="constrained")
    axes = figure.subplots(len(NAMED), 2)
    for name, (left, right) in zip(NAMED, axes, strict=True):
        column = CELEBA.index(name)
        has = labels[:, column] > 0
        left.imshow(_row(drawn[has][:PER_ROW]), interpolation="lanczos")
        # The first, not the surest, which would be the prettiest.
        sampled = samples[seen[:, column] > 0][:PER_ROW]
        right.imshow(_row(to_uint8(sampled)), interpolation="lanczos")
        left.set_ylabel(name.replace("_", "\n"), rotation=0, ha="right", va="center", fontsize=9)
        for axis in (left, right):
            axis.set(xticks=[], yticks=[], frame_on=False)
    axes[0, 0].set_title("drawn", fontsize=10)
    axes[0, 1].set_title("samples of the bundled generator", fontsize=10)
    _save(figure, "named.png")


@torch.no_grad()
def faces() -> None:
    """Drawn faces above, samples below: the first of each."""
    generator = load_networks(compose("steer", ["judge=none"])).generator
    drawn = procedural.draw(torch.arange(24))[0].float() / 127.5 - 1
    samples = generator(noise_of(generator, 24, seed=1))
    save_picture(FOLDER / "faces.png", grid_of(torch.cat([drawn, samples]), columns=12))


def steered() -> None:
    """Runs of `steer`."""
    for name, words in RUNS.items():
        run = zsteer.steer(*words, "trainer=cpu")
        print(run)
        save_picture(FOLDER / f"{name}.png", run.image)


def _row(images: UInt8[Tensor, "n 3 h w"]) -> UInt8[np.ndarray, "h n*w 3"]:
    return torch.cat(list(images), dim=2).permute(1, 2, 0).numpy()


def _save(figure, name: str) -> None:
    with atomic_write(FOLDER / name) as temporary:
        figure.savefig(temporary, format="png", dpi=100)


if __name__ == "__main__":
    attribute_sheet()
    named_faces()
    faces()
    steered()
