import math

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import IMAGES, EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData  # pyright: ignore[reportAttributeAccessIssue]

from zsteer.pictures import grid_of, save_picture
from zsteer.steering.figures import MEANINGS
from zsteer.steering.history import History
from zsteer.steering.results import picture, table, write_events

NUM, STEPS, Z_DIM, CLASSES = 3, 4, 5, 6
TARGET, JOINED = 4, (1, 2)
SHOWN = (0, 2, 4)


def constant(value, size=64):
    return torch.full((3, size, size), value)


def brightness(step, column):
    """Of the image in [-1, 1] that a column shows at a step."""
    return -0.9 + 0.3 * step + 0.2 * column


@pytest.fixture
def history():
    generator = torch.Generator().manual_seed(0)
    # Not in the order of time, as a record need not be.
    images = {s: torch.stack([constant(brightness(s, c)) for c in range(NUM)]) for s in reversed(SHOWN)}
    return History(
        [torch.randn(NUM, Z_DIM, generator=generator) for _ in range(STEPS + 1)],
        [torch.randn(NUM, CLASSES, generator=generator) for _ in range(STEPS + 1)],
        [torch.randn(NUM, generator=generator) for _ in range(STEPS)],
        images,
        list(range(STEPS + 1)),
    )


def test_of_many_images_the_picture_shows_the_first(history):
    columns = 300
    history.images = {step: images[:1].expand(columns, -1, -1, -1) for step, images in history.images.items()}
    assert picture(history, captions=["x"] * columns).shape[2] < 260 * 66


def centre(image, row, column, num_rows=3, num_columns=NUM):
    height, width = (
        2 + number * (64 + 2) for number in (num_rows, num_columns)
    )  # of the grid, in its upper left corner
    return image[:, int((row + 0.5) * height / num_rows), int((column + 0.5) * width / num_columns)]


def test_picture_has_a_column_per_image_and_time_downwards_with_the_last_step_below(history):
    image = picture(history)
    for row, step in enumerate(SHOWN):
        for column in range(NUM):
            expected = (brightness(step, column) + 1) / 2
            torch.testing.assert_close(centre(image, row, column), torch.full((3,), expected))


def test_picture_shows_whole_images(history):
    history.images = {0: history.images[0]}
    image = picture(history)
    for column in range(NUM):
        expected = torch.tensor((brightness(0, column) + 1) / 2)
        assert torch.isclose(image, expected).all(dim=0).sum() == 64 * 64


def test_words_stand_beside_and_below_the_picture(history):
    plain, captioned = picture(history), picture(history, ["+0.10", "−2.00", "+1.00"])
    rows = [history.images[step] for step in sorted(history.images)]
    grid = grid_of(torch.cat(rows), columns=NUM)
    _, height, width = grid.shape
    for image in (plain, captioned):
        assert torch.equal(image[:, :height, :width], grid)
    assert captioned.shape[1] > plain.shape[1] == height and captioned.shape[2] == plain.shape[2] > width
    for label in plain[:, :, width:].tensor_split(len(rows), dim=1):  # each row's step
        assert (label < 0.5).any()
    for part in captioned[:, height:, :width].tensor_split(NUM, dim=2):
        assert part.min() < 0.5 and part.max() == 1
        assert ((part < 0.5).any(dim=0).any(dim=0)).float().mean() < 1
    with_lines = picture(history, ["+0.10", "−2.00", "+1.00"], ["a line that is longer than the pictures are wide" * 2])
    assert with_lines.shape[1] > captioned.shape[1] and with_lines.shape[2] > captioned.shape[2]


def test_each_caption_is_below_its_own_column(history):
    with_gap = picture(history, ["xx", "", "xx"])
    _, height, width = grid_of(torch.cat(list(history.images.values())), columns=NUM).shape
    band = with_gap[:, height:, :width]
    dark = [bool((part < 0.5).any()) for part in band.tensor_split(NUM, dim=2)]
    assert dark == [True, False, True]


@pytest.mark.parametrize("value, shown", [(-1.0, 0.0), (0.0, 0.5), (1.0, 1.0), (0.5, 0.75), (-3.0, 0.0), (3.0, 1.0)])
def test_images_are_mapped_from_minus_one_and_one_to_zero_and_one(value, shown):
    assert centre(grid_of(constant(value)[None], 1), 0, 0, 1, 1).tolist() == [shown] * 3


