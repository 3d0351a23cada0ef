import contextlib
import types
from typing import Any, Literal

import numpy as np
import pytest
import pytorch_lightning as pl
import torch

from zsteer.data import procedural
from zsteer.data.attributes import CELEBA
from zsteer.data.faces import FaceData, ProceduralFaces, mirrored, scale
from zsteer.data.procedural import rendering
from zsteer.data.store import TEST, TRAIN, VAL, build_store
from zsteer.data.streams import Batches, SequentialBatches, TrainingStream, permutation

TRAINING: dict[str, Any] = {"batch_size": 4, "max_images": 20}


def fill(indices):
    """Images whose left half is dark, with the index as the target."""
    images = np.zeros((len(indices), 3, 8, 8), np.uint8)
    images[..., 4:] = 255
    return images, np.stack([indices, -indices], axis=1).astype(np.float32)


def small_store(folder, count=30):
    return build_store(folder, fill, np.arange(count) % 3, ["up", "down"], "sided8", {}, size=8)


@pytest.fixture
def faces(tmp_path, monkeypatch):
    """A module of drawn faces whose renderer is quick and counts its calls."""
    calls = []

    def draw(indices, seed, correlation):
        calls.append(len(indices))
        bits = (indices[:, None] + torch.arange(40)) % 2
        images = (indices % 256).to(torch.uint8)[:, None, None, None].expand(-1, 3, 64, 64)
        return images, bits.float(), indices[:, None].float().expand(-1, len(procedural.FACTORS))

    monkeypatch.setattr(rendering, "draw", draw)

    def make(**settings):
        sizes = {"num_train": 20, "num_val": 7, "num_test": 5}
        return ProceduralFaces(**{"root": tmp_path, **sizes, **TRAINING, **settings})

    return types.SimpleNamespace(make=make, calls=calls)


def test_stream_is_permutations_one_after_another():
    indices = np.arange(100, 110)
    stream = TrainingStream(indices, batch_size=4, num_batches=10, seed=3)
    passes = [indices[permutation(10, 3, p)] for p in range(4)]
    assert np.array_equal(np.concatenate(list(stream)), np.concatenate(passes))
    assert all(sorted(one) == list(indices) for one in passes)
    assert not np.array_equal(passes[0], passes[1])


def test_batch_can_be_larger_than_two_passes():
    (batch,) = TrainingStream(np.arange(3), batch_size=7, num_batches=1, seed=0)
    assert np.array_equal(batch, np.concatenate([permutation(3, 0, p) for p in range(3)])[:7])


def test_ranks_share_the_batches_of_one():
    one = list(TrainingStream(np.arange(10), 4, 6, seed=1))
    ranks = [list(TrainingStream(np.arange(10), 4, 6, seed=1, rank=rank, world_size=2)) for rank in range(2)]
    assert [len(batch) for batch in ranks[0]] == [2] * 6
    assert np.array_equal(np.stack(one), np.concatenate([np.stack(part) for part in ranks], axis=1))


def test_ranks_share_each_part_of_a_step():
    one = TrainingStream(np.arange(40), 4, 3, seed=1, parts=3)
    ranks = [TrainingStream(np.arange(40), 4, 3, seed=1, rank=rank, world_size=2, parts=3) for rank in range(2)]
    for i in range(3):
        whole, halves = one.batch(i), [rank.batch(i) for rank in ranks]
        assert len(whole) == 12
        for part in range(3):
            shares = [half[2 * part : 2 * part + 2] for half in halves]
            assert np.array_equal(whole[4 * part : 4 * part + 4], np.concatenate(shares))
    plain = np.concatenate(list(TrainingStream(np.arange(40), 4, 9, seed=1)))
    assert np.array_equal(np.concatenate(list(one)), plain)


def test_stream_continues_from_any_batch():
    whole, tail = (list(TrainingStream(np.arange(10), 3, 9, seed=1, start=start)) for start in (0, 5))
    assert np.array_equal(np.stack(whole[5:]), np.stack(tail))


