"""Drift: statistics of hand-made images, and a sequential test that keeps its rate and says what changed."""

from __future__ import annotations

import json

import numpy as np
import pytest
from adcore_runtime import drift, load
from adcore_runtime.drift import STORED, Monitor, _payoffs, image_statistics, statistics, stored
from adcore_runtime.errors import ConfigError
from PIL import Image


def picture(seed: int = 0) -> np.ndarray:
    """(3, 24, 32): fine noise around a slow wave."""
    generator = np.random.default_rng(seed)
    wave = 0.4 + 0.1 * np.sin(np.arange(32) / 5)
    return (wave + generator.normal(0, 0.03, (3, 24, 32))).astype(np.float32)


def blurred(planes: np.ndarray) -> np.ndarray:
    """Each pixel the mean of itself and its four neighbours."""
    return np.stack([planes, *(np.roll(planes, step, axis) for step in (1, -1) for axis in (1, 2))]).mean(0)


def test_statistics_change_with_what_they_are_called_after_and_with_nothing_else():
    plain = image_statistics(picture())
    brighter = image_statistics(picture() + np.float32(0.1))
    steeper = image_statistics(picture() * np.float32(1.5))
    softer = image_statistics(blurred(picture()))
    redder = image_statistics(picture() * np.array([1.2, 1, 1], np.float32)[:, None, None])
    assert brighter["brightness"] == pytest.approx(plain["brightness"] + 0.1, rel=1e-4)
    assert brighter["contrast"] == pytest.approx(plain["contrast"], rel=1e-4)
    assert steeper["contrast"] == pytest.approx(1.5 * plain["contrast"], rel=1e-4)
    assert steeper["sharpness"] == pytest.approx(plain["sharpness"], rel=1e-4)
    assert softer["sharpness"] < 0.8 * plain["sharpness"]
    assert redder["red"] > plain["red"] + 0.02
    assert redder["blue"] < plain["blue"]


def test_statistics_of_special_images():
    gray = np.repeat(picture()[:1], 3, axis=0)
    found = statistics(gray, 1.23456, np.array([[1.0, 2.0], [3.0, 9.0]]))
    assert (found["red"], found["blue"]) == (0.3333, 0.3333)
    assert (found["score"], found["distance"]) == (1.235, 2.5)
    black = image_statistics(np.zeros((3, 8, 8), np.float32))
    assert (black["contrast"], black["sharpness"], black["red"]) == (0, 0, 1 / 3)
    assert "red" not in image_statistics(np.zeros((1, 8, 8), np.float32))
    assert image_statistics(np.ones((1, 2, 9), np.float32))["sharpness"] == 0  # no pixel with four neighbours


@pytest.mark.parametrize("rows", [2, 5, 23])
def test_a_large_image_is_measured_in_strips(rows, monkeypatch):
    planes, whole = picture(), image_statistics(picture())
    gray = planes.mean(0, dtype=np.float64)
    assert whole["contrast"] == pytest.approx(gray.std())
    monkeypatch.setattr(drift, "STRIP", rows * 32)
    assert image_statistics(planes) == pytest.approx(whole, rel=1e-9)


def test_a_model_file_keeps_a_limited_number_of_values_of_what_all_images_have():
    rows = [{"score": float(n), "brightness": 0.5, "distance": 1.0} for n in range(STORED + 200)]
    del rows[3]["distance"]
    kept = stored(rows)
    assert (set(kept), len(kept["score"])) == ({"score", "brightness"}, STORED)
    assert kept["score"] == sorted(set(kept["score"]))
    assert stored([]) == {}


def test_no_bet_pays_more_than_it_costs():
    u = (np.arange(4000) + 0.5) / 4000  # p = u^8, so that small p-values, which pay much, are many
    integrals = np.mean([_payoffs(p) * 8 * p ** (7 / 8) for p in u**8], axis=0)
    np.testing.assert_allclose(integrals, 1, atol=0.02)
    assert integrals.max() < 1 + 1e-6


def alarms(calibration: np.ndarray, stream: np.ndarray, alpha: float = 0.01) -> list:
    monitor = Monitor({"score": calibration.tolist()}, alpha)
    return [alarm for value in stream for alarm in monitor.update({"score": float(value)})]


