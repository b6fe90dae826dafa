"""Ensembles of a session's best runs, and whether they beat their best member.

What trains is slow: `pytest -m slow tests/test_session_ensembles.py`.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from adcore.data.samples import Sample
from adcore.ensemble import chosen_weights
from adcore.evaluation.metrics import image_metrics
from adcore.evaluation.score import ScoredImage, Scoring
from adcore.experiments.collect import Measured
from adcore.experiments.tables import ensemble_tables
from adcore.testing.tiny import SIDE, write_tiny_mvtec
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ttest_rel

MODELS = ["padim-resnet18", "patchcore-resnet18"]


@pytest.fixture(scope="module")
def session(tmp_path_factory) -> Path:
    """Two models with two seeds; a part of the test images validates."""
    from adcore.experiments.conditions import load_conditions
    from adcore.experiments.domains import run_condition
    from adcore.experiments.session import create_session, plan_runs

    folder = tmp_path_factory.mktemp("session")
    data = write_tiny_mvtec(folder / "data", train=4, normal=8)
    base = {"dataset": "mvtec", "dataset_root": str(data), "source_domain": "part", "weights": "random"}
    base |= {"image_size": SIDE, "val_split_mode": "from_test", "val_split_ratio": 0.5, "tensorboard": False}
    file = folder / "conditions.json"
    file.write_text(json.dumps({"base": base, "grid": {"model_type": MODELS}}))
    planned = plan_runs(load_conditions(file), [1, 2])
    made = create_session(folder / "results", planned, file)
    for run, condition in zip(made.runs, planned, strict=True):
        run_condition(condition, made.path(run), "cpu")
        run.state = "done"
    made.save()
    made.close()
    return made.folder


@pytest.mark.slow
def test_the_best_of_each_seed_are_combined_and_tested_against_their_best_member(session, run_cli) -> None:
    options = ("ensemble", session, "--top", 2, "--device", "cpu")
    code, printed, err = run_cli(*options)
    assert code == 0, err
    assert printed.count("image AUROC") == 2
    assert err == ""
    folders = sorted((session / "ensembles").glob("*/*"))
    assert [f.name for f in folders] == ["part_seed1", "part_seed2"]
    for folder in folders:
        result = json.loads((folder / "result.json").read_text())
        assert sorted(result["members"]) == MODELS
        assert result["threshold"]["source"] == "val"
        assert (folder / "report.html").is_file()
        assert sum(result["counts"]["test"].values()) == len((folder / "predictions.csv").read_text().splitlines()) - 1

    code, printed, err = run_cli("analyze", session, "--by", "method", "--format", "csv")
    assert code == 0, err
    line = next(
        line.split(",") for line in printed.splitlines() if line.startswith("ensembles") and "seeds of part" in line
    )
    values = {}
    for file in session.rglob("result.json"):
        one = json.loads(file.read_text())
        if "plan" in one or "members" in one:
            seed = one["plan"]["seed"] if "plan" in one else one["seed"]
            values.setdefault(one.get("method", one["model"]), {})[seed] = one["test_image_auroc"]
    own = values.pop("ensemble-2-val_image_auroc")
    best = max(values, key=lambda name: np.mean(list(values[name].values())))
    assert line[2] == best
    assert float(line[5]) == pytest.approx(np.mean([own[s] - values[best][s] for s in own]))
    code, printed, err = run_cli("analyze", session, "--baseline", MODELS[0])
    assert code == 0, err
    assert "ensemble-2-val_image_auroc" in printed
    assert "image_auroc differ in" not in printed, "an ensemble has no batch size and no backbone of its own"


@pytest.mark.slow
def test_choosing_by_test_metrics_is_said_aloud(session, run_cli) -> None:
    code, printed, err = run_cli(
        "ensemble", session, "--top", 2, "--by", "test_image_auroc", "--weights", "chosen", "--device", "cpu"
    )
    assert code == 0, err
    assert "better than it will be on others" in err
    assert "note: its members were chosen by their test images" in printed
    folder = session / "ensembles/ensemble-2-test_image_auroc-weighted/part_seed1"
    assert "chosen by their test images" in (folder / "report.html").read_text()
    assert run_cli("ensemble", session, "--top", 2, "--by", "test_image_auroc", "--weights", "chosen")[0] == 2, (
        "it exists"
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--top", 3), "2 complete runs, fewer than --top 3"),
        (("--top", 2, "--by", "best"), "val_METRIC"),
        (("--top", 2, "--by", "val_nothing"), "valid ones: image_auroc"),
        (("--top", 2, "--out", "x.safetensors"), "leave --data and --out away"),
        ((), "--data is needed"),
    ],
)
def test_what_cannot_be_is_one_line(session, run_cli, options, says) -> None:
    code, _, err = run_cli("ensemble", session, *options)
    assert (code, says in err) == (2, True), err


LABELS = np.array([0, 0, 0, 1, 1, 1])


@settings(max_examples=6, deadline=None)
@given(st.lists(st.lists(st.integers(0, 8), min_size=6, max_size=6), min_size=2, max_size=3))
def test_chosen_weights_are_no_worse_than_equal_ones(columns) -> None:
    samples = [Sample(Path(f"{i}.png"), "val", int(label), "part") for i, label in enumerate(LABELS)]
    found = [Scoring([ScoredImage(s, float(v), None, None) for s, v in zip(samples, c, strict=True)]) for c in columns]
    members = [{"scores": (0.0, 4.0, 8.0)}] * len(columns)  # comparable scores are eighths of the scores
    weights = chosen_weights(members, found)
    assert min(weights) >= 0
    assert sum(weights) > 0
    scores = np.array(columns, np.float32).T
    chosen, equal = (
        image_metrics(scores @ np.array(w, np.float32), LABELS)["image_auroc"] for w in (weights, [1] * len(columns))
    )
    assert chosen >= equal


def test_the_member_that_tells_gets_the_weight() -> None:
    samples = [Sample(Path(f"{i}.png"), "val", int(label), "part") for i, label in enumerate(LABELS)]
    columns = [[0, 8, 8, 0, 1, 0], [1, 2, 3, 4, 5, 6]]
    found = [Scoring([ScoredImage(s, float(v), None, None) for s, v in zip(samples, c, strict=True)]) for c in columns]
    weights = chosen_weights([{"scores": (0.0, 4.0, 8.0)}] * 2, found)
    assert weights[0] < weights[1]


def measured(method: str, values: dict[tuple[str, int], float], members: tuple[str, ...] = ()) -> list[Measured]:
    """Runs of a method, by source and seed; with `members` it is an ensemble."""
    extra = {"members": list(members)} if members else {}
    return [
        Measured(method, method, "single", source, seed, {"source_results": {"image_auroc": value}, **extra})
        for (source, seed), value in values.items()
    ]


def test_the_best_member_is_the_one_with_the_highest_mean_over_the_same_runs() -> None:
    places = [(source, seed) for source in ("bolt", "nut") for seed in range(5)]
    weak = {place: 0.6 + 0.01 * i for i, place in enumerate(places)}
    strong = {(s, k): (0.8 if s == "nut" else 0.5) + 0.01 * k for s, k in places}
    together = {(s, k): max(weak[s, k], strong[s, k]) + 0.02 + 0.001 * k for s, k in places}
    runs = [*measured("weak", weak), *measured("strong", strong), *measured("e", together, ("weak", "strong"))]
    runs += measured("weak", {("nut", 9): 1.0})  # of no ensemble
    (table,) = ensemble_tables(runs, "image_auroc")
    expected = {"the seeds of bolt": "weak", "the seeds of nut": "strong", "the domains": "strong"}
    assert {row[2]: row[1] for row in table.rows} == expected
    for (_, member, over, pairs, difference, p, corrected, verdict), source in zip(
        table.rows, ("bolt", "nut"), strict=False
    ):
        own, best = (
            [values[source, k] for k in range(5)] for values in (together, strong if member == "strong" else weak)
        )
        test = ttest_rel(own, best)
        assert (pairs, difference) == (5, pytest.approx(np.mean(np.subtract(own, best))))
        assert p == pytest.approx(test.pvalue)
        assert corrected <= min(1, 3 * p) + 1e-12
        assert verdict == "yes"
        assert over == f"the seeds of {source}"
    assert table.rows[2][3] == 2
    assert ensemble_tables(runs[:20], "image_auroc") == []


def test_a_worse_ensemble_does_not_beat_its_member_however_sure_the_difference() -> None:
    good = {("nut", seed): 0.9 + 0.001 * seed for seed in range(5)}
    bad = {("nut", seed): 0.5 - 0.001 * seed for seed in range(5)}
    (table,) = ensemble_tables([*measured("a", good), *measured("e", bad, ("a",))], "image_auroc")
    assert (table.rows[0][-1], table.rows[0][-2] < 0.05) == ("no", True)
