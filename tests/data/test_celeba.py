import csv
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from PIL import Image
from places import REAL, ROOT
from torchvision.transforms.v2 import CenterCrop

from zsteer.data import celeba, procedural, store
from zsteer.data.attributes import CELEBA
from zsteer.data.celeba import celeba_store, find_sources, prepare, read_annotations
from zsteer.data.faces import CelebA, prepare_store

NUM = 60


def jpeg(index, size=(178, 218)):
    """A smooth random picture."""
    coarse = np.random.default_rng(index).integers(0, 256, (8, 7, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)
    return file.getvalue()


@pytest.fixture(scope="session")
def jpegs():
    return {f"{index + 1:06d}.jpg": jpeg(index) for index in range(NUM)}


LABELS = np.random.default_rng(0).integers(0, 2, (NUM, 40)) * 2 - 1
SPLITS = [0] * 40 + [1] * 8 + [2] * 12


def write_txt(base, names, labels=LABELS, splits=SPLITS):
    rows = [f"{name} " + " ".join(f"{label:2d}" for label in row) for name, row in zip(names, labels, strict=True)]
    (base / "list_attr_celeba.txt").write_text(f"{len(rows)}\n{' '.join(CELEBA)} \n" + "\n".join(rows) + "\n")
    partition = "".join(f"{name} {split}\n" for name, split in zip(names, splits, strict=True))
    (base / "list_eval_partition.txt").write_text(partition)


def write_csv(base, names, labels=LABELS, splits=SPLITS):
    rows = [f"{name}," + ",".join(map(str, row)) for name, row in zip(names, labels, strict=True)]
    (base / "list_attr_celeba.csv").write_text(f"image_id,{','.join(CELEBA)}\r\n" + "\r\n".join(rows) + "\r\n")
    partition = "".join(f"{name},{split}\n" for name, split in zip(names, splits, strict=True))
    (base / "list_eval_partition.csv").write_text("image_id,partition\n" + partition)


def write_folder(folder, jpegs):
    folder.mkdir(parents=True)
    for name, content in jpegs.items():
        (folder / name).write_bytes(content)


def write_zip(base, jpegs, prefix="img_align_celeba/"):
    with zipfile.ZipFile(base / "img_align_celeba.zip", "w") as archive:
        for name, content in jpegs.items():
            archive.writestr(prefix + name, content)


@pytest.fixture
def root(tmp_path, jpegs):
    """CelebA with txt annotations and the zip."""
    base = tmp_path / "root" / "celeba"
    base.mkdir(parents=True)
    write_txt(base, jpegs)
    write_zip(base, jpegs)
    return base.parent


def content(store):
    return [(store.folder / f"{name}.npy").read_bytes() for name in ("images", "targets", "splits")]


def test_store_is_crop_and_antialiased_resize(root, jpegs, tmp_path):
    store = prepare(root, tmp_path / "store", workers=2)
    assert store.protocol == "crop178-antialias64-uint8"
    assert store.names == CELEBA
    assert store.counts() == {"train": 40, "val": 8, "test": 12}
    assert np.array_equal(store.targets, (LABELS + 1) / 2)
    for index in (0, 59):
        image = Image.open(io.BytesIO(jpegs[f"{index + 1:06d}.jpg"]))
        crop = CenterCrop(178)(image)
        expected = np.asarray(crop.resize((64, 64), Image.Resampling.BILINEAR)).transpose(2, 0, 1)
        assert np.array_equal(store.images[index], expected)


@pytest.mark.parametrize("images", ["folder", "nested folder", "zip", "flat zip"])
@pytest.mark.parametrize("annotations", [write_txt, write_csv])
@pytest.mark.parametrize("inside", ["celeba", "."])
def test_all_layouts_give_the_same_store(root, jpegs, tmp_path, images, annotations, inside):
    base = tmp_path / "other" / inside
    base.mkdir(parents=True)
    annotations(base, jpegs)
    if "zip" in images:
        write_zip(base, jpegs, prefix="" if "flat" in images else "img_align_celeba/")
    else:
        write_folder(base / "img_align_celeba" / ("img_align_celeba" if "nested" in images else "."), jpegs)
    assert content(prepare(tmp_path / "other", tmp_path / "one")) == content(prepare(root, tmp_path / "two"))


LAYOUTS = {
    "as distributed": ("", "Anno", "Eval", "Img", "{}"),
    "as distributed, a level deeper": ("CelebA", "Anno", "Eval", "Img", "{}"),
    "as distributed, in upper case": ("CELEBA/CelebA", "ANNO", "EVAL", "IMG", "{upper}"),
    "torchvision's": ("celeba", "", "", "", "{}"),
    "partition beside the attributes": ("celeba/CelebA", "Anno", "Anno", "Img", "{}"),
}


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "folder"])
def test_celebas_own_folders_are_found_in_any_case(root, jpegs, tmp_path, name, zipped):
    inner, *folders, form = LAYOUTS[name]
    base = tmp_path / "other" / inner
    for folder in {*folders}:
        (base / folder).mkdir(parents=True, exist_ok=True)
    upper = "upper" in form
    for file, folder in zip(("list_attr_celeba.txt", "list_eval_partition.txt"), folders[:2], strict=True):
        shutil.copy(root / "celeba" / file, base / folder / (file.upper() if upper else file))
    if zipped:
        target = "IMG_ALIGN_CELEBA.ZIP" if upper else "img_align_celeba.zip"
        shutil.copy(root / "celeba" / "img_align_celeba.zip", base / folders[2] / target)
    else:
        named = {name.upper() if upper else name: content for name, content in jpegs.items()}
        write_folder(base / folders[2] / ("IMG_ALIGN_CELEBA" if upper else "img_align_celeba"), named)
    assert content(prepare(tmp_path / "other", tmp_path / "one")) == content(prepare(root, tmp_path / "two"))


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "folder"])
def test_what_macos_puts_beside_the_images_are_none(root, jpegs, tmp_path, zipped):
    expected = content(prepare(root, tmp_path / "expected"))
    base = root / "celeba"
    if zipped:
        beside = {f"__MACOSX/img_align_celeba/._{name}": b"Mac OS X" for name in jpegs}
        write_zip(base, {f"img_align_celeba/{name}": content for name, content in jpegs.items()} | beside, prefix="")
    else:
        (base / "img_align_celeba.zip").unlink()
        write_folder(base / "img_align_celeba", jpegs | {f"._{name}": b"Mac OS X" for name in jpegs})
        write_folder(base / "img_align_celeba" / "__MACOSX", {f"._{name}": b"Mac OS X" for name in jpegs})
    assert content(prepare(root, tmp_path / "store")) == expected


