"""Analysis: means over seeds, transfer, tests with Holm's correction, and what is missing said aloud."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
from adcore.errors import ConfigError
from adcore.evaluation.compare import holm, mean_std, paired_t_test, transfer
from adcore.experiments import present
from adcore.experiments.analyze import analyze
from adcore.experiments.present import as_csv
from hypothesis import given, settings
from hypothesis import strategies as st
from markupsafe import escape
from scipy.stats import ttest_1samp

GOOD = {1: (0.90, 0.80), 2: (0.92, 0.85), 3: (0.94, 0.81), 4: (0.91, 0.84), 5: (0.95, 0.83)}  # seed: source, target
BASE = {1: (0.80, 0.60), 2: (0.85, 0.62), 3: (0.81, 0.66), 4: (0.84, 0.61), 5: (0.83, 0.64)}


def write_session(
    folder: Path, methods: dict[str, dict[int, tuple[float, float]]], failed: tuple[str, ...] = ()
) -> Path:
    """A session as `adcore run` leaves it; `failed` conditions have no result."""
    runs = []
    for method, seeds in methods.items():
        for seed, (source, target) in seeds.items():
            run = {
                "name": f"A_{method}",
                "model": method,
                "mode": "multi",
                "source": "A",
                "targets": ["B"],
                "seed": seed,
            }
            run |= {"folder": f"{method}_{seed}", "log": "x.log", "state": "done", "error": ""}
            rates = {"tpr_at_fpr_1": 0.5, "tpr_at_fpr_5": 0.7, "reasons": {}}
            result = {
                "mode": "multi",
                "source_results": {"domain": "A", "image_auroc": source, **rates},
                "target_results": {"B": {"image_auroc": target, **rates}},
                "domain_results": {},
                "timings": {"fit_seconds": 2.0},
                "peak_memory_mb": {"process": 500.0},
            }
            (folder / run["folder"]).mkdir(parents=True)
            (folder / run["folder"] / "result.json").write_text(json.dumps(result))
            runs.append(run)
    for name in failed:
        run = {"name": name, "model": "padim", "mode": "single", "source": "A", "targets": [], "seed": 1}
        runs.append({**run, "folder": name, "log": "x.log", "state": "failed", "error": "no <space> left"})
    (folder / "session.json").write_text(
        json.dumps({"conditions_file": "c.json", "directory": ".", "threads": None, "runs": runs})
    )
    return folder


def tables(analysis):
    """The tables and notes that the command shows."""
    return [present.domain_table(analysis), present.method_table(analysis)], present.notes(analysis)


def as_text(analysis) -> str:
    return present.as_text(*tables(analysis))


def as_latex(analysis) -> str:
    return present.as_latex(*tables(analysis))


@pytest.fixture
def session(tmp_path) -> Path:
    return write_session(tmp_path / "20250831_120000", {"good": GOOD, "base": BASE}, failed=("broken",))


def test_means_transfer_and_gap_are_of_each_run_then_over_seeds(session) -> None:
    analysis = analyze(session)
    row = next(row for row in analysis.methods if row.method == "good")
    sources, targets = np.array(list(GOOD.values())).T
    assert row.seeds == 5
    assert row.source_metric == pytest.approx((sources.mean(), sources.std(ddof=1)))
    assert row.ratio == pytest.approx(((targets / sources).mean(), (targets / sources).std(ddof=1)))
    assert row.gap == pytest.approx(((sources - targets).mean(), (sources - targets).std(ddof=1)))
    assert (row.fit_seconds[0], row.memory_mb[0]) == (2.0, 500.0)


def test_paired_tests_against_the_baseline_by_domain_with_holm(session) -> None:
    analysis = analyze(session, baseline="base")
    rows = {row.domain: row for row in analysis.domains if row.method == "good"}
    expected = {}
    for index, domain in enumerate("AB"):
        differences = [GOOD[seed][index] - BASE[seed][index] for seed in GOOD]
        expected[domain] = ttest_1samp(differences, 0).pvalue
        assert rows[domain].test.p == pytest.approx(expected[domain])
        assert rows[domain].test.difference == pytest.approx(np.mean(differences))
    small, large = sorted(expected, key=expected.get)
    assert rows[small].p_holm == pytest.approx(2 * expected[small])
    assert rows[large].p_holm == pytest.approx(max(2 * expected[small], expected[large]))
    assert all(row.test is None for row in analysis.domains if row.method == "base")


def test_numbers_that_were_worked_out_by_hand(tmp_path) -> None:
    """Differences on the source (3, 5, 4) / 100: t = 4 / (1 / sqrt 3) = 6.928, p = 0.0202; on the target (1, 3, 2) / 100:
    t = 2 / (1 / sqrt 3) = 3.464, p = 0.0742; p of 2 degrees of freedom is 1 - t / sqrt(t^2 + 2). Holm: 2 * 0.0202, 0.0742."""
    base = dict.fromkeys((1, 2, 3), (0.80, 0.60))
    good = {1: (0.83, 0.61), 2: (0.85, 0.63), 3: (0.84, 0.62)}
    analysis = analyze(write_session(tmp_path / "s", {"good": good, "base": base}), baseline="base")
    source, target = (row for row in analysis.domains if row.method == "good")
    exact = [1 - t / (t * t + 2) ** 0.5 for t in (4 * 3**0.5, 2 * 3**0.5)]
    assert [row.test.p for row in (source, target)] == pytest.approx(exact)
    assert exact == pytest.approx([0.0202, 0.0742], abs=5e-5)
    assert [row.p_holm for row in (source, target)] == pytest.approx([2 * exact[0], exact[1]])
    assert "+0.0400 0.0202 0.0404" in " ".join(as_text(analysis).split())


def test_pairs_are_seeds_that_both_have_and_too_few_are_said(tmp_path) -> None:
    session = write_session(tmp_path / "s", {"good": {1: GOOD[1], 9: GOOD[2]}, "base": {1: BASE[1], 8: BASE[2]}})
    analysis = analyze(session, baseline="base")
    row = next(row for row in analysis.domains if row.method == "good")
    assert (row.test.pairs, row.test.p, row.p_holm) == (1, None, None)
    assert "too few pairs (1)" in as_text(analysis)


def test_equal_differences_have_no_p_value() -> None:
    result = paired_t_test({1: 0.9, 2: 0.8}, {1: 0.7, 2: 0.6})
    assert result.p is None
    assert result.note == "every pair differs by the same"
    assert paired_t_test({1: 0.9, 2: 0.8}, {1: 0.9, 2: 0.8}).note == "every pair is equal"


def test_missing_runs_are_listed_in_every_format_and_not_averaged(session, tmp_path, run_cli) -> None:
    analysis = analyze(session.parent)  # a folder of sessions
    assert analysis.missing == ["broken (seed 1): failed: no <space> left"]
    assert {row.method for row in analysis.domains} == {"good", "base"}
    for text in (as_text(analysis), as_csv(analysis), as_latex(analysis)):
        assert "broken (seed 1): failed: no <space> left" in text
    assert run_cli("analyze", session.parent, "--format", "html", "--out", tmp_path / "page.html")[0] == 0
    html = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert html.count("no &lt;space&gt; left") == 1
    assert "no <space> left" not in html


def test_csv_has_the_unrounded_numbers(session) -> None:
    rows = list(csv.DictReader(io.StringIO(as_csv(analyze(session, baseline="base")))))
    row = next(row for row in rows if (row["method"], row["domain"]) == ("good", "B"))
    assert float(row["mean"]) == np.mean([target for _, target in GOOD.values()])
    assert row["role"] == "target"
    assert 1 > float(row["p_holm"]) >= float(row["p"]) > 0


def test_html_is_the_page_of_a_comparison_with_the_tables_of_the_analysis(session, run_cli) -> None:
    assert run_cli("analyze", session, "--baseline", "base", "--format", "html")[0] == 0
    html = (session / "analysis.html").read_text(encoding="utf-8")
    titles = [table.title for table in tables(analyze(session, baseline="base"))[0]]
    for text in ("Leaderboard", "ROC", "Tables of the analysis", *titles):
        assert str(escape(text)) in html
    assert 'src="http' not in html
    assert 'href="http' not in html


def test_latex_escapes_and_has_as_many_cells_as_columns(session) -> None:
    lines = as_latex(analyze(session, baseline="base")).splitlines()
    assert any("image\\_auroc" in line for line in lines)
    start = next(i for i, line in enumerate(lines) if line.startswith("\\begin"))
    columns = lines[start].count("l") - "\\begin{tabular}".count("l")
    assert lines[start + 2].count(" & ") == columns - 1


def test_two_conditions_with_one_model_are_two_methods(tmp_path) -> None:
    session = write_session(tmp_path / "s", {"good": GOOD})
    record = json.loads((session / "session.json").read_text())
    for run in record["runs"][:2]:
        run["name"] = "A_good_small"
    (session / "session.json").write_text(json.dumps(record))
    analysis = analyze(session, baseline="A_good")
    assert {row.method for row in analysis.domains} == {"A_good", "A_good_small"}


@pytest.mark.parametrize(
    ("options", "message"),
    [({"metric": "image_aurok"}, "did you mean image_auroc"), ({"baseline": "bass"}, "did you mean base")],
)
def test_unknown_names_are_answered_with_the_known(session, options, message) -> None:
    with pytest.raises(ConfigError, match=message):
        analyze(session, **options)


def test_a_folder_without_sessions_or_results_is_an_error(tmp_path) -> None:
    with pytest.raises(ConfigError, match="no session there"):
        analyze(tmp_path)
    (tmp_path / "s").mkdir()
    session = write_session(tmp_path / "s", {}, failed=("broken",))
    with pytest.raises(ConfigError, match="no complete run; broken"):
        analyze(session)


def test_an_undefined_target_leaves_the_mean_undefined() -> None:
    assert transfer(0.8, [0.4, 0.6]).ratio == pytest.approx(0.625)
    assert transfer(0.8, [0.4, None]).target_mean is None
    assert transfer(None, [0.4]).gap is None
    assert transfer(0.0, [0.4]).ratio is None
    assert mean_std([0.5]) == (0.5, None)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_never_lowers_a_p_value_and_keeps_the_order(p_values) -> None:
    corrected = holm(p_values)
    assert all(p <= c <= 1.0 for p, c in zip(p_values, corrected, strict=True))
    assert min(corrected) == min(1.0, len(p_values) * min(p_values))
    order = np.argsort(p_values, kind="stable")
    assert (np.diff(np.array(corrected)[order]) >= 0).all()


def test_holm_on_a_worked_example() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
