"""`adcore report`: one page over many runs; its numbers are those of the tables, its texts stay text."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from adcore.cli.report import command
from adcore.errors import ConfigError
from adcore.evaluation.web_page import texts
from adcore.experiments.comparison import write_comparison
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
    assert page.tags.count("script") == 2 + 4
    assert EVIL in page.words
    data = next(word for word in page.words if word.startswith('{"curves"'))
    assert "<" not in data
    curves = json.loads(data)["curves"]
    assert {one["domain"] for one in curves} == {"A", "B", EVIL}
    assert curves[0]["points"][-1] == [1.0, 1.0]


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
