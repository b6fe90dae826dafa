"""`adcore report`: one page over many runs; its numbers are those of the tables, its texts stay text."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from adcore.cli.report import command
from adcore.errors import ConfigError
from adcore.evaluation.web_page import in_script, texts
from adcore.experiments.collect import collect
from adcore.experiments.comparison import write_comparison
from adcore.experiments.side_by_side import side_by_side
from click.testing import CliRunner

EVIL = '<script>alert("x")</script>'
VALUES = {"good": {"A": (0.9, 0.92), "B": (0.8, 0.84)}, "base": {"A": (0.7, 0.74), EVIL: (0.6, 0.6)}}


class Shown(HTMLParser):
    """The text of each cell, and the links."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags, self.links, self.words = [], [], []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name == "href"]

    def handle_data(self, data):
        self.words.append(data.strip())


def run_folder(folder: Path, model: str, category: str, seed: int, value: float) -> None:
    folder.mkdir(parents=True)
    record = {"model": model, "dataset": "mvtec", "category": category, "preprocess": {}, "config": {}}
    record |= {"plan": {"seed": seed, "batch_size": 4}, "peak_memory_mb": {"process": 100.0}}
    record |= {"test": {"values": {"image_auroc": value}, "reasons": {}}}
    record |= {"timings": {"fit_seconds": 2.0, "ms_per_image": 5.0}}
    (folder / "result.json").write_text(json.dumps(record))
    (folder / "report.html").write_text("a report")
    rows = [
        "path,category,defect,label,score,predicted",
        f"a.png,{category},good,0,0.1,0",
        f"b.png,{category},x,1,0.9,1",
    ]
    (folder / "predictions.csv").write_text("\n".join(rows).replace(EVIL, '"' + EVIL.replace('"', '""') + '"'))


@pytest.fixture
def runs(tmp_path) -> Path:
    number = 0
    for model, categories in VALUES.items():
        for category, values in categories.items():
            for seed, value in enumerate(values):
                run_folder(tmp_path / "runs" / f"{model} {number}", model, category, seed, value)
                number += 1
    return tmp_path / "runs"


def test_the_page_ranks_methods_and_links_to_each_report(runs) -> None:
    done = CliRunner().invoke(command, [str(runs)])
    assert done.exit_code == 0, done.output
    page = Shown((runs / "comparison.html").read_text(encoding="utf-8"))
    words = [word for word in page.words if word]
    first = words.index("good")
    assert words[first - 1 : first + 4] == ["1", "good", "each domain on its own", "2", "0.8650 ± 0.0212"]
    assert len(page.links) == 8
    assert "./good%200/report.html" in page.links
    assert "0.910" in words  # the heat map: mean over seeds


def test_names_stay_text_and_scripts_are_the_page_s_own(runs) -> None:
    write_comparison([runs], runs / "page.html")
    page = Shown((runs / "page.html").read_text(encoding="utf-8"))
    assert page.tags.count("script") == 2 + 6
    assert EVIL in page.words
    data = next(word for word in page.words if word.startswith('{"curves"'))
    assert "<" not in data
    curves = json.loads(data)["curves"]
    assert {one["domain"] for one in curves} == {"A", "B", EVIL}
    assert curves[0]["points"][-1] == [1.0, 1.0]


def pictured_run(folder: Path, model: str, scores: dict[str, float], threshold: float) -> None:
    """A run whose report has pictures of images called by the keys of `scores`; "b..." are anomalous."""
    run_folder(folder, model, "A", 0, 0.9)
    images = [
        {"path": name, "defect": name[0], "label": int(name[0] == "b"), "score": score, "size": [8, 8]}
        | {"to_pixel": [8, 0, 8, 0], "photo": f"data:{model}", "map": f"data:map {model} {name}", "mask": None}
        for name, score in scores.items()
    ]
    data = {"images": images, "threshold": threshold}
    (folder / "report.html").write_text(f'<script type="application/json" id="data">{in_script(data)}</script>')


def test_models_are_shown_side_by_side_where_they_disagree(tmp_path) -> None:
    one = {f"a{i}": i / 20 for i in range(10)} | {f"b{i}": 0.6 + i / 50 for i in range(10)}
    other = {
        **one,
        "a7": 0.99,
        "b3": 0.01,
        "a9": 0.0,
    }  # a false alarm, a missed defect, another place below the threshold
    pictured_run(tmp_path / "one", "one", one, 0.5)
    pictured_run(tmp_path / "other", "other", {**other, "b77": 1.0}, 0.5)
    (side,) = side_by_side(collect(tmp_path)[0])
    assert (side["domain"], side["methods"]) == ("A", ["one", "other"])
    assert [image["path"] for image in side["images"]][:5] == ["b3", "b0", "b1", "b2", "a7"]
    assert side["images"][5]["path"] == "a9"
    assert len(side["images"]) == 8
    missed = side["images"][0]
    assert [seen["flagged"] for seen in missed["seen"]] == [True, False]
    assert missed["seen"][1]["map"] == "data:map other b3"
    (tmp_path / "other" / "report.html").write_text("a page of another kind")
    assert side_by_side(collect(tmp_path)[0]) == []


def test_one_run_twice_is_refused_and_nothing_is_written(runs, tmp_path) -> None:
    with pytest.raises(ConfigError, match="leave one out"):
        write_comparison([runs, runs], tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


def test_every_text_is_in_both_languages_and_every_key_is_in_the_table() -> None:
    assert all(entry["en"] and entry["ko"] for entry in texts().values())
    web = Path(__file__).parent.parent / "src/adcore/evaluation/web"
    for file in web.iterdir():
        used = re.findall(r'\bt\("(\w+)"|data-t(?:-label)?="(\w+)"', file.read_text(encoding="utf-8"))
        assert {one or other for one, other in used} <= set(texts()), file.name