def test_a_folder_of_nothing_but_macos_files_has_no_images(root, jpegs):
    base = root / "celeba"
    (base / "img_align_celeba.zip").unlink()
    write_folder(base / "img_align_celeba", {f"._{name}": b"Mac OS X" for name in jpegs})
    with pytest.raises(FileNotFoundError, match="img_align_celeba without images"):
        find_sources(root)


def test_half_size_takes_the_same_relative_crop(root, jpegs, tmp_path):
    small = {name: jpeg(index, (89, 109)) for index, name in enumerate(jpegs)}
    write_zip(root / "celeba", small)
    store = prepare(root, tmp_path / "store")
    assert store.protocol == "crop89-antialias64-uint8"
    square = Image.open(io.BytesIO(small["000001.jpg"])).crop((0, 10, 89, 99))
    expected = np.asarray(square.resize((64, 64), Image.Resampling.BILINEAR))
    assert np.array_equal(store.images[0], expected.transpose(2, 0, 1))


def test_store_is_opened_without_the_files(root, tmp_path):
    first = celeba_store(root)
    assert first.folder == root / "celeba64"
    shutil.rmtree(root / "celeba")
    assert content(celeba_store(root)) == content(first)


def test_a_store_of_other_files_is_not_taken_for_one_of_these(root, tmp_path, jpegs):
    celeba_store(root)
    moved = tmp_path / "elsewhere"
    shutil.move(root, moved)
    celeba_store(moved)
    (moved / "celeba" / "list_attr_celeba.txt").unlink()
    write_csv(moved / "celeba", list(jpegs))
    with pytest.raises(ValueError, match=r"was made of other files than those of data.root=.*; delete it or set"):
        celeba_store(moved)


