"""Plots and the report: what a reader sees, that the page needs nothing else, and that it trusts no file name."""

import base64
import io
import re
import subprocess
import sys
from html.parser import HTMLParser

import numpy as np
import pytest
from adcore.evaluation import plots
from adcore.evaluation.metrics import Metrics, image_metrics
from adcore.evaluation.report import (
    MAX_ROWS,
    MEANINGS,
    DomainRow,
    PredictionRow,
    ReportData,
    ReportFigure,
    write_report,
)
from adcore.evaluation.thresholds import choose_threshold
from PIL import Image

SCORES = [0.1, 0.2, 0.3, 0.9, 0.25, 0.8, 1.0, 1.2]  # index 3 a false alarm, index 4 missed
LABELS = [0, 0, 0, 0, 1, 1, 1, 1]
THRESHOLD = 0.5
EVIL = '<script>alert("x")</script>&\'.png'


class Page(HTMLParser):
    """The page's tags, visible text, and everything that a browser would fetch."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.links, self.words, self.skip = [], [], [], False
        self.feed(html)
        self.text = re.sub(r"\s+", " ", " ".join(self.words))
        self.links += re.findall(r"url\(([^)]*)\)|@import\s+(\S+)", html)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.skip = tag == "style"
        self.links += [value for name, value in attrs if name in ("src", "href", "srcset", "action", "data")]
        assert not any(name.startswith("on") for name, _ in attrs)

    def handle_endtag(self, tag):
        self.skip = False

    def handle_data(self, data):
        if not self.skip:
            self.words.append(data)


def full_report(**changes):
    metrics = image_metrics(SCORES, LABELS, THRESHOLD) | Metrics.undefined(("pixel_auroc", "aupro"), "no mask at all")
    image = np.random.default_rng(0).random((3, 40, 30), np.float32)
    values = {
        "title": "patchcore on mvtec hazelnut",
        "subtitle": "28 training images",
        "metrics": metrics,
        "threshold": choose_threshold("f1_grid", SCORES, LABELS, "test"),
        "timings": {"fit_seconds": 11.8, "ms_per_image": 48.25},
        "predictions": [
            PredictionRow(f"test/{i}.png", y, s, int(s >= THRESHOLD))
            for i, (s, y) in enumerate(zip(SCORES, LABELS, strict=True))
        ],
        "figures": [ReportFigure("Scores", plots.score_histogram(SCORES, LABELS, THRESHOLD))],
        "panels": [ReportFigure("missed", plots.sample_panel(image, image[0], image[0] > 0.9), "4.png", "jpeg")],
        "skipped": [("test/broken.jpg", "truncated")],
        "config": {"coreset_ratio": 0.1, "plan": {"epochs": 7, "layers": ["layer2", "layer3"]}},
        "versions": {"torch": "2.14.1"},
        "notes": ["Weights are random."],
    }
    return ReportData(**{**values, **changes})


def page(tmp_path, **changes):
    return Page(write_report(tmp_path / "report.html", full_report(**changes)).read_text(encoding="utf-8"))


def test_page_needs_no_script_and_nothing_from_outside(tmp_path):
    shown = page(tmp_path)
    assert "script" not in shown.tags
    assert "link" not in shown.tags
    assert len(shown.links) == 2  # the two figures
    assert all(link.startswith("data:image/") for link in shown.links)


def test_figures_in_the_page_are_whole_images(tmp_path):
    histogram, panel = page(tmp_path).links
    assert histogram.startswith("data:image/svg+xml;base64,")
    assert base64.b64decode(histogram.partition(",")[2]).rstrip().endswith(b"</svg>")
    picture = Image.open(io.BytesIO(base64.b64decode(panel.partition(",")[2])))
    picture.load()
    assert picture.format == "JPEG"


def test_reader_finds_every_result(tmp_path):
    text = page(tmp_path).text
    for expected in (
        "patchcore on mvtec hazelnut",
        "28 training images",
        "Weights are random.",
        "11.8 s",
        "48.2 ms",
        "3 of 4 anomalous images found",
        "1 missed",
        "1 of 4 normal images gave a false alarm",
        "test/broken.jpg truncated",
        "coreset_ratio 0.1",
        "plan.epochs 7",
        "torch 2.14.1",
    ):
        assert expected in text, expected
    assert f"Image AUROC {image_metrics(SCORES, LABELS)['image_auroc']:.3f}" in text


def test_undefined_metric_is_shown_with_its_reason_never_as_zero(tmp_path):
    text = page(tmp_path).text
    assert "Pixel AUROC n/a no mask at all" in text  # headline
    assert text.count("AUPRO n/a no mask at all") == 2  # headline and table


def test_threshold_from_the_test_set_is_said(tmp_path):
    assert "Chosen on the test set" in page(tmp_path).text
    from_val = page(tmp_path, threshold=choose_threshold("youden", SCORES, LABELS, "val")).text
    assert "chosen on the val images" in from_val
    assert "test set" not in from_val


def test_wrong_decisions_are_listed_missed_ones_first(tmp_path):
    text = page(tmp_path).text
    assert "Wrong decisions (2 of 8 images)" in text
    assert "test/4.png missed 0.25 test/3.png false alarm 0.9" in text
    right = [PredictionRow("a.png", 0, 0.1, 0)]
    assert "None: every image was decided rightly" in page(tmp_path, predictions=right).text


def test_long_list_of_wrong_decisions_is_cut_and_says_so(tmp_path):
    text = page(tmp_path, predictions=[PredictionRow(f"{i}.png", 1, 0.1, 0) for i in range(MAX_ROWS + 30)]).text
    assert text.count("missed 0.1") == MAX_ROWS
    assert "and 30 more" in text


def test_hostile_names_stay_text(tmp_path):
    shown = page(
        tmp_path,
        title=EVIL,
        subtitle=EVIL,
        notes=[EVIL],
        predictions=[PredictionRow(EVIL, 1, 0.1, 0)],
        skipped=[(EVIL, EVIL)],
        config={EVIL: EVIL},
        versions={EVIL: EVIL},
        metrics=Metrics({"image_auroc": None, EVIL: None}, {"image_auroc": EVIL, EVIL: EVIL}),
        panels=[ReportFigure(EVIL, plots.roc_plot(SCORES, LABELS), EVIL)],
    )
    assert "script" not in shown.tags
    assert shown.text.count(EVIL) >= 13  # each place shows the name as it is


def test_run_with_nothing_to_show_still_gives_a_page(tmp_path):
    path = write_report(tmp_path / "report.html", ReportData("empty", image_metrics([], [])))
    text = Page(path.read_text(encoding="utf-8")).text
    assert "No threshold was chosen" in text
    assert "Image AUROC n/a" in text
    assert "Decisions" not in text


def test_defect_types_and_intervals_are_shown(tmp_path):
    row = {"defect": "crack", "images": 3, "image_auroc": 0.91234, "aupro": None, "recall": 0.5}
    text = page(tmp_path, defects=[row], intervals={"image_auroc": (0.8, 0.975)}).text
    assert "crack 3 0.9123 n/a 0.5000" in text
    assert "0.8000–0.9750" in text
    assert "Each type against all normal images" in text


def test_every_metric_has_a_name_and_a_meaning():
    from adcore.evaluation.pixel import PIXEL_METRICS
    from adcore.evaluation.segmentation import SEGMENTATION_METRICS

    computed = {*image_metrics(SCORES, LABELS, THRESHOLD).values, *PIXEL_METRICS, *SEGMENTATION_METRICS}
    computed -= {"confusion_matrix"}
    assert computed == set(MEANINGS)


def test_failure_leaves_the_old_report_and_no_other_file(tmp_path):
    path = write_report(tmp_path / "report.html", full_report())
    before = path.read_bytes()
    with pytest.raises(AttributeError):
        write_report(path, full_report(panels=[ReportFigure("broken", None)]))
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]


def test_histogram_counts_every_image_once():
    axes = plots.score_histogram(SCORES, LABELS, THRESHOLD).axes[0]
    normal, anomalous = axes.patches
    for patch, count in ((normal, 4), (anomalous, 4)):
        heights = patch.get_path().vertices
        steps = np.unique(heights[:, 0])
        width = np.diff(steps).min()
        x, y = heights[:, 0], heights[:, 1]
        area = abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))) / 2
        assert area / width == pytest.approx(count)
    assert axes.lines[0].get_xdata()[0] == THRESHOLD


def test_roc_marks_the_threshold_and_says_when_it_is_undefined():
    axes = plots.roc_plot(SCORES, LABELS, THRESHOLD).axes[0]
    (point,) = (line for line in axes.lines if line.get_label() == "at the threshold")
    assert (point.get_xdata()[0], point.get_ydata()[0]) == (1 / 4, 3 / 4)
    (text,) = plots.roc_plot([0.1, 0.2], [0, 0], 0.5).axes[0].texts
    assert "no anomalous image" in text.get_text()


@pytest.mark.parametrize("scores", [[], [0.5], [0.5, 0.5]])
def test_plots_of_hardly_any_images(tmp_path, scores):
    plots.save_figure(plots.score_histogram(scores, [0] * len(scores)), tmp_path / "histogram.png")
    plots.save_figure(plots.roc_plot(scores, [0] * len(scores)), tmp_path / "roc.png")
    assert Image.open(tmp_path / "roc.png").size[0] > 300


def test_panel_draws_maps_on_the_shared_scale_over_the_whole_image():
    image = np.full((3, 60, 40), 0.5, np.float32)
    calm, defect = np.zeros((15, 10), np.float32), np.zeros((15, 10), np.float32)
    calm[3, 3], defect[7, 5] = 0.2, 10.0
    colours = plots.shared_range([calm, defect])
    assert colours == (0.0, 10.0)

    def overlay(map_, value_range):
        return column(plots.sample_panel(image, map_, None, value_range), 1)

    gray = round(0.5 * 0.75 * 255)
    assert np.abs(overlay(calm, colours).astype(int) - gray).max() < 0.1 * 255  # a calm map does not glow
    assert np.abs(overlay(defect, colours).astype(int) - gray).max() > 0.4 * 255
    assert np.abs(overlay(calm, None).astype(int) - gray).max() > 0.4 * 255  # without a shared scale it would
    glow = overlay(defect, colours)[..., 0].astype(int) - gray
    row, at = np.unravel_index(glow.argmax(), glow.shape)
    assert (row / glow.shape[0], at / glow.shape[1]) == pytest.approx((7.5 / 15, 5.5 / 10), abs=0.03)


def column(panel: Image.Image, number: int) -> np.ndarray:
    """The picture in a panel's column, (h, w, 3)."""
    left = plots.GAP + number * (plots.COLUMN + plots.GAP)
    return np.asarray(panel)[plots.TITLE : -plots.GAP, left : left + plots.COLUMN]


