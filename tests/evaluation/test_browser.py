"""A sweep of 400 jobs in a real TensorBoard, seen by a real browser."""

import json
import shutil
import time
import urllib.request

import pytest
from places import GOLDEN_NETWORKS
from served import tensorboard

from zsteer.data.attributes import CELEBA

pytestmark = pytest.mark.browser

COPIES = 10  # of each job of a real sweep: to TensorBoard a run is its folder, and to run 400 jobs takes a minute

# All elements that a selector finds, also in the shadow trees of TensorBoard's components.
FIND = """
const found = [];
const walk = root => root.querySelectorAll('*').forEach(element => {
    if (element.matches(arguments[0])) found.push(element);
    if (element.shadowRoot) walk(element.shadowRoot);
});
walk(document);
"""


def eventually(look, seconds=300):
    """What `look` gives as soon as it is true."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := look():
            return found
        time.sleep(0.5)
    raise AssertionError(f"not seen within {seconds} s")


def test_a_sweep_of_400_jobs_opens(command, browser, tmp_path):
    browser.set_window_size(1500, 1000)
    networks = [word for word in GOLDEN_NETWORKS if not word.startswith("judge")]
    grid = (f"target={','.join(CELEBA[::2])}", "penalty_weight=0,0.1")
    ended = command(
        "steer", *grid, *networks, "method=ascent", "num_steps=1", "num_images=1", "trainer=cpu", sweep=True
    )
    assert ended.code == 0, ended.err
    jobs = [path.parent for path in ended.folder.glob("*/metrics.json")]
    for job in jobs:
        number, _, name = job.name.partition("_")
        for copy in range(1, COPIES):
            shutil.copytree(job, job.with_name(f"{int(number) + copy * len(jobs)}_{name}"))
    with tensorboard(ended.folder, tmp_path / "log") as address:

        def read():  # to the last run's pictures: a page does not look for them again
            with urllib.request.urlopen(f"{address}/data/plugin/images/tags", timeout=30) as answer:
                return len(json.loads(answer.read())) == 401

        eventually(read)

        def open_page(place):
            browser.get("about:blank")
            browser.get(f"{address}/{place}")

        def loaded(script):
            return lambda: browser.execute_script(script, "img")

        open_page("#hparams")
        cells = FIND + r"return found.filter(cell => /^\s*\d+_target-/.test(cell.textContent)).length >= 10;"
        eventually(lambda: browser.execute_script(cells, "vaadin-grid-cell-content"))

        pictures = FIND + "return found.filter(image => image.naturalWidth > 300).length"
        open_page("?tagFilter=sweep#timeseries")
        eventually(loaded(f"{pictures} == 2;"))  # the frontier and the sheet

        shown = FIND + "return found.filter(image => image.naturalWidth > 60).length"
        open_page("?tagFilter=history&runFilter=%5E0_#timeseries")
        eventually(loaded(f"{shown} >= 1;"))


def test_a_report_opens_from_disk_and_its_sliders_move_the_pictures(command, browser, tmp_path):
    words = (f"data.root={tmp_path}", "data.num_train=8", "data.num_val=8", "data.num_test=40", "num_images=8")
    contenders = ("+contenders.a=['method=ascent','num_steps=4']", "+contenders.b=['method=direction','num_steps=4']")
    ended = command("evaluate", "what=methods", "targets=[Bangs]", *words, *contenders)
    assert ended.code == 0, ended.err
    browser.get((ended.folder / "report.html").as_uri())
    assert len(browser.find_elements("css selector", ".trial")) == 2
    trial = browser.find_element("css selector", ".trial")
    slider, image = (trial.find_element("css selector", selector) for selector in ("input", ".window img"))
    assert browser.execute_script("return arguments[0].naturalWidth", image) == 8 * 64
    shown = {}
    for moment in (8, 0):
        browser.execute_script(
            "arguments[0].value = arguments[1]; arguments[0].dispatchEvent(new Event('input'))", slider, moment
        )
        gains = [span.text for span in trial.find_elements("css selector", ".gains span")]
        shown[moment] = (gains, trial.find_element("css selector", ".window").screenshot_as_png)
    assert shown[0][0] == ["0.0"] * 8
    assert shown[8][0] != shown[0][0]
    assert shown[8][1] != shown[0][1]
    requested = browser.execute_script("return performance.getEntriesByType('resource').map(entry => entry.name)")
    assert not [name for name in requested if not name.startswith("data:")]
    assert not [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