def test_seeds_give_other_streams():
    first, second = (np.stack(list(TrainingStream(np.arange(99), 9, 11, seed=seed))) for seed in (0, 1))
    assert not np.array_equal(first, second)


def test_batch_must_be_shared_equally():
    with pytest.raises(ValueError, match="data.batch_size=5 must be a multiple of the number of processes, 2"):
        TrainingStream(np.arange(10), 5, 1, seed=0, world_size=2)


@pytest.mark.parametrize("count", [3, 7, 64, 101])
@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("batch_size", [1, 4, 10])
def test_evaluation_sees_each_image_once(count, world_size, batch_size):
    ranks = [list(SequentialBatches(np.arange(count), batch_size, rank, world_size)) for rank in range(world_size)]
    assert [int(index) for rank in ranks for batch in rank for index in batch] == list(range(count))
    assert len({len(rank) for rank in ranks}) == 1
    assert {len(batch) for rank in ranks for batch in rank} <= set(range(1, max(batch_size, 2) + 1))


def test_a_split_without_images_is_named(faces):
    made = faces.make()
    made.store.splits[:] = 0
    with pytest.raises(ValueError, match="the data have no val images, which are needed here"):
        made.val_dataloader()


def test_evaluation_of_too_few_images():
    with pytest.raises(ValueError, match="1 images cannot be shared by 2 processes"):
        SequentialBatches(np.arange(1), 4, 0, 2)


def test_scale_uses_the_whole_range():
    images = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(2, 3, 16, 16)
    scaled = scale(images)
    assert scaled.dtype == torch.float32
    assert scaled.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(scaled[1, 2].flatten(), torch.linspace(-1, 1, 256))
    assert (scaled.min(), scaled.max()) == (-1, 1)
    assert scale(images, torch.float64).dtype == torch.float64


def test_only_the_chosen_images_are_mirrored():
    images = torch.randn(3, 3, 4, 4)
    flipped = mirrored(images, torch.tensor([True, False, True]))
    assert torch.equal(flipped[1], images[1])
    assert torch.equal(flipped[0], torch.from_numpy(images[0].numpy()[:, :, ::-1].copy()))


def test_loaders(faces):
    module = faces.make(batch_size=8, max_images=50)
    module.prepare_data()
    module.setup("fit")
    batches = list(module.train_dataloader())
    assert len(batches) == module.num_batches == 7
    images, targets = batches[0]
    assert (images.dtype, images.shape) == (torch.uint8, (8, 3, 64, 64))
    assert (targets.dtype, targets.shape) == (torch.float32, (8, 40))
    assert module.names == CELEBA
    assert torch.equal(targets[:, 0], images[:, 0, 0, 0].float() % 2)
    assert sum(len(images) for images, _ in module.val_dataloader()) == 7
    assert sum(len(images) for images, _ in module.test_dataloader()) == 5
    assert sum(faces.calls) == 32


def test_drawn_faces_are_rendered_once_for_all_seeds(faces):
    first, second = faces.make(seed=0).store, faces.make(seed=1, batch_size=8).store
    assert first.folder == second.folder
    assert first.folder.name.startswith("procedural-") and len(first.folder.name) == len("procedural-") + 8
    assert sum(faces.calls) == 32
    assert faces.make(faces_seed=1).store.folder != first.folder
    assert faces.make(correlation="none").store.folder != first.folder


def test_test_faces_do_not_depend_on_the_number_of_training_faces(faces):
    one, other = faces.make().store, faces.make(num_train=9).store
    column = one.names.index("age")
    of_one, of_other = (store.targets[store.indices(TEST), column] for store in (one, other))
    assert np.array_equal(of_one, of_other)
    assert not set(one.targets[one.indices(TRAIN), column]) & set(of_one)


def test_how_many_threads_draw_changes_neither_faces_nor_what_was_set(tmp_path):
    before = torch.get_num_threads()
    drawn = []
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            module = ProceduralFaces(root=tmp_path / str(count), num_train=600, num_val=1, num_test=1, **TRAINING)
            drawn.append((module.store.images[:], module.store.targets[:]))
            assert torch.get_num_threads() == count
    finally:
        torch.set_num_threads(before)
    for one, three in zip(*drawn, strict=True):
        np.testing.assert_array_equal(one, three)


