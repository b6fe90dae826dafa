"""The report of a run: one self-contained HTML file, readable offline, on a phone and in print."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adcore.evaluation.compare import transfer
from adcore.evaluation.metrics import Metrics
from adcore.evaluation.thresholds import Threshold
from adcore.evaluation.web_page import number, render, texts
from adcore.files import write_text
from adcore.registry import list_metrics

if TYPE_CHECKING:  # keeps matplotlib out of imports
    from matplotlib.figure import Figure
    from PIL.Image import Image

MAX_ROWS = 200  # of a list of images; predictions.csv has them all

SCRIPTS = ("page.js", "charts.js", "decisions.js", "pictures.js", "gallery.js", "viewer.js", "start.js")  # in order

TITLES = {
    "image_auroc": "Image AUROC",
    "image_aupr": "Image AUPR",
    "image_f1_max": "Image F1-max",
    "tpr_at_fpr_1": "TPR at 1 % FPR",
    "tpr_at_fpr_5": "TPR at 5 % FPR",
    "precision": "Precision",
    "recall": "Recall",
    "accuracy": "Accuracy",
    "f1": "F1",
    "pixel_auroc": "Pixel AUROC",
    "pixel_aupr": "Pixel AUPR",
    "pixel_f1_max": "Pixel F1-max",
    "aupro": "AUPRO",
    "aupro_5": "AUPRO at 5 % FPR",
    "seg_f1": "SegF1",
}
MEANINGS = {name: (title, texts()[f"meaning.{name}"]["en"]) for name, title in TITLES.items()}
HEADLINE = ("image_auroc", "pixel_auroc", "aupro")
COLUMNS = ("image_auroc", "image_aupr", "image_f1_max", "tpr_at_fpr_1", "tpr_at_fpr_5", "precision", "recall", "f1")
BY_DEFECT = ("image_auroc", "aupro", "recall")
TRANSFER = (  # of a run with targets, instead of the headline
    ("Image AUROC, source", "on the domain that the model was trained on", "source"),
    ("Image AUROC, targets", "mean of the domains that the model never saw", "target_mean"),
    ("Transfer ratio", "targets' mean / source", "ratio"),
)


@dataclass(frozen=True)
class PredictionRow:
    """One image of the test set; `predicted` is None where there is no threshold."""

    path: str
    label: int  # 0 normal, 1 anomalous
    score: float  # raw
    predicted: int | None


@dataclass(frozen=True)
class ReportFigure:
    """A figure with its title and caption; `kind` as in `plots.figure_data_uri`."""

    title: str
    figure: Figure | Image
    caption: str = ""
    kind: str = "svg"


@dataclass(frozen=True)
class DomainRow:
    """The image metrics of one domain; None where one is undefined, with the reason."""

    name: str
    role: str  # "source" and "target"; or "together" and "part", of a model over all domains
    values: Mapping[str, float | None]
    reasons: Mapping[str, str] = field(default_factory=dict)


@dataclass
class ReportData:
    """Everything a report shows; empty parts are left out."""

    title: str  # model, dataset, category
    metrics: Metrics
    subtitle: str = ""
    threshold: Threshold | None = None
    timings: Mapping[str, float] = field(default_factory=dict)  # "fit_seconds", "ms_per_image"
    domains: Sequence[DomainRow] = ()  # of a run over domains, the source first; metrics and figures are the source's
    predictions: Sequence[PredictionRow] = ()
    figures: Sequence[ReportFigure] = ()  # histogram, ROC
    panels: Sequence[ReportFigure] = ()  # image | map | mask of single samples
    images: Sequence[Mapping[str, Any]] = ()  # as `gallery.gallery` makes them; the page is then one to work with
    thresholds: Sequence[Mapping[str, Any]] = ()  # method, value or None, used: the marks beside the threshold
    history: Sequence[Mapping[str, float | None]] = ()  # losses of each epoch, values of each validation
    defects: Sequence[Mapping[str, Any]] = ()  # rows of `evaluate.defect_rows`
    intervals: Mapping[str, tuple[float, float] | None] = field(default_factory=dict)  # of metrics, 95 %
    skipped: Sequence[tuple[str, str]] = ()  # (path, reason)
    config: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()  # important for reading the results: random weights, a smaller batch, ...


def write_report(path: str | Path, report: ReportData) -> Path:
    """Write the report as one html file and return its path.

    Images are data URIs, there is no external resource, and every text is escaped: file names are not trusted. Scripts are
    there where `report.images` are, and no others can run. The file gets its name only when it is complete.
    """
    write_text(path, render_report(report))
    return Path(path)


def in_words(values: Mapping[str, Any]) -> str:
    """Metrics in one line of a log, by the names of the report: `Image AUROC 0.9712, Image AUPR 0.9655, ...`."""
    known = {key: value for key, value in values.items() if isinstance(value, int | float)}
    return ", ".join(f"{MEANINGS.get(key, (key, ''))[0]} {value:.6g}" for key, value in known.items())


def render_report(report: ReportData) -> str:
    """The report's html text."""
    values, reasons = report.metrics.values, report.metrics.reasons
    wrong = [row for row in report.predictions if row.predicted is not None and row.predicted != row.label]
    wrong.sort(key=lambda row: (-row.label, row.path))  # missed defects first
    meanings = MEANINGS | {card.name: (card.title, card.meaning) for card in list_metrics()}
    data = {
        "images": report.images,
        "threshold": report.threshold.value if report.threshold else None,
        "thresholds": [{key: row[key] for key in ("method", "value", "used")} for row in report.thresholds],
        "history": report.history,
    }
    return render(
        "report.html.j2",
        SCRIPTS if report.images else (),
        data,
        report=report,
        headline=_headline(report),
        by_defect=[(name, *MEANINGS[name]) for name in BY_DEFECT],
        columns=[(name, *MEANINGS[name]) for name in COLUMNS] if report.domains else [],
        metrics=[
            (
                *meanings.get(name, (name, "")),
                _key(name),
                value,
                reasons.get(name, "undefined"),
                report.intervals.get(name),
            )
            for name, value in values.items()
            if not isinstance(value, Mapping)
        ],
        confusion=values.get("confusion_matrix"),
        wrong=wrong,
        max_rows=MAX_ROWS,
        figures=_drawn(report.figures),
        panels=_drawn(report.panels),
        config=nested_rows(report.config),
        timings=[(key, number(value)) for key, value in report.timings.items()],
    )


