import logging

import numpy as np
import pytest
from PIL import Image

from zsteer.data.folder import ImageFolder, shared_out
from zsteer.data.photos import fitted, open_photo
from zsteer.data.store import is_complete

NUM = 30


def picture(index, size=(40, 30)):
    coarse = np.random.default_rng(index).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size)


@pytest.fixture
def photos(tmp_path):
    """Thirty pictures, some below, some converted; rows for all but the last, and one row too many."""
    images = tmp_path / "images"
    (images / "below").mkdir(parents=True)
    rows = ["file,hat,smile,height"]
    for index in range(NUM):
        image, name = picture(index), f"{'below/' if index % 3 == 0 else ''}{index:02d}.png"
        modes = {1: image.convert("L"), 2: image.convert("P"), 4: image.convert("RGBA")}
        modes.get(index, image).save(images / name)
        if index < NUM - 1:
            hat = "" if index == 5 else index % 2
            rows.append(f"{name},{hat},{'yes' if index % 4 == 0 else 'no'},{100 + index}")
    (images / "damaged.jpg").write_bytes(b"\xff\xd8\xff\xe0 cut short")
    (images / ".hidden.png").touch()
    (images / "notes.txt").touch()
    rows += ["damaged.jpg,1,no,3", "absent.png,0,yes,4"]
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    return tmp_path


def folder_of(photos, **settings):
    given = {"images": photos / "images", "table": photos / "labels.csv", "size": 16, "root": photos / "data"}
    return ImageFolder(**{**given, "batch_size": 4, "max_images": 8, **settings})


def test_store_is_crop_resize_and_rows(photos):
    store = folder_of(photos).store
    names = sorted(f"{'below/' if index % 3 == 0 else ''}{index:02d}.png" for index in range(NUM - 1))
    assert len(store) == NUM - 1
    assert store.names == ("hat", "smile", "height")
    assert store.protocol == "square-antialias16-uint8"
    for place, name in enumerate(names):
        index = int(name[-6:-4])
        assert np.array_equal(store.images[place], fitted(open_photo(photos / "images" / name), 16, 16))
        expected = [np.nan if index == 5 else index % 2, index % 4 == 0, 100 + index]
        np.testing.assert_array_equal(store.targets[place], expected)


def test_what_is_left_out_is_said_once(photos, caplog):
    with caplog.at_level(logging.WARNING):
        _ = folder_of(photos, size=32).store
        _ = folder_of(photos, size=32).store
    (record,) = caplog.records
    said = record.getMessage()
    assert "29 images are taken" in said
    for part in (
        "1 files without a row (29.png) left out",
        "1 rows without a file (absent.png) left out",
        "1 images that cannot be read (damaged.jpg: ",
        "1 grey as RGB",
        "1 palette as RGB",
        "1 alpha as RGB",
        "29 enlarged to 32 pixels",
    ):
        assert part in said
    assert "\n" not in said


