"""thresholds.txt: what each way to choose a threshold gives for one set of scored images, to read and to search."""

from __future__ import annotations

from typing import Any

from adcore.errors import DataError
from adcore.evaluation.metrics import image_metrics
from adcore.evaluation.score import Scoring
from adcore.evaluation.thresholds import THRESHOLDS, choose_threshold

TITLES = {
    "f1_percentile": "F1 over percentiles of the scores",
    "f1_grid": "F1 over a uniform grid",
    "youden": "Youden's J on the ROC",
    "normal_p95": "95th percentile of normal scores",
}
SPLITS = {"val": "validation", "test": "test"}


def threshold_text(shown: Scoring, split: str, chosen_on: Scoring, source: str, used: dict[str, Any] | None) -> str:
    """The text: thresholds chosen on the images `chosen_on` of split `source`, measured on those of `shown`, of `split`.

    `used` is the run's own threshold, as in result.json.
    """
    scores, labels = shown.scores, shown.labels
    general, anomalous = image_metrics(scores, labels), int(labels.sum())
    lines = [
        f"Images: {len(labels) - anomalous} normal, {anomalous} anomalous ({SPLITS[split]})",
        f"Image AUROC: {_number(general.values['image_auroc'])}",
        f"Image AUPR: {_number(general.values['image_aupr'])}",
    ]
    if used:
        lines += [
            "",
            f"Threshold of this model: {used['value']:.6g} ({used['method']}, chosen on {used['source']} images)",
        ]
        lines += _at(used["value"], shown)
    lines += ["", f"Each way to choose one, on {SPLITS[source]} images:"]
    for method in THRESHOLDS:
        title = f"{TITLES[method]} ({method})"
        try:
            chosen = choose_threshold(method, chosen_on.scores, chosen_on.labels, source)
        except DataError as error:
            lines += ["", f"{title}: none, {error}"]
            continue
        other = "" if chosen.method == method else ", as there is no anomalous image to choose on"
        lines += ["", f"{title}: {chosen.value:.6g}{other}", *_at(chosen.value, shown)]
    return "\n".join(lines) + "\n"


def _at(value: float, shown: Scoring) -> list[str]:
    """The measures of the decisions at a threshold."""
    values = image_metrics(shown.scores, shown.labels, value).values
    confusion = values["confusion_matrix"] or {}
    tn, fp, fn, tp = (confusion.get(key, 0) for key in ("tn", "fp", "fn", "tp"))
    specificity = tn / (tn + fp) if tn + fp else None
    return [
        f"  F1 {_number(values['f1'])}  precision {_number(values['precision'])}  accuracy {_number(values['accuracy'])}",
        f"  sensitivity (recall) {_number(values['recall'])}  specificity {_number(specificity)}",
        f"  confusion matrix: normal {tn} right, {fp} flagged; anomalous {tp} found, {fn} missed",
    ]


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.4f}"
