"""The way of docs/how-to/images.md from a folder of images to a steered picture, in small."""

import json
import re
import shlex

import numpy as np
import pytest
from PIL import Image
from places import ROOT

from zsteer.steering import reference

PAGE = (ROOT / "docs" / "how-to" / "images.md").read_text()
SHAPES = ((64, 64), (90, 70), (128, 160), (200, 128), (48, 48))
SMALL = {
    "prepare_data": [],
    "train_classifier": ["classifier.network.hidden_dim=8"],
    "train_gan": [],
    "steer": ["num_images=2", "num_steps=1"],
}
TRAINING = ["max_images=8", "data.batch_size=4", "trainer.log_every_n_steps=1", "+trainer.enable_progress_bar=false"]


def commands():
    (block,) = re.findall(r"```bash\n(.*?)```", PAGE, flags=re.S)
    return [shlex.split(line, comments=True) for line in block.replace("\\\n", " ").splitlines()]


@pytest.fixture
def photos(tmp_path):
    """Forty pictures of five sizes in many modes; three labels in three spellings, one number, and empty cells."""
    (tmp_path / "photos").mkdir()
    random = np.random.default_rng(0)
    rows = ["file,hat,glasses,smile,age"]
    for index in range(40):
        states = [index % 2, -1 if index % 3 else 1, "yes" if index % 4 < 2 else "no", 20 + index]
        image = Image.fromarray(random.integers(0, 256, (6, 5, 3), dtype=np.uint8)).resize(SHAPES[index % 5])
        suffix = "jpg" if index % 4 == 3 else "png"
        if suffix == "png":
            grey = np.asarray(image.convert("L"))
            modes = {0: image.convert("L"), 1: image.convert("P"), 2: image.convert("RGBA")}
            modes |= {4: Image.fromarray(grey.astype(np.uint16) * 257)}
            image = modes.get(index % 10, image)
        image.save(tmp_path / "photos" / f"{index:02d}.{suffix}")
        if index % 7 == 5:
            states[index % 4] = ""
        rows.append(",".join(map(str, [f"{index:02d}.{suffix}", *states])))
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    return tmp_path


@pytest.mark.parametrize("size", [64, 128])
def test_five_commands_lead_from_a_folder_to_a_steered_picture(photos, command, monkeypatch, size):
    monkeypatch.setattr(reference, "NUM_SAMPLES", 16)
    places = {
        "data.images=photos": f"data.images={photos}/photos",
        "data.table=labels.csv": f"data.table={photos}/labels.csv",
        "data.size=64": f"data.size={size}",
        "experiment=wgan_gp_small": "experiment=wgan_gp_small" if size == 64 else "experiment=r3gan_small",
        "classifier=resnet18": "classifier=residual",
    }
    names, words = [], []
    for _, script, *words in commands():
        name = script.removeprefix("scripts/").removesuffix(".py")
        names.append(name)
        words = [places.get(word, word.replace("outputs/mine", str(photos / "mine"))) for word in words]
        words = [word for word in words if not word.startswith("max_images")]
        data = [f"data.root={photos}/data"] if name != "steer" else []
        training = TRAINING if name.startswith("train") else []
        trainer = ["trainer=cpu"] if name != "prepare_data" else []
        where = [] if name.startswith("train") else [f"hydra.run.dir={photos}/{name}"]
        ended = command(name, *words, *SMALL[name], *data, *training, *trainer, *where)
        assert ended.code == 0, ended.err
    assert names == ["prepare_data", "train_classifier", "train_classifier", "train_gan", "steer"]
    assert len(list((photos / "data").glob("folder-*"))) == 1
    weights = photos / "mine" / "classifier" / "classifier.safetensors"
    swapped = ["classifier=residual", "classifier.network.hidden_dim=8", "classifier.attributes=[glasses,hat,smile]"]
    swapped += [f"+data.size={size}", f"classifier.checkpoint={weights}"]
    others = [word for word in words if not word.startswith("classifier")]
    ended = command("steer", *others, *swapped, *SMALL["steer"], "trainer=cpu")
    assert "classifier.attributes=['glasses', 'hat', 'smile'] must be in the order of the training" in ended.err
    figures = json.loads((photos / "steer" / "metrics.json").read_text())
    assert figures["target"] == "hat"
    assert figures["attribute_dependency"] is not None
    with Image.open(photos / "steer" / "steering.png") as picture:
        assert picture.width > 2 * (size + 2) + 2
    judge = json.loads((photos / "mine" / "judge" / "classifier.json").read_text())
    assert judge["config"]["classifier"]["attributes"] == ["hat", "glasses", "smile"]
    assert set(judge["figures"]["attributes"]["accuracy"]) == {"hat", "glasses", "smile"}


def test_images_without_labels_and_numbers_alone(photos, command):
    data = ["data=folder", f"data.images={photos}/photos", f"data.root={photos}/data", "data.size=32", *TRAINING]
    ended = command("train_classifier", *data, "trainer=cpu")
    assert ended.code == 1
    assert ended.err.splitlines()[-1] == (
        "error: data.table=null gives the images no attributes to learn; name a table of them"
    )
    ended = command("train_gan", *data, "trainer=cpu", "experiment=r3gan_small", "judge=none")
    assert ended.code == 0, ended.err
    (photos / "empty").mkdir()
    ended = command("train_gan", *data, f"data.table={photos}/empty", "trainer=cpu", "judge=none")
    assert ended.code == 1 and "error: data.table=" in ended.err.splitlines()[-1]
    table = f"data.table={photos}/labels.csv"
    gan = ["trainer=cpu", "experiment=r3gan_small", "judge=none", "gan.condition=[hat,glasses,smile]"]
    ended = command("train_gan", *data, table, *gan)
    assert ended.code == 1
    assert re.search(r"^error: gan.condition: \w+ is missing in \d+ training images", ended.err.splitlines()[-1])
    small = ["classifier=residual", "classifier.network.hidden_dim=8"]
    ended = command("train_classifier", *data, table, "trainer=cpu", *small, "data.attributes=[age]")
    assert ended.code == 0, ended.err
    scored = command(
        "evaluate",
        *(word for word in data if word.startswith("data")),
        *(table, *small, "classifier.attributes=[age]", "split=all"),
        f"classifier.checkpoint={ended.folder}/classifier.safetensors",
    )
    assert scored.code == 0, scored.err
    figures = json.loads((scored.folder / "metrics.json").read_text())
    assert figures["mean_absolute_error"] > 0