def test_real_renderer_fills_the_store(tmp_path):
    module = ProceduralFaces(root=tmp_path, num_train=4, num_val=1, num_test=1, **TRAINING)
    assert module.store.images.shape == (6, 3, 64, 64)
    assert module.store.names == CELEBA + procedural.FACTORS
    _, attributes, factors = procedural.draw(torch.arange(4), 0, "celeba")
    assert np.array_equal(module.store.targets[:4], np.concatenate([attributes, factors], axis=1))
    assert set(np.unique(module.store.targets[:, :40])) <= {0.0, 1.0}


def test_targets_can_be_chosen(faces):
    module = faces.make(attributes=["smiling", "hair_length"])
    assert module.names == ("Smiling", "hair_length")
    store = module.store
    _, targets = next(iter(module.val_dataloader()))
    smiling, length = (store.targets[:, store.names.index(name)] for name in module.names)
    assert np.array_equal(targets[:, 0], smiling[store.indices(VAL)][:4])
    # Hair length is a number, not a label: standardised by the training images, whichever split is read.
    known = length[store.indices(TRAIN)].astype(float)
    expected = (length[store.indices(VAL)][:4] - known.mean()) / known.std()
    np.testing.assert_allclose(targets[:, 1], expected, rtol=1e-5, atol=1e-6)
    assert module.scales == {"hair_length": pytest.approx((known.mean(), known.std()))}
    with pytest.raises(ValueError, match="data.attributes='Smilling' .* did you mean 'Smiling'"):
        faces.make(attributes=["Smilling"]).setup()


def test_own_stores_give_all_their_targets(tmp_path):
    small_store(tmp_path / "store")
    module = FaceData(root=tmp_path / "store", **TRAINING)
    module.prepare_data()
    assert module.names == ("up", "down")


def test_what_has_other_values_outside_the_training_images_is_no_label(tmp_path):
    small_store(tmp_path / "store")
    targets = np.zeros((30, 2), np.float32)
    module = FaceData(root=tmp_path / "store", **TRAINING)
    train = module.store.indices(TRAIN)
    targets[train, 0] = np.arange(len(train)) % 2
    targets[module.store.indices(VAL), 0] = 3
    targets[:, 1] = np.arange(30) % 2
    np.save(tmp_path / "store" / "targets.npy", targets)
    assert list(FaceData(root=tmp_path / "store", **TRAINING).scales) == ["up"]


def test_a_target_without_variation_is_refused(tmp_path):
    small_store(tmp_path / "store")
    np.save(tmp_path / "store" / "targets.npy", np.full((30, 2), 7, np.float32))
    with pytest.raises(ValueError, match="data.attributes: 'up' is 7.0 in all training images"):
        FaceData(root=tmp_path / "store", **TRAINING).val_dataloader()


def test_batches_of_a_split(tmp_path):
    small_store(tmp_path / "store")
    module = FaceData(root=tmp_path / "store", **TRAINING)
    mean, deviation = module.scales["up"]
    columns = {
        split: torch.cat([targets[:, 0] for _, targets in module.split_batches(split, 4)]) * deviation + mean
        for split in ("train", "val", "test", "all")
    }
    assert columns["val"].tolist() == pytest.approx(list(range(1, 30, 3)))
    assert columns["all"].tolist() == pytest.approx(list(range(30)), abs=1e-5)
    with pytest.raises(ValueError, match="split=tests must be one of train, val, test, all"):
        module.split_batches("tests", 4)


