"""The pages of docs build without a warning, load nothing from elsewhere, and have every key."""

import importlib
import os
import re
import subprocess
import sys

import pytest
import torch
from places import ROOT
from selenium.webdriver.support.wait import WebDriverWait

from zsteer.app.composition import known_keys

CONFIG = """# Two lines
# of it.
defaults:
  - a: b

one: 1 # first
two:
  three: '#'
  four: [a, true]  # list
six: null
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The pages as `make docs` builds them."""
    folder = tmp_path_factory.mktemp("site")
    program = (sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", folder)
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(ROOT / "src")}
    built = subprocess.run(program, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert built.returncode == 0, built.stderr
    assert not re.search("^WARNING", built.stdout + built.stderr, flags=re.M)
    return folder


def test_no_page_loads_anything_from_elsewhere(site):
    pages = [page for page in site.rglob("*.html") if page.name != "demo.html"]  # which has all that it needs inside
    assert len(pages) > 15
    for page in pages:
        loaded = re.findall(r"<(?:script|link|img|iframe)[^>]+(?:src|href)=\"?([^ \">]+)", page.read_text())
        assert loaded
        assert not [address for address in loaded if re.match(r"(?:https?:)?//", address)]


@pytest.mark.browser
def test_a_page_opens_from_disk_is_searched_and_fits_a_phone(site, browser):
    browser.get((site / "index.html").as_uri())
    browser.execute_script("document.querySelector('label[for=__search]').click()")
    browser.find_element("css selector", "[data-md-component=search-query]").send_keys("preservation_rate")
    found = "return [...document.querySelectorAll('.md-search-result__link')].map(link => link.getAttribute('href'))"
    links = WebDriverWait(browser, 30).until(lambda _: browser.execute_script(found))
    assert any("reference/figures.html" in link for link in links)
    requested = browser.execute_script("return performance.getEntriesByType('resource').map(entry => entry.name)")
    assert not [address for address in requested if not address.startswith(("file:", "data:"))]
    assert not [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]

    metrics = {"width": 400, "height": 900, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    for page in site.rglob("*.html"):
        browser.get(page.as_uri())
        assert browser.execute_script("return document.documentElement.scrollWidth") == 400, page.name
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_every_key_of_every_command_is_there(site):
    page = (site / "reference" / "keys.html").read_text()
    commands = [path.stem for path in (ROOT / "scripts").glob("*.py")]
    assert len(commands) >= 10
    for command in commands:
        section = page.split(f'<h2 id="{command}">')[1].split("<h2 id=")[0]
        for key in known_keys(command):
            assert re.search(rf"<code>{key}(?:\.[^<]*)?</code>", section), (command, key)


def test_every_function_is_there(site):
    page = (site / "reference" / "python.html").read_text()
    for name in ("compare", "directions", "evaluate", "export", "invert", "load", "sample", "steer", "train_gan"):
        assert f'<h2 id="{name}">' in page


def test_the_live_demo_is_linked_where_it_was_made(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(ROOT / "docs")
    hooks = importlib.import_module("hooks")
    monkeypatch.setattr(hooks, "DEMO", tmp_path / "demo.html")
    assert "npm pack onnxruntime-web" in hooks.on_page_markdown("<!-- demo -->")
    hooks.DEMO.touch()
    assert "](../demo.html)" in hooks.on_page_markdown("<!-- demo -->")


def test_a_wide_picture_is_marked(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "docs")
    hooks = importlib.import_module("hooks")
    html = '<p><img alt="a" src="../methods.png" /> <img alt="b" src="../smiling.png" /></p>'
    wide = '<p><img class="wide" alt="a" src="../methods.png" /> <img alt="b" src="../smiling.png" /></p>'
    assert hooks.on_page_content(html) == wide


def test_keys_are_read_with_their_comments(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(ROOT / "docs")
    hooks = importlib.import_module("hooks")
    path = tmp_path / "mine.yaml"
    path.write_text(CONFIG)
    assert hooks.heading(path) == "Two lines of it."
    keys = [
        (key.name, hooks.KINDS[type(key.value)], hooks.typed(key.value), key.meaning) for key in hooks.keys_of(path)
    ]
    assert keys == [
        ("one", "whole number", "1", "first"),
        ("two.three", "word", "#", ""),
        ("two.four", "list", "[a, true]", "list"),
        ("six", "optional", "null", ""),
    ]


def test_the_example_of_the_figures_is_right():
    page = (ROOT / "docs" / "reference" / "figures.md").read_text()
    (block,) = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    program, *lines = re.split(r"^(?=sigma_of)", block, flags=re.M)
    names: dict = {}
    exec(program, names)
    said = [re.findall(r"[\d.]+", line.split("#")[1]) for line in "".join(lines).splitlines()]
    values = [eval(line.split("#")[0], names) for line in "".join(lines).splitlines()]
    torch.testing.assert_close(values[0], torch.tensor([2.0, 1.0], dtype=torch.float64), rtol=1e-6, atol=1e-6)
    assert [float(number) for number in said[0]] == [2, 1]
    assert values[1] == pytest.approx(float(said[1][-1]), abs=1e-6)
    assert values[2]["Young"] == pytest.approx(float(said[2][-1]), abs=1e-6)
    assert values[3] == float(said[3][-1])
