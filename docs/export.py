"""Draw the README's picture of an exported page anew, in a browser: `PYTHONPATH=tests python docs/export.py PACKAGE`.

PACKAGE is the npm package onnxruntime-web, as `npm pack` fetches it.
"""

import sys
import tempfile
from pathlib import Path

from chromium import chromium
from selenium.webdriver.support.ui import WebDriverWait

import zsteer

FOLDER = Path(__file__).parent
FACE = 5
SLIDERS = {"Eyeglasses": 0.8, "Bangs": 0.5}
MOVE = """
for (const [name, value] of Object.entries(arguments[0])) {
  const input = document.querySelector(`.slider input[aria-label="${name}"]`);
  input.value = value;
  input.dispatchEvent(new Event("input"));
}
return window.shown().noise;
"""


def picture(page: Path) -> bytes:
    """The page as PNG, 1280 pixels wide, with a face steered."""
    with chromium(1280, 1000) as browser:
        browser.get(page.as_uri())
        waiting = WebDriverWait(browser, 60)
        waiting.until(lambda _: browser.execute_script("return window.shown()"))
        browser.find_elements("css selector", "#faces button")[FACE].click()
        before = browser.execute_script(MOVE, SLIDERS)
        waiting.until(lambda _: browser.execute_script("return window.shown().noise") != before)
        browser.execute_async_script("setTimeout(arguments[0], 2000)")  # until the last of the moves is shown
        height = browser.execute_script("return document.documentElement.getBoundingClientRect().height")
        size = {"width": 1280, "height": round(height), "deviceScaleFactor": 1, "mobile": False}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        return browser.get_screenshot_as_png()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "page.html"
        print(zsteer.export(runtime=sys.argv[1], page=str(path)))
        (FOLDER / "export.png").write_bytes(picture(path))