@pytest.mark.parametrize("digits", [6, 0])  # 0: hardly any value is another
def test_no_more_streams_than_promised_raise_a_false_alarm(digits):
    """However few the calibration images are: a fixed set of 10 would be taken for drift of the next thousand."""
    generator, false = np.random.default_rng(1), 0
    for _ in range(60):
        values = generator.normal(10, 2, 120).round(digits)
        false += bool(alarms(values[:10], values[10:], alpha=0.2))
    assert false <= 0.2 * 60


@pytest.mark.parametrize(("shift", "direction"), [(2, "higher"), (-2, "lower")])
@pytest.mark.parametrize("stable", [0, 1000])
def test_a_change_is_found_soon_however_late_it_comes(shift, direction, stable):
    generator = np.random.default_rng(2)
    values = generator.normal(10, 1, 100 + stable + 60)
    values[100 + stable :] += shift
    (alarm,) = alarms(values[:100], values[100:])
    assert stable < alarm.image < stable + 40
    assert alarm.direction == direction
    assert f"score is {direction} than in the calibration images" in alarm.text
    assert alarm.calibration == pytest.approx(10, abs=0.4)


def test_ranks_are_those_of_a_count():
    generator = np.random.default_rng(3)
    values = generator.integers(0, 12, 60).astype(float)
    monitor = Monitor({"score": values[:20].tolist()})
    test = monitor._tests["score"]
    for n in range(20, 60):
        tie = generator.random()
        before, value = values[: n + 1], values[n]
        assert test._rank(value, tie) == ((before > value).sum() + tie * (before == value).sum()) / (n + 1)


def test_several_statistics_share_the_rate_and_each_has_one_alarm():
    generator = np.random.default_rng(4)
    calibration = {name: generator.normal(0.5, 0.05, 80).tolist() for name in ("brightness", "contrast")}
    monitor = Monitor(calibration, alpha=0.01)
    assert monitor.limit == 200
    found = []
    for _ in range(60):
        found += monitor.update({"brightness": generator.normal(0.7, 0.05), "contrast": generator.normal(0.5, 0.05)})
    assert [alarm.statistic for alarm in found] == ["brightness"] == [alarm.statistic for alarm in monitor.alarms]
    assert monitor.evidence()["brightness"] >= 1 > monitor.evidence()["contrast"]
    monitor.update({})  # an image without that statistic changes nothing
    monitor.reset()
    assert (monitor.images, monitor.alarms, monitor.evidence()["brightness"]) == (0, [], 1 / 200)


def test_bad_settings_are_said():
    with pytest.raises(ConfigError, match="between 0 and 1"):
        Monitor({"score": [1.0]}, alpha=1.0)
    with pytest.raises(ConfigError, match="no statistics"):
        Monitor({})


@pytest.mark.parametrize("camera", [None, (20, 30)])
def test_an_exported_model_observes_what_it_sees(model, images, camera):
    path = model(camera=camera, calibration={"threshold": {"value": 0.5}, "statistics": {"brightness": [0.1, 0.2]}})
    predictor = load(path)
    result, found = predictor.observe(images / "a.png")
    assert result.score == predictor.predict(images / "a.png").score
    assert predictor.calibration.statistics == {"brightness": [0.1, 0.2]}
    with Image.open(images / "a.png") as opened:
        small = np.asarray(opened.resize((16, 16), Image.Resampling.BILINEAR), np.float64) / 255
    assert found["brightness"] == pytest.approx(small.mean(), rel=0.02)
    assert found["red"] == 0.3333


def test_a_monitor_goes_on_from_its_state_to_the_last_bit():
    """In the middle of a stream, before and after an alarm, through JSON."""
    generator = np.random.default_rng(5)
    calibration = {name: generator.normal(0.5, 0.05, 40).tolist() for name in ("brightness", "contrast")}
    stream = [{"brightness": generator.normal(0.5 + n / 200, 0.05), "contrast": 0.5} for n in range(80)]
    whole = Monitor(calibration)
    for n, values in enumerate(stream):
        if n % 13 == 0:
            whole_state = json.loads(json.dumps(whole.state()))
            part = Monitor(calibration)
            part.restore(whole_state)
        assert part.update(values) == whole.update(values)
        assert part.state() == whole.state()
    assert [alarm.statistic for alarm in part.alarms] == ["brightness"]
    assert part.key == whole.key
    others = (Monitor(calibration, 0.02), Monitor({**calibration, "contrast": [0.5]}))
    assert len({whole.key, *(other.key for other in others)}) == 3
