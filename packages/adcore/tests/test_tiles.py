"""Tiles: every part of an image is seen, maps come together without seams, and all commands work with them."""

from __future__ import annotations

import csv
import json
from itertools import pairwise
from pathlib import Path

import adcore
import numpy as np
import pytest
import tifffile
import torch
from adcore.artifact import Artifact, load
from adcore.data.dataset import ImageDataset, make_loader
from adcore.data.image_io import image_size, read_image
from adcore.data.mvtec import MVTec
from adcore.data.samples import select
from adcore.data.tiles import count_tiles
from adcore.errors import ConfigError, DataError
from adcore.evaluation.score import score_image
from adcore.inference.predictor import Predictor
from adcore.model import AnomalyModel, Prediction
from adcore.preprocess import RESIZE_METHODS, Preprocess
from adcore.request import choose_model
from adcore_runtime.geometry import full_size
from adcore_runtime.roi import Roi
from adcore_runtime.tiles import Stitch, tiles_of
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

SIZE = (90, 150)  # of the images below
TRAIN = ("--category", "part", "--epochs", 1, "--set", "loss=mse", "--set", "width=4", "--set", "tile=64")


class Brightness(AnomalyModel):
    """A pixel is as anomalous as it is bright, whatever is around it."""

    fitted = True

    def forward(self, images):
        maps = images.mean(1)
        return Prediction(maps.flatten(1).amax(1), maps)


def write_parts(root: Path) -> Path:
    """Four training and three test images in MVTec layout, the last with a bright spot."""
    generator = np.random.default_rng(0)
    for number in range(7):
        kind = "train/good" if number < 4 else "test/good" if number < 6 else "test/spot"
        values = generator.integers(90, 110, (*SIZE, 3), np.uint8)
        if kind == "test/spot":
            mask = np.zeros(SIZE, np.uint8)
            values[40:54, 60:80], mask[40:54, 60:80] = 250, 255
            (root / "part/ground_truth/spot").mkdir(parents=True)
            Image.fromarray(mask).save(root / f"part/ground_truth/spot/{number}_mask.png")
        (root / "part" / kind).mkdir(parents=True, exist_ok=True)
        Image.fromarray(values).save(root / "part" / kind / f"{number}.png")
    return root


@st.composite
def tilings(draw) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]]:
    """(plane, tile, overlap)."""
    tile = draw(st.integers(2, 12)), draw(st.integers(2, 12))
    overlap = tuple(draw(st.integers(0, side - 1)) for side in tile)
    plane = tuple(side + draw(st.integers(0, 30)) for side in tile)
    return plane, tile, overlap


@settings(max_examples=30)
@given(tilings())
def test_tiles_cover_the_image_and_what_was_cut_comes_together_again(tiling) -> None:
    plane, tile, overlap = tiling
    tiles = tiles_of(plane, tile, overlap)
    assert len(set(map(str, tiles))) == len(tiles)
    image = np.random.default_rng(0).random(plane).astype(np.float32)
    stitch = Stitch(plane, tile, overlap)
    for rows, columns in tiles:
        assert (rows.stop - rows.start, columns.stop - columns.start) == tile
        stitch.add((rows, columns), image[rows, columns])
    assert np.allclose(stitch.map(), image, rtol=1e-5)
    lefts = sorted({columns.start for _, columns in tiles})
    assert all(left + tile[1] - following >= overlap[1] for left, following in pairwise(lefts))


@settings(max_examples=30)
@given(tilings(), st.sampled_from(RESIZE_METHODS), st.booleans(), st.integers(0, 9))
def test_a_mark_comes_back_at_its_place_in_the_original(tiling, resize, resized, shift) -> None:
    plane, tile, overlap = tiling
    height, width = (2 * side + shift for side in plane)
    region = (shift, 1, width - shift, height - 1)
    seen = (height - 1, width - shift)
    if not resized:
        plane = None
    preprocess = Preprocess(plane, resize=resize, region=region, tile=tile, tile_overlap=overlap)
    y, x = 1 + seen[0] // 2, shift + seen[1] // 2
    image = torch.zeros(3, height, width)
    image[:, y : y + 4, x : x + 4] = 1
    _, anomaly_map = score_image(Brightness(), preprocess.plane(image), preprocess, "cpu", "the image")
    frame = preprocess.frame(height, width)
    whole = np.nan_to_num(full_size(anomaly_map, frame, height, width))
    row, column = np.unravel_index(whole.argmax(), whole.shape)
    assert y - frame.row_pixels - 1 <= row <= y + 4 + frame.row_pixels
    assert x - frame.column_pixels - 1 <= column <= x + 4 + frame.column_pixels


