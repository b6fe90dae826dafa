"""A headless Chromium for tests of pages; None where Chromium, its driver or selenium is absent."""

from __future__ import annotations

import shutil
from typing import Any

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")
ABSENT = "no Chromium with chromedriver: apt install chromium-driver"
ARGUMENTS = ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--window-size=1300,1100")


def start(webdriver: Any) -> Any:
    """A browser of `selenium.webdriver` that keeps the console's messages; `quit` ends it."""
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for argument in ARGUMENTS:
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    return webdriver.Chrome(options, webdriver.ChromeService(DRIVER))


def errors(driver: Any) -> list[Any]:
    """What the console has of errors since the last time."""
    return [entry for entry in driver.get_log("browser") if entry["level"] == "SEVERE"]
