"""Condition files of any content: a ConfigError of clear lines that name the file, or the conditions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from adcore.errors import ConfigError
from adcore.experiments.conditions import load_conditions
from adcore.experiments.record import read_condition, write_condition
from adcore.testing import write_tiny_mvtec

pytest.importorskip("adm_memory", reason="pip install adm-memory")
NASTY = [
    None, True, False, 0, -1, 1, 2**31, 2**63, -(2**70), 10**400, 0.5, -0.0, 1e308, float("nan"), float("inf"), "", " ",
    "none", "auto", "all", "a" * 5000, "\x00", "\ud800", "new\nline", "../..", "/", "~nobody", "{}", "=1+1", [], [[]], {},
    {"type": None}, {"type": "StepLR"}, {"type": "steplr", "step_size": "x"}, {"a": {"b": [1]}}, ["part"], ["part", 3], [1, 2],
    [0, 0], [-5, 2.5], ["x"] * 50, "bilinear", "32x", "32x64", "adam", "sgd", "weights", "random", "resnet18", "cuda",
]  # fmt: skip
KEYS = (
    "name", "description", "config", "base", "grid", "experiment_conditions", "model_type", "model", "dataset", "dataset_root",
    "source_domain", "domain", "category", "target_domains", "val_split_mode", "val_split_ratio", "threshold", "skip_bad",
    "tensorboard", "data_options", "epochs", "max_epochs", "num_epochs", "batch_size", "max_steps", "seed", "num_workers",
    "learning_rate", "weight_decay", "optimizer", "scheduler", "clip_norm", "accumulate", "precision", "monitor", "patience",
    "early_stopping_patience", "min_delta", "target", "checkpoint_seconds", "image_size", "target_size", "crop_size",
    "normalization", "resize", "channels", "value_range", "backbone", "weights", "layers", "n_features", "regularization",
    "self", "cls", "model_config", "model_fields", "model_extra", "_fields_set", "__class__", "", " ", "é", "model_construct",
)  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_tiny_mvtec(tmp_path_factory.mktemp("data"))


def document(data: Path) -> dict[str, Any]:
    base = {"dataset": "mvtec", "dataset_root": str(data), "model_type": "padim-resnet18", "weights": "random"}
    return {
        "base": {**base, "image_size": 32, "source_domain": "part"},
        "one": {},
        "two": {"seed": 7, "description": "d"},
    }


def places(value: Any) -> list[tuple[Any, Any]]:
    """(container, key) of everything below `value`."""
    found = []
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in pairs:
        found += [(value, key), *places(one)]
    return found


def mutated(rng: np.random.Generator, value: dict[str, Any]) -> dict[str, Any]:
    for _ in range(rng.integers(1, 4)):
        found = places(value)
        container, key = found[rng.integers(len(found))] if found else (value, "one")
        nasty = json.loads(json.dumps(NASTY[rng.integers(len(NASTY))]))  # a copy
        kind = rng.integers(4)
        if kind == 0 or not isinstance(container, dict):
            container[key] = nasty
        elif kind == 1:
            container[KEYS[rng.integers(len(KEYS))]] = nasty
        elif kind == 2:
            container.pop(key)
        else:
            settings = [one for one in value.values() if isinstance(one, dict)] or [value]
            settings[rng.integers(len(settings))][KEYS[rng.integers(len(KEYS))]] = nasty
    return value


def damaged(rng: np.random.Generator, content: bytes) -> bytes:
    content = bytearray(content)
    for _ in range(rng.integers(1, 6)):
        start = int(rng.integers(len(content) + 1))
        piece = bytes(rng.integers(0, 256, rng.integers(0, 4), dtype=np.uint8))
        piece = [
            piece,
            b"[" * 200,
            b'"',
            b"/*",
            b"//",
            b",",
            b"\xff\xfe",
            b"&a ",
            b"*a ",
            b"<<: ",
            b"!!binary ",
            b"1e999",
        ][rng.integers(12)]
        content[start : start + int(rng.integers(0, 4))] = piece
    return bytes(content)


def check(path: Path, folder: Path, case: object) -> None:
    """The property; conditions that are right stay what they are on their way to the process that runs them."""
    try:
        conditions = load_conditions(path)
    except ConfigError as error:
        lines = str(error).splitlines()
        if len(lines) > 1:
            assert lines.pop(0).endswith("nothing was started"), (case, lines)
        for line in lines:
            assert str(path) in line, (case, line)
            assert len(line) < 3000, (case, line)
        return
    except BaseException as error:
        error.add_note(f"{case}: {path.read_bytes()[:2000]!r}")
        raise
    for condition in conditions:
        write_condition(folder, condition)
        read = read_condition(folder)
        assert json.dumps(read.choice.config, default=str) == json.dumps(condition.choice.config, default=str), case
        assert (read.choice.plan, read.choice.preprocess) == (condition.choice.plan, condition.choice.preprocess), case
        assert (read.config, read.targets) == (condition.config, condition.targets), case


@pytest.mark.parametrize("suffix", ["json", "yaml"])
def test_wrong_values_anywhere(fuzz_budget, data, tmp_path, suffix) -> None:
    yaml = pytest.importorskip("yaml") if suffix == "yaml" else None
    path = tmp_path / f"conditions.{suffix}"
    for rng in fuzz_budget:
        value = mutated(rng, document(data))
        text = json.dumps(value) if yaml is None else yaml.safe_dump(value, allow_unicode=bool(rng.integers(2)))
        path.write_bytes(text.encode("utf-8", "surrogatepass"))
        check(path, tmp_path / "run", fuzz_budget)


@pytest.mark.parametrize("suffix", ["json", "yaml"])
def test_damaged_text(fuzz_budget, data, tmp_path, suffix) -> None:
    yaml = pytest.importorskip("yaml") if suffix == "yaml" else None
    path = tmp_path / f"conditions.{suffix}"
    whole = json.dumps(document(data), indent=1) if yaml is None else yaml.safe_dump(document(data))
    for rng in fuzz_budget:
        path.write_bytes(damaged(rng, whole.encode(["utf-8", "utf-16", "latin-1"][rng.choice(3, p=[0.8, 0.1, 0.1])])))
        check(path, tmp_path / "run", fuzz_budget)
