"""thresholds.txt, against decisions counted by hand."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from adcore.data.samples import Sample
from adcore.evaluation.score import ScoredImage, Scoring
from adcore.evaluation.threshold_text import TITLES, threshold_rows, threshold_text
from adcore.evaluation.thresholds import THRESHOLDS, choose_threshold


def scoring(normal: list[float], anomalous: list[float]) -> Scoring:
    pairs = [(score, 0) for score in normal] + [(score, 1) for score in anomalous]
    samples = [(score, Sample(Path(f"{i}.png"), "test", label, "part")) for i, (score, label) in enumerate(pairs)]
    return Scoring([ScoredImage(sample, score, None, None) for score, sample in samples])


def text_of(shown: Scoring, split: str, used: dict | None) -> str:
    return threshold_text(shown, split, split, used, threshold_rows(shown, shown, split, used))


NORMAL, ANOMALOUS = [0.1, 0.2, 0.3, 0.4, 0.9], [0.35, 0.6, 0.8, 1.0]


def test_every_method_is_measured_by_counting() -> None:
    shown = scoring(NORMAL, ANOMALOUS)
    used = {"value": 0.5, "method": "f1_grid", "source": "val"}
    text = text_of(shown, "test", used)
    assert text.startswith("Images: 5 normal, 4 anomalous (test)\nImage AUROC: 0.8000\n")  # 16 of 20 pairs are in order
    model, *methods = re.split(r"\n\n(?=\S)", text.partition("\n\n")[2])
    assert "Threshold of this model: 0.5 (f1_grid, chosen on val images)" in model
    blocks = {re.search(r"\((\w+)\):", block)[1]: block for block in methods if "confusion" in block}
    assert set(blocks) == set(THRESHOLDS)
    assert "At most 5 % false alarms (conformal:0.05): none, conformal:0.05 needs 19 normal images" in text
    values = {method: choose_threshold(method, shown.scores, shown.labels).value for method in THRESHOLDS}
    for value, block in ((0.5, model), *((values[method], block) for method, block in blocks.items())):
        flagged, found = (
            sum(score >= value for score in np.float32(NORMAL)),
            sum(score >= value for score in np.float32(ANOMALOUS)),
        )
        assert f"normal {5 - flagged} right, {flagged} flagged; anomalous {found} found, {4 - found} missed" in block
        assert f"sensitivity (recall) {found / 4:.4f}  specificity {(5 - flagged) / 5:.4f}" in block
        assert f"F1 {2 * found / (found + flagged + 4):.4f}" in block
        assert f"accuracy {(5 - flagged + found) / 9:.4f}" in block


def test_what_cannot_be_known_is_said() -> None:
    good = scoring(NORMAL, [])
    text = text_of(good, "val", None)
    assert "Image AUROC: undefined" in text
    assert "Threshold of this model" not in text
    assert text.count("as there is no anomalous image to choose on") == 3
    bad = scoring([], ANOMALOUS)
    assert text_of(bad, "test", None).count(": none, ") == len(TITLES)


def test_rules_for_normal_images_stand_beside_the_others_once_there_are_enough() -> None:
    shown = scoring(np.random.default_rng(0).gamma(2, size=200).tolist(), [9.0, 12.0])
    rows = {row["method"]: row for row in threshold_rows(shown, shown, "test", None)}
    assert rows["conformal:0.05"]["false_alarms"] <= 10 >= rows["conformal:0.01"]["false_alarms"] * 5
    assert rows["conformal:0.05"]["value"] < rows["conformal:0.01"]["value"] < rows["evt:0.001"]["value"]
    equal = threshold_rows(scoring([1.0] * 40, [2.0]), scoring([1.0] * 40, [2.0]), "test", None)
    assert "all equal" in next(row for row in equal if row["method"] == "evt:0.001")["note"]