def test_columns_may_have_another_order(root, tmp_path, jpegs):
    names, order = list(CELEBA), np.random.default_rng(1).permutation(40)
    path = root / "celeba" / "list_attr_celeba.txt"
    count, _, *rows = path.read_text().splitlines()
    shuffled = [" ".join([row.split()[0], *np.array(row.split()[1:])[order]]) for row in rows]
    path.write_text("\n".join([count, " ".join(names[i] for i in order), *shuffled]))
    assert np.array_equal(read_annotations(find_sources(root)).labels, LABELS > 0)


def test_annotations_are_cached_until_a_file_changes(root, tmp_path, monkeypatch):
    cache, sources = tmp_path / "cache.npz", find_sources(root)
    first = read_annotations(sources, cache)
    with monkeypatch.context() as context:
        context.setattr(celeba, "_lines", None)
        again = read_annotations(sources, cache)
    for one, other in zip(vars(first).values(), vars(again).values(), strict=True):
        assert np.array_equal(one, other) and one.dtype == other.dtype
    path = sources.attributes
    path.write_text(path.read_text().replace("000001.jpg -1", "000001.jpg  1"))
    os.utime(path, ns=(0, 0))
    assert read_annotations(sources, cache).labels[0, 0] == 1


def caches():
    """Damaged annotation caches, made from a good one."""

    def edited(**parts):
        def damage(path):
            with np.load(path) as good:
                np.savez(path, **{**good, **parts})

        return damage

    return {
        "no zip": lambda path: path.write_bytes(b"half a file"),
        "empty": lambda path: path.write_bytes(b""),
        "cut short": lambda path: os.truncate(path, path.stat().st_size // 2),
        "bit rot": lambda path: path.write_bytes(path.read_bytes().replace(b"000001", b"000002")),
        "lacks a part": lambda path: np.savez(path, stamp=np.load(path)["stamp"]),
        "pickled": edited(files=np.array([{}], dtype=object)),
        "other labels": edited(labels=np.full((NUM, 40), 7, np.uint8)),
        "other shape": edited(labels=np.zeros((NUM, 39), np.uint8)),
        "other type": edited(splits=np.zeros(NUM)),
        "no names": edited(files=np.zeros(NUM)),
    }


@pytest.mark.parametrize("name", caches())
def test_a_damaged_cache_of_annotations_is_made_anew(root, tmp_path, name):
    cache, sources = tmp_path / "cache.npz", find_sources(root)
    first = read_annotations(sources, cache)
    caches()[name](cache)
    for _ in range(2):
        again = read_annotations(sources, cache)
        for one, other in zip(vars(first).values(), vars(again).values(), strict=True):
            assert np.array_equal(one, other) and one.dtype == other.dtype


def test_names_of_images_may_have_letters_of_any_language(root, jpegs, tmp_path):
    expected = content(prepare(root, tmp_path / "expected"))
    named = {name.replace("0000", "größe"): content for name, content in jpegs.items()}
    write_txt(root / "celeba", named)
    write_zip(root / "celeba", named)
    assert content(prepare(root, tmp_path / "store")) == expected


def replace(name, change):
    def damage(base):
        path = base / name
        path.write_text(change(path.read_text()))

    return damage


def truncate_zip(base):
    os.truncate(base / "img_align_celeba.zip", 50_000)


def html(name):
    return lambda base: (base / name).write_text("<!DOCTYPE html><title>Quota exceeded</title>")


def empty_folder(base):
    (base / "img_align_celeba.zip").unlink()
    (base / "img_align_celeba").mkdir()


def rezip(change):
    def damage(base):
        with zipfile.ZipFile(base / "img_align_celeba.zip") as archive:
            images = {name.split("/")[-1]: archive.read(name) for name in archive.namelist()}
        write_zip(base, change(images))

    return damage


ATTR, PART = "list_attr_celeba.txt", "list_eval_partition.txt"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (shutil.rmtree, "found none of its files; missing list_attr_celeba.txt .*by hand.*need not be unpacked"),
        (
            lambda base: (base / PART).unlink(),
            r"found list_attr_celeba.txt, img_align_celeba.zip; missing list_eval_partition.txt \(or .csv\); to get",
        ),
        (lambda base: (base / ATTR).unlink(), "missing list_attr_celeba.txt"),
        (lambda base: (base / "img_align_celeba.zip").unlink(), "missing img_align_celeba.zip"),
        (empty_folder, "found .*img_align_celeba without images.*; missing img_align_celeba.zip"),
        (
            html("img_align_celeba.zip"),
            r"img_align_celeba.zip \(\d+ bytes\) is a web page, not a zip: the download was",
        ),
        (truncate_zip, r"img_align_celeba.zip \(50,000 bytes\) is not a whole zip; get it again"),
        (html(ATTR), "list_attr_celeba.txt is a web page"),
        (html(PART), "list_eval_partition.txt is a web page"),
        (replace(ATTR, lambda text: ""), "list_attr_celeba.txt is empty"),
        (replace(ATTR, lambda text: text.split("\n", 1)[1]), "its first line should be the number of images"),
        (replace(ATTR, lambda text: text.replace("Bald ", "")), "names 39 attributes that are not CelebA's forty"),
        (replace(ATTR, lambda text: text.rsplit("\n", 2)[0]), "announces 60 images and has 59"),
        (replace(ATTR, lambda text: re.sub("(000007.jpg) +-?1", r"\1 5", text)), "forty labels, -1 or 1"),
        (replace(ATTR, lambda text: re.sub("(000007.jpg) +-?1", r"\1 257", text)), "forty labels, -1 or 1"),
        (replace(ATTR, lambda text: re.sub("(000007.jpg) +-?1", r"\1 255", text)), "forty labels, -1 or 1"),
        (replace(ATTR, lambda text: re.sub("(000007.jpg) +-?1", rf"\1 {2**64 + 1}", text)), "forty labels, -1 or 1"),
        (replace(ATTR, lambda text: re.sub("(000007.jpg) +-?1", r"\1 1.9", text)), "forty labels"),
        (replace(ATTR, lambda text: re.sub("(000007.jpg) +-?1", r"\1 nan", text)), "forty labels"),
        (
            lambda base: (base / ATTR).write_bytes((base / ATTR).read_bytes().replace(b"000007", b"\xff")),
            "names of images that are not UTF-8",
        ),
        (replace(ATTR, lambda text: text.replace("000007.jpg", "")), "a file name and forty labels"),
        (replace(ATTR, lambda text: re.sub("(000007.jpg) +-?1", r"\1 x", text)), "a file name and forty labels"),
        (
            replace(PART, lambda text: text.split("\n", 1)[1]),
            "has 59 images and the attributes 60; it lacks 000001.jpg",
        ),
        (replace(PART, lambda text: text.replace("jpg 2", "jpg 3")), "each row should be a file name and 0, 1 or 2"),
        (
            rezip(lambda images: dict(list(images.items())[:-2])),
            "has 58 images and list_attr_celeba.txt 60 rows; 2 are missing, the first 000059.jpg",
        ),
        (
            rezip(lambda images: images | {"000099.jpg": b""}),
            "has 61 images and list_attr_celeba.txt 60 rows; complete",
        ),
        (rezip(lambda images: images | {"000033.jpg": b"?"}), "000033.jpg cannot be read .*it is no image"),
        (
            rezip(lambda images: images | {"000033.jpg": images["000033.jpg"][:900]}),
            "000033.jpg cannot be read .*trunc",
        ),
        (rezip(lambda images: images | {"000033.jpg": jpeg(0, (90, 80))}), r"000033.jpg is \(90, 80\), the others"),
    ],
)
def test_missing_and_damaged_files(root, tmp_path, damage, message):
    damage(root / "celeba")
    with pytest.raises((ValueError, FileNotFoundError), match=message) as caught:
        prepare(root, tmp_path / "store", workers=1)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "store").exists()