def test_odd_names_are_images_like_others(tmp_path, caplog):
    """Without a table no name has to fit anything; hidden folders are none of it, and dead links are said."""
    names = ["p\\0.png", " 1.png", "1.png", "ü, [2] '$x.jfif", "3.PPM"]
    for name in [*names, ".thumbs/4.png", "__MACOSX/5.png"]:
        (tmp_path / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        picture(0).save(tmp_path / "images" / name, format={"m": "PPM", "M": "PPM", "f": "JPEG"}.get(name[-1], "PNG"))
    (tmp_path / "images" / "6.png").symlink_to("nowhere.png")
    store = folder_of(tmp_path, table=None).store
    assert len(store) == len(names)
    assert "1 images that cannot be read (6.png: " in caplog.text


@pytest.mark.parametrize("content", ["{}", "[]", '{"made": 3}', '{"count": '])
def test_a_damaged_store_of_ones_own_is_named(photos, content):
    settings = {"store": photos / "mine"}
    _ = folder_of(photos, **settings).store
    (photos / "mine" / "store.json").write_text(content)
    with pytest.raises(ValueError, match="mine is damaged"):
        _ = folder_of(photos, **settings).store


def test_a_store_is_known_by_what_it_was_made_of(photos):
    first = folder_of(photos).store.folder
    assert first.parent == photos / "data"
    assert folder_of(photos, batch_size=2).store.folder == first
    others = [folder_of(photos, size=8).store.folder, folder_of(photos, shares=[0.5, 0.25, 0.25]).store.folder]
    with (photos / "labels.csv").open("a") as file:
        file.write("\n29.png,1,yes,2")
    changed = folder_of(photos).store
    assert len(changed) == NUM
    picture(99).save(photos / "images" / "00.png")
    assert len({first, *others, changed.folder, folder_of(photos, table=None).store.folder}) == 5


def test_a_named_store_outlives_its_images_but_is_not_taken_for_another(photos):
    one = folder_of(photos, store=photos / "mine").store
    assert one.folder == photos / "mine"
    with pytest.raises(ValueError, match="data.store=.*mine was made with other shares; delete it, or set data.store"):
        _ = folder_of(photos, store=photos / "mine", shares=[0.5, 0.25, 0.25]).store
    (photos / "images").rename(photos / "gone")
    assert np.array_equal(folder_of(photos, store=photos / "mine").store.images, one.images)
    with pytest.raises(ValueError, match="data.store=.*mine was made with other size"):
        _ = folder_of(photos, store=photos / "mine", size=8).store


def test_a_build_that_was_killed_goes_on(photos, monkeypatch):
    from zsteer.data import folder, store

    monkeypatch.setattr(store, "_CHUNK", 8)
    read: list[str] = []

    def killed(image, height, width):
        read.append(str(image))
        if len(read) > 20:
            raise KeyError("power cut")
        return fitted(image, height, width)

    monkeypatch.setattr(folder, "fitted", killed)
    with pytest.raises(KeyError):
        _ = folder_of(photos, workers=1).store
    assert not any(is_complete(place) for place in (photos / "data").iterdir())
    read.clear()
    monkeypatch.setattr(folder, "fitted", lambda *args: read.append("") or fitted(*args))
    built = folder_of(photos, workers=1).store
    assert len(read) == NUM - 1 - 16  # two chunks of eight were there
    assert np.array_equal(built.images, folder_of(photos, root=photos / "other").store.images)


def test_splits_are_the_tables_or_stated_shares(photos):
    assert folder_of(photos).store.counts() == {"train": 23, "val": 3, "test": 3}
    assert folder_of(photos, shares=[1, 0, 0]).store.counts() == {"train": 29, "val": 0, "test": 0}
    rows = "\n".join(f"{index:02d}.png,{index % 3}" for index in range(NUM))
    (photos / "labels.csv").write_text(f"file,split\n{rows}")
    assert folder_of(photos).store.counts() == {"train": 10, "val": 10, "test": 10}


def test_shares_do_not_follow_the_order_of_the_names():
    splits = shared_out([f"{index:04d}.png" for index in range(1000)], [0.8, 0.1, 0.1])
    assert np.bincount(splits).tolist() == [800, 100, 100]
    assert all(50 < np.bincount(half, minlength=3)[2] / len(half) * 1000 < 150 for half in np.split(splits, 2))


def test_labels_are_the_targets_unless_numbers_are_asked_for(photos):
    assert folder_of(photos).names == ("hat", "smile")
    assert folder_of(photos).scales == {}
    numbers = folder_of(photos, attributes=["height"])
    assert numbers.names == ("height",)
    heights = numbers.store.targets[numbers.store.splits == 0, 2].astype(float)
    assert numbers.scales["height"] == pytest.approx((heights.mean(), heights.std()))
    (photos / "labels.csv").write_text("file,height\n00.png,3\n01.png,4\n")
    assert folder_of(photos).names == ("height",)


def test_rates_and_scales_are_of_what_is_known(photos):
    faces = folder_of(photos, attributes=["hat", "smile"])
    hats = faces.store.targets[faces.store.splits == 0, 0]
    known = hats[~np.isnan(hats)]
    assert faces.rates[0] == pytest.approx(known.mean())
    table = (photos / "labels.csv").read_text().replace(",107", ",")
    (photos / "labels.csv").write_text(table)
    numbers = folder_of(photos, attributes=["height"], shares=[1, 0, 0])
    heights = [100 + index for index in range(NUM - 1) if index != 7]
    assert numbers.scales["height"] == pytest.approx((np.mean(heights), np.std(heights)))


def test_numbers_that_no_classifier_learns_are_named(photos, caplog):
    with caplog.at_level(logging.WARNING):
        folder_of(photos).require_targets()
    assert (
        "left out are numbers: height; data.attributes=[height] trains a regressor" in caplog.records[-1].getMessage()
    )


def test_images_without_a_table_have_no_targets(photos):
    faces = folder_of(photos, table=None)
    assert len(faces.store) == NUM
    assert faces.names == ()
    _, targets = next(iter(faces.train_dataloader()))
    assert targets.shape == (4, 0)
    with pytest.raises(ValueError, match="data.table=null gives the images no attributes to learn"):
        faces.require_targets()


@pytest.mark.parametrize(("state", "said"), [("1", "hat=1"), ("0", "hat=0"), ("", "no known hat")])
def test_a_label_of_one_state_is_nothing_to_learn(photos, state, said):
    rows = "\n".join(f"{index:02d}.png,{state},{index % 2}" for index in range(NUM))
    (photos / "labels.csv").write_text(f"file,hat,smile\n{rows}")
    message = rf"all training images have {said}, so that there is nothing to learn; .* data.attributes=\[smile\]"
    with pytest.raises(ValueError, match=message):
        folder_of(photos).require_targets()
    folder_of(photos, attributes=["smile"]).require_targets()


def test_an_image_bomb_is_left_out_undecoded(photos, monkeypatch, caplog):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2000)
    picture(0, (100, 100)).save(photos / "images" / "00.png")
    with caplog.at_level(logging.WARNING):
        assert len(folder_of(photos, table=None).store) == NUM
    assert "images that cannot be read (00.png: " in caplog.text


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"images": "nowhere"}, "data.images=nowhere: no such folder"),
        ({"table": "nowhere.csv"}, "data.table=nowhere.csv: no such file"),
        ({"size": 0}, "data.size=0 must be a whole number, from 8 to 1024"),
        ({"size": 2000}, "data.size=2000 must be a whole number, from 8 to 1024"),
        ({"size": True}, "data.size=True must be a whole number"),
        ({"shares": [0.5, 0.5]}, "data.shares=.* must be three numbers"),
        ({"shares": [0.5, 0.5, 0.5]}, "data.shares=.* must be 1 together"),
        ({"shares": [1.5, -0.5, 0]}, "data.shares=-0.5 must be a finite number, 0 or more"),
        ({"workers": 0}, "data.workers=0 must be a whole number, 1 or more"),
        ({"attributes": ["hatt"]}, "data.attributes='hatt' is not an attribute of this data set; did you mean 'hat'"),
    ],
)
def test_settings_are_checked(photos, settings, said):
    with pytest.raises((ValueError, FileNotFoundError), match=said):
        folder_of(photos, **settings).require_targets()


def test_nothing_is_left_of_a_folder_without_images_or_rows(photos):
    (photos / "empty").mkdir()
    with pytest.raises(ValueError, match="data.images=.*empty has no images in it; they must end in .jpg"):
        _ = folder_of(photos, images=photos / "empty").store
    (photos / "labels.csv").write_text("file,hat\nother.png,1\n")
    with pytest.raises(ValueError, match=r"no image remains, with 31 files without a row \(.*…\) left out, 1 rows"):
        _ = folder_of(photos).store
    assert not any(path.is_dir() for path in (photos / "data").iterdir())