def test_folds_divide_the_training_images(faces):
    whole, even, odd = (set(faces.make(fold=fold).train_indices()) for fold in ("all", "even", "odd"))
    assert even | odd == whole
    assert not even & odd
    assert len(whole) == 20


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"batch_size": 0}, "data.batch_size=0 must be a whole number, 1 or more"),
        ({"batch_size": True}, "data.batch_size=True must be"),
        ({"max_images": -1}, "max_images=-1 must be"),
        ({"seed": -1}, "data.seed=-1 must be"),
        ({"num_workers": -1}, "data.num_workers=-1 must be"),
        ({"fold": "third"}, "data.fold=third must be one of all, even, odd"),
        ({"num_val": 0}, "data.num_val=0 must be a whole number, from 1 to"),
        ({"num_train": 10**9}, "data.num_train=1000000000 must be a whole number, from 1 to"),
        ({"correlation": "some"}, "data.correlation=some must be one of celeba, none"),
        ({"attributes": []}, "data.attributes=.* must be a list of one or more"),
    ],
)
def test_settings_are_checked_before_any_work(faces, setting, message):
    with pytest.raises(ValueError, match=message):
        faces.make(**setting)
    assert not faces.calls


def test_batch_size_beyond_the_training_images(faces):
    with pytest.raises(ValueError, match="data.batch_size=21 must be at most 20"):
        faces.make(batch_size=21).train_dataloader()


