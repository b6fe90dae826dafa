"""The tables of a paper, beside pandas and scipy on the same stored results: 5 methods, 5 seeds, 4 domains."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
from adcore.experiments import present, tables
from adcore.experiments.collect import collect, unfair

pandas = pytest.importorskip("pandas", reason="pip install pandas")
stats = pytest.importorskip("scipy.stats")

METHODS = ["baseline", "gem", "focal", "aux", "scale"]
SEEDS = [42, 43, 44, 123, 456]
DOMAINS = ["domain_A", "domain_B", "domain_C", "domain_D"]
METRICS = ["image_auroc", "tpr_at_fpr_1", "tpr_at_fpr_5", "precision", "recall", "f1", "accuracy", "specificity"]


def write_study(folder: Path, mode: str) -> pandas.DataFrame:
    """A session in the form that `adcore run` leaves, and its numbers as one long table (method, seed, domain, metric)."""
    generator, runs, rows = np.random.default_rng(5), [], []
    for place, method in enumerate(METHODS):
        for seed in SEEDS:
            measured = {
                domain: dict(
                    zip(METRICS, generator.uniform(0.6, 0.8 + 0.04 * place, len(METRICS)).tolist(), strict=True)
                )
                for domain in DOMAINS
            }
            rows += [(method, seed, domain, key, v) for domain, one in measured.items() for key, v in one.items()]
            sources = DOMAINS if mode == "single" else ["all"] if mode == "all" else DOMAINS[:1]
            for source in sources:
                result = {"mode": mode, "target_results": {}, "domain_results": {}, "timings": {"fit_seconds": 1.0}}
                result["peak_memory_mb"] = {"process": 100.0}
                result |= {"preprocess": {"size": [448, 448], "crop": None if method == "focal" else [392, 392]}}
                result |= {"plan": {"batch_size": 16}, "config": {"backbone": "b"}}
                if mode == "all":
                    pooled = dict.fromkeys(METRICS, 0.5)
                    result |= {"domain_results": measured, "source_results": {"domain": "all", **pooled}}
                elif mode == "multi":
                    result["source_results"] = {"domain": source, **measured[source]}
                    result["target_results"] = {name: measured[name] for name in DOMAINS[1:]}
                else:
                    result["source_results"] = {"domain": source, **measured[source]}
                name = f"{source}_{method}"
                run = {"name": name, "model": method, "mode": mode, "source": source, "seed": seed, "log": "x.log"}
                run |= {
                    "targets": list(result["target_results"]),
                    "folder": f"{name}_{seed}",
                    "state": "done",
                    "error": "",
                }
                (folder / run["folder"]).mkdir(parents=True)
                (folder / run["folder"] / "result.json").write_text(json.dumps(result))
                settings = {"gem_p": 3} if method == "gem" else {}
                condition = {"config": {"model_type": method, "batch_size": 16, **settings}}
                (folder / run["folder"] / "condition.json").write_text(json.dumps(condition))
                runs.append(run)
    session = {"conditions_file": "c.json", "directory": ".", "threads": None, "runs": runs}
    (folder / "session.json").write_text(json.dumps(session))
    return pandas.DataFrame(rows, columns=["method", "seed", "domain", "metric", "value"])


@pytest.fixture(params=["single", "all", "multi"])
def mode(request) -> str:
    """Each domain on its own, one model over all, or one source and three targets."""
    return request.param


@pytest.fixture
def study(mode, tmp_path):
    """(frame, runs, the domains that a mean is over)"""
    frame = write_study(tmp_path / "session", mode)
    return frame, collect(tmp_path / "session")[0], DOMAINS[1:] if mode == "multi" else DOMAINS


@pytest.mark.parametrize("metric", METRICS)
def test_seeds_by_domains_equal_pandas(study, mode, metric) -> None:
    frame, runs, averaged = study
    wide = frame[frame.metric == metric].pivot_table(index=["method", "seed"], columns="domain", values="value")
    wide["Mean"] = wide[averaged].mean(axis=1)
    found = tables.seed_tables(tables.group_runs(runs, metric), metric)
    assert len(found) == len(METHODS)
    for table in found:
        method = table.title.partition(",")[0]
        assert table.header == ["Seed", *DOMAINS, "Mean", *(["Pooled"] if mode == "all" else [])]
        for row in table.rows[:-1]:
            assert row[1:6] == pytest.approx(wide.loc[(method, row[0])][[*DOMAINS, "Mean"]].tolist())
        assert [row[0] for row in table.rows] == [*SEEDS, "Mean ± Std"]
        last = table.rows[-1]
        assert [cell[0] for cell in last[1:6]] == pytest.approx(wide.loc[method].mean()[[*DOMAINS, "Mean"]].tolist())
        assert [cell[1] for cell in last[1:6]] == pytest.approx(
            wide.loc[method].std(ddof=1)[[*DOMAINS, "Mean"]].tolist()
        )
        if mode == "all":
            assert last[6] == pytest.approx((0.5, 0.0))


def test_methods_by_domains_have_the_best_in_bold(study) -> None:
    frame, runs, averaged = study
    wide = frame[frame.metric == "image_auroc"].pivot_table(index="method", columns="domain", values="value")
    wide["Mean"] = wide[averaged].mean(axis=1)
    (table,) = tables.domain_tables(tables.group_runs(runs, "image_auroc"), "image_auroc")
    for number, row in enumerate(table.rows):
        for place, column in enumerate([*DOMAINS, "Mean"], start=1):
            assert row[place][0] == pytest.approx(wide.loc[row[0], column])
            assert ((number, place) in table.best) == (wide[column].idxmax() == row[0])
    latex = present.as_latex([table], [])
    assert latex.count(r"\textbf{") == len(table.best)
    markdown = present.as_markdown([table], ["a note"])
    assert markdown.count("**") == 2 * (len(table.best) + 1)
    assert {line.count(" | ") for line in markdown.splitlines() if line.startswith("| ")} == {len(table.header) - 1}


def test_p_values_equal_scipys_and_are_corrected_by_holm(study) -> None:
    frame, runs, averaged = study
    wide = frame[frame.metric == "image_auroc"].pivot_table(index=["method", "seed"], columns="domain", values="value")
    wide["Mean"] = wide[averaged].mean(axis=1)
    groups = tables.group_runs(runs, "image_auroc")
    long, matrix = tables.test_tables(groups, "image_auroc", "baseline")
    p_values = {}
    for method, column, difference, p, *_ in long.rows:
        if column == "Pooled":
            continue
        assert p == pytest.approx(stats.ttest_rel(wide.loc[method][column], wide.loc["baseline"][column]).pvalue)
        assert difference == pytest.approx((wide.loc[method][column] - wide.loc["baseline"][column]).mean())
        p_values[method, column] = p
    ordered = sorted(p_values, key=p_values.get)
    largest, expected = 0.0, {}
    for rank, key in enumerate(ordered):
        largest = expected[key] = max(largest, min(1.0, (len(ordered) - rank) * p_values[key]))
    for row in long.rows:
        if row[1] != "Pooled":
            assert row[4] == pytest.approx(expected[row[0], row[1]])
            assert row[5] == ("yes" if row[4] < 0.05 else "no")
    assert matrix.header[1:5] == DOMAINS
    assert matrix.rows[0][1] == pytest.approx(expected[matrix.rows[0][0], DOMAINS[0]])


def test_ranks_friedman_and_nemenyi_equal_scipys(study) -> None:
    frame, runs, averaged = study
    wide = (
        frame[frame.metric == "image_auroc"].pivot_table(index="domain", columns="method", values="value").loc[averaged]
    )
    ranks = wide.rank(axis=1, ascending=False).mean()
    found = tables.ranking_tables(tables.group_runs(runs, "image_auroc"), "image_auroc")
    first, nemenyi = found
    assert dict(first.rows) == pytest.approx(ranks.to_dict())
    friedman = stats.friedmanchisquare(*(wide[method] for method in METHODS)).pvalue
    assert f"Friedman p = {friedman:.4g}" in first.title
    for row in nemenyi.rows:
        for other, p in zip(nemenyi.header[1:], row[1:], strict=True):
            if other != row[0]:
                k, n = len(METHODS), len(wide)
                q = abs(ranks[row[0]] - ranks[other]) / np.sqrt(k * (k + 1) / (6 * n)) * np.sqrt(2)
                assert p == pytest.approx(stats.studentized_range.sf(q, k, np.inf))


def test_transfer_has_ratio_and_gap_of_each_target(tmp_path) -> None:
    frame = write_study(tmp_path / "session", "multi")
    wide = frame[frame.metric == "image_auroc"].pivot_table(index=["method", "seed"], columns="domain", values="value")
    (table,) = tables.transfer_tables(collect(tmp_path / "session")[0], "image_auroc")
    rows = {(row[0], row[1]): row[2:] for row in table.rows}
    for method in METHODS:
        one = wide.loc[method]
        for target in DOMAINS[1:]:
            source, value, ratio, gap = rows[method, target]
            assert source[0] == pytest.approx(one["domain_A"].mean())
            assert value[0] == pytest.approx(one[target].mean())
            assert ratio == pytest.approx(
                ((one[target] / one["domain_A"]).mean(), (one[target] / one["domain_A"]).std())
            )
            assert gap[0] == pytest.approx((one["domain_A"] - one[target]).mean())
        mean = one[DOMAINS[1:]].mean(axis=1)
        assert rows[method, "Mean"][2][0] == pytest.approx((mean / one["domain_A"]).mean())


def test_what_differs_beside_the_method_is_said(study) -> None:
    _, runs, _ = study
    (line,) = unfair(runs, "baseline")
    assert line == "focal and baseline differ in crop_size (None; [392, 392]), not in the method alone"
    (table,) = tables.settings_table(runs)
    assert table.header == ["Method", "gem_p"]
    assert ["gem", "3"] in table.rows
    assert ["baseline", None] in table.rows


@pytest.mark.parametrize("by", ["seed", "domain", "category", "method", None])
@pytest.mark.parametrize("kind", ["table", "csv", "latex", "markdown", "html"])
def test_the_command_writes_every_table_in_every_form(by, kind, tmp_path, run_cli) -> None:
    write_study(tmp_path / "session", "single")
    options = ["--by", by] if by else []
    options += ["--metric", "image_auroc", "--metric", "f1", "--baseline", "baseline", "--format", kind]
    code, out, err = run_cli("analyze", tmp_path / "session", *options)
    assert code == 0, err
    if kind == "html":
        out = (tmp_path / "session" / "analysis.html").read_text()
    for method in METHODS[1:]:
        assert method in out
    assert "focal and baseline differ in crop_size" in (out + err).replace("&#39;", "'") or kind == "csv"
    if kind == "csv" and by:
        header: list[str] = []
        for row in csv.reader(io.StringIO(out)):
            header = row if row[0] == "table" else header
            assert len(row) == (2 if row[0] == "note" else len(header))


def test_plain_runs_are_analysed_by_category(tmp_path, run_cli) -> None:
    import adcore
    from adcore.testing import write_tiny_mvtec

    for name in ("bottle", "wood"):
        write_tiny_mvtec(tmp_path / "data", name)
    runs = adcore.train_models(
        f"mvtec:{tmp_path / 'data'}", "all", ["padim-resnet18", "patchcore-resnet18"], out=tmp_path / "runs",
        weights="random", image_size=32,
    )  # fmt: skip
    code, out, err = run_cli("analyze", tmp_path / "runs", "--by", "category", "--format", "csv")
    assert code == 0, err
    found = {row["Method"]: row for row in csv.DictReader(io.StringIO(out))}
    for run in runs:
        assert float(found[run.summary["model"]][run.summary["category"]]) == run.metrics["image_auroc"]