def test_mask_outline_lies_on_the_defect():
    mask = np.zeros((60, 40), bool)
    mask[5:15, 25:35] = True
    panel = plots.sample_panel(np.zeros((3, 60, 40), np.float32), np.zeros((60, 40), np.float32), mask)
    drawn, scale = column(panel, 1).any(2), plots.COLUMN / 40
    rows, columns = np.nonzero(drawn)
    assert (rows.min() / scale, columns.min() / scale) == pytest.approx((5, 25), abs=0.5)
    assert (rows.max() / scale, columns.max() / scale) == pytest.approx((15, 35), abs=0.5)
    inside = np.s_[round(6 * scale) : round(14 * scale), round(26 * scale) : round(34 * scale)]
    assert not drawn[inside].any()
    assert column(panel, 2)[inside].min() == 255


def test_panel_shows_values_beyond_one_and_says_what_is_not_known():
    image = np.linspace(-3, 7, 3 * 20 * 20, dtype=np.float32).reshape(3, 20, 20)
    panel = plots.sample_panel(image, None, None)
    shown = column(panel, 0)
    assert (shown.min(), shown.max()) == (0, 255)
    words = [column(panel, number) for number in (1, 2)]
    assert all(0.8 < (one == 255).mean() < 1 for one in words)  # a few words on white
    assert (words[0] != words[1]).any()