@settings(max_examples=30)
@given(tilings())
def test_the_map_of_tiles_is_that_of_the_image_and_the_score_its_highest(tiling) -> None:
    plane, tile, overlap = tiling
    image = torch.from_numpy(np.random.default_rng(1).random((3, *plane)).astype(np.float32))
    tiled = Preprocess(None, tile=tile, tile_overlap=overlap, mean=(0.5,) * 3, std=(0.2,) * 3)
    score, anomaly_map = score_image(Brightness(), image, tiled, "cpu", "the image")
    whole = tiled.normalized(image).mean(0).numpy()
    assert np.allclose(anomaly_map, whole, rtol=1e-4, atol=1e-5)
    assert score == pytest.approx(float(whole.max()), rel=1e-5)


def test_of_a_region_of_interest_only_the_tiles_that_show_it_are_scored() -> None:
    mask = np.zeros(SIZE, bool)
    mask[10:50, 20:70] = True
    image = torch.from_numpy(np.random.default_rng(3).uniform(0.2, 1, (3, *SIZE)).astype(np.float32))
    image[:, 80:, 140:] = 1  # outside, and brighter than what counts
    tiled = Preprocess(None, tile=(32, 32), tile_overlap=(8, 8), roi=Roi.of(mask))
    scored = []

    class Counted(Brightness):
        def forward(self, images):
            scored.append(len(images))
            return super().forward(images)

    score, anomaly_map = score_image(Counted(), tiled.plane(image), tiled, "cpu", "the image", seen=tiled.seen(*SIZE))
    inside = image.mean(0).numpy()[mask]
    assert np.allclose(anomaly_map[mask], inside, rtol=1e-5)
    assert score == pytest.approx(float(inside.max()), rel=1e-5)
    assert np.all(anomaly_map[~mask] == anomaly_map[mask].min())
    assert sum(scored) < len(tiled.tiles(SIZE))


def test_a_pass_takes_one_tile_of_each_image_and_as_many_passes_as_tiles_take_all(tmp_path) -> None:
    reader = MVTec(write_parts(tmp_path))
    samples = select(reader.samples("part"), "train")
    preprocess = Preprocess(None, tile=(64, 64), tile_overlap=(8, 8))
    tiles = len(tiles_of(SIZE, (64, 64), (8, 8)))
    assert tiles == 6

    def passes(workers: int, epochs: int) -> list[dict[str, bytes]]:
        loader = make_loader(ImageDataset(samples, reader, preprocess, seed=3), 2, True, seed=3, num_workers=workers)
        found = []
        for epoch in range(epochs):
            loader.set_epoch(epoch)
            batches = list(loader)
            assert [tuple(batch.images.shape) for batch in batches] == [(2, 3, 64, 64)] * 2
            found.append({p: i.numpy().tobytes() for b in batches for p, i in zip(b.paths, b.images, strict=True)})
        return found

    seen = passes(0, tiles)
    assert passes(1, 2) == seen[:2]
    for sample in samples:
        assert len({epoch[str(sample.image_path)] for epoch in seen}) == tiles


def test_a_model_of_one_pass_sees_all_tiles_once(tmp_path) -> None:
    reader = MVTec(write_parts(tmp_path))
    samples = select(reader.samples("part"), "train")
    preprocess = Preprocess(None, tile=(50, 80))
    dataset = ImageDataset(samples, reader, preprocess)
    assert count_tiles(preprocess, reader, samples) == 4 * 4
    loader = make_loader(dataset, 2, shuffle=False, seed=0)
    loader.one_by_one()
    batches = list(loader)
    assert len(batches) == len(loader) == 16
    first = read_image(samples[0].image_path)
    assert torch.equal(batches[1].images[0], first[:, :50, 70:])
    assert torch.equal(batches[2].images[0], first[:, 40:, :80])


