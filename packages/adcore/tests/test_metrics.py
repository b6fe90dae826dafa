"""Image metrics: hand-made cases, a count by loop, and what is said where a metric is undefined."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from adcore.errors import DataError
from adcore.evaluation.metrics import Metrics, image_metrics, is_anomalous
from hypothesis import given
from hypothesis import strategies as st

SCORES = [0.1, 0.2, 0.3, 0.4, 0.35, 0.8, 0.9, 1.0]
LABELS = [0, 0, 0, 0, 1, 1, 1, 1]


def test_values_of_a_case_computed_by_hand():
    metrics = image_metrics(SCORES, LABELS, threshold=0.35)
    # 15 of the 16 (normal, anomalous) pairs are in the right order: 0.35 stands below 0.4
    assert metrics["image_auroc"] == pytest.approx(15 / 16)
    assert metrics["image_aupr"] == pytest.approx((1 + 1 + 1 + 4 / 5) / 4)
    assert metrics["image_f1_max"] == pytest.approx(2 * 4 / (2 * 4 + 1))
    assert metrics["tpr_at_fpr_1"] == metrics["tpr_at_fpr_5"] == 3 / 4
    assert metrics["confusion_matrix"] == {"tn": 3, "fp": 1, "fn": 0, "tp": 4}  # 0.35 itself is anomalous
    assert metrics["precision"] == pytest.approx(4 / 5)
    assert metrics["recall"] == 1.0
    assert metrics["accuracy"] == pytest.approx(7 / 8)
    assert metrics["f1"] == pytest.approx(8 / 9)
    assert metrics.reasons == {}


def test_tpr_at_fpr_counts_only_thresholds_that_keep_the_limit():
    normal = np.arange(100)
    anomalous = [200.0, 98.5, 97.5, 94.5, 50.0]  # false positives at these: 0, 1, 2, 5, 50
    metrics = image_metrics([*normal, *anomalous], [0] * 100 + [1] * 5)
    assert metrics["tpr_at_fpr_1"] == pytest.approx(2 / 5)
    assert metrics["tpr_at_fpr_5"] == pytest.approx(4 / 5)


@given(st.lists(st.tuples(st.integers(-5, 5), st.booleans()), min_size=2).filter(lambda s: len({y for _, y in s}) == 2))
def test_auroc_aupr_and_f1_equal_a_count_by_loop(samples):
    scores, labels = zip(*samples, strict=True)
    metrics = image_metrics(scores, labels)
    normal, anomalous = [s for s, y in samples if not y], [s for s, y in samples if y]
    wins = sum((a > n) + (a == n) / 2 for a in anomalous for n in normal)
    assert metrics["image_auroc"] == pytest.approx(wins / len(normal) / len(anomalous))
    best_f1, aupr, found = 0.0, 0.0, 0
    for t in sorted(set(scores), reverse=True):
        tp, fp = sum(a >= t for a in anomalous), sum(n >= t for n in normal)
        best_f1 = max(best_f1, 2 * tp / (tp + fp + len(anomalous)))
        aupr += (tp - found) / len(anomalous) * tp / (tp + fp)
        found = tp
    assert metrics["image_f1_max"] == pytest.approx(best_f1)
    assert metrics["image_aupr"] == pytest.approx(aupr)


def test_tensors_with_gradient_and_numpy_arrays_and_lists_are_equal():
    from_lists = image_metrics(SCORES, LABELS, 0.5).to_dict()
    assert image_metrics(np.array(SCORES), np.array(LABELS, bool), 0.5).to_dict() == from_lists
    scores = torch.tensor(SCORES, dtype=torch.float64, requires_grad=True).float().bfloat16()
    assert (
        image_metrics(scores, torch.tensor(LABELS), 0.5)["confusion_matrix"] == from_lists["values"]["confusion_matrix"]
    )


@pytest.mark.parametrize(
    ("label", "reason", "defined"),
    [(0, "no anomalous image", {"accuracy"}), (1, "no normal image", {"accuracy", "recall"})],
)
def test_one_class_gives_null_with_the_reason(label, reason, defined):
    metrics = image_metrics([1.0, 2.0, 3.0], [label] * 3, threshold=2.0)
    for name, value in metrics.values.items():
        if name == "confusion_matrix":
            assert sum(value.values()) == 3
        elif name in defined:
            assert value == pytest.approx(2 / 3 if label else 1 / 3)
            assert name not in metrics.reasons
        else:
            assert value is None, name
            assert metrics.reasons[name] == reason
    assert len(metrics.values) == 10


def test_no_image_and_no_threshold_are_said():
    assert set(image_metrics([], [], 1.0).reasons.values()) == {"no image"}
    assert image_metrics(SCORES, LABELS).reasons["f1"] == "no threshold"


def test_precision_is_undefined_where_nothing_is_found_but_f1_is_zero():
    metrics = image_metrics(SCORES, LABELS, threshold=2.0)
    assert (metrics["precision"], metrics["recall"], metrics["f1"]) == (None, 0.0, 0.0)
    assert "threshold" in metrics.reasons["precision"]


def test_result_is_plain_json():
    text = json.dumps(image_metrics(torch.tensor(SCORES), torch.tensor(LABELS), 0.5).to_dict(), allow_nan=False)
    assert json.loads(text)["values"]["confusion_matrix"]["tp"] == 3


def test_image_and_pixel_metrics_join():
    both = Metrics({"a": 1.0}, {}) | Metrics.undefined(("b",), "no mask")
    assert both.to_dict() == {"values": {"a": 1.0, "b": None}, "reasons": {"b": "no mask"}}


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_scores_that_are_not_finite_are_an_error_that_counts_them(bad):
    with pytest.raises(DataError, match=r"1 of 8 scores .* number 2"):
        image_metrics([0.1, 0.2, bad, 0.4, 0.5, 0.6, 0.7, 0.8], LABELS)


def test_wrong_lengths_and_labels_are_errors():
    with pytest.raises(DataError, match="one length"):
        image_metrics([0.1, 0.2], [0])
    with pytest.raises(DataError, match="labels must be 0"):
        image_metrics([0.1, 0.2], [0, 2])


def test_decision_includes_the_threshold_itself():
    assert is_anomalous(torch.tensor([0.4, 0.5, 0.6]), 0.5).tolist() == [False, True, True]


def test_importing_metrics_loads_neither_torch_nor_sklearn_nor_matplotlib():
    code = (
        "import sys; from adcore.evaluation import metrics, pixel, report, thresholds;"
        "print([m for m in ('torch', 'sklearn', 'matplotlib', 'scipy') if m in sys.modules])"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )


@pytest.mark.parametrize("levels", [7, 10_000])
def test_image_metrics_equal_torchmetrics(levels: int) -> None:
    """On scores in [0, 1], with many ties and with few. Scores beyond that range torchmetrics would put through a sigmoid."""
    from torchmetrics.functional import classification as reference

    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(2, (300,), generator=generator)
    scores = ((torch.rand(300, generator=generator) + 0.3 * labels) / 1.3 * levels).round() / levels
    ours = image_metrics(scores, labels, threshold=0.5).values
    assert ours["image_auroc"] == pytest.approx(reference.binary_auroc(scores, labels).item(), abs=1e-6)
    assert ours["image_aupr"] == pytest.approx(reference.binary_average_precision(scores, labels).item(), abs=1e-6)
    decisions = (scores >= 0.5).int()
    for name in ("precision", "recall", "accuracy"):
        expected = getattr(reference, f"binary_{name}")(decisions, labels).item()
        assert ours[name] == pytest.approx(expected, abs=1e-6), name
    assert ours["f1"] == pytest.approx(reference.binary_f1_score(decisions, labels).item(), abs=1e-6)
    (tn, fp), (fn, tp) = reference.binary_confusion_matrix(decisions, labels).tolist()
    assert ours["confusion_matrix"] == {"tn": tn, "fp": fp, "fn": fn, "tp": tp}
