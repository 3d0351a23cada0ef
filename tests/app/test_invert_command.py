"""Pictures become noise that `steer` goes on with; and every kind of bad input."""

import json
import os

import numpy as np
import pandas as pd
import pytest
import torch
from interrupts import interrupted
from omegaconf import OmegaConf
from PIL import Image
from places import GOLDEN_NETWORKS
from pytorch_lightning import Trainer
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn
from torchvision.transforms.functional import to_pil_image

import zsteer
from zsteer.app.composition import compose
from zsteer.networks.inference import frozen
from zsteer.networks.loading import load_network

QUICK = (*GOLDEN_NETWORKS, "num_samples=32", "starts=2", "num_steps=8", "trainer=cpu")
NOISE = torch.randn(3, 64, generator=torch.Generator().manual_seed(5))


class Rounding(nn.Module):
    """Images of whole numbers, which do not change with the noise but for jumps."""

    z_dim = 64

    def __init__(self, **_):
        super().__init__()

    def forward(self, noise):
        return noise[:, :48].reshape(-1, 3, 4, 4).repeat(1, 1, 16, 16).clamp(-1, 1).round()


@pytest.fixture(scope="module")
def faces():
    """Images of the golden generator."""
    generator = load_network(compose("steer", GOLDEN_NETWORKS).generator, "generator")
    with torch.no_grad():
        return frozen(generator, torch.float32)(NOISE)