def test_unwritable_store_names_the_key(root, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="data.store=.* cannot be written .*; set data.store to another folder"):
        prepare(root, tmp_path / "file" / "store")


def test_download_is_only_for_missing_files(root, tmp_path, monkeypatch):
    def refuse(folder, split, download):
        raise RuntimeError("Too many users have viewed this file.\nTry later.")

    monkeypatch.setattr(torchvision.datasets, "CelebA", refuse)
    celeba_store(root, download_files=True)
    with pytest.raises(
        ValueError, match=r"data.download=true: torchvision failed \(Too many .* file\.\); to get .* hand"
    ):
        celeba_store(tmp_path / "empty", download_files=True)


def test_download_is_used(tmp_path, jpegs, monkeypatch):
    def fetch(folder, split, download):
        write_folder(Path(folder) / "celeba" / "img_align_celeba", jpegs)
        write_txt(Path(folder) / "celeba", jpegs)

    monkeypatch.setattr(torchvision.datasets, "CelebA", fetch)
    assert len(celeba_store(tmp_path, download_files=True)) == NUM


SLOW = """
import sys, time
from zsteer.data import celeba, store
fitted = celeba.fitted
celeba.fitted = lambda *words: (time.sleep(0.02), fitted(*words))[1]
store._CHUNK = 8
celeba.prepare(sys.argv[1], sys.argv[2], workers=2)
"""


