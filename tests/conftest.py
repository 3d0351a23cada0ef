"""Shapes and types are checked while testing; a command of zsteer can be run in this process."""

import shutil
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import jaxtyping
import pytest
from chromium import chromium
from hypothesis import settings

jaxtyping.install_import_hook("zsteer", "beartype.beartype")


@dataclass
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str
    folder: Path


@pytest.fixture
def command(tmp_path, monkeypatch, capfd) -> Callable[..., Ended]:
    """`command("steer", "target=Smiling", ...)` as the script would run it, its run folder in a temporary place."""

    def call(name: str, *words: str, sweep: bool = False) -> Ended:
        from zsteer.app import commands

        folder = tmp_path / f"run{len(list(tmp_path.glob('run*')))}"
        where = f"hydra.sweep.dir={folder}" if sweep else f"hydra.run.dir={folder}"
        elsewhere = any("hydra.run.dir" in word or "hydra.sweep.dir" in word for word in words)
        words = words if elsewhere else (*words, where)
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *(["-m"] if sweep else []), *words])
        capfd.readouterr()
        try:
            getattr(commands, name)()
            code = 0
        except SystemExit as stop:
            code = int(stop.code or 0)
        out, err = capfd.readouterr()
        return Ended(code, out, err, folder)

    return call


@pytest.fixture(scope="module")
def browser():
    """A headless Chromium; tests skip where there is none."""
    if missing := [name for name in ("chromium", "chromedriver") if not shutil.which(name)]:
        pytest.skip(f"needs {' and '.join(missing)}, Debian's chromium and chromium-driver")
    with chromium() as driver:
        yield driver


@pytest.fixture(scope="session")
def pictures(request: pytest.FixtureRequest) -> Path | None:
    """The folder for pictures of pages, if they are wanted: then a test shows its page in full."""
    folder = request.config.getoption("pictures")
    return None if folder is None else Path(folder)


@pytest.fixture
def picture(browser, pictures) -> Callable[[str], None]:
    """`picture("explore.png")` keeps what the browser shows, at its whole height, where pictures are wanted."""

    def keep(name: str) -> None:
        if pictures is None:
            return
        height = browser.execute_script("return document.documentElement.getBoundingClientRect().height")
        metrics = {"width": 1280, "height": round(height), "deviceScaleFactor": 1, "mobile": False}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        browser.execute_async_script("setTimeout(arguments[0], 2000)")  # until the last of the moves is shown
        (pictures / name).write_bytes(browser.get_screenshot_as_png())
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})

    return keep


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    """Reference logits are cached by the test run, not in the user's folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))


settings.register_profile("some", max_examples=10, deadline=None, database=None, derandomize=True)
settings.register_profile("many", max_examples=200, deadline=None, database=None, print_blob=True)


def pytest_configure(config: pytest.Config) -> None:
    """Processes that tests start are ended by Ctrl-C, which one that a shell has put into the background ignores."""
    settings.load_profile("many" if config.getoption("--torture") else "some")
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--torture", action="store_true", help="kill every stage and mutate every file, many times")
    parser.addoption("--pictures", metavar="FOLDER", help="keep there what tests of pages see, for docs")


@pytest.fixture(scope="session")
def torture(request: pytest.FixtureRequest) -> bool:
    """Whether there is time for all of it."""
    return bool(request.config.getoption("torture"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files whose tests wait for processes come first, so that no worker is left alone with one at the end."""
    items.sort(key=lambda item: not {"sweeps", "training", "app"} & set(item.path.parts))
