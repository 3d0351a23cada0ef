"""A browser without a window or a network, for tests that look at a page."""

import shutil
from contextlib import contextmanager


@contextmanager
def chromium(width=1280, height=1000):
    """Chromium, Debian's, which reaches no host but this one."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    program = shutil.which("chromium")
    assert program is not None
    options.binary_location = program
    elsewhere = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.0.0.1"
    for word in ("--headless=new", "--no-sandbox", "--disable-gpu", f"--window-size={width},{height}", elsewhere):
        options.add_argument(word)
    driver = webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))
    driver.set_script_timeout(60)
    try:
        yield driver
    finally:
        driver.quit()
