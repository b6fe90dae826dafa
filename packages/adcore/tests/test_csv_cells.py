"""No name in a CSV file is a formula for a spreadsheet program, and every number stays one."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import pytest
from adcore.data.folder import METADATA, Folder
from adcore.evaluation.evaluate import write_predictions
from adcore.experiments.analyze import Analysis
from adcore.experiments.present import as_csv
from adcore.experiments.session import Run, Session
from adcore_runtime.csv_cells import cell, plain

FORMULA = "=HYPERLINK(1)"


@pytest.mark.parametrize("text", [FORMULA, "+1+1", "-a", "@sum", "\tx", "\rx", "'=x", "''@x"])
def test_text_that_begins_like_a_formula_gets_an_apostrophe_and_loses_it_again(text) -> None:
    assert cell(text) == f"'{text}"
    assert plain(cell(text)) == text


@pytest.mark.parametrize("value", [-1.5, None, "", "-1.5", "+2e-3", "-inf", "a=b", "'quoted'", "part"])
def test_numbers_and_other_text_stay(value) -> None:
    assert cell(value) == value
    assert value is None or not isinstance(value, str) or plain(value) == value


def test_predictions(tmp_path) -> None:
    rows = [{"path": f"{FORMULA}/a.png", "category": "@part", "defect": "-scratch", "score": -1.5}]
    write_predictions(tmp_path / "predictions.csv", rows)
    with open(tmp_path / "predictions.csv", newline="") as file:
        (row,) = csv.DictReader(file)
    assert row == {
        "path": f"'{FORMULA}/a.png",
        "category": "'@part",
        "defect": "'-scratch",
        "score": "-1.5",
    }


def test_the_summary_of_a_session(tmp_path) -> None:
    run = Run(FORMULA, "@model", "single", "-cold", ("hot",), 1, "one", "one.log", "failed", "+error")
    Session(tmp_path, [run], "conditions.json", str(tmp_path)).save()
    with open(tmp_path / "summary.csv", newline="", encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    assert [row[key] for key in ("name", "model", "source", "error")] == [
        f"'{FORMULA}",
        "'@model",
        "'-cold",
        "'+error",
    ]


def test_the_csv_of_an_analysis() -> None:
    fields = dict.fromkeys(Analysis.__dataclass_fields__)
    analysis = replace(Analysis(**fields), domains=[], missing=[FORMULA])
    assert as_csv(analysis).rstrip("\n").endswith(f",'{FORMULA}")


def test_the_metadata_of_a_folder_is_read_as_it_was_written(tmp_path: Path, make_images) -> None:
    root = make_images(tmp_path / "part", "good/{1-10}.png", "=bad/{1-2}.png")
    first = Folder(root).samples("part")
    with open(root / METADATA, newline="", encoding="utf-8") as file:
        assert ["'=bad/1.png", "test", "anomalous", "'=bad", ""] in list(csv.reader(file))
    assert Folder(root).samples("part") == first
