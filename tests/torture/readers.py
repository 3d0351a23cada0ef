"""Every file that is read: how one is made, and by what it is read."""

import re
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from runtimes import packed, write_package
from safetensors.torch import save_file
from torture.victims import make_celeba

import zsteer
from zsteer.app.composition import compose
from zsteer.data.celeba import celeba_store
from zsteer.data.photos import fitted, open_photo
from zsteer.data.store import ImageStore
from zsteer.data.tables import read_table
from zsteer.evaluation.trials import Trial, kept_trial
from zsteer.gan.training import train
from zsteer.networks.checkpoints import load_weights
from zsteer.networks.loading import load
from zsteer.networks.tutorial import Generator
from zsteer.pages.runtime import read_runtime
from zsteer.status import USER_ERRORS
from zsteer.steering import reference
from zsteer.steering.directions import read_directions
from zsteer.steering.start import read_noise
from zsteer.sweeps.summary import summarize

FACES = ("data.num_train=16", "data.num_val=8", "data.num_test=8", "data.batch_size=8")
SMALL = (*FACES, "max_images=8", "trainer=cpu", "trainer.precision=32-true", "trainer.log_every_n_steps=1")
GAN = (*SMALL, "judge=none", "generator.network.hidden_dim=2", "discriminator.network.hidden_dim=2")


def make_noise(folder: Path) -> Path:
    save_file({"noise": torch.zeros(2, 5)}, folder / "noise.safetensors")
    return folder / "noise.safetensors"


def make_pickle(folder: Path) -> Path:
    torch.save(Generator(8, 3, 2).state_dict(), folder / "weights.pth")
    return folder / "weights.pth"


def read_weights(path: Path) -> None:
    load_weights(Generator(8, 3, 2), path)


def make_directions(folder: Path) -> Path:
    save_file({"directions": torch.zeros(3, 5)}, folder / "directions.safetensors")
    return folder / "directions.safetensors"


def make_photo(folder: Path) -> Path:
    Image.effect_noise((40, 30), 50).convert("RGB").save(folder / "photo.jpg")
    return folder / "photo.jpg"


def make_palette(folder: Path) -> Path:
    Image.effect_noise((40, 30), 50).convert("P").save(folder / "photo.png")
    return folder / "photo.png"


def read_photo(path: Path) -> None:
    assert fitted(open_photo(path), 16, 16).shape == (3, 16, 16)


def make_table(folder: Path) -> Path:
    (folder / "labels.csv").write_text("file,smile,age\na.png,1,3.5\nb.png,0,\nc.png,,2\n")
    return folder / "labels.csv"


def make_configs(folder: Path) -> Path:
    (folder / "generator").mkdir()
    (folder / "generator" / "mine.yaml").write_text("network: {_target_: mine.Mine, width: 3}\ncheckpoint: null\n")
    return folder / "generator" / "mine.yaml"


def read_celeba(path: Path) -> None:
    root = path.parents[1]
    celeba_store(root, root / "store", False, 1)


def make_store(folder: Path, name: str) -> Path:
    zsteer.prepare_data("data=procedural", *FACES[:3], f"data.root={folder}")
    (path,) = folder.glob(f"*/{name}")
    return path


def read_store(path: Path) -> None:
    store = ImageStore.open(path.parent)
    assert store.images[:].shape[1:] == (3, 64, 64) and len(store.targets) == len(store)


def make_sweep(folder: Path, name: str) -> Path:
    for number in range(2):
        zsteer.steer("num_steps=1", "num_images=1", "trainer=cpu", seed=number, folder=folder / f"{number}_job")
    return folder / "1_job" / name


def read_sweep(path: Path) -> None:
    summary = summarize(path.parents[1])
    assert summary.metrics.get("completed", 0) >= 1  # the other job


def make_gan(folder: Path, name: str) -> Path:
    zsteer.train_gan(*GAN, f"data.root={folder}", folder=folder / "run")
    return folder / "run" / name


