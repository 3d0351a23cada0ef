"""Draw the README's picture of the live page, by Chromium and its driver: `PYTHONPATH=tests python docs/explore.py`."""

import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from chromium import chromium
from selenium import webdriver
from selenium.webdriver import Keys

FOLDER = Path(__file__).parent
WORDS = ("method=projected", "seed=3", "hydra.run.dir=outputs/explore/picture")
FACE, EDITS = 4, {"Eyeglasses": 2.0, "Smiling": 1.6}  # in σ
WIDTH, HEIGHT = 1280, 840
SLIDE = """
const slider = document.querySelector('#slider input[type=range]');
Object.getOwnPropertyDescriptor(HTMLInputElement.prototype, 'value').set.call(slider, arguments[0]);
slider.dispatchEvent(new Event('input', {bubbles: true}));
"""
READY = (
    "const s = document.querySelector('#slider input[type=range]'); return Boolean(s) && !s.disabled && s.max != '1'"
)


def until(true: Callable[[], object], seconds: float = 60) -> None:
    """Wait until something is true."""
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            raise TimeoutError("the page does not get there")
        time.sleep(0.3)


def draw(driver: webdriver.Chrome, address: str) -> bytes:
    """Choose a face, make the edits, and look."""
    driver.get(address)
    until(lambda: driver.execute_script(READY))
    driver.execute_script(f"document.querySelector('[data-face=\"{FACE}\"]').click()")
    time.sleep(1)
    for number, (name, gain) in enumerate(EDITS.items(), 1):
        field = driver.find_element("css selector", "#attribute input")
        field.click()
        field.send_keys(Keys.CONTROL, "a")
        field.send_keys(name, Keys.ENTER)
        until(lambda name=name: name in driver.find_element("css selector", "#slider").text)
        until(lambda: driver.execute_script(READY))
        driver.execute_script(SLIDE, gain)
        until(lambda number=number: len(driver.find_elements("css selector", ".chip")) == number)
    time.sleep(2)
    return driver.get_screenshot_as_png()


def main() -> None:
    """Start the page, and end it."""
    command = [sys.executable, FOLDER.parent / "scripts" / "explore.py", *WORDS]
    with chromium(WIDTH, HEIGHT) as driver, subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            line = next(line for line in process.stdout if "http://" in line)
            driver.set_window_size(WIDTH, HEIGHT + driver.get_window_size()["height"] - _inner_height(driver))
            (address,) = re.findall(r"http://\S+", line)
            (FOLDER / "explore.png").write_bytes(draw(driver, address))
        finally:
            process.terminate()


def _inner_height(driver: webdriver.Chrome) -> int:
    return int(driver.execute_script("return window.innerHeight"))


if __name__ == "__main__":
    main()
