"""The station's page in a real browser: what an operator does with it. Skipped where there is no Chromium with its driver."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from adcore_runtime import load
from browser import ABSENT, BROWSER, DRIVER, errors, start

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
pytest.importorskip("fastapi", reason="pip install 'adcore-runtime[serve]'")
pytestmark = pytest.mark.skipif(not (BROWSER and DRIVER), reason=ABSENT)

HOSTILE = ['<script>document.title="ran"</script>', '"><img src=x onerror=document.title="ran">', "new\nline"]
THRESHOLDS = {"threshold": {"value": 0.5}, "score_range": [0.2, 0.6], "map_range": [0.1, 0.4]}
SECONDS = 20.0  # that the page may take to show something; it takes well below one


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    driver = start(webdriver)
    yield driver
    driver.quit()


@pytest.fixture
def url(model, images, tmp_path) -> Iterator[str]:
    """A station whose calibration images were like b.png, but darker."""
    known = {name: [value] * 60 for name, value in load(model()).observe(images / "b.png")[1].items()}
    model(calibration=THRESHOLDS | {"statistics": known | {"brightness": [0.2 + n / 600 for n in range(60)]}})
    command = [sys.executable, "-m", "adcore_runtime.station.command", "--port", "0", "--data", tmp_path / "data"]
    with subprocess.Popen(
        [*command, tmp_path / "model.onnx"], stdout=subprocess.PIPE, text=True, env=os.environ
    ) as process:
        yield process.stdout.readline().split()[0]
        process.kill()


@pytest.fixture
def page(browser, url) -> Iterator[Any]:
    browser.get(url)
    browser.execute_script("localStorage.clear(); localStorage.setItem('adcore-language', 'en')")
    browser.get(url)
    yield browser
    found, title = errors(browser), browser.title
    browser.get("about:blank")  # before the station ends
    assert found == []
    assert title == "adcore station"  # no script of a name has run


def send(url: str, image: Path, name: str) -> dict[str, Any]:
    asked = urllib.request.Request(f"{url}/predict?name={urllib.parse.quote(name)}", image.read_bytes())
    with urllib.request.urlopen(asked) as answer:
        return json.load(answer)


def reviews(url: str) -> dict[int, tuple[str | None, list[list[int]]]]:
    with urllib.request.urlopen(f"{url}/state") as answer:
        return {row["id"]: (row["review"], row["marked"]) for row in json.load(answer)["latest"]}


def text(page: Any, name: str) -> str:
    return page.execute_script("return document.getElementById(arguments[0]).textContent", name)


def shows(found: Callable[[], object]) -> None:
    """Wait until the page shows it."""
    end = time.monotonic() + SECONDS
    while not found() and time.monotonic() < end:
        time.sleep(0.05)
    assert found()


def press(page: Any, section: str, label: str) -> None:
    """Click the first button of a section that is called so."""
    code = "[...document.querySelectorAll(`#${arguments[0]} button`)].find((one) => one.textContent === arguments[1]).click()"
    page.execute_script(code, section, label)


def test_results_come_in_are_reviewed_undone_and_shown_in_two_languages(page, url, images) -> None:
    for number, name in enumerate(HOSTILE):
        send(url, images / ("a.png" if number == 2 else "b.png"), name)
    shows(lambda: text(page, "counts") == "3 images, 2 anomalous, 0 reviewed")
    names = "return [...document.querySelectorAll('#latest article p:nth-of-type(2)')].map((one) => one.textContent)"
    assert page.execute_script(names) == HOSTILE[::-1]
    circles = "return document.querySelectorAll('#chart circle.above').length"
    assert page.execute_script(circles) == 2
    cards = "return document.querySelectorAll('#queue article').length"
    press(page, "queue", "Good")
    shows(lambda: page.execute_script(cards) == 1)
    assert reviews(url)[2][0] == "good"
    assert "1 reviewed" in text(page, "counts")
    press(page, "latest", "Undo")
    shows(lambda: page.execute_script(cards) == 2)
    assert reviews(url)[2][0] is None
    page.execute_script("document.getElementById('language').click()")
    assert text(page, "counts") == "이미지 3장, 이상 2장, 검토 0장"
    page.get(url)
    shows(lambda: "이미지 3장" in text(page, "counts"))  # the language stays


def test_boxes_are_drawn_in_pixels_of_the_image_and_keys_review(page, url, images) -> None:
    assert send(url, images / "b.png", "part")["regions"]
    shows(lambda: page.execute_script("return document.querySelectorAll('#queue .picture polygon').length") >= 1)
    page.execute_script("document.querySelector('#queue .picture').click()")
    shows(lambda: page.execute_script("const i = document.querySelector('#view-picture img'); return i && i.complete"))
    place = """const over = document.querySelector('#view-picture svg'), to = over.getScreenCTM();
    return arguments[0].map(([x, y]) => { const p = new DOMPoint(x, y).matrixTransform(to); return [p.x, p.y] })"""
    (left, top), (right, bottom) = page.execute_script(place, [[3.5, 2.5], [9.5, 7.5]])  # of 30 x 20 pixels
    actions = webdriver.ActionChains(page)
    actions.w3c_actions.pointer_action.move_to_location(round(left), round(top)).pointer_down()
    actions.w3c_actions.pointer_action.move_to_location(round(right), round(bottom)).pointer_up()
    actions.perform()
    shows(lambda: page.execute_script("return document.querySelectorAll('#view-picture rect:not(.new)').length") == 1)
    webdriver.ActionChains(page).send_keys("b").perform()
    shows(lambda: reviews(url)[1] == ("bad", [[3, 2, 7, 6]]))
    shows(lambda: "Undo" in text(page, "view-buttons"))
    webdriver.ActionChains(page).send_keys("u").perform()
    shows(lambda: reviews(url)[1] == (None, []))
    webdriver.ActionChains(page).send_keys("\ue00c").perform()  # escape
    assert not page.execute_script("return document.getElementById('viewer').open")


def test_a_drift_alarm_says_what_drifted_and_goes_when_it_is_acknowledged(page, url, images) -> None:
    levels = """return [...document.querySelectorAll('#drift meter')].filter((one) => one.value >= 1)
    .map((one) => one.parentNode.textContent)"""
    shows(lambda: page.execute_script("return document.querySelectorAll('#drift meter').length") == 7)
    assert (text(page, "alarms"), page.execute_script(levels)) == ("", [])
    for _ in range(20):  # seven statistics share the false-alarm rate, so that an alarm takes 18 of these images
        send(url, images / "b.png", "part")
    shows(lambda: "Brightness is higher than in the calibration" in text(page, "alarms"))
    assert page.execute_script(levels) == ["Brightness"]
    assert "Sharpness" not in text(page, "alarms")
    page.execute_script("document.getElementById('language').click()")
    assert "드리프트 경보" in text(page, "alarms")
    assert "밝기: 보정 때보다 높음" in text(page, "alarms")
    for dark in ("dark", "light"):
        page.execute_cdp_cmd(
            "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": dark}]}
        )
        colour = page.execute_script("return getComputedStyle(document.querySelector('.alarm')).color")
        assert colour == ("rgb(255, 255, 255)" if dark == "dark" else "rgb(0, 0, 0)")
    narrow = {"width": 390, "height": 800, "deviceScaleFactor": 1, "mobile": False}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", narrow)
    assert page.execute_script("return document.documentElement.scrollWidth") <= 390  # less by a scroll bar
    page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    press(page, "alarms", "확인 처리")
    shows(lambda: text(page, "alarms") == "")
    assert page.execute_script(levels) == []
    assert "드리프트 경보를 확인했습니다 (밝기)" in text(page, "notices")
    send(url, images / "b.png", "part")
    shows(lambda: "이미지 21장" in text(page, "counts"))
    assert text(page, "alarms") == ""
