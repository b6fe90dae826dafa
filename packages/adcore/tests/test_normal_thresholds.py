"""Thresholds from normal images alone keep what they promise, or say why they cannot."""

import numpy as np
import pytest
from adcore.errors import ConfigError, DataError
from adcore.evaluation.metrics import is_anomalous
from adcore.evaluation.normal_thresholds import conformal, extreme_value, extreme_value_interval, parse_rule, quantile
from adcore.evaluation.thresholds import choose_threshold
from hypothesis import given
from hypothesis import strategies as st


@given(st.lists(st.integers(0, 9).map(float), min_size=10, max_size=40), st.sampled_from([0.1, 0.2, 0.34]))
def test_of_any_scores_each_left_out_in_turn_at_most_alpha_are_flagged(scores, alpha):
    """What split conformal prediction proves, by brute force: exact for every set of scores, ties included."""
    scores = np.array(scores)
    flagged = [is_anomalous(scores[[i]], conformal(np.delete(scores, i), alpha))[0] for i in range(len(scores))]
    assert np.mean(flagged) <= alpha + 1e-9


@pytest.mark.parametrize("alpha", [0.01, 0.05, 0.1])
def test_false_alarms_over_random_splits_keep_the_promise(alpha):
    generator, rates = np.random.default_rng(0), []
    scores = generator.gamma(2, size=2000)  # skewed, as scores are
    for _ in range(200):
        order = generator.permutation(len(scores))
        rates.append(is_anomalous(scores[order[200:]], conformal(scores[order[:200]], alpha)).mean())
    assert np.mean(rates) <= alpha + 2 * np.std(rates) / np.sqrt(len(rates))
    assert np.mean(rates) >= 0.7 * alpha, "it is not merely cautious"


@pytest.mark.parametrize(("alpha", "least"), [(0.01, 99), (0.05, 19), (0.1, 9), (0.5, 1)])
def test_the_least_number_of_normal_images(alpha, least):
    choose_threshold(f"conformal:{alpha}", range(least), [0] * least)
    with pytest.raises(DataError, match=f"needs {least} normal images .* there are {least - 1}; add images") as caught:
        parse_rule(f"conformal:{alpha}").check(least - 1)
    assert "\n" not in str(caught.value)


def test_the_tail_of_exponential_scores_is_found(monkeypatch):
    scores = np.random.default_rng(3).exponential(size=1000)
    value, (low, high) = extreme_value(scores, 0.001), extreme_value_interval(scores, 0.001)
    assert value == pytest.approx(-np.log(0.001), rel=0.3)  # what a thousand scores can tell of one in a thousand
    assert low < value < high
    monkeypatch.setattr("adcore.evaluation.normal_thresholds.RESAMPLES", 5)
    assert extreme_value_interval(scores, 0.01) == extreme_value_interval(scores, 0.01)  # it is seeded
    assert extreme_value(scores, 0.01) < value
    shifted = extreme_value(scores * 1000 - 50, 0.001)
    assert shifted == pytest.approx(1000 * value - 50, rel=1e-3)


def test_scores_without_a_tail_are_an_error():
    with pytest.raises(DataError, match="all equal"):
        extreme_value(np.ones(100), 0.001)


def test_a_quantile_and_its_factor():
    scores = np.arange(101, dtype=np.float32)
    assert quantile(scores, 0.95) == pytest.approx(95)
    assert quantile(scores, 0.95, 1.4) == pytest.approx(133)
    with pytest.raises(DataError, match="positive"):
        quantile(scores - 200, 0.95, 1.4)


def test_what_is_promised_stands_with_the_threshold():
    scores, labels = [*np.linspace(0, 1, 120), 5, 6], [0] * 120 + [1] * 2
    chosen = choose_threshold("conformal:0.05", scores, labels, "val")
    assert (chosen.method, chosen.normal_images, chosen.false_alarm_rate) == ("conformal:0.05", 120, 0.05)
    assert "at most 0.05 of normal images" in chosen.note
    assert "120 normal images" in chosen.note
    assert chosen.value < 1
    tail = choose_threshold("evt:0.001", scores, labels, "val")
    assert tail.interval[0] <= tail.interval[1]
    assert "120 normal images alone show no rate below 0.0083" in tail.note
    assert (
        choose_threshold("conformal:0.05", scores[:120], [0] * 120).value == chosen.value
    )  # anomalous ones do not matter


def test_a_quantile_promises_nothing():
    for method in ("quantile:0.95", "quantile:0.95*0.9"):
        assert choose_threshold(method, np.arange(100.0), np.zeros(100), "val").false_alarm_rate is None


@pytest.mark.parametrize(
    ("method", "scores", "says"),
    [
        ("evt:0.001", np.ones(100), "all equal"),
        ("quantile:0.9*1.4", -np.arange(50.0), "needs a positive one"),
        ("conformal:0.01", np.arange(50.0), "needs 99 normal images"),
    ],
)
def test_what_the_scores_do_not_allow_is_noted_and_the_trained_model_is_not_lost(method, scores, says):
    chosen = choose_threshold(method, scores, np.zeros(len(scores)), "val")
    assert (chosen.method, chosen.false_alarm_rate) == ("normal_p95", None)
    assert says in chosen.note
    assert "95th percentile" in chosen.note
    assert chosen.value == choose_threshold("normal_p95", scores, np.zeros(len(scores)), "val").value


def test_nothing_is_promised_on_images_that_were_trained_on():
    chosen = choose_threshold("conformal:0.1", np.arange(50.0), np.zeros(50), "train")
    assert chosen.false_alarm_rate is None
    assert chosen.note.startswith("chosen on 50 training images")
    assert "at most" not in chosen.note


@pytest.mark.parametrize(
    ("method", "says"),
    [
        ("conformal:0", "between 0 and 1"),
        ("conformal:1", "between 0 and 1"),
        ("conformal:2", "between 0 and 1"),
        ("conformal:x", "conformal:ALPHA"),
        ("conformal:-0.1", "conformal:ALPHA"),
        ("conformal:0.1*2", "quantile:Q\\*FACTOR"),
        ("quantile:0.9*0", "factor is above 0"),
        ("evt:0.2", "the tail ends at 0.05"),
        ("magic:0.1", "conformal:ALPHA"),
        ("conformal", "conformal:ALPHA"),
    ],
)
def test_bad_methods_are_one_line(method, says):
    with pytest.raises(ConfigError, match=says) as caught:
        choose_threshold(method, range(100), [0] * 100)
    assert "\n" not in str(caught.value)
