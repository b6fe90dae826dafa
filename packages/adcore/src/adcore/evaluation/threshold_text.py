"""What each way to choose a threshold gives for one set of scored images: rows of result.json, and thresholds.txt to read."""

from __future__ import annotations

from typing import Any

from adcore.errors import DataError
from adcore.evaluation.metrics import image_metrics
from adcore.evaluation.score import Scoring
from adcore.evaluation.thresholds import CROSSED, check_method, choose_threshold

TITLES = {
    "f1_percentile": "F1 over percentiles of the scores",
    "f1_grid": "F1 over a uniform grid",
    "youden": "Youden's J on the ROC",
    "normal_p95": "95th percentile of normal scores",
    "conformal:0.05": "At most 5 % false alarms",
    "conformal:0.01": "At most 1 % false alarms",
    "evt:0.001": "0.1 % false alarms by the tail",
}
SPLITS = {"val": "validation", "test": "test", "train": "training", CROSSED: "cross-validated training"}


def threshold_rows(
    shown: Scoring, chosen_on: Scoring, source: str, used: dict[str, Any] | None
) -> list[dict[str, Any]]:
    """One row a method: `method`, `value` (None with a `note` why), `used`, and what it gives on `shown`.

    The first is the run's own (`used`, as in result.json), the others are chosen on the images `chosen_on` of split `source`.
    What it gives: precision, recall, specificity, accuracy, f1 in [0, 1] or None, false_alarms and misses (images).
    """
    rows = [{"method": used["method"], "value": used["value"], "note": "", "used": True}] if used else []
    normal = int((chosen_on.labels == 0).sum())
    for method in TITLES:
        try:
            check_method(method, normal)
            chosen = choose_threshold(method, chosen_on.scores, chosen_on.labels, source, interval=False)
            if chosen.method != method and ":" in method:
                raise DataError(chosen.note)
        except DataError as error:
            rows.append({"method": method, "value": None, "note": str(error), "used": False})
            continue
        other = "" if chosen.method == method else "as there is no anomalous image to choose on"
        rows.append({"method": method, "value": chosen.value, "note": other, "used": False})
    return [row | (decisions_at(row["value"], shown) if row["value"] is not None else {}) for row in rows]


def decisions_at(value: float, shown: Scoring) -> dict[str, Any]:
    """The measures of the decisions at a threshold."""
    values = image_metrics(shown.scores, shown.labels, value).values
    confusion = values["confusion_matrix"] or {}
    tn, fp, fn, tp = (confusion.get(key, 0) for key in ("tn", "fp", "fn", "tp"))
    return {key: values[key] for key in ("precision", "recall", "accuracy", "f1")} | {
        "specificity": tn / (tn + fp) if tn + fp else None,
        "false_alarms": fp,
        "misses": fn,
        "found": tp,
        "passed": tn,
    }


def threshold_text(shown: Scoring, split: str, source: str, used: dict[str, Any] | None, rows: list[dict]) -> str:
    """The text of `threshold_rows`, measured on the images `shown` of `split` and chosen on those of split `source`."""
    scores, labels = shown.scores, shown.labels
    general, anomalous = image_metrics(scores, labels), int(labels.sum())
    lines = [
        f"Images: {len(labels) - anomalous} normal, {anomalous} anomalous ({SPLITS[split]})",
        f"Image AUROC: {_number(general.values['image_auroc'])}",
        f"Image AUPR: {_number(general.values['image_aupr'])}",
    ]
    for row in rows:
        if row["used"]:
            chosen = f"{row['method']}, chosen on {used['source']} images" if used["source"] else row["method"]
            lines += ["", f"Threshold of this model: {row['value']:.6g} ({chosen})", *_lines(row)]
            break
    lines += ["", f"Each way to choose one, on {SPLITS[source]} images:"]
    for row in rows:
        if row["used"]:
            continue
        title = f"{TITLES[row['method']]} ({row['method']})"
        if row["value"] is None:
            lines += ["", f"{title}: none, {row['note']}"]
            continue
        lines += ["", f"{title}: {row['value']:.6g}{', ' * bool(row['note'])}{row['note']}", *_lines(row)]
    return "\n".join(lines) + "\n"


def _lines(row: dict[str, Any]) -> list[str]:
    return [
        f"  F1 {_number(row['f1'])}  precision {_number(row['precision'])}  accuracy {_number(row['accuracy'])}",
        f"  sensitivity (recall) {_number(row['recall'])}  specificity {_number(row['specificity'])}",
        f"  confusion matrix: normal {row['passed']} right, {row['false_alarms']} flagged; "
        f"anomalous {row['found']} found, {row['misses']} missed",
    ]


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.4f}"
