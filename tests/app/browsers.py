"""A headless Chromium that looks at the page."""

import contextlib
import os
import shutil

import pytest

CHROMIUM_FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--enable-unsafe-swiftshader", "--window-size=1200,1100",
]  # fmt: skip


def program(variable, *names):
    """The file that an environment variable names, or else the first of the names on PATH."""
    return os.environ.get(variable) or next(filter(None, map(shutil.which, names)), None)


@contextlib.contextmanager
def browsing(profile, *flags):
    """A headless Chromium with a profile of its own; skips the test where there is none."""
    webdriver = pytest.importorskip("selenium.webdriver")
    chromium = program("DIFFJAX_CHROMIUM", "chromium", "chromium-browser", "google-chrome")
    chromedriver = program("DIFFJAX_CHROMEDRIVER", "chromedriver")
    if not (chromium and chromedriver):
        pytest.skip(
            "no browser: chromium and chromedriver are not on PATH, and neither DIFFJAX_CHROMIUM "
            "nor DIFFJAX_CHROMEDRIVER names them"
        )
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (*CHROMIUM_FLAGS, f"--user-data-dir={profile}", *flags):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(chromedriver))
    try:
        yield driver
    finally:
        driver.quit()