class Recorder(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen = []

    def training_step(self, batch, batch_idx):
        images, targets = batch
        self.seen.append((images, targets))
        return self.weight * images.mean()

    def validation_step(self, batch, batch_idx):
        self.validated = batch

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class StopAndSave(pl.Callback):
    """What a kill leaves: a checkpoint written after some batches."""

    def __init__(self, batches, path):
        self.batches, self.path = batches, path

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if batch_idx + 1 == self.batches:
            trainer.save_checkpoint(self.path)
            raise InterruptedError


def fit(module, folder, callbacks=(), ckpt_path=None, precision: Literal["32-true", "64-true"] = "32-true"):
    recorder = Recorder()
    trainer = pl.Trainer(
        accelerator="cpu",
        devices=1,
        max_epochs=1,
        callbacks=list(callbacks),
        precision=precision,
        logger=False,
        enable_checkpointing=False,
        use_distributed_sampler=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
    )
    with contextlib.suppress(InterruptedError):
        trainer.fit(recorder, module, ckpt_path=ckpt_path, weights_only=True if ckpt_path else None)
    return recorder


def test_fit_scales_and_mirrors_only_training_images(tmp_path):
    small_store(tmp_path / "store", count=300)
    module = FaceData(root=tmp_path / "store", batch_size=50, max_images=100, flip=True)
    recorder = fit(module, tmp_path)
    images = torch.cat([images for images, _ in recorder.seen])
    assert images.shape == (100, 3, 8, 8)
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert set(images.unique().tolist()) == {-1.0, 1.0}
    assert 0.3 < (images[:, 0, 0, 0] > 0).float().mean() < 0.7
    assert (recorder.validated[0][:, :, :, 0] == -1).all()
    assert not torch.equal(recorder.seen[0][0], recorder.seen[1][0])


def test_double_precision_gives_double_images(tmp_path):
    small_store(tmp_path / "store")
    recorder = fit(FaceData(root=tmp_path / "store", batch_size=2, max_images=2), tmp_path, precision="64-true")
    assert [part.dtype for part in recorder.seen[0]] == [torch.float64, torch.float64]


def test_flips_do_not_depend_on_the_number_of_ranks(tmp_path, monkeypatch):
    small_store(tmp_path / "store")
    module = FaceData(root=tmp_path / "store", batch_size=8, max_images=8)
    whole = module._flips(5)
    parts = []
    for rank in range(2):
        monkeypatch.setattr(module, "trainer", types.SimpleNamespace(global_rank=rank, world_size=2))
        parts.append(module._flips(5))
    assert torch.equal(whole, torch.cat(parts))
    assert not torch.equal(whole, module._flips(6))


def test_resumed_training_takes_the_remaining_batches(tmp_path):
    small_store(tmp_path / "store", count=90)

    def module():
        return FaceData(root=tmp_path / "store", batch_size=7, max_images=70, flip=True)

    path = tmp_path / "head.ckpt"
    whole = fit(module(), tmp_path)
    head = fit(module(), tmp_path, callbacks=[StopAndSave(4, path)])
    tail = fit(module(), tmp_path, ckpt_path=path)
    assert len(whole.seen) == 10
    assert (len(head.seen), len(tail.seen)) == (4, 6)
    for (images, targets), (expected_images, expected_targets) in zip(head.seen + tail.seen, whole.seen, strict=True):
        assert torch.equal(images, expected_images)
        assert torch.equal(targets, expected_targets)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")  # from Python 3.12 on
def test_workers_read_the_same_batches(tmp_path):
    small_store(tmp_path / "store")
    own, workers = (FaceData(root=tmp_path / "store", num_workers=number, **TRAINING) for number in (0, 1))
    for one, other in zip(own.val_dataloader(), workers.val_dataloader(), strict=True):
        assert torch.equal(one[0], other[0])


def test_steps_of_several_batches_count_towards_max_images_without_the_extra_ones(tmp_path):
    faces = FaceData(root=small_store(tmp_path / "store").folder, **TRAINING)
    assert faces.num_batches == 5
    faces.batches_per_step, faces.extra_batches = 3, 1
    assert faces.num_batches == 3  # of 8 images that count, and 4 that do not
    assert [len(batch) for batch in faces.train_dataloader().sampler] == [12, 12, 12]


def test_flips_of_a_step_are_shared_like_its_images(tmp_path):
    whole, half = (FaceData(root=small_store(tmp_path / name).folder, flip=True, **TRAINING) for name in "ab")
    whole.batches_per_step = half.batches_per_step = 2
    flips = whole._flips(3)
    parts = []
    for rank in range(2):
        half._rank = lambda rank=rank: (rank, 2)
        parts.append(half._flips(3).view(2, 2))
    assert torch.equal(flips.view(2, 4), torch.cat(parts, dim=1))


@pytest.mark.parametrize("on_device", [True, "auto"])
def test_images_held_on_the_device_are_the_same(on_device, tmp_path, monkeypatch):
    strategy = types.SimpleNamespace(root_device=torch.device("cpu"))
    trainer = types.SimpleNamespace(strategy=strategy, global_rank=0, world_size=1, training=True)
    batches = {}
    for held in (False, on_device):
        faces = FaceData(root=small_store(tmp_path / str(held)).folder, on_device=held, **TRAINING)
        monkeypatch.setattr(faces, "trainer", trainer)
        loader = faces.train_dataloader()
        assert isinstance(loader.dataset, Batches)
        assert (loader.dataset.held is not None) == (held is True)  # a CPU's memory map needs no copy
        assert loader.dataset is faces.train_dataloader().dataset or held is not True
        batches[held] = list(loader)
    for one, other in zip(batches[False], batches[on_device], strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_where_to_hold_images_is_true_false_or_auto(tmp_path):
    with pytest.raises(ValueError, match="data.on_device=gpu must be true, false or auto"):
        FaceData(root=tmp_path, on_device="gpu", **TRAINING)


def test_a_split_may_be_thinned_evenly(tmp_path):
    faces = FaceData(root=small_store(tmp_path / "store").folder, **TRAINING)
    assert np.concatenate(list(faces.split_batches("all", 8, most=4).sampler)).tolist() == [0, 10, 19, 29]
    assert sum(len(images) for images, _ in faces.split_batches("test", 8, most=99)) == 10


def test_rates_of_labels_are_counted_and_those_of_one_state_refused(tmp_path):
    def labelled(indices):
        images = np.zeros((len(indices), 3, 8, 8), np.uint8)
        return images, np.stack([indices % 4 == 0, indices * 0, indices], axis=1).astype(np.float32)

    build_store(tmp_path / "store", labelled, np.zeros(20, int), ["rare", "never", "number"], "sided8", {}, size=8)
    faces = FaceData(root=tmp_path / "store", attributes=["rare", "number"], **TRAINING)
    assert faces.rates == [0.25, 0.5]
    faces = FaceData(root=tmp_path / "store", attributes=["rare", "never"], **TRAINING)
    with pytest.raises(ValueError, match="balanced=true: all training images have the same never"):
        _ = faces.rates
