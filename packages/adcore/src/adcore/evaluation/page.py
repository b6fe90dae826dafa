"""The report page of a run, and its pictures as files."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from adcore.data.samples import DatasetReader
from adcore.evaluation.gallery import gallery
from adcore.evaluation.metrics import Metrics
from adcore.evaluation.planes import planes
from adcore.evaluation.report import DomainRow, PredictionRow, ReportData, ReportFigure, write_report
from adcore.evaluation.score import Scoring
from adcore.evaluation.thresholds import Threshold
from adcore.preprocess import Preprocess

SHOWN = 12  # samples
HISTOGRAM, PICTURES = "histogram.png", "visualizations"


@dataclass(frozen=True)
class Pictures:
    """The figures of a run, for the page and as files."""

    figures: list[ReportFigure] = field(default_factory=list)  # the histogram of the scores
    panels: list[ReportFigure] = field(default_factory=list)  # single images
    gallery: list[dict[str, Any]] = field(default_factory=list)  # all images, for the page

    def save(self, folder: Path, part: str) -> None:
        """`histogram.png`, and the panels below `visualizations/PART/`."""
        from adcore.evaluation import plots

        if self.figures:
            plots.save_figure(self.figures[0].figure, folder / HISTOGRAM)
        save_panels(self.panels, folder / PICTURES / part)


def draw(scoring: Scoring, threshold: dict[str, Any] | None, reader: DatasetReader, preprocess: Preprocess) -> Pictures:
    """The figures of the scored images; `threshold` as in result.json."""
    from adcore.evaluation import plots  # imports matplotlib

    if not scoring.images:
        return Pictures()
    value, scores, labels = threshold["value"] if threshold else None, scoring.scores, scoring.labels
    figures = [ReportFigure("Scores", plots.score_histogram(scores, labels, value), "raw image scores")]
    panels = sample_panels(scoring, value, reader, preprocess)
    return Pictures(figures, panels, gallery(scoring, value, preprocess))


def write_page(
    path: Path,
    run: dict[str, Any],
    rows: list[dict[str, Any]],
    pictures: Pictures,
    domains: Sequence[DomainRow] = (),
) -> None:
    """Write report.html for the content of result.json (`run`), its prediction rows and its pictures."""
    threshold = run["threshold"]
    targets = ", ".join(row.name for row in domains if row.role == "target")
    measured = run["val"] if targets else run["test"]  # a run with targets has them as its test images
    write_report(
        path,
        ReportData(
            title=f"{run['model']} on {run['dataset']} {run['category']}{f' → {targets}' if targets else ''}",
            subtitle=_subtitle(run["counts"]),
            metrics=Metrics(measured["values"], measured["reasons"]),
            domains=domains,
            threshold=Threshold(**threshold) if threshold else None,
            timings={key: seconds for key, seconds in run["timings"].items() if seconds is not None},
            predictions=[PredictionRow(r["path"], r["label"], r["score"], r["predicted"]) for r in rows],
            images=pictures.gallery,
            thresholds=run.get("thresholds", ()),
            history=run.get("history", ()),
            defects=() if targets else run["defects"],
            intervals={} if targets else run["intervals"],
            skipped=[(entry["path"], entry["reason"]) for entry in run["skipped"]],
            config={key: run[key] for key in ("config", "plan", "preprocess", "device") if key in run},
            versions=run["versions"],
            notes=run["notes"],
        ),
    )


def save_panels(panels: Sequence[ReportFigure], folder: Path) -> None:
    """Each as a PNG file, whose name begins with its number and says why it was chosen."""
    from adcore.evaluation import plots

    for number, panel in enumerate(panels, start=1):
        plots.save_figure(panel.figure, folder / f"{number:02}_{Path(file_name(panel.title)).stem}.png")


def file_name(text: str) -> str:
    """`text` as a part of a file's name."""
    return re.sub(r"[^\w.-]+", "_", text)[:80]  # file systems take 255 bytes


def sample_panels(
    scoring: Scoring, threshold: float | None, reader: DatasetReader, preprocess: Preprocess, limit: int = SHOWN
) -> list[ReportFigure]:
    """Panels of the most informative samples, preprocessed but not normalised."""
    from adcore.evaluation import plots

    view = replace(preprocess, mean=None, std=None)
    maps = planes([image for image in scoring.images if image.anomaly_map is not None], "anomaly_map")
    colours = plots.shared_range(maps) if maps else None
    panels = []
    for index, why in plots.pick_samples(scoring.scores, scoring.labels, threshold, limit):
        image = scoring.images[index]
        photo = view.of(image.roi)(reader.image(image.sample))
        figure = plots.sample_panel(photo, image.anomaly_map, image.mask, colours)
        name = f"{image.sample.defect}/{image.sample.image_path.name}"
        panels.append(ReportFigure(f"{why}: {name}", figure, f"score {image.score:.4g}", kind="jpeg"))
    return panels


def _subtitle(counts: dict[str, dict[str, int]]) -> str:
    parts = []
    for split, by_label in counts.items():
        anomalous = f" and {by_label['anomalous']} anomalous" if by_label["anomalous"] else ""
        parts.append(f"{split}: {by_label['normal']} normal{anomalous}")
    return ", ".join(parts)
