"""Maps beyond a budget lie in a file: the results are the same, nothing is left of it, and pixels are counted in blocks."""

from __future__ import annotations

import gc
import json
from pathlib import Path

import numpy as np
import pytest
from adcore.data.samples import Sample
from adcore.errors import DataError
from adcore.evaluation import pixel, planes
from adcore.evaluation.evaluate import defect_rows, measure
from adcore.evaluation.planes import EachPlane, Keeper, PlaneFile
from adcore.evaluation.score import ScoredImage, Scoring
from adcore.testing import write_tiny_mvtec
from PIL import Image

TRAIN = ("--category", "part", "--epochs", 1, "--set", "loss=mse", "--set", "width=4", "--set", "tile=64")


def held(folder: Path) -> list[str]:
    """What this process has open or mapped below `folder`, of files without a name, too."""
    gc.collect()
    links = [str(path.readlink()) for path in Path("/proc/self/fd").iterdir() if path.is_symlink()]
    return [line for line in (*links, *Path("/proc/self/maps").read_text().splitlines()) if str(folder) in line]


@pytest.fixture
def trained(tmp_path, run_cli) -> tuple[Path, Path]:
    """Data and a model that sees each image as one tile."""
    data = write_tiny_mvtec(tmp_path / "data")
    code, _, err = run_cli("train", "autoencoder", "--data", f"mvtec:{data}", *TRAIN, "--out", tmp_path / "model")
    assert code == 0, err
    return data, tmp_path / "model" / "model.safetensors"


def evaluated(run_cli, data: Path, model: Path, out: Path) -> tuple[int, str]:
    code, _, err = run_cli(
        "evaluate", model, "--data", f"mvtec:{data}", "--category", "part", "--full-size", "--out", out
    )
    return code, err


def test_results_are_those_of_maps_in_memory_and_no_file_is_left(trained, tmp_path, run_cli, monkeypatch) -> None:
    data, model = trained
    written, put = [], PlaneFile.put
    monkeypatch.setattr(PlaneFile, "put", lambda self, plane: written.append(self.folder) or put(self, plane))
    assert evaluated(run_cli, data, model, tmp_path / "memory")[0] == 0
    assert not written
    monkeypatch.setattr(planes, "IN_MEMORY", 100_000)  # of six maps with masks of 64 x 64 px some are in memory
    assert evaluated(run_cli, data, model, tmp_path / "file")[0] == 0
    assert written == [tmp_path / "file"] * 2 * 2
    one, other = (json.loads((tmp_path / name / "result.json").read_text()) for name in ("memory", "file"))
    for key in ("test", "intervals", "defects", "full_size", "threshold", "thresholds", "notes"):
        assert other[key] == one[key], key
    names = [sorted(path.name for path in (tmp_path / name).rglob("*")) for name in ("memory", "file")]
    assert names[0] == names[1]
    assert not Path("/proc/self/maps").exists() or not held(tmp_path)


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="open files are told by Linux")
def test_no_file_is_left_where_a_run_fails_in_the_middle(trained, tmp_path, run_cli, monkeypatch) -> None:
    data, model = trained
    monkeypatch.setattr(planes, "IN_MEMORY", 0)
    before = set(Path(planes.tempfile.gettempdir()).iterdir())
    (data / "part/test/spot/011.png").write_bytes(b"no image")
    code, err = evaluated(run_cli, data, model, tmp_path / "out")
    assert code == 2
    assert "011.png" in err
    assert not (tmp_path / "out").exists()
    assert not held(tmp_path)
    assert not {path for path in set(Path(planes.tempfile.gettempdir()).iterdir()) - before if path.is_file()}


