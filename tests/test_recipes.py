"""The files in examples/: each passes the check, and one of each kind runs small and ends in its table."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from adcore.experiments.reading import read_conditions
from adcore.testing import write_tiny_mvtec
from PIL import Image

EXAMPLES = Path(__file__).parent.parent / "examples"
RECIPES = sorted(EXAMPLES.glob("*.json"))
RUNS = {
    "single_domain": 16,
    "multi_domain": 16,
    "dinomaly_study": 25,
    "memory_models": 5,
    "benchmark_mvtec": 15 * 33,
    "benchmark_visa": 12 * 33,
    "benchmark_btad": 3 * 33,
}
DOMAINS = [f"domain_{letter}" for letter in "ABCD"]
TINY = {
    "weights": "random",
    "image_size": 56,
    "target_layers": [0, 1],
    "decoder_depth": 2,
    "encoder_groups": [[0], [1]],
}
TINY |= {"decoder_groups": [[0], [1]], "backbone": "dinov2_vit_small_14", "max_steps": 2, "validate_every_steps": 1}
SMALL = {  # recipe -> (settings that make it small, lists of its grid cut short, the analysis, columns of its table)
    "single_domain": (
        {"max_epochs": 1, "image_size": 64, "reconstructive_width": 4, "discriminative_width": 4},
        {"model_type": ["draem"], "source_domain": DOMAINS[:2]},
        ["--by", "domain"],
        ["Method", "domain_A", "domain_B", "Mean"],
    ),
    "multi_domain": (
        {"weights": "random", "image_size": 32, "backbone": "resnet18"},
        {"model_type": ["patchcore"], "source_domain": DOMAINS[:1]},
        ["--by", "domain"],
        ["Method", *DOMAINS, "Mean"],
    ),
    "dinomaly_study": (
        {**TINY, "val_split_ratio": 0.5},
        {"model_type": ["dinomaly-baseline", "dinomaly-gem"], "seed": [42, 43]},
        ["--by", "domain", "--baseline", "dinomaly-baseline"],
        ["Method", *DOMAINS, "Mean", "Pooled"],
    ),
    "benchmark_mvtec": (
        {"weights": "random", "image_size": 32, "backbone": "resnet18"},
        {"model_type": ["padim"], "source_domain": ["bottle", "zipper"]},
        ["--by", "category"],
        ["Method", "bottle", "zipper", "Mean"],
    ),
    "memory_models": (
        {"weights": "random", "image_size": 32},
        {},
        ["--by", "method"],
        ["Method", "Target", "source", "target", "transfer ratio", "gap"],
    ),
}


def write_data(root: Path, name: str, conditions: list[Any]) -> str:
    """Tiny images of every domain or category that the conditions name: what --data takes."""
    layout = next((c.config["dataset"] for c in conditions if "dataset" in c.config), "hdmap")
    domains = sorted({c.config["source_domain"] for c in conditions} - {"all"}) if layout != "hdmap" else DOMAINS
    generator, rows = np.random.default_rng(0), []
    for domain in domains:
        if layout == "mvtec":
            write_tiny_mvtec(root, domain, train=3, normal=1, anomalous=1)
            continue
        if layout == "visa":
            for kind, label in (("Normal", "normal"), ("Anomaly", "anomaly")):
                for number in range(3):
                    image = Path(domain) / "Data" / "Images" / kind / f"{number}.png"
                    split = "train" if label == "normal" and number < 2 else "test"
                    rows.append(f"{domain},{split},{label},{image.as_posix()},")
                    (root / image).parent.mkdir(parents=True, exist_ok=True)
                    Image.fromarray(generator.integers(0, 255, (48, 48, 3), np.uint8)).save(root / image)
            continue
        good, bad = ("ok", "ko") if layout == "btad" else ("good", "fault")
        for folder, count in ((f"train/{good}", 4), (f"test/{good}", 3), (f"test/{bad}", 3)):
            (root / domain / folder).mkdir(parents=True, exist_ok=True)
            for number in range(count):
                path = root / domain / folder / f"{number}.{'png' if layout == 'btad' else 'tiff'}"
                if layout == "btad":
                    Image.fromarray(generator.integers(0, 255, (48, 48, 3), np.uint8)).save(path)
                else:
                    tifffile.imwrite(path, generator.random((48, 48), np.float32))
    if rows:
        (root / "split_csv").mkdir()
        (root / "split_csv" / "1cls.csv").write_text("\n".join(["object,split,label,image,mask", *rows]))
    return f"{layout}:{root}"


def parsed(recipe: Path) -> dict[str, Any]:
    """The file without its comments."""
    return json.loads(re.sub(r"^\s*//.*$|\s//[^\"\n]*$", "", recipe.read_text(encoding="utf-8"), flags=re.MULTILINE))


LIKE_ANOTHER = {"benchmark_mvtec", "benchmark_visa"}  # the models and settings of benchmark_btad, in another layout


@pytest.mark.parametrize(
    "recipe",
    [
        pytest.param(path, marks=[pytest.mark.slow] if path.stem in LIKE_ANOTHER else [], id=path.stem)
        for path in RECIPES
    ],
)
def test_a_recipe_passes_the_check(recipe, tmp_path, run_cli) -> None:
    conditions = read_conditions(recipe)
    assert len(conditions) == RUNS[recipe.stem]
    data = write_data(tmp_path / "data", recipe.stem, conditions)
    path, kept = tmp_path / recipe.name, parsed(recipe)
    if recipe.stem.startswith("benchmark"):  # the categories are alike; checking each takes minutes
        kept["grid"]["source_domain"] = kept["grid"]["source_domain"][-1:]
        path.write_text(json.dumps(kept))
    else:
        path.write_text(recipe.read_text(encoding="utf-8"))
    code, out, err = run_cli("run", path, "--data", data, "--dry-run")
    assert code == 0, err
    models = {condition.config["model_type"].replace("_", "-") for condition in conditions}
    assert all(model in out for model in models)


@pytest.mark.parametrize(
    "recipe", [pytest.param("multi_domain"), *(pytest.param(n, marks=pytest.mark.slow) for n in SMALL)]
)
def test_a_small_recipe_runs_and_ends_in_its_table(recipe, tmp_path, run_cli) -> None:
    """All of them take two minutes: `hatch run test -m slow tests/test_recipes.py`."""
    settings, shorter, options, columns = SMALL[recipe]
    record = parsed(EXAMPLES / f"{recipe}.json")
    data = write_data(tmp_path / "data", recipe, read_conditions(EXAMPLES / f"{recipe}.json"))
    record["base"] |= settings
    record.get("grid", {}).update(shorter)
    (tmp_path / "small.json").write_text(json.dumps(record))
    command = ["run", tmp_path / "small.json", "--data", data, "--out", tmp_path / "out", "--gpus", "none", "--jobs", 2]
    code, out, err = run_cli(*command)
    assert code == 0, out + err
    code, out, err = run_cli("analyze", tmp_path / "out", *options, "--format", "csv")
    assert code == 0, err
    header = [name for name in next(csv.reader(io.StringIO(out))) if not name.endswith(" std")]
    assert header[1:] == columns
