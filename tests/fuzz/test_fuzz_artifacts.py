"""Damaged model files: the same score as before, or one line that names the file."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import adcore
import numpy as np
import pytest
import torch
from adcore import artifact as artifacts
from adcore import tensorfile
from adcore.artifact import Artifact
from adcore.inference.predictor import Predictor
from adcore.testing.tiny import fit_tiny

Rng = np.random.Generator
SMALL = {  # model -> settings that keep its file below a megabyte
    "padim-resnet18": {"weights": "random", "layers": ["layer1"], "n_features": 8},
    "stfpm-resnet18": {"weights": "random", "layers": ["layer1"]},
    "draem": {"reconstructive_width": 2, "discriminative_width": 2},
}
FRAME = np.random.default_rng(1).random((40, 50, 3), dtype=np.float32)
# no number that asks for gigabytes and gets them
VALUES = (None, True, False, -1, 0, 1, 2, 3, 5, 2**70, -(2**70), 0.5, -1.5, 1e308, math.nan, math.inf, -math.inf)
VALUES += (
    "",
    "x",
    "0",
    "/etc/passwd",
    "../x",
    "é\u2028\ud800",
    "=1",
    [],
    [[]],
    [0],
    [1, 2, 3],
    {},
    {"x": None},
    [None],
)


@dataclass
class Fitted:
    """A whole model file, its parts, and the score that it gives."""

    content: bytes
    header: dict[str, Any]
    tensors: dict[str, torch.Tensor]
    score: float


@pytest.fixture(scope="module", params=SMALL)
def fitted(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Fitted:
    """A small fitted model with random weights, and a calibration."""
    model, _, choice = fit_tiny(request.param, 32, epochs=1, **SMALL[request.param])
    calibration = {
        "threshold": {"value": 0.25, "method": "normal_p95", "source": "val", "note": ""},
        "score_range": [0.0, 1.0],
        "map_range": [0.0, 1.0],
    }
    path = tmp_path_factory.mktemp("fitted") / "model.safetensors"
    artifact = Artifact(model, choice.preprocess, calibration, {"dataset": "tiny", "counts": {"train": 4}})
    artifacts.save(path, artifact)
    header = tensorfile.read_record(path, artifacts.KIND)
    tensors = {key: value.clone() for key, value in tensorfile.read_tensors(path, artifacts.KIND).items()}
    return Fitted(path.read_bytes(), header, tensors, adcore.load(path).predict(FRAME).score)


def outcome(path: Path) -> tuple[float, bool | None]:
    result = adcore.load(path).predict(FRAME)
    return result.score, result.is_anomalous


def places(data: Any, place: tuple = ()) -> Iterator[tuple]:
    """The way to every value in nested dicts and lists."""
    for key in data if isinstance(data, dict) else range(len(data)) if isinstance(data, list) else ():
        yield (*place, key)
        yield from places(data[key], (*place, key))


def mutate(header: dict[str, Any], rng: Rng) -> dict[str, Any]:
    """A copy with one to three values deleted, replaced, of another type, added, or put elsewhere."""
    header = copy.deepcopy(header)
    for _ in range(rng.integers(1, 4)):
        ways = list(places(header))
        if not ways:
            break
        *above, key = ways[rng.integers(len(ways))]
        parent = header
        for part in above:
            parent = parent[part]
        value = VALUES[rng.integers(len(VALUES))]
        match rng.integers(6):
            case 0:
                del parent[key]
            case 1 | 2:
                parent[key] = value
            case 3:
                parent[key] = [parent[key]] if rng.integers(2) else str(parent[key])
            case 4 if isinstance(parent, dict):
                parent[["x", "", "weights", "size"][rng.integers(4)]] = value
            case _:
                other = header
                for part in ways[rng.integers(len(ways))]:
                    try:
                        other = other[part]
                    except (LookupError, TypeError):
                        break
                parent[key] = copy.deepcopy(other)
    return header


def test_bytes_that_changed(fitted: Fitted, tmp_path: Path, fuzz_budget) -> None:
    header_end = 8 + int.from_bytes(fitted.content[:8], "little")
    path = tmp_path / "damaged.safetensors"
    for rng in fuzz_budget:
        content = bytearray(fitted.content)
        start, end = ((0, 8), (8, header_end), (header_end, len(content)))[rng.choice(3, p=(0.1, 0.6, 0.3))]
        match rng.integers(5):
            case 0 | 1:
                for place in rng.integers(start, end, rng.integers(1, 4)):
                    content[place] ^= 1 << int(rng.integers(8))
            case 2:
                del content[int(rng.integers(start, end)) :]
            case 3:
                place = int(rng.integers(start, end))
                content[place : place + int(rng.integers(1, 64))] = rng.bytes(rng.integers(0, 64))
            case 4:
                place = int(rng.integers(start, end))
                content[place : place + 64] = bytes(64)
        path.write_bytes(content)
        found = fuzz_budget.one_clear_line(lambda: outcome(path), path)
        assert found in (None, (fitted.score, fitted.score >= 0.25)), fuzz_budget


def test_headers_that_changed(fitted: Fitted, tmp_path: Path, fuzz_budget) -> None:
    """Without and with a checksum that fits: a foreign program may have written the file."""
    from safetensors.torch import save_file

    path = tmp_path / "changed.safetensors"
    for rng in fuzz_budget:
        header, fits = mutate(fitted.header, rng), bool(rng.integers(4))
        if fits:
            header = {key: value for key, value in header.items() if key != "sha256"}
            header["sha256"] = tensorfile.checksum_by_tensor(header, fitted.tensors)
        text = json.dumps(header)
        save_file(fitted.tensors, path, {"adcore": text})
        result = fuzz_budget.one_clear_line(lambda: adcore.load(path), path)
        if not isinstance(result, Predictor):
            continue
        prediction = fuzz_budget.one_clear_line(lambda result=result: result.predict(FRAME), "the image", "image size")
        if prediction is None:
            continue
        if not fits:
            assert prediction.score == fitted.score, fuzz_budget
        numbers = (prediction.score, prediction.threshold, prediction.normalized_score)
        assert all(math.isfinite(number) for number in numbers if number is not None), fuzz_budget
