"""Edits follow one another, can be undone and put in another order, and are kept as ordinary runs."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file
from test_paths import path_of

import zsteer
from zsteer.explore import studio as shared
from zsteer.explore.edits import Edits, warnings
from zsteer.explore.keeping import keep
from zsteer.explore.markup import chips
from zsteer.explore.tabs import Tab
from zsteer.files import read_json


def move(edits, steps):
    """Put the slider where so many steps led, of those that remove if it is negative."""
    edits.wanted = edits.path.gains[edits.path.start + steps]


def smile(edits):
    edits.choose(edits.aim)
    move(edits, 3)
    return edits


def test_the_slider_chooses_a_moment_and_steers_nothing(edits, monkeypatch):
    smile(edits)
    monkeypatch.setattr(edits.studio, "path", None)
    seen = []
    for wanted in (0.0, edits.reach[1], edits.reach[0]):
        edits.wanted = wanted
        view = edits.view()
        seen.append((view.gain, view.now.clone()))
        assert view.judged.change[:, view.judged.names.index("Smiling")].mean() == pytest.approx(view.gain)
    assert seen[0][0] == 0 and torch.equal(seen[0][1], view.before)
    assert seen[2][0] < 0 < seen[1][0]
    assert not torch.equal(seen[1][1], seen[2][1])


def test_before_anything_is_steered_there_is_a_view(edits):
    view = edits.view()
    assert torch.equal(view.now, view.before)
    assert not view.judged.change.any()
    assert edits.all == []


def test_another_attribute_goes_on_from_where_the_one_before_ended(edits):
    first = smile(edits).current
    assert first is not None
    edits.choose(replace(edits.aim, target="Male"))
    assert [(edit.aim, edit.steps) for edit in edits.made] == [(first.aim, 3)]
    assert edits.wanted == 0
    assert torch.equal(edits.noise, first.end)
    smiling = edits.view().judged.change[:, edits.path.names[1].index("Smiling")].mean()
    assert smiling == pytest.approx(edits.studio.path(edits.start, first.aim).gains[6 + first.steps])
    move(edits, -2)
    assert [edit.aim.target for edit in edits.all] == ["Smiling", "Male"]
    assert edits.all[-1].sign == "remove"


def test_the_same_attribute_in_another_way_keeps_what_was_wanted(edits):
    end, wanted = smile(edits).current.end, edits.wanted
    edits.choose(replace(edits.aim, penalty_weight=1.0, held=("Male",)))
    assert (edits.made, edits.wanted) == ([], wanted)
    assert not torch.equal(edits.current.end, end)


def test_undo_takes_the_slider_back_and_then_the_edit_before(edits):
    first = smile(edits).current
    edits.choose(replace(edits.aim, target="Male"))
    move(edits, 2)
    edits.undo()
    assert (edits.wanted, edits.aim.target) == (0, "Male")
    edits.undo()
    assert (edits.made, edits.aim.target, edits.wanted) == ([], "Smiling", first.wanted)
    assert torch.equal(edits.current.end, first.end)
    edits.undo()
    edits.undo()
    assert edits.all == []


def test_another_order_is_as_if_the_edits_had_been_made_so(edits):
    smile(edits)
    for name in ("Male", "Young"):
        edits.choose(replace(edits.aim, target=name))
        move(edits, 4)
    wanted = {edit.aim.target: edit.wanted for edit in edits.all}
    edits.put_earlier(1)
    assert [edit.aim.target for edit in edits.all] == ["Male", "Smiling", "Young"]
    other = Edits(edits.studio, edits.start, replace(edits.aim, target="Male"))
    for name in ("Male", "Smiling", "Young"):
        other.choose(replace(other.aim, target=name))
        other.wanted = wanted[name]
    assert torch.equal(edits.all[-1].end, other.all[-1].end)


def test_a_path_is_steered_once_and_only_so_much_memory_is_taken(edits, monkeypatch):
    steered, steer_path = [], shared.steer_path

    def counted(session, cfg, noise, told):
        steered.append(cfg.penalty_weight)
        return steer_path(session, cfg, noise, told)

    monkeypatch.setattr(shared, "steer_path", counted)
    edits.choose(replace(edits.aim, penalty_weight=0.1))
    one = edits.path.num_bytes
    assert one == 13 * 2 * (4 * 64 + 3 * 64 * 64 + 2 * 4 * 40)  # moments, faces; noise, pixels, logits twice
    monkeypatch.setitem(edits.studio.cfg, "path_memory", 2.5 * one / 1e6)
    steered.clear()
    for weight in (0.11, 0.12, 0.11, 0.13, 0.12):
        edits.choose(replace(edits.aim, penalty_weight=weight))
    assert steered == [0.11, 0.12, 0.13, 0.12]
    assert edits.studio.num_bytes == 2 * one
    monkeypatch.setitem(edits.studio.cfg, "path_memory", 0.5 * one / 1e6)  # the newest is kept all the same
    edits.choose(replace(edits.aim, penalty_weight=0.14))
    edits.choose(replace(edits.aim, penalty_weight=0.14))
    assert steered == [0.11, 0.12, 0.13, 0.12, 0.14]
    assert edits.studio.num_bytes == one


def test_a_refusal_changes_nothing(edits):
    smile(edits)
    before = (edits.made, edits.aim, edits.path)
    with pytest.raises(ValueError, match="'Nonsense' is not an attribute"):
        edits.choose(replace(edits.aim, target="Nonsense"))
    assert (edits.made, edits.aim, edits.path) == before


def test_a_method_beside_the_first_that_refuses_is_named_and_takes_nothing_away(studio, monkeypatch):
    tab, path = Tab(studio), studio.path
    tab.steer(tab.edits.aim, None)
    move(tab.edits, 3)

    def refusing(noise, aim, told):
        if aim.method == "ascent":
            raise ValueError("ascent does not steer this")
        return path(noise, aim, told)

    monkeypatch.setattr(studio, "path", refusing)
    tab.steer(replace(tab.edits.aim, target="Male"), "ascent")
    assert (tab.refusal, len(tab.views())) == ("ascent does not steer this", 1)
    assert [edit.aim.target for edit in tab.edits.made] == ["Smiling"] and tab.edits.aim.target == "Male"
    tab.undo()
    assert tab.edits.aim.target == "Smiling" and tab.refusal is not None
    tab.steer(tab.edits.aim, "penalty")
    assert tab.refusal is None


def test_an_edit_tells_what_it_reached(edits):
    smile(edits)
    edits.wanted = 99.0
    assert edits.current.gain == pytest.approx(max(edits.path.gains[6:])) != edits.current.wanted
    assert f"{edits.current.gain:+.1f} σ" in chips([], edits.current) and "99" not in chips([], edits.current)


@pytest.mark.parametrize("method", ["penalty", "tutorial", "projected"])
def test_what_is_kept_are_runs_that_steer_makes_again_bit_for_bit(edits, tmp_path, method):
    with pytest.raises(ValueError, match="no edit to keep"):
        keep(edits, tmp_path)
    edits.choose(replace(edits.aim, method=method, held=("Male", "Smiling")))
    move(edits, 4)
    edits.choose(replace(edits.aim, target="Young"))
    move(edits, -2)
    kept = keep(edits, tmp_path)
    assert [run.name for run in kept.runs] == ["1_add_Smiling", "2_remove_Young"]
    for edit, run in zip(edits.all, kept.runs, strict=True):
        history = load_file(run / "history.safetensors")
        assert torch.equal(history["noise"][-1], edit.end)
        assert read_json(run / "metrics.json")["num_steps"] == abs(edit.steps)
        assert read_json(run / "status.json")["state"] == "completed"
        assert {path.name for path in run.iterdir()} >= {"steering.png", ".hydra"}
    *_, call = kept.python.splitlines()
    again, history = eval(call, {"zsteer": zsteer}), load_file(kept.runs[-1] / "history.safetensors")
    assert torch.equal(torch.stack(again.history.noise), history["noise"])
    assert torch.equal(torch.stack(again.history.logits), history["logits"])
    assert kept.shell.count("zsteer-steer ") == 2
    assert keep(edits, tmp_path).folder != kept.folder


def test_a_gain_that_the_judge_does_not_confirm_is_told(studio_of, studio):
    fooled = path_of([0.0, 2.0], start=0)
    fooled = replace(
        fooled, judged=torch.tensor([0.0, 0.1])[:, None, None], noise=studio.first_faces[:1].repeat(2, 1, 1)
    )
    judged = studio_of("trainer=cpu", num_images=1)
    told = warnings(fooled, 1, judged)
    assert any("The judge confirms 0.1 σ of the 2.0 σ" in line for line in told)
    assert not any("judge" in line for line in warnings(replace(fooled, judged=fooled.seen), 1, judged))
    assert not any("judge" in line for line in warnings(fooled, 1, studio))  # there is none


def test_noise_that_has_left_the_prior_is_told(studio):
    usual, large = studio.first_faces[:1], studio.first_faces[:1] * 3
    path = replace(path_of([0.0, 2.0], start=0), noise=torch.stack([usual / usual.norm() * 8, large]))
    assert warnings(path, 0, studio) == []
    (line,) = warnings(path, 1, studio)
    assert "has left the prior" in line


def test_a_tab_has_one_face_or_all_and_a_second_method(studio):
    tab, other = Tab(studio), Tab(studio)
    assert len(tab.edits.start) == 1
    tab.choose(None)
    tab.steer(tab.edits.aim, "ascent")
    move(tab.edits, 3)
    (name, own), (beside, theirs) = tab.views()
    assert (name, beside, len(own.now)) == ("penalty", "ascent", 3)
    assert not torch.equal(own.now, theirs.now)
    assert other.edits.path is None and len(other.edits.start) == 1
    tab.put(studio.faces_of_seed(5))
    assert tab.edits.all == [] and len(tab.views()) == 1
    assert not torch.equal(tab.faces, other.faces)


def test_faces_come_from_seeds_files_and_photos(studio, tmp_path):
    from PIL import Image

    assert torch.equal(studio.faces_of_seed(0), studio.first_faces)
    file = tmp_path / "noise.safetensors"
    save_file({"noise": torch.arange(8.0)[:, None].expand(8, 64).contiguous()}, file)
    assert studio.faces_of_file(str(file))[:, 0].tolist() == [0, 1, 2]
    assert studio.face_of_photo(Image.new("RGB", (80, 90), "orange")).shape == (1, 64)
    save_file({"noise": torch.zeros(2, 3)}, file)
    with pytest.raises(ValueError, match="it must be"):
        studio.faces_of_file(str(file))
