"""What the page does when something is moved, without a browser."""

import pytest
import torch
from safetensors.torch import save_file

gr = pytest.importorskip("gradio")


def clicked(which):
    return gr.EventData(None, {"which": str(which)})


@pytest.fixture
def handlers(studio, tmp_path):
    from zsteer.explore.page import Handlers

    return Handlers(studio, tmp_path)


@pytest.fixture
def tab(handlers):
    tab, *parts = handlers.open()
    assert parts[5].interactive is False  # nothing to look up yet
    return tab


def steer(handlers, tab, target="Smiling", method="penalty", penalty=0.1, held=(), rival=""):
    return handlers.steer(tab, target, method, penalty, list(held), rival)


def test_the_slider_goes_as_far_as_the_path(handlers, tab):
    *_, slider, target, method, penalty, held = steer(handlers, tab)
    assert (target, method, penalty, held) == ("Smiling", "penalty", 0.1, [])
    assert slider.interactive
    low, high = tab.edits.path.reach
    assert slider.minimum <= low < slider.minimum + 0.1 and slider.maximum - 0.1 < high <= slider.maximum


def test_faces_are_chosen_renewed_and_uploaded(handlers, tab, tmp_path):
    handlers.choose(tab, clicked(-1))
    assert (tab.chosen, len(tab.edits.start)) == (None, 3)
    handlers.choose(tab, clicked(2))
    assert torch.equal(tab.edits.start[0], tab.faces[2])
    before = tab.faces
    handlers.renew(tab)
    assert tab.chosen == 0 and not torch.equal(tab.faces, before)
    save_file({"noise": torch.ones(2, 64)}, tmp_path / "noise.safetensors")
    handlers.upload(tab, str(tmp_path / "noise.safetensors"))
    assert torch.equal(tab.faces, torch.ones(2, 64))


@pytest.mark.parametrize(
    ("name", "said"),
    [("photo.png", "photo.png cannot be read: it is no image"), ("noise.safetensors", "not a readable")],
)
def test_a_file_that_is_no_face_is_told_in_a_line(handlers, tab, tmp_path, name, said):
    (tmp_path / name).write_text("nothing")
    with pytest.raises(gr.Error, match=said):
        handlers.upload(tab, str(tmp_path / name))
    assert tab.faces is handlers.studio.first_faces


def test_what_a_method_refuses_is_told_in_a_line(handlers, tab):
    with pytest.raises(gr.Error, match="'Nonsense' is not an attribute"):
        steer(handlers, tab, target="Nonsense")


def test_a_tab_that_was_forgotten_says_so(handlers):
    with pytest.raises(gr.Error, match="load it anew"):
        handlers.scrub(None, 0.0)


def test_a_click_holds_an_attribute_and_another_lets_it_go(handlers, tab):
    assert handlers.hold(tab, [], clicked("Male")) == ["Male"]
    assert handlers.hold(tab, ["Male", "Young"], clicked("Male")) == ["Young"]
    assert handlers.hold(tab, [], clicked("Smiling")) == []  # the target
    assert handlers.hold(tab, [], clicked("Nonsense")) == []


def test_edits_are_scrubbed_put_in_order_undone_and_kept(handlers, tab, tmp_path):
    with pytest.raises(gr.Error, match="no edit to keep"):
        handlers.keep(tab)
    for name in ("Smiling", "Male", "Young"):
        *_, slider = steer(handlers, tab, name)[:6]
        handlers.scrub(tab, slider.maximum)
    handlers.put_earlier(tab, clicked(1))
    assert [edit.aim.target for edit in tab.edits.all] == ["Male", "Smiling", "Young"]
    handlers.undo(tab)
    assert [edit.aim.target for edit in tab.edits.all] == ["Male", "Smiling"]
    shown, where, shell, python = handlers.keep(tab)
    assert shown.visible and str(tmp_path / "kept1") in where
    assert len(shell.splitlines()) == python.count("zsteer.steer(") == 2
