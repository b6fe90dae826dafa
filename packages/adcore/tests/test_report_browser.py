"""The report in a real browser: what a person does with it. Skipped where there is no Chromium with its driver."""

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from adcore.data.samples import Sample
from adcore.evaluation.gallery import gallery
from adcore.evaluation.metrics import image_metrics
from adcore.evaluation.report import ReportData, write_report
from adcore.evaluation.score import ScoredImage, Scoring
from adcore.evaluation.thresholds import choose_threshold
from adcore.experiments.comparison import write_comparison
from adcore.preprocess import Preprocess
from browser import ABSENT, BROWSER, DRIVER, errors, start
from PIL import Image

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
pytestmark = pytest.mark.skipif(not (BROWSER and DRIVER), reason=ABSENT)

HOSTILE = [
    '<script>document.title="ran"</script>',
    '"><img src=x onerror=document.title="ran">',
    "new\nline 'quoted'",
    "=cmd()",
]
COUNT = 60


def pictured(number: int) -> ScoredImage:
    label = int(number % 3 == 0)
    defect = f"{HOSTILE[number % len(HOSTILE)]} {number % 2}" if label else "good"
    jpeg = io.BytesIO()
    Image.new("RGB", (32, 32), (number * 4, 90, 120)).save(jpeg, "JPEG")
    mask = np.zeros((32, 32), bool)
    mask[8:16, 8:16] = label
    score = float(np.float32(np.sin(number) + 1.5 * label))
    path = f"{HOSTILE[number % len(HOSTILE)]}_{number:03}.png".replace("/", "_")
    sample = Sample(Path("test") / path, "test", label, "part", defect)
    return ScoredImage(sample, score, mask + np.float32(0.1), mask, size=(64, 128), preview=jpeg.getvalue())


@pytest.fixture(scope="module")
def scoring():
    return Scoring([pictured(number) for number in range(COUNT)])


@pytest.fixture(scope="module")
def threshold(scoring):
    return choose_threshold("youden", scoring.scores, scoring.labels, "test")


@pytest.fixture(scope="module")
def report(scoring, threshold, tmp_path_factory):
    rows = gallery(scoring, threshold.value, Preprocess((32, 32)))
    marks = [{"method": "youden", "value": threshold.value, "used": True}]
    marks.append({"method": "normal_p95", "value": float(np.median(scoring.scores)), "used": False})
    metrics = image_metrics(scoring.scores, scoring.labels, threshold.value)
    data = ReportData(HOSTILE[0], metrics, HOSTILE[1], threshold, images=rows, thresholds=marks)
    data.history, data.config, data.notes = [{"loss": 2.0}, {"loss": 1.0}], {HOSTILE[0]: HOSTILE[1]}, HOSTILE
    return write_report(tmp_path_factory.mktemp("report") / "report.html", data)


@pytest.fixture(scope="module")
def browser():
    driver = start(webdriver)
    yield driver
    driver.quit()


@pytest.fixture
def page(browser, report):
    browser.get(report.as_uri())
    browser.execute_script("localStorage.clear()")
    browser.get(report.as_uri())
    yield browser
    assert errors(browser) == []
    assert browser.title == HOSTILE[0]  # no script of a name has run


def text(page, name: str) -> str:
    return page.execute_script("return document.getElementById(arguments[0]).textContent", name)


def choose(page, name: str, value) -> None:
    """As if a person had set a control."""
    code = "const c = document.getElementById(arguments[0]); c.value = arguments[1];"
    code += "for (const name of ['input', 'change']) c.dispatchEvent(new Event(name))"
    page.execute_script(code, name, str(value))


def keys(page, key: str) -> None:
    webdriver.ActionChains(page).send_keys(key).perform()


@pytest.mark.parametrize("quantile", [0.0, 0.2, 0.55, 0.9])
def test_counts_follow_the_threshold_as_python_computes_them(page, scoring, quantile):
    value = float(np.quantile(scoring.scores.astype(np.float64), quantile))
    choose(page, "exact", value)
    expected = image_metrics(scoring.scores, scoring.labels, value)
    confusion = expected["confusion_matrix"]
    assert {key: int(text(page, f"n-{key}")) for key in ("tp", "fp", "fn", "tn")} == confusion
    assert float(text(page, "precision")) == pytest.approx(expected["precision"], abs=1e-3)
    assert float(text(page, "recall")) == pytest.approx(expected["recall"], abs=1e-3)
    choose(page, "show", "missed")
    assert text(page, "count").startswith(f"{confusion['fn']} of {COUNT}")