def _headline(report: ReportData) -> list[tuple[str, str, str, float | None, str]]:
    """(title, meaning, its key, value, reason where there is none): transfer where the run has targets, else metrics."""
    targets = [row.values.get("image_auroc") for row in report.domains if row.role == "target"]
    if targets:
        measured = transfer(report.domains[0].values.get("image_auroc"), targets)
        return [(title, meaning, "", getattr(measured, key), "undefined") for title, meaning, key in TRANSFER]
    values, reasons = report.metrics.values, report.metrics.reasons
    return [(*MEANINGS[name], _key(name), values.get(name), reasons.get(name, "not computed")) for name in HEADLINE]


def _drawn(figures: Sequence[ReportFigure]) -> list[tuple[ReportFigure, str]]:
    if not figures:
        return []
    from adcore.evaluation.plots import figure_data_uri

    return [(figure, figure_data_uri(figure.figure, figure.kind)) for figure in figures]


def nested_rows(config: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Nested settings as rows ("outer.inner", value)."""
    rows: list[tuple[str, Any]] = []
    for key, value in config.items():
        name = f"{prefix}{key}"
        rows += nested_rows(value, f"{name}.") if isinstance(value, Mapping) and value else [(name, value)]
    return rows


def _key(metric: str) -> str:
    """The key of a metric's meaning in the table of texts; empty for a plugin's metric."""
    return f"meaning.{metric}" if metric in TITLES else ""