def test_prepare_continues_after_a_kill(root, tmp_path, monkeypatch):
    expected = content(prepare(root, tmp_path / "expected"))
    progress = tmp_path / ".store.partial" / "progress"
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW, str(root), str(tmp_path / "store")], stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 300
    while not (progress.exists() and progress.read_text().count("\n") >= 3):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "store").exists()
    finished = progress.read_text().count("\n") - 1
    assert 2 <= finished < 8

    decoded = []
    monkeypatch.setattr(store, "_CHUNK", 8)
    fitted = celeba.fitted
    monkeypatch.setattr(celeba, "fitted", lambda *words: (decoded.append(1), fitted(*words))[1])
    assert content(prepare(root, tmp_path / "store")) == expected
    assert len(decoded) <= NUM - 8 * finished + 4  # the last chunk has four images
    assert not (tmp_path / ".store.partial").exists()


def test_config_prepares_and_trains(root):
    configs = ROOT / "configs"
    cfg = OmegaConf.merge(
        {"data": OmegaConf.load(configs / "data" / "celeba.yaml")},
        {"data": {"root": str(root), "max_images": 20}},
    )
    assert isinstance(cfg, DictConfig)
    assert prepare_store(cfg).metrics == {"train": 40, "val": 8, "test": 12}
    cfg.data.batch_size = 8
    module = instantiate(cfg.data)
    images, targets = next(iter(module.train_dataloader()))
    assert images.shape == (8, 3, 64, 64)
    assert targets.shape == (8, 40)
    assert set(targets.unique().tolist()) == {0.0, 1.0}


def test_workers_are_checked(tmp_path):
    with pytest.raises(ValueError, match="data.workers=0 must be a whole number, 1 or more"):
        CelebA(root=tmp_path, batch_size=1, max_images=1, workers=0)


@pytest.fixture(scope="module")
def many():
    """2,000 drawn faces as JPEGs of 178x218, with their labels and splits."""
    images, labels, _ = procedural.draw(torch.arange(2000))
    pictures = {}
    for index, image in enumerate(images):
        file = io.BytesIO()
        picture = Image.fromarray(image.permute(1, 2, 0).numpy()).resize((178, 178), Image.Resampling.BICUBIC)
        full = Image.new("RGB", (178, 218), "gray")
        full.paste(picture, (0, 20))
        full.save(file, "JPEG", quality=95)
        pictures[f"{index + 1:06d}.jpg"] = file.getvalue()
    return pictures, labels.numpy().astype(int) * 2 - 1, [0] * 1600 + [1] * 200 + [2] * 200


