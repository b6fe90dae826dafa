"""Thresholds: each method against its definition, ties and one-class data included."""

import numpy as np
import pytest
import torch
from adcore.errors import ConfigError, DataError
from adcore.evaluation.metrics import image_metrics, is_anomalous
from adcore.evaluation.thresholds import THRESHOLDS, choose_threshold
from hypothesis import given
from hypothesis import strategies as st

NORMAL = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]
ANOMALOUS = [0.9, 1.0, 1.5]
SCORES, LABELS = NORMAL + ANOMALOUS, [0] * 6 + [1] * 3

overlapping = st.lists(st.tuples(st.integers(-20, 20), st.booleans()), min_size=3, max_size=60).filter(
    lambda samples: len({label for _, label in samples}) == 2
)


@pytest.mark.parametrize("method", ["f1_percentile", "f1_grid", "youden"])
def test_separable_scores_are_separated(method):
    threshold = choose_threshold(method, SCORES, LABELS)
    assert is_anomalous(SCORES, threshold.value).tolist() == [bool(label) for label in LABELS]
    assert (threshold.method, threshold.note) == (method, "")


@pytest.mark.parametrize("method", ["f1_percentile", "f1_grid"])
def test_f1_methods_stay_away_from_both_classes(method):
    assert choose_threshold(method, SCORES, LABELS).value == pytest.approx(
        0.75, abs=0.01
    )  # halfway between 0.6 and 0.9


@given(overlapping)
def test_f1_grid_reaches_the_best_f1(samples):
    scores, labels = zip(
        *samples, strict=True
    )  # integers at most 40 apart: a grid of 1,001 points falls into every gap
    metrics = image_metrics(scores, labels, THRESHOLDS["f1_grid"](scores, labels))
    assert metrics["f1"] == pytest.approx(metrics["image_f1_max"])


@given(overlapping)
def test_f1_percentile_reaches_the_best_f1(samples):
    scores, labels = zip(*samples, strict=True)  # fewer scores than percentiles: every one of them is a candidate
    metrics = image_metrics(scores, labels, THRESHOLDS["f1_percentile"](scores, labels))
    assert metrics["f1"] == pytest.approx(metrics["image_f1_max"])


@given(overlapping)
def test_youden_is_the_largest_j(samples):
    scores, labels = (np.array(column) for column in zip(*samples, strict=True))

    def j(threshold):
        predicted = is_anomalous(scores, threshold)
        return predicted[labels].mean() - predicted[~labels].mean()

    assert j(THRESHOLDS["youden"](scores, labels)) == pytest.approx(max(j(t) for t in scores))


def test_youden_is_finite_when_all_scores_are_equal():
    assert THRESHOLDS["youden"]([0.5] * 4, [0, 0, 1, 1]) == 0.5


def test_normal_p95_is_the_percentile_and_ignores_the_anomalous():
    normal = np.arange(101, dtype=float)
    for anomalous in ([], [1e6], [-50.0, 3.0]):
        labels = [0] * 101 + [1] * len(anomalous)
        assert THRESHOLDS["normal_p95"]([*normal, *anomalous], labels) == pytest.approx(95, rel=1e-6)


@given(st.lists(st.integers(0, 3).map(float), min_size=1, max_size=80))
def test_normal_p95_flags_at_most_one_normal_in_twenty(normal):
    threshold = THRESHOLDS["normal_p95"](normal, [0] * len(normal))
    assert is_anomalous(normal, threshold).sum() <= np.ceil(len(normal) / 20)
    assert threshold > min(normal)  # never the minimum, which would make every image anomalous


@pytest.mark.parametrize("method", list(THRESHOLDS))
def test_without_anomalies_the_fallback_is_said_aloud_and_never_the_minimum(method):
    threshold = choose_threshold(method, NORMAL, [0] * 6, source="val")
    assert threshold.method == "normal_p95"
    assert threshold.value == pytest.approx(np.percentile(NORMAL, 95), rel=1e-6)
    assert threshold.value > min(NORMAL)
    assert (method in threshold.note) == (method != "normal_p95")


@pytest.mark.parametrize("method", list(THRESHOLDS))
def test_a_threshold_from_test_data_says_so(method):
    assert "test set" in choose_threshold(method, SCORES, LABELS, source="test").note
    assert choose_threshold(method, SCORES, LABELS, source="val").note == ""


@pytest.mark.parametrize("method", ["f1_percentile", "f1_grid", "youden", "normal_p95"])
def test_float32_and_float64_comparisons_agree(method):
    scores = torch.from_numpy(np.random.default_rng(0).normal(size=400).astype(np.float32))
    labels = (torch.arange(400) % 3 == 0).long()
    threshold = choose_threshold(method, scores + labels, labels).value
    scores = torch.cat([scores + labels, torch.tensor([threshold])])
    assert (scores >= threshold).tolist() == is_anomalous(scores, threshold).tolist()


def test_bad_requests_are_named():
    with pytest.raises(ConfigError, match="f1_percentile, f1_grid, youden, normal_p95"):
        choose_threshold("best", SCORES, LABELS)
    with pytest.raises(DataError, match="normal images"):
        choose_threshold("youden", ANOMALOUS, [1] * 3)
    with pytest.raises(DataError, match="NaN"):
        choose_threshold("youden", [0.1, float("nan")], [0, 1])


def test_a_threshold_beyond_float32_is_refused() -> None:
    with pytest.raises(DataError, match="threshold by normal_p95 is inf"):
        choose_threshold("normal_p95", [float(np.finfo(np.float32).max)] * 2, [0, 0], "val")
