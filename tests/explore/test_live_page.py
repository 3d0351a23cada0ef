"""The page, served by a real process and seen by a real browser that can reach nothing but this machine."""

import base64
import io
import signal
import socket
import sys
import time

import numpy as np
import pytest
import torch
from PIL import Image
from places import GOLDEN_NETWORKS
from safetensors.torch import load_file, save_file
from served import live_page

import zsteer
from zsteer.files import read_json

SHOWN = """
const all = selector => [...document.querySelectorAll(selector)];
const slider = document.querySelector('#slider input[type=range]');
return {
    faces: all('#faces img').map(image => image.src),
    now: all('[data-side=now] img.now').map(image => image.src),
    start: all('[data-side=start] img.now').map(image => image.src),
    rival: all('[data-side=rival] img.now').map(image => image.src),
    changes: Object.fromEntries(all('.bar').map(bar => [bar.dataset.name, Number(bar.dataset.change)])),
    held: all('.bar.held').map(bar => bar.dataset.name),
    chips: all('.chip').map(chip => chip.innerText.trim()),
    ready: Boolean(slider) && !slider.disabled,
    most: slider && Number(slider.max),
    target: document.querySelector('#slider') ? document.querySelector('#slider').innerText.trim() : '',
    kept: document.querySelector('#python') ? document.querySelector('#python').innerText : '',
    toast: all('.toast-body').map(toast => toast.innerText).join(' '),
};
"""
SLIDE = """
const slider = document.querySelector('#slider input[type=range]');
Object.getOwnPropertyDescriptor(HTMLInputElement.prototype, 'value').set.call(slider, arguments[0]);
slider.dispatchEvent(new Event('input', {bubbles: true}));
"""


SMILE, GLASSES = 1.6, 3.0  # in σ, or as far as the path goes


class Seen:
    """What a browser shows of the page."""

    def __init__(self, driver, address):
        self.driver = driver
        driver.get(address)

    def until(self, true, seconds=120.0):
        """What is shown as soon as something is true of it."""
        deadline = time.monotonic() + seconds
        while not true(shown := self.driver.execute_script(SHOWN)):
            assert time.monotonic() < deadline, shown["toast"] or shown["chips"]
            time.sleep(0.02)
        return shown

    def click(self, selector):
        self.driver.execute_script("document.querySelector(arguments[0]).click()", selector)

    def choose(self, dropdown, name):
        """Choose from a dropdown, by typing."""
        from selenium.webdriver import Keys

        field = self.driver.find_element("css selector", f"#{dropdown} input")
        field.click()
        field.send_keys(Keys.CONTROL, "a")
        field.send_keys(name, Keys.ENTER)

    def upload(self, path):
        self.driver.find_element("css selector", "#upload input, input[type=file]").send_keys(str(path))


def pixels(address):
    """The picture that a page has in an address."""
    with Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2]))) as image:
        return torch.tensor(np.asarray(image)).int()