def scoring_of(kinds: tuple[str, ...] = ("good", "good", "crack", "spot", "crack")) -> Scoring:
    """Images of noise, with an anomalous square where one is not good."""
    random, images = np.random.default_rng(0), []
    for number, kind in enumerate(kinds):
        mask = np.zeros((24, 20), bool)
        mask[4:9, 3:8] = kind != "good"
        values = random.normal(size=mask.shape).astype(np.float32) + mask
        sample = Sample(Path(f"{number}.png"), "test", int(kind != "good"), "part", kind)
        images.append(ScoredImage(sample, float(values.max()), values, mask))
    return Scoring(images)


def stored(scoring: Scoring, folder: Path) -> Scoring:
    """The same with all planes in a file."""
    keeper = Keeper(folder)
    keeper.left = 0
    for image in scoring.images:
        keeper.keep(image, ("anomaly_map", "mask"))
    return scoring


def test_a_plane_is_read_anew_each_time(tmp_path) -> None:
    scoring = scoring_of()
    expected = [image.anomaly_map.copy() for image in scoring.images]
    found = planes.planes(stored(scoring, tmp_path).images, "anomaly_map")
    assert isinstance(found, EachPlane)
    assert all(np.array_equal(one, other) for one, other in zip(found, expected, strict=True))
    found[1][:] = 0
    assert np.array_equal(found[1], expected[1])
    assert np.array_equal(found[3:][1], expected[4])
    assert not list(tmp_path.iterdir())


def test_a_file_that_cannot_be_made_is_one_clear_line(tmp_path, refuses) -> None:
    refuses(lambda: PlaneFile(tmp_path / "missing"), str(tmp_path / "missing"), "maps and masks", "No such file")


@pytest.mark.parametrize("in_file", [False, True])
def test_normal_pixels_are_counted_in_blocks_and_nothing_changes(in_file, tmp_path, monkeypatch) -> None:
    scoring = scoring_of()
    seen = np.ones((24, 20), bool)
    seen[:, 15:] = False
    for image in scoring.images:
        image.anomaly_map = image.anomaly_map.round(1)  # many values tie
        image.seen = seen
        image.mask = image.mask & seen
    expected, types = measure(scoring, 0.0, 0.5), defect_rows(scoring, 0.0)
    monkeypatch.setattr(pixel, "BLOCK", 500)  # more than the pixels of an image
    if in_file:
        stored(scoring, tmp_path)
    assert measure(scoring, 0.0, 0.5) == expected
    assert defect_rows(scoring, 0.0) == types
    scoring.images[2].anomaly_map = scoring.images[2].anomaly_map * np.float32(np.nan)
    with pytest.raises(DataError, match="anomaly map 2 holds NaN"):
        measure(scoring, 0.0)


def test_of_very_many_scores_some_stand_for_all(monkeypatch) -> None:
    random, shape = np.random.default_rng(0), (4, 60, 60)
    masks = random.random(shape) < 0.3
    maps = (random.normal(size=shape) + masks).astype(np.float32)
    maps[0, 0, 0] = 1e30  # which evenly spaced levels would not survive
    exact = pixel.pixel_metrics(list(maps), list(masks))
    monkeypatch.setattr(pixel, "MOST_STEPS", 1000)
    rounded = pixel.pixel_metrics(list(maps), list(masks))
    assert rounded != exact
    for name, value in exact.values.items():
        assert rounded[name] == pytest.approx(value, abs=0.003), name


def test_pictures_of_a_large_map_are_made_in_strips(monkeypatch) -> None:
    from adcore.evaluation import gallery, plots

    values = np.random.default_rng(0).random((37, 21, 3)).astype(np.float32)
    monkeypatch.setattr(gallery, "STRIP", 100)
    monkeypatch.setattr(plots, "STRIP", 100)
    assert np.array_equal(np.asarray(plots.in_8_bits(values)), (values * 255).round().astype(np.uint8))
    level = np.clip((values[..., 0] - 0.1) / 0.7, 0, 1) * 255
    assert np.array_equal(gallery._in_8_bits(values[..., 0], 0.1, 0.8), level.round().astype(np.uint8))
    assert Image.fromarray(gallery._in_8_bits(values[..., 0], 0.1, 0.8)).size == (21, 37)