def test_the_size_is_in_the_header_and_is_that_of_the_decoded_image(tmp_path) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6
    for name, options in (("a.png", {}), ("b.jpg", {}), ("c.jpg", {"exif": turned})):
        Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(tmp_path / name, **options)
        assert image_size(tmp_path / name) == tuple(read_image(tmp_path / name).shape[1:])
    (tmp_path / "no.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    assert image_size(tmp_path / "no.png") is None


def test_train_evaluate_and_predict_in_tiles(run_cli, tmp_path) -> None:
    data, run = write_parts(tmp_path / "data"), tmp_path / "run"
    code, _, output = run_cli("train", "autoencoder", "--data", f"mvtec:{data}", *TRAIN, "--out", run)
    assert code == 0, output
    preprocess = load(run / "model.safetensors").preprocess
    assert (preprocess.size, preprocess.tile, preprocess.tile_overlap) == (None, (64, 64), (8, 8))
    result = json.loads((run / "result.json").read_text(encoding="utf-8"))
    assert result["preprocess"]["tile"] == [64, 64]
    assert result["test"]["values"]["pixel_auroc"] is not None

    image, out = data / "part/test/spot/6.png", tmp_path / "out"
    found = adcore.load(run / "model.safetensors").predict(image)
    options = ("--regions", "--pixel-threshold", found.anomaly_map.max() / 2, "--out", out)
    assert run_cli("predict", run / "model.safetensors", image, *options)[0] == 0
    assert np.array_equal(tifffile.imread(out / "maps/6.png.tiff"), found.anomaly_map)
    assert found.anomaly_map.shape == SIZE
    with open(out / "regions.csv", newline="", encoding="utf-8") as file:
        row = next(csv.DictReader(file))
    assert [int(row[key]) for key in ("x", "y", "width", "height")] == pytest.approx([60, 40, 20, 14], abs=3)
    again = run_cli(
        *("evaluate", run / "model.safetensors", "--data", f"mvtec:{data}", "--category", "part"),
        *("--full-size", "--out", tmp_path / "again"),
    )
    assert again[0] == 0, again[2]
    full = json.loads((tmp_path / "again/result.json").read_text(encoding="utf-8"))["full_size"]["values"]
    assert full["pixel_auroc"] == pytest.approx(
        result["test"]["values"]["pixel_auroc"], abs=1e-3
    )  # maps have the image's size


def test_the_runtime_cuts_the_same_tiles(tmp_path) -> None:
    from adcore_runtime.preprocess import Preprocess as RuntimePreprocess

    model, image = Brightness(), np.random.default_rng(2).random((3, *SIZE)).astype(np.float32)
    for view in (
        Preprocess(None, tile=(32, 40), tile_overlap=(8, 10), region=(5, 3, 140, 80)),
        Preprocess((48, 64), crop=(40, 60), tile=(32, 32)),
    ):
        expected = Predictor(Artifact(model, view)).predict(torch.from_numpy(image))
        runtime = RuntimePreprocess.from_dict(view.to_dict())
        inputs = (torch.from_numpy(one.copy()) for one in runtime.inputs(image))
        results = ((float(p.score), p.anomaly_map[0].numpy()) for p in map(model, inputs))
        score, anomaly_map = runtime.whole(SIZE, results)
        assert score == pytest.approx(expected.score, rel=1e-4)
        assert np.allclose(anomaly_map, expected.anomaly_map, atol=1e-4)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"tile": 64, "tile_overlap": 64}, "tile_overlap: give pixels below the tile's side"),
        ({"tile": 64, "tile_overlap": -1}, "tile_overlap: give pixels below the tile's side"),
        ({"tile": 64, "tile_overlap": "half"}, "tile_overlap: give pixels below the tile's side"),
        ({"tile": 512, "image_size": 256}, "tile (512, 512) is larger than image_size (256, 256)"),
        ({"tile": 0}, "tile: sides must be from 1"),
        (
            {"tile": 48},
            "tile: autoencoder takes images whose sides are multiples of 32, not 48x48; nearest: 32x32 or 64x64",
        ),
        ({"tile_overlap": 8}, "tile_overlap goes with a tile"),
        ({"tile": 64, "crop_size": 32}, "crop_size cuts a resized image"),
        ({"tile": 64, "resize": "keep-aspect"}, "images in tiles keep their size"),
    ],
)
def test_tiles_that_cannot_be_are_refused_before_anything_starts(settings, said) -> None:
    with pytest.raises(ConfigError) as caught:
        choose_model("autoencoder", settings)
    assert said in str(caught.value)


@pytest.mark.parametrize("name", ["padim", "dfm", "dfkde", "fre", "ganomaly", "rad", "musc"])
def test_models_of_whole_images_refuse_tiles_and_say_why(name) -> None:
    with pytest.raises(ConfigError, match=f"tile: {name} cannot see an image in tiles: .+"):
        choose_model(name, {"tile": 64})


def test_an_image_smaller_than_a_tile_is_one_line(run_cli, tmp_path) -> None:
    data = write_parts(tmp_path / "data")
    given = ("train", "autoencoder", "--data", f"mvtec:{data}", *TRAIN[:-1], "tile=96", "--out", tmp_path / "run")
    code, _, output = run_cli(*given)
    assert code == 2
    assert ".png: an image of 150x90 px is smaller than a tile of 96x96 px" in output
    assert not (tmp_path / "run" / "model.safetensors").exists()
    with pytest.raises(DataError, match="smaller than a tile"):
        Predictor(Artifact(Brightness(), Preprocess(None, tile=(64, 64)))).predict(torch.zeros(3, 60, 150))