def read_run(path: Path) -> None:
    load(path.parent)


def go_on(path: Path) -> None:
    words = [f"data.root={path.parents[2]}", "max_images=16", f"ckpt_path={path}"]
    train(compose("train_gan", [*GAN, *words, "+trainer.enable_progress_bar=false"]), None)


def make_trial(folder: Path) -> Path:
    names = Trial.__dataclass_fields__
    Trial(**{name: torch.zeros(2, 3) for name in names}).save(folder / "trial.safetensors")
    return folder / "trial.safetensors"


def make_cache(folder: Path) -> Path:
    reference.cache_folder().mkdir(parents=True, exist_ok=True)
    reference.save_logits(folder / "a.safetensors", torch.zeros(reference.NUM_SAMPLES, 3))
    return folder / "a.safetensors"


def read_cache(path: Path) -> None:
    shutil.copy(path, reference.cache_folder() / path.name)
    logits = reference._load(path.name, 3)
    assert logits is None or logits.is_floating_point()


@dataclass(frozen=True)
class Reader:
    """How a file is made in a folder, and read; `slow` ones are mutated a tenth as often."""

    make: Callable[[Path], Path]
    read: Callable[[Path], object]
    slow: bool = False

    def read_or_refuse(self, content: bytes, path: Path, folder: Path) -> None:
        """Read `path` with this content, in a copy of the folder it was made in; a refusal says something.

        Raises:
            Exception: what the reader has no line for.
        """
        with tempfile.TemporaryDirectory(dir=folder.parent) as copy:
            shutil.copytree(folder, copy, dirs_exist_ok=True)
            place = Path(copy) / path.relative_to(folder)
            place.write_bytes(content)
            try:
                self.read(place)
            except USER_ERRORS as error:
                assert str(error).strip(), f"{type(error).__name__} without a message"


READERS = {
    "noise": Reader(make_noise, lambda path: read_noise(path, 5)),
    "weights as a pickle": Reader(make_pickle, read_weights),
    "directions": Reader(make_directions, lambda path: read_directions(path, torch.zeros(3, 5), "source")),
    "photo": Reader(make_photo, read_photo),
    "picture with a palette": Reader(make_palette, read_photo),
    "table": Reader(make_table, read_table),
    "config": Reader(make_configs, lambda path: compose("steer", ["generator=mine"], path.parents[1]), slow=True),
    "npm package": Reader(lambda folder: packed(write_package(folder / "package")), read_runtime),
    "npm package's own words": Reader(
        lambda folder: write_package(folder) / "package.json", lambda path: read_runtime(path.parent)
    ),
    "trial": Reader(make_trial, kept_trial),
    "reference logits": Reader(make_cache, read_cache),
    **{
        f"CelebA's {name}": Reader(lambda folder, name=name: make_celeba(folder) / name, read_celeba, slow=True)
        for name in ("list_attr_celeba.txt", "list_eval_partition.txt", "img_align_celeba/1.jpg")
    },
    **{
        f"store's {name}": Reader(lambda folder, name=name: make_store(folder, name), read_store)
        for name in ("store.json", "images.npy", "targets.npy", "splits.npy")
    },
    **{
        f"job's {name}": Reader(lambda folder, name=name: make_sweep(folder, name), read_sweep, slow=True)
        for name in ("status.json", "metrics.json", "history.safetensors", ".hydra/overrides.yaml")
    },
    **{
        f"run's {name}": Reader(lambda folder, name=name: make_gan(folder, name), read_run)
        for name in ("generator.safetensors", "generator.json")
    },
    "training checkpoint": Reader(lambda folder: make_gan(folder, "checkpoints/last.ckpt"), go_on, slow=True),
}


def corpus(name: str) -> Path:
    """The archive of what fuzzing found for a reader, by `make fuzz`."""
    return Path(__file__).parent / "corpus" / (re.sub(r"\W+", "_", name) + ".zip")
