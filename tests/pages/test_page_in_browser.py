"""Exported pages in a real browser, from disk and without a network, beside PyTorch."""

import time

import pytest
import torch
from runtimes import real_package, write_package
from small_faces import HOSTILE, NAMES, small_networks

import zsteer
from zsteer.app.composition import compose
from zsteer.networks.inference import noise_of
from zsteer.networks.loading import load_networks
from zsteer.pages.graphs import TOLERANCE
from zsteer.pages.page import REACH, held_directions, page_of
from zsteer.pages.runtime import read_runtime
from zsteer.steering.directions import find_directions
from zsteer.steering.reference import reference_logits

pytestmark = pytest.mark.browser
PENALTY = 0.1  # of the command's config


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """The npm package onnxruntime-web."""
    path = real_package(tmp_path_factory.mktemp("npm"))
    if path is None:
        pytest.skip("needs the npm package onnxruntime-web: ZSTEER_ORT_WEB names it, or npm fetches it")
    return path


@pytest.fixture
def open_page(browser):
    """Open a page from disk; what it shows as soon as it does."""

    def call(path):
        browser.get(path.as_uri())
        return shown(browser)

    return call


def shown(browser, other_than=None):
    """Noise, image and logits of the page, once the noise is another."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if (now := browser.execute_script("return window.shown()")) and now["noise"] != other_than:
            return {name: torch.tensor(values)[None] for name, values in now.items()} | {"raw": now["noise"]}
        if browser.find_elements("css selector", "#state.failed"):
            break
        time.sleep(0.1)
    raise AssertionError(browser.find_element("id", "state").text)


def move(browser, slider, value):
    """Move a slider, given its name."""
    browser.execute_script(
        "const input = [...document.querySelectorAll('.slider input')]"
        ".find(one => one.getAttribute('aria-label') === arguments[0]);"
        "input.value = arguments[1]; input.dispatchEvent(new Event('input'));",
        *(slider, value),
    )


@torch.no_grad()
def assert_as_in_pytorch(now, networks):
    image = networks.generator(now["noise"])
    assert (image.flatten() - now["image"].flatten()).abs().max() < TOLERANCE
    assert (networks.judge.network(image) - now["logits"]).abs().max() < TOLERANCE


def steered(networks, start, amounts):
    """Where sliders take some noise, by the positions of those that are moved."""
    (reference,) = reference_logits(networks.generator, [networks.classifier.network])
    names = networks.classifier.names
    along = held_directions(find_directions("gradient", networks.generator, reference), names, PENALTY)
    free = along.shape[1]
    reach = REACH * free**0.5
    moved = start[:free] + sum(amount * reach * along[names.index(name)] for name, amount in amounts.items())
    return moved * start[:free].norm() / moved.norm()


def test_the_bundled_networks_in_one_small_page(package, open_page, browser, picture, tmp_path):
    path = tmp_path / "page.html"
    zsteer.export(runtime=str(package), page=str(path))
    assert path.stat().st_size < 25e6
    networks = load_networks(compose("export"))
    first = open_page(path)
    start = noise_of(networks.generator, 8, 0)
    assert torch.equal(first["noise"], start[:1])
    assert_as_in_pytorch(first, networks)

    move(browser, "Eyeglasses", 0.8)
    after = shown(browser, first["raw"])
    move(browser, "Smiling", -0.5)
    after = shown(browser, after["raw"])
    assert torch.allclose(
        after["noise"][0], steered(networks, start[0], {"Eyeglasses": 0.8, "Smiling": -0.5}), atol=1e-4
    )
    assert_as_in_pytorch(after, networks)
    bar = browser.find_element("xpath", "//div[@class='bar seen'][contains(., 'Eyeglasses')]")
    assert bar.find_element("css selector", ".number.more").text.startswith("+")

    browser.find_element("css selector", "#faces button:nth-child(4)").click()  # sliders stay where they are
    other = shown(browser, after["raw"])
    assert torch.allclose(
        other["noise"][0], steered(networks, start[3], {"Eyeglasses": 0.8, "Smiling": -0.5}), atol=1e-4
    )
    picture("export.png")
    browser.find_element("id", "reset").click()
    assert torch.allclose(shown(browser, other["raw"])["noise"], start[3:4], atol=1e-5)
    browser.find_element("id", "new").click()
    new = shown(browser, start[3].tolist())
    assert new["noise"].norm() == pytest.approx(16, abs=4) and abs(new["noise"].mean()) < 0.3
    assert_as_in_pytorch(new, networks)

    for width in (1280, 400):
        metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        assert browser.execute_script("return document.documentElement.scrollWidth") == width
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    requested = browser.execute_script("return performance.getEntriesByType('resource').map(entry => entry.name)")
    assert not [name for name in requested if not name.startswith(("data:", "blob:"))]
    assert not [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]


def test_a_conditional_generator_is_told_by_sliders_too(package, open_page, browser, tmp_path):
    networks = small_networks(("Eyeglasses", "hair_length"))
    page = page_of(networks, read_runtime(package), compose("export", ["sliders=[Bangs]"]))
    path = tmp_path / "page.html"
    path.write_text(page.html)
    first = open_page(path)
    labels = [label.text.split("\n") for label in browser.find_elements("css selector", ".slider .caption")]
    told = first["noise"][0, 6:].tolist()
    assert labels[0] == ["Eyeglasses (told)", f"{told[0]:.2f}"]
    assert labels[1] == ["hair length (told)", f"{20 + 5 * told[1]:.2f}"]
    assert labels[2][0] == "Bangs"
    assert HOSTILE.replace("_", " ") in [row.text for row in browser.find_elements("css selector", ".bar .name")]

    move(browser, "hair length (told)", 2)  # the end of its range in the data, 30
    after = shown(browser, first["raw"])
    assert after["noise"][0, :7].tolist() == first["noise"][0, :7].tolist() and after["noise"][0, 7] == 2
    assert browser.find_elements("css selector", ".slider output")[1].text == "30.00"
    move(browser, "Bangs", 1)
    after = shown(browser, after["raw"])
    expected = torch.cat([steered(networks, first["noise"][0], {"Bangs": 1}), after["noise"][0, 6:]])
    assert torch.allclose(after["noise"][0], expected, atol=1e-5) and after["noise"][0, 7] == 2
    assert_as_in_pytorch(after, networks)
    browser.execute_script("document.getElementById('add').value = arguments[0]", NAMES.index("Bald"))
    browser.execute_script("document.getElementById('add').dispatchEvent(new Event('change'))")
    assert len(browser.find_elements("css selector", ".slider")) == 4


def test_what_cannot_run_says_so(browser, tmp_path):
    page = page_of(small_networks(), read_runtime(write_package(tmp_path)), compose("export"))
    path = tmp_path / "page.html"
    path.write_text(page.html)
    browser.get(path.as_uri())
    with pytest.raises(AssertionError, match=r"This browser cannot run the networks \("):
        shown(browser)
    assert browser.execute_script("return document.querySelector('main').inert")