def test_grid_fills_rows_from_left_to_right():
    images = torch.stack([constant(-1 + 0.25 * i) for i in range(6)])
    grid = grid_of(images, columns=3)
    shown = [[centre(grid, row, column, 2)[0].item() for column in range(3)] for row in range(2)]
    assert shown == [[0.0, 0.125, 0.25], [0.375, 0.5, 0.625]]


@pytest.mark.parametrize("size, enlarged", [(8, 64), (32, 64), (64, 64), (100, 100)])
def test_small_images_are_enlarged_without_blurring(size, enlarged):
    image = torch.where(torch.arange(size) < size // 2, -1.0, 1.0).expand(1, 3, size, size)
    grid = grid_of(image, 1)
    assert grid.shape[1] - enlarged == grid_of(image.repeat(1, 1, 1, 1), 1).shape[2] - enlarged
    assert grid.shape[1] >= enlarged and (grid == 0).all(dim=0).sum() == enlarged * enlarged // 2
    assert set(grid.unique().tolist()) == {0.0, 1.0}


def test_saved_picture_is_the_picture(tmp_path):
    image = torch.rand(3, 9, 7, generator=torch.Generator().manual_seed(0))
    save_picture(tmp_path / "a.png", image)
    with Image.open(tmp_path / "a.png") as file:
        saved = np.asarray(file.convert("RGB"))
    np.testing.assert_allclose(saved, 255 * image.permute(1, 2, 0).numpy(), atol=1)
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_saved_history_has_noise_logits_and_the_mean_score_of_each_step(tmp_path, history):
    history.save(tmp_path)
    tensors = load_file(tmp_path / "history.safetensors")
    assert {name: list(tensor.shape) for name, tensor in tensors.items()} == {
        "noise": [STEPS + 1, NUM, Z_DIM],
        "logits": [STEPS + 1, NUM, CLASSES],
        "score": [STEPS],
        "steps": [STEPS + 1],
    }
    for step in range(STEPS + 1):
        assert torch.equal(tensors["noise"][step], history.noise[step])
        assert torch.equal(tensors["logits"][step], history.logits[step])
    means = [sum(scores.tolist()) / NUM for scores in history.scores]
    assert tensors["score"].tolist() == pytest.approx(means)


def test_history_of_float64_is_saved_in_float64(tmp_path, history):
    history.noise = [noise.double() for noise in history.noise]
    history.save(tmp_path)
    assert load_file(tmp_path / "history.safetensors")["noise"].dtype == torch.float64


def test_history_that_ended_at_its_first_step_is_saved(tmp_path, history):
    History(history.noise[:1], history.logits[:1], [], {}).save(tmp_path)
    assert load_file(tmp_path / "history.safetensors")["score"].shape == (0,)


SETTINGS = {"target": "Smiling", "penalty_weight": 0.1, "num_steps": STEPS}
FIGURES = {"gain_classifier": 1.5, "gain_judge": None}


@pytest.fixture
def events(tmp_path, history):
    write_events(tmp_path, history, [TARGET, *JOINED], picture(history), SETTINGS, FIGURES)
    accumulator = EventAccumulator(str(tmp_path), size_guidance={IMAGES: 0})
    return accumulator.Reload()


def scalars(events, tag):
    return {event.step: event.value for event in events.Scalars(tag)}


def test_events_hold_the_target_logit_of_each_step(events, history):
    expected = {
        step: sum(logits[i, TARGET].item() for i in range(NUM)) / NUM for step, logits in enumerate(history.logits)
    }
    assert scalars(events, "steer/target_logit") == pytest.approx(expected)


def test_events_hold_the_score_of_each_step_but_the_last(events, history):
    expected = {step: sum(scores.tolist()) / NUM for step, scores in enumerate(history.scores)}
    assert scalars(events, "steer/score") == pytest.approx(expected)


def test_events_hold_the_distance_of_the_other_logits_from_the_start(events, history):
    expected = {}
    for step, logits in enumerate(history.logits):
        distances = []
        for i in range(NUM):
            others = [k for k in range(CLASSES) if k not in (TARGET, *JOINED)]
            squares = [(logits[i, k] - history.logits[0][i, k]).item() ** 2 for k in others]
            distances.append(math.sqrt(sum(squares)))
        expected[step] = sum(distances) / NUM
    assert scalars(events, "steer/other_change") == pytest.approx(expected)
    assert expected[0] == 0


def test_events_hold_the_norm_of_the_noise_of_each_step(events, history):
    expected = {
        step: sum(math.sqrt(sum(x * x for x in row)) for row in noise.tolist()) / NUM
        for step, noise in enumerate(history.noise)
    }
    assert scalars(events, "steer/noise_norm") == pytest.approx(expected)


def test_events_hold_the_images_of_the_shown_steps(events):
    assert [event.step for event in events.Images("steer/images")] == list(SHOWN)


def decoded(event, folder):
    (folder / "event.png").write_bytes(event.encoded_image_string)
    with Image.open(folder / "event.png") as file:
        return torch.from_numpy(np.asarray(file.convert("RGB")).copy()).permute(2, 0, 1)


def test_image_of_a_step_has_a_column_per_image(events, tmp_path):
    for event in events.Images("steer/images"):
        image = decoded(event, tmp_path)
        for column in range(NUM):
            shown = 255 * (brightness(event.step, column) + 1) / 2
            assert centre(image, 0, column, 1)[0].item() == pytest.approx(shown, abs=1)


def test_events_hold_the_picture_once(events, tmp_path, history):
    (event,) = events.Images("steer/history")
    saved = decoded(event, tmp_path)
    torch.testing.assert_close(saved.float(), 255 * picture(history), rtol=0, atol=1)


def test_unknown_figures_are_nan_in_the_hparams_row(events):
    assert [event.value for event in events.Scalars("figure/gain_classifier")] == [1.5]
    (unknown,) = events.Scalars("figure/gain_judge")
    assert math.isnan(unknown.value)


def test_there_is_one_hparams_row_with_the_settings(events):
    content = events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    hparams = HParamsPluginData.FromString(content).session_start_info.hparams
    assert hparams["target"].string_value == "Smiling"
    assert hparams["penalty_weight"].number_value == 0.1
    assert hparams["num_steps"].number_value == STEPS


def test_hparams_row_has_the_figures_and_no_placeholder(events):
    content = events.SummaryMetadata("_hparams_/experiment").plugin_data.content
    metrics = HParamsPluginData.FromString(content).experiment.metric_infos
    assert {metric.name.tag for metric in metrics} == {"figure/gain_classifier", "figure/gain_judge"}
    assert "hp_metric" not in events.Tags()["scalars"]


def test_events_of_a_run_are_in_one_file_of_its_folder(tmp_path, history):
    write_events(tmp_path / "run", history, [TARGET], picture(history), SETTINGS, FIGURES)
    assert len(list((tmp_path / "run").glob("events.out.tfevents.*"))) == 1
    assert list((tmp_path / "run").rglob("version_*")) == []


def test_table_lists_each_figure_and_a_dash_for_what_is_unknown():
    lines = table({"gain_judge": 1.5, "success_rate": None}, {}).splitlines()
    assert lines[0].split()[:2] == ["gain_judge", "1.50"] and lines[0].endswith(MEANINGS["gain_judge"])
    assert lines[1].split()[:2] == ["success_rate", "–"]


def test_table_names_the_three_largest_side_effects_in_order():
    effects = {"Male": 0.5, "Young": 2.0, "Bangs": 0.1, "Chubby": 1.25, "Bald": 0.0}
    last = table({"gain_judge": 1.0}, effects).splitlines()[-1]
    assert "largest side effects" in last
    assert last.index("Young 2.00") < last.index("Chubby 1.25") < last.index("Male 0.50")
    assert "Bangs" not in last and "Bald" not in last


def test_table_without_a_judge_has_its_classifiers_view_and_says_that_it_is_unconfirmed():
    shown = table(FIGURES, {"Male": 0.5})
    assert "unconfirmed" in shown and "gain_judge" not in shown and "Male 0.50" in shown
    assert "unconfirmed" not in table({"gain_judge": 1.0}, {})
