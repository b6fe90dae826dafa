"""Regions of interest: what is outside changes nothing, is not drawn or measured, and positions stay those of the original."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import adcore
import numpy as np
import pytest
import tifffile
import torch
from adcore.artifact import load
from adcore.data.roi import Rois, open_rois
from adcore.data.roi_shapes import fill
from adcore.errors import ConfigError, DataError
from adcore.evaluation.intervals import pixel_intervals
from adcore.evaluation.pixel import pixel_metrics
from adcore.evaluation.segmentation import segmentation_metrics
from adcore.maps import within
from adcore.preprocess import RESIZE_METHODS, Preprocess
from adcore.registry import create_model
from adcore.testing.tiny import tiny_batches
from adcore.training.plan import Plan
from adcore.training.trainer import Trainer
from adcore_runtime.preprocess import Preprocess as RuntimePreprocess
from adcore_runtime.roi import Roi, cells_of
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

SIZE = (60, 100)  # height, width of the images
BOX = (slice(10, 42), slice(30, 94))  # that counts
TRAIN = ("--category", "part", "--epochs", 1, "--set", "loss=mse", "--set", "width=4", "--set", "image_size=32x64")


def box_mask(size: tuple[int, int] = SIZE) -> np.ndarray:
    mask = np.zeros(size, bool)
    mask[BOX] = True
    return mask


def write_parts(root: Path) -> Path:
    """Three training and two test images in MVTec layout: a defect inside, and another light outside of it in each image."""
    generator = np.random.default_rng(0)
    for number in range(5):
        kind = "train/good" if number < 3 else "test/good" if number < 4 else "test/spot"
        values = generator.integers(0, 255, (*SIZE, 3), np.uint8)
        values[BOX] = generator.integers(90, 110, values[BOX].shape)
        if kind == "test/spot":
            values[20:30, 40:54] = 250
            mask = np.zeros(SIZE, np.uint8)
            mask[20:30, 40:54] = mask[50:, :20] = 255
            (root / "part/ground_truth/spot").mkdir(parents=True)
            Image.fromarray(mask).save(root / f"part/ground_truth/spot/{number}_mask.png")
        (root / "part" / kind).mkdir(parents=True, exist_ok=True)
        Image.fromarray(values).save(root / "part" / kind / f"{number}.png")
    return root


def save_mask(path: Path, mask: np.ndarray, value: int = 1) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((mask * value).astype(np.uint8)).save(path)
    return path


def test_one_mask_is_kept_in_the_model_and_nothing_outside_counts(run_cli, tmp_path) -> None:
    data, run, out = write_parts(tmp_path / "data"), tmp_path / "run", tmp_path / "out"
    roi = save_mask(tmp_path / "roi.png", box_mask())
    assert run_cli("train", "autoencoder", "--data", f"mvtec:{data}", *TRAIN, "--roi", roi, "--out", run)[0] == 0
    roi.unlink()  # it is in the model file

    image = data / "part/test/spot/4.png"
    values = np.asarray(Image.open(image))
    other = np.where(box_mask()[..., None], values, 255 - values)
    predictor = adcore.load(run / "model.safetensors")
    before, after = predictor.predict(values), predictor.predict(other)
    assert before.score == after.score
    assert np.array_equal(before.anomaly_map, after.anomaly_map)
    seen = predictor.preprocess.seen(*SIZE)
    assert before.score == before.anomaly_map[seen].max()
    assert (before.anomaly_map[~seen] == before.anomaly_map[seen].min()).all()

    options = ("--regions", "--pixel-threshold", before.score / 2, "--full-size", "--out", out)
    assert run_cli("predict", run / "model.safetensors", image, *options)[0] == 0
    with open(out / "regions.csv", newline="", encoding="utf-8") as file:
        found = next(csv.DictReader(file))
    assert int(found["x"]) >= 28
    assert int(found["y"]) >= 8
    assert (np.isfinite(tifffile.imread(out / "maps/4.png.tiff")) == box_mask()).all()
    drawn = np.asarray(Image.open(out / "overlays/4.png.png")).astype(int)
    assert np.ptp(drawn[~box_mask()], axis=1).max() == 0  # gray
    assert np.ptp(drawn[box_mask()], axis=1).max() > 0

    code, _, output = run_cli("predict", run / "model.safetensors", image, "--roi", save_mask(roi, box_mask()))
    assert code == 2
    assert "has its own region of interest" in output
    small = tmp_path / "small.png"
    Image.fromarray(values[:40]).save(small)
    code, _, output = run_cli("predict", run / "model.safetensors", small)
    assert code == 2
    assert "of images of 100x60 px, this one has 100x40" in output


def test_a_mask_for_each_image_is_given_again(run_cli, tmp_path) -> None:
    data, run, masks = write_parts(tmp_path / "data"), tmp_path / "run", tmp_path / "masks"
    for file in data.rglob("*.png"):
        if "ground_truth" not in file.parts:
            save_mask(masks / file.relative_to(data / "part"), box_mask())
    given = ("train", "patchcore-resnet18", "--data", f"mvtec:{data}", "--category", "part", "--roi", masks)
    small = ("--set", "weights=random", "--set", "image_size=64")
    result = run_cli(*given, *small, "--out", run)
    assert result[0] == 0, result
    image, model = data / "part/test/spot/4.png", run / "model.safetensors"
    assert load(model).preprocess.roi == "each"
    code, _, output = run_cli("predict", model, image)
    assert code == 2
    assert "trained with a region of interest for each image; give them with --roi" in output
    assert run_cli("predict", model, data / "part/test", "--roi", masks / "test", "--out", tmp_path / "out")[0] == 0
    assert run_cli("evaluate", model, "--data", f"mvtec:{data}", "--roi", masks, "--out", tmp_path / "again")[0] == 0
    predictor = adcore.load(model)
    scores = {row["path"]: float(row["score"]) for row in csv.DictReader((tmp_path / "out/predictions.csv").open())}
    assert scores[str(image)] == predictor.predict(image, roi=box_mask()).score
    with pytest.raises(DataError, match="region of interest for each image"):
        predictor.predict(image)


@given(
    st.sampled_from(RESIZE_METHODS),
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
    st.tuples(st.integers(4, 24), st.integers(4, 24)),
    st.booleans(),
    st.booleans(),
    st.integers(0, 2**32 - 1),
)
def test_what_is_outside_changes_no_input_and_what_is_inside_is_seen(resize, image, size, crop, region, seed) -> None:
    generator = np.random.default_rng(seed)
    mask = generator.random(image) < 0.3
    part = (image[1] // 3, image[0] // 3, image[1] - image[1] // 3, image[0] - image[0] // 3) if region else None
    inside = np.zeros(image, bool)
    x, y, width, height = part or (0, 0, image[1], image[0])
    inside[y : y + height, x : x + width] = True
    mask[-1, -1] = True
    view = Preprocess(
        size, resize=resize, region=part, crop=(size[0] - 2, size[1] - 1) if crop else None, roi=Roi.of(mask)
    )
    one = generator.random((3, *image), np.float32)
    other = np.where(mask, one, generator.random((3, *image), np.float32))
    seen_by_model = view(torch.from_numpy(one))
    assert torch.equal(seen_by_model, view(torch.from_numpy(other)))
    runtime = RuntimePreprocess.from_dict(view.to_dict())
    assert np.abs(runtime(one) - seen_by_model.numpy()).max() < 1e-5
    assert Preprocess.from_dict(view.to_dict()) == view

    frame = view.frame(*image)
    shown = np.zeros(image, bool)
    shown[frame.shown(view.output_size)] = True
    if not (mask & shown).any():
        return  # the crop leaves nothing
    seen = view.seen(*image)
    for row, column in np.argwhere(mask & shown & inside):  # a mark there is in a pixel of the map that counts
        at = [
            np.clip(np.floor((place + 0.5 - first) / pixels + start), 0, side - 1).astype(int)
            for place, first, pixels, start, side in (
                (row, frame.first_row, frame.row_pixels, frame.top, seen.shape[0]),
                (column, frame.first_column, frame.column_pixels, frame.left, seen.shape[1]),
            )
        ]
        assert seen[max(0, at[0] - 1) : at[0] + 2, max(0, at[1] - 1) : at[1] + 2].any()
    padding = np.ones(view.output_size, bool)
    padding[frame.inside(view.output_size)] = False
    assert not seen[padding].any()


@given(st.lists(st.tuples(st.floats(-3, 15), st.floats(-3, 13)), min_size=3, max_size=7))
def test_a_polygon_holds_the_pixels_whose_middle_is_inside(points) -> None:
    mask = np.zeros((10, 12), bool)
    fill(mask, points)
    for row in range(10):
        for column in range(12):
            x, y, odd = column + 0.5, row + 0.5, False
            for (x1, y1), (x2, y2) in zip(points, [*points[1:], points[0]], strict=True):
                if (y1 <= y) != (y2 <= y):
                    edge = x1 + (y - y1) / (y2 - y1) * (x2 - x1)
                    if abs(edge - x) < 1e-9:
                        break  # on the edge: rounding must not decide
                    odd ^= edge > x
            else:
                assert mask[row, column] == odd


def coco(path: Path, *names: str, **changed) -> Path:
    images = [{"id": i, "file_name": name, "height": 60, "width": 100} for i, name in enumerate(names)]
    rectangle = {"image_id": 0, "bbox": [30, 10, 64, 32]}
    polygons = [
        {"image_id": i, "segmentation": [[30, 10, 94, 10, 94, 42, 30, 42]], "bbox": []} for i in range(1, len(names))
    ]
    path.write_text(json.dumps({"images": images, "annotations": [rectangle, *polygons], **changed}))
    return path


def labelme(path: Path, points=((30, 10), (94, 42)), kind: str = "rectangle", **changed) -> Path:
    shapes = [{"shape_type": kind, "points": [list(point) for point in points]}]
    path.write_text(
        json.dumps({"imageHeight": 60, "imageWidth": 100, "imagePath": "a.png", "shapes": shapes, **changed})
    )
    return path


def test_shapes_give_the_same_region_as_a_mask(tmp_path) -> None:
    expected = Roi.of(box_mask())
    assert open_rois(save_mask(tmp_path / "mask.png", box_mask(), value=200)) == expected
    assert open_rois(coco(tmp_path / "coco.json", "a.png")) == expected
    assert open_rois(labelme(tmp_path / "labelme.json")) == expected
    several = open_rois(coco(tmp_path / "several.json", "a.png", "good/b.png"))
    assert isinstance(several, Rois)
    for name in ("a.png", "good/b.png"):
        assert several.of(tmp_path / name, tmp_path, *SIZE) == expected
    with pytest.raises(DataError, match=r"c\.png: no region of interest for it in .*several\.json"):
        several.of(tmp_path / "c.png", tmp_path, *SIZE)
    with pytest.raises(DataError, match=r"several\.json: a region of interest of 100x60 px for .*a\.png of 9x9 px"):
        several.of(tmp_path / "a.png", tmp_path, 9, 9)


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (lambda path: path.write_text("{no json"), "cannot be read as JSON"),
        (lambda path: path.write_text("[1, 2]"), "expected COCO annotations"),
        (lambda path: coco(path, "a.png", annotations=[]), "is empty"),
        (lambda path: coco(path, "a.png", annotations=[{"image_id": 5, "bbox": [0, 0, 1, 1]}]), "expected COCO"),
        (lambda path: labelme(path, ((30, 10), (300, 42))), r"\(300, 10\) lies outside of a.png of 100x60 px"),
        (lambda path: labelme(path, kind="circle"), "a shape 'circle' is no region of interest"),
        (lambda path: labelme(path, imageHeight=None), "expected COCO annotations"),
    ],
)
def test_a_file_of_shapes_that_is_wrong_is_one_line(write, words, tmp_path) -> None:
    write(tmp_path / "roi.json")
    with pytest.raises(DataError, match=words) as caught:
        open_rois(tmp_path / "roi.json")
    assert "roi.json" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_masks_that_are_wrong_end_a_training_before_it_starts(run_cli, tmp_path) -> None:
    data = write_parts(tmp_path / "data")
    given = ("train", "autoencoder", "--data", f"mvtec:{data}", *TRAIN, "--out", tmp_path / "run", "--roi")
    for roi, words in (
        (save_mask(tmp_path / "empty.png", np.zeros(SIZE, bool)), "empty.png: the mask is empty"),
        (save_mask(tmp_path / "wide.png", np.ones((60, 90), bool)), "of images of 90x60 px, this one has 100x60"),
        (save_mask(tmp_path / "some/0.png", box_mask()).parent, "no region of interest for it in"),
    ):
        code, _, output = run_cli(*given, roi)
        assert code == 2
        assert words in output
        assert not (tmp_path / "run/model.safetensors").exists()


@settings(max_examples=25)
@example(0)
@given(st.integers(0, 2**32 - 1))
def test_pixel_metrics_are_those_of_the_pixels_that_count(seed) -> None:
    generator = np.random.default_rng(seed)
    seen = np.zeros((8, 12), bool)
    seen[:, : generator.integers(5, 11)] = True
    maps = [generator.integers(0, 5, seen.shape).astype(np.float32) for _ in range(3)]
    masks = [(generator.random(seen.shape) < 0.2) & seen for _ in range(3)]
    masks[0][2, 2], masks[1][:] = True, False
    cut_maps, cut_masks = ([one[:, seen[0]] for one in many] for many in (maps, masks))
    parts = [seen] * 3
    assert pixel_metrics(maps, masks, parts).values == pixel_metrics(cut_maps, cut_masks).values
    assert segmentation_metrics(maps, masks, 3, parts).values == segmentation_metrics(cut_maps, cut_masks, 3).values
    if seed == 0:
        assert pixel_intervals(maps, masks, [1, 0, 1], seen=parts) == pixel_intervals(cut_maps, cut_masks, [1, 0, 1])


def test_a_bank_holds_no_patch_from_outside() -> None:
    seen = np.zeros((64, 64), bool)
    seen[8:24, 16:64] = True
    batches = tiny_batches(2, (64, 64), 1)
    for batch in batches:
        batch.seen = [seen]
    model = create_model("patchcore-resnet18", weights="random", coreset_ratio=1.0)
    Trainer(model, Plan(epochs=1, batch_size=1).in_one_pass(), batches, 2, torch.device("cpu")).run()
    assert len(model.memory_bank) == 2 * cells_of(seen, (8, 8)).sum() == 2 * 2 * 6


def test_values_outside_are_the_lowest_inside() -> None:
    values = torch.tensor([[[5.0, 1.0, 2.0], [0.0, 9.0, 3.0]]])
    seen = np.array([[False, True, True], [False, False, True]])
    assert within(values, seen).tolist() == [[[1.0, 1.0, 2.0], [1.0, 1.0, 3.0]]]
    assert within(values, None) is values


def test_a_damaged_region_in_a_file_is_refused() -> None:
    good = Preprocess((8, 8), roi=Roi.of(box_mask())).to_dict()
    for bits in ("", "no base64!", good["roi"]["bits"][:-8], Roi.of(np.ones((2, 2), bool)).bits):
        with pytest.raises(ValueError, match="roi"):
            Roi(SIZE, bits)


def test_a_model_that_compares_images_takes_one_region_for_all(run_cli, tmp_path) -> None:
    from adcore.prepared import prepare_run
    from adcore.request import DataChoice, choose_model

    save_mask(tmp_path / "masks/a.png", box_mask())
    data = DataChoice("mvtec", write_parts(tmp_path / "data"), "part", roi=tmp_path / "masks")
    with pytest.raises(ConfigError, match="give one mask for all of them"):
        prepare_run(choose_model("musc", {}), data)