def test_picks_mistakes_first_and_each_sample_once():
    picked = plots.pick_samples(SCORES, LABELS, THRESHOLD, limit=4)
    assert picked[:2] == [(4, "missed"), (3, "false alarm")]
    assert [why for _, why in picked[2:]] == ["least certain", "most anomalous"]
    assert picked[3][0] == 7
    everything = plots.pick_samples(SCORES, LABELS, THRESHOLD, limit=100)
    assert sorted(i for i, _ in everything) == list(range(8))
    assert plots.pick_samples(SCORES, LABELS, None, limit=2) == [(7, "most anomalous"), (6, "most anomalous")]
    assert plots.pick_samples([], [], THRESHOLD) == []


def test_plotting_touches_neither_pyplot_nor_the_backend():
    code = (
        "import sys; from adcore.evaluation import plots;"
        "plots.figure_data_uri(plots.roc_plot([0.1, 0.9], [0, 1], 0.5));"
        "print('matplotlib.pyplot' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def test_a_run_over_domains_shows_a_row_for_each_and_how_well_it_transfers(tmp_path):
    domains = [
        DomainRow("domain_A", "source", {"image_auroc": 0.9, "recall": 1.0}),
        DomainRow(EVIL, "target", {"image_auroc": 0.75, "recall": None}, {"recall": "no anomalous image"}),
        DomainRow("domain_C", "target", {"image_auroc": 0.6, "recall": 0.1234}),
    ]
    text = page(tmp_path, domains=domains).text
    assert "Image AUROC, source 0.900 Image AUROC, targets 0.675 Transfer ratio 0.750" in text
    assert f"{EVIL} target 0.7500" in text
    assert re.search(r"domain_C target 0\.6000 .*0\.1234", text)
    assert "Domains" not in page(tmp_path).text
