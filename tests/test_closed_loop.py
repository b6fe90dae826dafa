"""From a model to the station, its reviews, their export and the next model: fewer false alarms on images never seen."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import adcore
import numpy as np
import pytest
from adcore.testing.needs import skip_without_onnx
from adcore.testing.tiny import SIDE, tiny_images, write_tiny_mvtec
from PIL import Image

pytest.importorskip("fastapi", reason="pip install 'adcore-runtime[serve]'")

from adcore.export.run import export_model
from adcore_runtime import load
from adcore_runtime.station.app import build_app
from adcore_runtime.station.export import write_dataset
from adcore_runtime.station.scoring import Scorer
from adcore_runtime.station.store import Store
from fastapi.testclient import TestClient

skip_without_onnx()

DATA = Path(os.environ.get("ADCORE_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))


def reviewed(store: Store, score: Callable[[Path], int], good: Sequence[Path], bad: Sequence[Path]) -> Path:
    """What a station exports when a person has looked at all images that it got; `score` gives the number of a result."""
    for path in [*good, *bad]:
        store.review(score(path), "bad" if path in bad else "good")
    packed = io.BytesIO()
    write_dataset(store, packed)
    with zipfile.ZipFile(packed) as archive:
        archive.extractall(store.folder / "reviewed")
    return store.folder / "reviewed"


def false_alarms(model: Path, good: Sequence[Path]) -> int:
    predictor = adcore.load(model)
    return sum(predictor.predict(path).is_anomalous for path in good)


def scores(model: Path, good: Sequence[Path], bad: Sequence[Path]) -> tuple[np.ndarray, np.ndarray]:
    predictor = adcore.load(model)
    return tuple(np.array([predictor.predict(path).score for path in paths]) for paths in (good, bad))


def flagged_at(found: tuple[np.ndarray, np.ndarray], share: float) -> int:
    """False alarms at the threshold that finds this share of the defective images."""
    good, bad = found
    return int((good >= np.quantile(bad, 1 - share)).sum())


def layout(root: Path, parts: dict[str, Sequence[Path]]) -> Path:
    """Links to images, in MVTec layout."""
    for folder, paths in parts.items():
        (root / "part" / folder).mkdir(parents=True)
        for path in paths:
            (root / "part" / folder / path.name).symlink_to(path)
    return root


def test_reviewed_images_of_a_new_material_raise_no_alarm_afterwards(tmp_path) -> None:
    data = write_tiny_mvtec(tmp_path / "data", normal=10)
    turned = tmp_path / "turned"
    turned.mkdir()
    images = (tiny_images(14, (SIDE, SIDE), seed=4).permute(0, 3, 2, 1).numpy() * 255).astype(np.uint8)
    for number, image in enumerate(images):
        Image.fromarray(image).save(turned / f"{number}.png")
    new, held = sorted(turned.iterdir())[:8], sorted(turned.iterdir())[8:]
    settings = {"weights": "random", "image_size": SIDE, "device": "cpu", "coreset_ratio": 1.0}
    trained_on = {"out": tmp_path / "run", "threshold": "normal_p95"}
    run = adcore.train(f"mvtec:{data}", "part", "patchcore-resnet18", **trained_on, **settings)
    predictor, store = adcore.load(run.artifact), Store(tmp_path / "station")

    def score(path: Path) -> int:
        kept = store.keep_image(path.read_bytes())
        return store.add(path.name, kept, "part", predictor.predict(kept))["id"]

    folder = reviewed(store, score, new, sorted((data / "part/test/spot").iterdir()))
    store.close()
    assert false_alarms(run.artifact, new) >= 1
    assert false_alarms(run.artifact, held) >= 3
    from adcore.update import update

    updated = update(run.artifact, folder / "good", tmp_path / "updated", device="cpu")
    assert (updated.added, false_alarms(tmp_path / "updated", held)) == (8, 0)
    again = adcore.train(f"folder:{folder}", "reviewed", "patchcore-resnet18", out=tmp_path / "again", **settings)
    assert again.metrics["image_auroc"] == 1
    assert false_alarms(again.artifact, held) == 0


@pytest.mark.slow
def test_fewer_false_alarms_on_magnetic_tiles(tmp_path) -> None:
    """Tiles of one half train; on those of the other half, by name, the model raises false alarms."""
    root = DATA / "magtile"
    if not root.is_dir():
        pytest.skip(f"{root} is not there; ADCORE_TEST_DATA names the folder of test data")
    good = sorted([*(root / "train/good").iterdir(), *(root / "test/good").iterdir()], key=lambda path: path.name)
    bad = sorted(path for path in (root / "test").glob("*/*") if path.parent.name != "good")
    known, other = good[: len(good) // 2 : 3], good[len(good) // 2 :]
    line, held = other[::3], other[1::3]
    data = layout(tmp_path / "data", {"train/good": known})
    settings = {"image_size": 128, "device": "cpu", "coreset_ratio": 0.05, "threshold": "normal_p95", "val_ratio": 0.3}
    run = adcore.train(f"mvtec:{data}", "part", "patchcore-efficientnet-lite0", out=tmp_path / "run", **settings)
    exported, store = export_model(run.artifact, out=tmp_path / "exported").path, Store(tmp_path / "station")
    client = TestClient(build_app(Scorer({"part": load(exported)}, store, 4), 10_000_000))

    def score(path: Path) -> int:
        return client.post(f"/predict?name={path.name}", content=path.read_bytes()).json()["id"]

    folder = reviewed(store, score, line, bad[::6])
    store.close()
    from adcore.update import update

    update(run.artifact, folder / "good", tmp_path / "updated", device="cpu")
    name = "patchcore-efficientnet-lite0"
    again = adcore.train(f"folder:{folder}", "reviewed", name, out=tmp_path / "again", **settings)
    before, updated, trained = (
        scores(path, held, bad[1::3]) for path in (run.artifact, tmp_path / "updated", again.artifact)
    )
    assert adcore.load(tmp_path / "updated").threshold == adcore.load(run.artifact).threshold
    assert false_alarms(tmp_path / "updated", held) < false_alarms(run.artifact, held)
    assert flagged_at(updated, 0.7) < flagged_at(before, 0.7)
    assert flagged_at(trained, 0.7) < flagged_at(before, 0.7)