def test_two_thousand_images_survive_a_kill_and_train_both_networks(command, tmp_path, many):
    pictures, labels, splits = many
    base = tmp_path / "celeba"
    base.mkdir()
    write_folder(base / "img_align_celeba", pictures)
    write_txt(base, pictures, labels, splits)
    words = [sys.executable, ROOT / "scripts" / "prepare_data.py", f"data.root={tmp_path}", "data.workers=1"]
    words = [*map(str, words), f"hydra.run.dir={tmp_path / 'killed'}"]
    progress = tmp_path / ".celeba64.partial" / "progress"
    with subprocess.Popen(words, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 300
        while not (progress.exists() and progress.read_text().count("\n") >= 3):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.002)
        process.kill()
    assert not (tmp_path / "celeba64").exists()
    assert 2 <= progress.read_text().count("\n") - 1 < 8
    assert command("prepare_data", f"data.root={tmp_path}").code == 0
    made = store.ImageStore.open(tmp_path / "celeba64")
    assert made.protocol == "crop178-antialias64-uint8"
    assert np.array_equal(made.targets, labels > 0)
    drawn = procedural.draw(torch.tensor([5]))[0].numpy()
    assert np.abs(made.images[5].astype(int) - drawn[0]).mean() < 6  # enlarged, compressed, cropped and reduced again

    training = ("data=celeba", f"data.root={tmp_path}", "max_images=128", "data.batch_size=32", "trainer=cpu")
    training += ("trainer.log_every_n_steps=1",)
    small = ("generator.network.hidden_dim=4", "discriminator.network.hidden_dim=4", "scores.num_samples=64")
    assert command("train_gan", *training, *small).code == 0
    ended = command("train_classifier", *training, "classifier.network.hidden_dim=4")
    assert ended.code == 0, ended.err
    assert set(json.loads((ended.folder / "metrics.json").read_text())["attributes"]["accuracy"]) == set(CELEBA)


def test_evaluation_says_what_is_known_of_the_labels(command, root):
    ended = command("evaluate", "data=celeba", f"data.root={root}", "classifier.regressor=null")
    assert ended.code == 0, ended.err
    with (ended.folder / "attributes.csv").open() as file:
        remarks = {row["attribute"]: row["labels"] for row in csv.DictReader(file)}
    assert {name for name, remark in remarks.items() if "random" in remark} == {
        *("High_Cheekbones", "Oval_Face", "Pointy_Nose")
    }


@pytest.mark.skipif(not REAL.exists(), reason="needs the slice of CelebA")
def test_the_published_classifier_has_its_figures_on_the_slice(command, tmp_path):
    ended = command(
        *("evaluate", "data=celeba", f"data.root={REAL}", f"data.store={tmp_path / 'store'}", "split=all"),
        *("classifier=tutorial", f"classifier.checkpoint={REAL / 'pretrained_classifier.pth'}"),
    )
    assert ended.code == 0, ended.err
    metrics = json.loads((ended.folder / "metrics.json").read_text())
    assert metrics["accuracy"] == pytest.approx(0.902, abs=0.001)
    assert metrics["balanced_accuracy"] == pytest.approx(0.757, abs=0.001)


@pytest.mark.skipif(not REAL.exists(), reason="needs the slice of CelebA")
def test_slice_of_celeba(tmp_path):
    store = celeba_store(REAL, tmp_path / "store")
    assert store.counts() == {"train": 6500, "val": 500, "test": 1000}
    assert store.protocol == "crop89-antialias64-uint8"
    assert store.targets[:, CELEBA.index("Smiling")].mean() == pytest.approx(0.482, abs=0.02)