@pytest.mark.browser
def test_a_page_steers_keeps_and_asks_for_nothing_from_elsewhere(browser, picture, pictures, tmp_path):
    size = ("num_images=2", "method.run.num_steps=8") if pictures is None else ("method=projected", "seed=49")
    with live_page(tmp_path / "log", "trainer=cpu", *size, f"hydra.run.dir={tmp_path / 'run'}") as (process, address):
        page = Seen(browser, address)
        first = page.until(lambda shown: shown["ready"])
        assert len(first["faces"]) == (2 if pictures is None else 8) and len(first["changes"]) == 40
        assert first["now"] == first["start"]
        # Made alone or among others, a face is the same up to rounding.
        torch.testing.assert_close(pixels(first["start"][0]), pixels(first["faces"][0]), rtol=0, atol=1)
        assert not any(first["changes"].values())

        # The picture and the bars follow the slider.
        browser.execute_script(SLIDE, SMILE)
        smiling = page.until(lambda shown: shown["changes"]["Smiling"] > 0.3)
        assert smiling["now"] != smiling["start"] == first["start"]
        assert smiling["chips"][0].startswith("Smiling +")
        browser.execute_script(SLIDE, 0)
        page.until(lambda shown: shown["now"] == shown["start"] and not shown["chips"])
        browser.execute_script(SLIDE, SMILE)
        page.until(lambda shown: shown["now"] == smiling["now"])

        # Another tab has faces and edits of its own.
        mine = browser.current_window_handle
        browser.switch_to.new_window("tab")
        other = Seen(browser, address)
        other.until(lambda shown: shown["ready"])
        other.click("[data-face='-1']")
        other.until(lambda shown: len(shown["now"]) == len(first["faces"]) and shown["ready"])
        save_file({"noise": torch.zeros(1, 256)}, tmp_path / "noise.safetensors")
        other.upload(tmp_path / "noise.safetensors")
        other.until(lambda shown: len(shown["faces"]) == 1)
        browser.close()
        browser.switch_to.window(mine)
        assert page.until(lambda shown: True)["now"] == smiling["now"]

        # Another edit that goes on.
        page.choose("attribute", "Eyeglasses")
        page.until(lambda shown: shown["target"].startswith("Eyeglasses") and shown["ready"])
        assert page.until(lambda shown: len(shown["chips"]) == 1)["changes"]["Smiling"] > 0.3
        browser.execute_script(SLIDE, GLASSES)
        far = 0 if pictures is None else GLASSES - 0.5  # the picture is of where the slider ends
        page.until(lambda shown: len(shown["chips"]) == 2 and shown["changes"]["Eyeglasses"] > far)
        picture("explore.png")
        page.click("#undo")
        page.until(lambda shown: len(shown["chips"]) == 1 and shown["ready"])
        page.click("#undo")
        page.until(lambda shown: shown["chips"] and shown["ready"] and shown["target"].startswith("Smiling"))

        # A second method beside the first, and an attribute that is held.
        page.choose("rival", "ascent")
        page.until(lambda shown: shown["rival"] and shown["rival"] != shown["now"])
        page.click(".bar[data-name=Male]")
        page.until(lambda shown: shown["held"] == ["Male"] and shown["ready"])

        page.click("#keep")
        page.until(lambda shown: "zsteer.steer(" in shown["kept"])
        resources = "return performance.getEntriesByType('resource').map(entry => entry.name)"
        assert [name for name in browser.execute_script(resources) if not name.startswith((address, "data:"))] == []
        assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []

        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
        said = (tmp_path / "log").read_text()
        assert said.splitlines()[-1] == "error: interrupted" and "Traceback" not in said
    (run,) = (tmp_path / "run" / "kept1").glob("1_*")
    assert read_json(run / "status.json")["state"] == "completed"
    kept, lines = load_file(run / "history.safetensors"), (run / ".hydra" / "overrides.yaml").read_text().splitlines()
    again = zsteer.steer(*(line.removeprefix("- ") for line in lines))
    assert torch.equal(torch.stack(again.history.noise), kept["noise"])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["num_images=17"], "num_images=17 must be a whole number, from 1 to 16"),
        (["path_memory=0"], "path_memory=0 must be a finite number, greater than 0"),
        (["port=0"], "port=0 must be a whole number, from 1 to 65535"),
        (["host=null"], "host=None must be the name or the address of this machine"),
        (["host=192.0.2.1"], "host=192.0.2.1 has no free port ("),
        (["host=nowhere.invalid"], "host=nowhere.invalid is no name or address of this machine ("),
        (["port=TAKEN"], "cannot be listened on (Address already in use); name another"),
        (["target=Smilling"], "target='Smilling' is not an attribute of the classifier; did you mean 'Smiling'?"),
        (["target=Smiling+Male"], "target='Smiling+Male' is not an attribute of the classifier"),
        (["noise=nowhere.safetensors"], "noise=nowhere.safetensors: no such file"),
        (["trainer.devices=2"], "trainer.devices=2 must be 1: a page steers in one process"),
        (["generator.checkpoint=nowhere.pth"], "generator.checkpoint=nowhere.pth: no such file"),
    ],
)
def test_a_wrong_setting_ends_in_one_clear_line(command, words, said):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        words = [word.replace("TAKEN", str(taken.getsockname()[1])) for word in words]
        ended = command("explore", *words)
    assert ended.code == 1
    assert said in ended.err.splitlines()[-1]
    assert "Traceback" not in ended.err
    assert not ended.folder.exists() or not (ended.folder / "kept1").exists()


def test_without_gradio_one_line_says_how_to_have_it(command, monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    monkeypatch.setattr("zsteer.app.checks.find_spec", lambda name: None)
    ended = command("explore")
    assert (ended.code, ended.err.splitlines()[-1]) == (1, "error: explore needs Gradio: pip install 'zsteer[explore]'")


def test_the_page_steers_by_the_words_of_its_command_line(command, monkeypatch, tmp_path):
    (tmp_path / "method").mkdir()
    mine = "_target_: zsteer.steering.methods.Ascent\nname: mine\nunit: true\non_shell: true\n"
    mine += "optimizer: {_target_: torch.optim.SGD, _partial_: true, lr: 1}\n"
    mine += "run: {num_steps: 4, step_size: auto, show_every: 1, preserve: all}\n"
    (tmp_path / "method" / "mine.yaml").write_text(mine)
    seen = {}

    def serve(cfg, commands, folder):
        own, other = commands.steering("ascent"), commands.steering("mine")
        seen.update(commands=commands, own=own, other=other, inversion=commands.inversion())
        raise KeyboardInterrupt

    monkeypatch.setattr("zsteer.explore.serving.serve", serve)
    words = ("method=ascent", "method.run.num_steps=3", "penalty_weight=0.4", "seed=5", "target=male")
    ended = command("explore", f"--config-dir={tmp_path}", *GOLDEN_NETWORKS, "trainer=cpu", *words)
    assert (ended.code, ended.err.splitlines()[-1]) == (130, "error: interrupted")
    commands, own, other = seen["commands"], seen["own"], seen["other"]
    assert commands.methods[0] == "ascent" and {"mine", "projected"} <= set(commands.methods)
    assert "condition" not in commands.methods  # which needs a generator that is told something
    assert (own.num_steps, own.penalty_weight, own.seed, own.target) == (3, 0.4, 5, "male")
    assert (other.method.name, other.num_steps, other.generator) == ("mine", 4, own.generator)
    assert seen["inversion"].generator == own.generator
    shared = [*GOLDEN_NETWORKS, "trainer=cpu"]
    assert commands.words("ascent") == [*shared, "method.run.num_steps=3", "seed=5"]
    assert commands.words("mine") == [*shared, "seed=5"]
    assert (commands.program, commands.config_dir) == ("python steer.py", str(tmp_path))