def test_slider_and_marks_move_verdicts_and_the_command(page, scoring, threshold):
    command = "return document.getElementById('command').value"
    assert f"--value {threshold.value} --out" in page.execute_script(command)
    choose(page, "slider", float(scoring.scores.max()) + 1)
    assert text(page, "n-tp") == text(page, "n-fp") == "0"
    page.execute_script("document.querySelectorAll('#marks button')[1].click()")
    at_median = image_metrics(scoring.scores, scoring.labels, float(np.median(scoring.scores)))["confusion_matrix"]
    assert int(text(page, "n-fp")) == at_median["fp"]
    verdicts = page.execute_script("return [...document.querySelectorAll('.tile')].map((one) => one.dataset.verdict)")
    assert set(verdicts) <= {"found", "missed", "alarm", "passed"}
    assert len(verdicts) == 48


def test_filters_search_and_pages(page, scoring):
    choose(page, "search", "_007.PNG")
    assert text(page, "count").startswith("1 of")
    choose(page, "search", "")
    choose(page, "from", 1.0)
    assert text(page, "count").startswith(f"{int((scoring.scores >= 1).sum())} of")
    choose(page, "from", "")
    page.execute_script("document.getElementById('next').click()")
    assert page.execute_script("return document.querySelectorAll('.tile').length") == COUNT - 48
    choose(page, "defect", 0)
    label = "return [...document.querySelectorAll('#defect option')].map((one) => one.textContent)"
    assert HOSTILE[2] + " 0" in page.execute_script(label)  # a name stays text


def test_keyboard_opens_turns_and_closes(page):
    keys(page, "/")
    assert page.switch_to.active_element.get_attribute("id") == "search"
    page.execute_script("document.querySelector('.tile').focus()")
    keys(page, "\ue014")  # right
    titles = page.execute_script("return [...document.querySelectorAll('.tile')].map((one) => one.title)")
    assert page.switch_to.active_element.get_property("title") == titles[1]
    keys(page, "\ue007")  # enter
    wait = "const done = arguments[0]; const ask = () => (viewer.open ? done(true) : setTimeout(ask, 20)); ask()"
    assert page.execute_async_script(wait)
    assert text(page, "view-title") == titles[1]
    keys(page, "\ue00c")  # escape
    assert not page.execute_script("return viewer.open")


def test_pointer_says_the_pixel_of_the_original_image(page):
    page.execute_script("openViewer(0)")
    page.execute_async_script("const d = arguments[0]; const a = () => (viewer.open ? d() : setTimeout(a, 20)); a()")
    canvas = page.execute_script("return document.getElementById('view-photo')")
    webdriver.ActionChains(page).move_to_element(canvas).perform()
    x, y = (int(part.split()[1]) for part in text(page, "pixel").split(","))
    assert abs(x - 64) <= 2  # the middle of 128 x 64 pixels
    assert abs(y - 32) <= 2


def test_language_and_colours_can_be_switched_and_stay(page, report):
    background = "return getComputedStyle(document.body).backgroundColor"
    before = page.execute_script(background)
    page.execute_script("document.getElementById('theme').click(); document.getElementById('language').click()")
    for _ in range(2):
        assert page.execute_script(background) != before
        assert page.execute_script("return document.documentElement.lang") == "ko"
        assert "전체 테스트 이미지" in text(page, "gallery")
        page.get(report.as_uri())


def test_comparison_shows_the_same_images_of_two_models_and_sorts(browser, report, scoring, tmp_path):
    for place, model in enumerate(["high", HOSTILE[1]]):
        folder = tmp_path / f"run{place}"
        folder.mkdir()
        record = {"model": model, "dataset": "mvtec", "category": HOSTILE[0], "preprocess": {}}
        record["plan"] = {"seed": 0, "batch_size": 1}
        record |= {"config": {}, "test": {"values": {"image_auroc": 0.9 - place / 10}, "reasons": {}}}
        record |= {"timings": {"fit_seconds": 2.0 + place, "ms_per_image": 5.0}, "peak_memory_mb": {"process": 1.0}}
        (folder / "result.json").write_text(json.dumps(record))
        shutil.copy(report, folder / "report.html")
    write_comparison([tmp_path], tmp_path / "comparison.html")
    browser.get((tmp_path / "comparison.html").as_uri())
    methods = "return [...document.querySelectorAll('#leaders tr td:nth-child(2)')].map((one) => one.textContent)"
    assert browser.execute_script(methods) == ["high", HOSTILE[1]]
    browser.execute_script("document.querySelectorAll('#leaders button')[6].click()")  # seconds, the longest first
    assert browser.execute_script(methods) == [HOSTILE[1], "high"]
    assert browser.execute_script("return document.querySelectorAll('#sides canvas').length") == 8 * 3
    heads = "return [...document.querySelectorAll('#sides tr:first-child th')].map((one) => one.textContent)"
    assert browser.execute_script(heads)[1:] == [HOSTILE[1], "high"]
    width = "document.querySelector('#sides canvas').width"
    wait = f"const d = arguments[0], a = () => ({width} === 32 ? d(true) : setTimeout(a, 20)); a()"
    assert browser.execute_async_script(wait), "the photograph is drawn"
    assert errors(browser) == []
    assert browser.title == "Comparison: image_auroc"