@pytest.fixture
def folder(faces, tmp_path):
    """Pictures in a folder, with one file that is none."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for name, face in zip("cab", faces, strict=True):
        to_pil_image((face + 1) / 2).save(folder / f"{name}.png")
    (folder / "notes.txt").write_text("hello")
    return folder


def test_a_run_leaves_noise_in_the_order_of_names_and_every_other_file(command, folder, faces):
    ended = command("invert", *QUICK, f"image={folder}")
    assert ended.code == 0, ended.err
    assert "Inverting: 100%" in ended.err
    written = {path.name for path in ended.folder.iterdir() if not path.name.startswith(("events", ".hydra"))}
    assert written == {
        *("noise.safetensors", "inversion.png", "pictures.csv", "metrics.json", "status.json", "invert.log")
    }
    noise = load_file(ended.folder / "noise.safetensors")["noise"]
    assert noise.shape == (3, 64)
    metrics = json.loads((ended.folder / "metrics.json").read_text())
    assert (metrics["num_pictures"], metrics["num_unreadable"], metrics["starts"]) == (3, 1, 2)
    assert metrics["feature_distance_judge"] is None and metrics["attributes_kept"] is None
    table = pd.read_csv(ended.folder / "pictures.csv")
    assert list(table["picture"]) == ["a.png", "b.png", "c.png"]
    generator = frozen(load_network(compose("steer", GOLDEN_NETWORKS).generator, "generator"), torch.float32)
    errors = (generator(noise) - faces[[1, 2, 0]]).abs().mean(dim=(1, 2, 3))
    assert table["pixel_error"].tolist() == pytest.approx(errors.tolist(), abs=5e-3)  # the files' rounding
    assert metrics["pixel_error"] == pytest.approx(table["pixel_error"].mean(), abs=1e-4)
    assert "1 of 4 files cannot be read: notes.txt" in (ended.folder / "invert.log").read_text()
    with Image.open(ended.folder / "inversion.png") as picture:
        assert picture.width > 3 * 64 and picture.height > 3 * 64
    events = EventAccumulator(str(ended.folder)).Reload()
    losses = [event.value for event in events.Scalars("invert/loss")]
    assert len(losses) == 8 + 1
    assert losses[-1] < losses[0]
    assert len(events.Images("invert/pictures")) == 1


@pytest.mark.parametrize("method", ["projected", "penalty", "ascent", "tutorial", "direction", "best_of"])
def test_every_method_steers_the_noise_that_was_found(command, folder, method):
    found = command("invert", *QUICK, f"image={folder}", "num_steps=2")
    on_shell = ["method.on_shell=true"] if method in ("ascent", "direction") else []
    steered = command("steer", *GOLDEN_NETWORKS, f"method={method}", *on_shell, f"noise={found.folder}", "num_steps=2")
    assert steered.code == 0, steered.err
    history = load_file(steered.folder / "history.safetensors")["noise"]
    assert torch.equal(history[0], load_file(found.folder / "noise.safetensors")["noise"])
    assert not torch.equal(history[-1], history[0])
    if method in ("projected", "penalty", *("ascent", "direction")):
        torch.testing.assert_close(history[-1].norm(dim=1), history[0].norm(dim=1))


def test_more_starts_and_steps_come_nearer(faces):
    few = zsteer.invert(faces, *QUICK, starts=1, num_steps=1)
    more = zsteer.invert(faces, *QUICK, num_steps=60)
    assert (more.losses[-1] < few.losses[-1]).all()
    assert more.metrics["pixel_error"] < 0.6 * few.metrics["pixel_error"]


def test_the_best_start_is_kept(faces):
    """One start is the first of two, the nearest sample, so that two can only be better."""
    one, two = (zsteer.invert(faces, *QUICK, starts=starts) for starts in (1, 2))
    assert (two.losses[-1] <= one.losses[-1] + 1e-4).all()
    assert torch.equal(torch.isclose(one.losses[0], two.losses[0]), torch.isclose(one.losses[-1], two.losses[-1]))


def test_the_first_start_is_the_nearest_of_the_samples(faces):
    found = zsteer.invert(faces, *QUICK, starts=1, num_steps=1, feature_weight=0)
    samples = torch.randn(32, 64, generator=torch.Generator().manual_seed(0))
    generator = frozen(load_network(compose("steer", GOLDEN_NETWORKS).generator, "generator"), torch.float32)
    images = generator(samples)
    apart = (faces[:, None] - images).abs().mean(dim=(2, 3, 4))
    pairs = (images[:, None] - images).abs().mean(dim=(2, 3, 4))
    typical = pairs[~torch.eye(32, dtype=torch.bool)].mean()
    torch.testing.assert_close(found.losses[0], apart.amin(dim=1) / typical)


def test_rows_at_a_time_and_company_do_not_matter_and_the_seed_does(faces):
    together = zsteer.invert(faces, *QUICK)
    apart = zsteer.invert(faces, *QUICK, max_rows=1)
    assert torch.equal(together.noise, zsteer.invert(faces, *QUICK).noise)
    torch.testing.assert_close(together.noise, apart.noise, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(together.noise[:1], zsteer.invert(faces[0], *QUICK).noise, rtol=1e-3, atol=1e-4)
    assert not torch.allclose(together.noise, zsteer.invert(faces, *QUICK, seed=1).noise, atol=0.1)


def test_the_noise_stays_where_the_samples_are(faces):
    found = zsteer.invert(faces, *QUICK, "shell=0.5", num_steps=40)
    norms = torch.randn(32, 64, generator=torch.Generator().manual_seed(0)).norm(dim=1)
    least, largest = norms.quantile(torch.tensor([0.25, 0.75])).tolist()
    assert ((found.noise.norm(dim=1) > least - 1e-4) & (found.noise.norm(dim=1) < largest + 1e-4)).all()


def test_a_judge_says_what_is_the_same_in_both(faces):
    words = [word for word in QUICK if word != "judge=none"]
    found = zsteer.invert(faces, *words, num_steps=2)
    judge = load_network(compose("steer").judge, "judge")
    with torch.no_grad():
        before, after = (judge(images) > 0 for images in (faces, found.images))
    assert found.table["attributes_kept"].tolist() == pytest.approx((before == after).double().mean(dim=1).tolist())
    changed = [len(found.table[column].iloc[0].split()) for column in ("gained", "lost")]
    assert sum(changed) == (before[0] != after[0]).sum()
    assert found.metrics["feature_distance_judge"] > 0


def test_the_bar_can_be_switched_off(faces, capfd):
    zsteer.invert(faces, *QUICK, "+trainer.enable_progress_bar=false", num_steps=2)
    assert "Inverting" not in capfd.readouterr().err


def test_float64_gives_float64(faces):
    found = zsteer.invert(faces, *QUICK, "trainer.precision=64-true", num_steps=2)
    assert found.noise.dtype == torch.float64


def test_a_picture_of_pillows_and_a_given_folder(folder, tmp_path):
    run = tmp_path / "run"
    with Image.open(folder / "a.png") as photo:
        found = zsteer.invert(photo, *QUICK, folder=run)
    assert torch.equal(found.noise, zsteer.invert(folder / "a.png", *QUICK).noise)
    assert torch.equal(load_file(run / "noise.safetensors")["noise"], found.noise)
    assert json.loads((run / "metrics.json").read_text()) == found.metrics
    assert json.loads((run / "status.json").read_text())["state"] == "completed"
    assert OmegaConf.load(run / ".hydra" / "config.yaml") == compose("invert", QUICK)
    assert found.picture.width > 64
    assert len(repr(found)) < 1000


def test_names_that_are_no_text_are_written_as_far_as_they_are(faces, tmp_path):
    path = os.fsdecode(os.fsencode(tmp_path) + b"/\xff1.png")
    to_pil_image((faces[0] + 1) / 2).save(path)
    found = zsteer.invert(tmp_path, *QUICK, num_steps=1, folder=tmp_path / "run")
    assert list(found.table["picture"]) == ["\ufffd1.png"]
    assert (tmp_path / "run" / "metrics.json").is_file()


def test_ctrl_c_is_ctrl_c(faces, monkeypatch):
    monkeypatch.setattr(Trainer, "fit", interrupted)
    with pytest.raises(KeyboardInterrupt):
        zsteer.invert(faces, *QUICK)


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (np.zeros((3, 64, 64), np.uint16), "must be floating and in"),
        (np.zeros((3, 64, 64), complex), "must be floating and in"),
        (np.full((3, 64, 64), None), "must be floating and in"),
        (torch.full((3, 64, 64), 2.0), r"image goes from 2 to 2; it must be floating and in \[-1, 1\]"),
        (torch.full((3, 64, 64), torch.nan), "must be floating and in"),
        (Image.new("RGB", (0, 0)), "image: it has no pixels"),
    ],
    ids=["16 bits", "complex", "objects", "too large", "NaN", "nothing"],
)
def test_what_is_no_picture_is_said(image, said):
    with pytest.raises(ValueError, match=said):
        zsteer.invert(image, *QUICK)


BAD = {
    "no picture": ([], "image=null must be the file of a picture, or a folder of pictures"),
    "no such file": (["image=nowhere.png"], "image=nowhere.png: no such file or folder"),
    "an empty folder": (["image=EMPTY"], "has no files"),
    "a text": (["image=TEXT"], "notes.txt cannot be read: it is no image in BMP"),
    "no starts": (["starts=0"], "starts=0 must be a whole number, from 1 to 32"),
    "more starts than samples": (["starts=33"], "starts=33 must be a whole number, from 1 to 32"),
    "no steps": (["num_steps=0"], "num_steps=0"),
    "one sample": (["num_samples=1"], "num_samples=1 must be a whole number, 2 or more"),
    "no rows": (["max_rows=0"], "max_rows=0"),
    "a negative weight": (["feature_weight=-1"], "feature_weight=-1"),
    "no shell": (["shell=0"], "shell=0 must be a share"),
    "no learning rate": (["optimizer.lr=0"], "optimizer.lr=0 must be a finite number, greater than 0"),
    "no optimizer": (["optimizer=null"], "optimizer=null: an inversion needs one"),
    "an optimizer that couples rows": (["optimizer._target_=torch.optim.LBFGS"], "optimizer._target_=LBFGS must step"),
    "half precision": (
        ["trainer.precision=bf16-mixed"],
        "bf16-mixed must be one of 32-true, 64-true",
    ),
    "several devices": (["trainer.devices=2"], "trainer.devices=2 must be 1"),
    "steps of Lightning's": (["+trainer.max_steps=3"], "trainer.max_steps=3 cannot be set; use num_steps"),
    "clipping": (["+trainer.gradient_clip_val=1"], "trainer.gradient_clip_val=1 cannot be set; use optimizer.lr"),
    "a generator without gradients": (
        ["generator.checkpoint=null", "generator.network={_target_: test_invert_command.Rounding}"],
        "generator.network=Rounding has no gradient for its noise",
    ),
}


@pytest.mark.parametrize(("words", "said"), BAD.values(), ids=BAD)
def test_a_wrong_setting_ends_in_one_clear_line(command, folder, words, said):
    (folder / "empty").mkdir()
    if words and not words[0].startswith("image="):
        words = [f"image={folder / 'a.png'}", *words]
    words = [word.replace("EMPTY", str(folder / "empty")).replace("TEXT", str(folder / "notes.txt")) for word in words]
    ended = command("invert", *QUICK, *words)
    assert ended.code == 1
    assert said in ended.err.splitlines()[-1]
    assert "Traceback" not in ended.err
    assert not (ended.folder / "noise.safetensors").exists()
