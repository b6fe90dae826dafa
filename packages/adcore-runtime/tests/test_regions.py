"""Regions of a map: against brute force, in original pixels, in the files of `adcore-predict`, and after a kill."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from adcore_runtime import load
from adcore_runtime.components import components, outline, runs_of
from adcore_runtime.geometry import Frame, frame_of, full_size
from adcore_runtime.overlay import write_overlay
from adcore_runtime.preprocess import RESIZE_METHODS, Preprocess
from adcore_runtime.regions import RegionRule
from adcore_runtime.results import results_folder
from adcore_runtime.rows import PLAIN, RowOptions
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

MASKS = arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9)))
WHOLE = frame_of("bilinear", (8, 8), None, 8, 8)  # each pixel of the map is one of the image


def flooded(mask: np.ndarray) -> list[set[tuple[int, int]]]:
    """8-connected parts by flooding, in the order of their first pixels."""
    left, found = {tuple(pixel) for pixel in np.argwhere(mask).tolist()}, []
    while left:
        todo, part = [min(left)], set()
        while todo:
            pixel = todo.pop()
            if pixel in left:
                left.remove(pixel)
                part.add(pixel)
                todo += [(pixel[0] + dy, pixel[1] + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
        found.append(part)
    return found


def filled(corners: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Pixels whose centres a polygon of (row, column) corners encloses, by the even-odd rule along each row."""
    inside = np.zeros(shape, bool)
    for (y, x), (y2, x2) in zip(corners, np.roll(corners, -1, 0), strict=True):
        if x == x2:  # a vertical edge: what is right of it changes sides
            inside[min(y, y2) : max(y, y2), x:] ^= True
    return inside


def reached(outer: np.ndarray) -> set[tuple[int, int]]:
    """Pixels (without the padding) that are 4-connected with the outside of the picture."""
    todo, seen = [(0, 0)], set()
    while todo:
        y, x = todo.pop()
        if (y, x) not in seen and 0 <= y < outer.shape[0] and 0 <= x < outer.shape[1] and outer[y, x]:
            seen.add((y, x))
            todo += [(y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)]
    return {(y - 1, x - 1) for y, x in seen}


@settings(max_examples=30, deadline=None)
@given(MASKS)
def test_parts_and_outlines_are_those_of_flooding(mask) -> None:
    runs = runs_of(mask)
    label, parts = components(runs), flooded(mask)
    assert len(set(label.tolist())) == len(parts)
    for number, part in enumerate(parts):
        pixels = {(row, column) for row, start, stop, one in zip(*runs, label, strict=True) if one == number
                  for column in range(start, stop)}  # fmt: skip
        assert pixels == part
        alone = np.zeros(mask.shape, bool)
        alone[tuple(np.array(sorted(part)).T)] = True
        top = int(min(part)[0])
        drawn = np.zeros(mask.shape, bool)
        drawn[top:] = filled(outline(alone[top:]), (len(mask) - top, mask.shape[1]))
        assert (drawn | ~alone).all()  # all of the part
        holes = drawn & ~alone  # and nothing else but what it encloses
        outer = np.pad(~alone, 1, constant_values=True)
        assert not {tuple(pixel) for pixel in np.argwhere(holes).tolist()} & reached(outer)


def test_box_area_peak_and_order() -> None:
    values = np.zeros((8, 8), np.float32)
    values[1:3, 2:5] = 0.6
    values[2, 3] = 0.7
    values[6, 6] = values[7, 7] = 0.9
    small, large = RegionRule(0.5).find(values, WHOLE)
    assert (small.x, small.y, small.width, small.height, small.area) == (6, 6, 2, 2, 2)
    assert small.peak == pytest.approx(0.9)
    assert (large.x, large.y, large.width, large.height, large.area) == (2, 1, 3, 2, 6)
    assert large.polygon == [(2, 1), (5, 1), (5, 3), (2, 3)]
    assert RegionRule(0.5, min_area=3).find(values, WHOLE) == [large]
    assert RegionRule(0.95).find(values, WHOLE) == []


def regions_within(height: int, width: int) -> st.SearchStrategy[tuple[int, int, int, int]]:
    """(x, y, width, height) of at least 12 px each way."""
    corner = st.tuples(st.integers(0, width - 12), st.integers(0, height - 12))
    return corner.flatmap(
        lambda at: st.tuples(*map(st.just, at), st.integers(12, width - at[0]), st.integers(12, height - at[1]))
    )


@settings(max_examples=30, deadline=None)
@given(
    st.sampled_from(RESIZE_METHODS),
    st.tuples(st.integers(12, 90), st.integers(12, 90)),
    st.tuples(st.integers(16, 40), st.integers(16, 40)),
    st.integers(0, 8),
    st.data(),
)
def test_a_mark_comes_back_where_it_was_painted(resize, image_size, size, cut, data) -> None:
    crop = (size[0] - cut, size[1] - cut) if cut else None
    region = data.draw(st.none() | regions_within(*image_size))
    preprocess = Preprocess(size, crop, resize, 3, None, region)
    frame = preprocess.frame(*image_size)
    inside = frame.inside(preprocess.output_size)
    tall, wide = (int(np.ceil(2 * pixels)) for pixels in (frame.row_pixels, frame.column_pixels))
    first = [int(np.ceil(edge(part.start))) for edge, part in zip((frame.y, frame.x), inside, strict=True)]
    last = [
        int(edge(part.stop)) - side for edge, part, side in zip((frame.y, frame.x), inside, (tall, wide), strict=True)
    ]
    if last[0] < first[0] or last[1] < first[1]:
        return
    y, x = (data.draw(st.integers(low, high)) for low, high in zip(first, last, strict=True))
    image = np.zeros((3, *image_size), np.float32)
    image[:, y : y + tall, x : x + wide] = 1
    regions = RegionRule(0.45).find(preprocess(image).mean(0), frame)
    assert len(regions) == 1
    found = regions[0]
    edges = (found.y, found.x, found.y + found.height, found.x + found.width)
    map_pixel = (frame.row_pixels, frame.column_pixels) * 2
    for edge, painted, pixel in zip(edges, (y, x, y + tall, x + wide), map_pixel, strict=True):
        assert abs(edge - painted) <= pixel + 1  # one pixel of the map, and the rounding of a box


@settings(max_examples=30, deadline=None)
@given(
    st.sampled_from(RESIZE_METHODS),
    st.tuples(st.integers(12, 90), st.integers(12, 90)),
    st.tuples(st.integers(16, 40), st.integers(16, 40)),
    st.integers(0, 8),
    st.data(),
)
def test_a_map_in_original_size_says_where_each_pixel_is(resize, image_size, size, cut, data) -> None:
    """The map of an image whose values are its own coordinates has these coordinates again, within one map pixel."""
    crop = (size[0] - cut, size[1] - cut) if cut else None
    region = data.draw(st.none() | regions_within(*image_size))
    preprocess = Preprocess(size, crop, resize, 1, None, region)
    frame = preprocess.frame(*image_size)
    for axis, pixels in enumerate((frame.row_pixels, frame.column_pixels)):
        place = np.broadcast_to(np.indices(image_size)[axis].astype(np.float32), (1, *image_size))
        found = full_size(preprocess(place)[0], frame, *image_size)
        assert found.shape == image_size
        seen = np.isfinite(found)
        assert np.abs(found - place[0])[seen].max(initial=0) <= max(pixels, 1)
        left, top, width, height = region or (0, 0, *image_size[::-1])
        assert seen.sum() == seen[top : top + height, left : left + width].sum()
        if not crop:
            assert seen.sum() == width * height


def test_padding_is_no_region() -> None:
    frame = frame_of("keep-aspect", (8, 8), None, 40, 80)
    assert frame == Frame(2, 0, 4, 8, 10.0, 10.0)
    region = RegionRule(0.5).find(np.ones((8, 8), np.float32), frame)[0]
    assert (region.x, region.y, region.width, region.height, region.area) == (0, 0, 80, 40, 3200)


@pytest.mark.parametrize(("resize", "crop"), [("bilinear", (6, 6)), ("keep-aspect", None), ("black-padding", (6, 6))])
def test_an_overlay_is_drawn_where_the_regions_are(resize, crop, tmp_path) -> None:
    frame, shape = frame_of(resize, (8, 8), crop, 40, 80), crop or (8, 8)
    values = np.zeros(shape, np.float32)
    values[shape[0] // 2, shape[1] - 2] = 1
    write_overlay(tmp_path / "a.png", np.full((40, 80), 120, np.uint8), values, 0.0, 1.0, frame)
    drawn = np.asarray(Image.open(tmp_path / "a.png")).astype(int)
    assert drawn.shape == (40, 80, 3)
    coloured = np.argwhere(np.ptp(drawn, axis=2) > 60)
    region = RegionRule(0.5).find(values, frame)[0]
    middle = region.y + region.height / 2, region.x + region.width / 2
    assert np.allclose(coloured.mean(0) + 0.5, middle, atol=1)
    assert np.ptp(drawn[:, 0]) == 0  # far from it, and where a crop shows nothing: the photo


def table(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_the_command_lists_regions_and_saves_pictures(model, images, tmp_path, run) -> None:
    out = tmp_path / "out"
    code, stdout, _ = run(model(), images, "--out", out, "--save-crops", "--review-band", "0.3,0.9")
    assert code == 0
    assert [line.split()[1] for line in stdout.splitlines()] == ["good", "BAD", "to", "to"]
    assert [row["verdict"] for row in table(out / "predictions.csv")] == ["good", "bad", "review"]
    rows = table(out / "regions.csv")  # of the brighter image alone: no other reaches the calibration's 0.4
    assert {Path(row["path"]).name for row in rows} == {"b.png"}
    assert rows[0]["region"] == "1"
    assert float(rows[0]["peak"]) == pytest.approx(250 / 255)
    assert json.loads(rows[0]["polygon"])[0] == [0, 0]
    assert Image.open(out / rows[0]["crop"]).size == (30, 20)
    code, _, _ = run(model(), images / "a.png", "--out", out, "--overwrite")
    assert code == 0
    assert not (out / "regions.csv").exists()
    assert not (out / "crops").exists()

    code, stdout, _ = run(model(), images / "b.png", "--json", "--pixel-threshold", "0.9")
    assert code == 0
    listed = json.loads(stdout)["predictions"][0]["regions"]
    assert [(one["x"], one["y"], one["width"], one["height"]) for one in listed] == [(0, 0, 30, 20)]
    assert listed[0]["area"] < 600  # the darker part is a hole in it
    code, stdout, _ = run(model(), images / "b.png", "--json", "--min-area", "601")
    assert json.loads(stdout)["predictions"][0]["regions"] == []


def test_the_models_own_review_band_and_thresholds_of_categories(model, images, run) -> None:
    stored = {"threshold": {"value": 0.5}, "score_range": [0, 1], "review_band": [0.3, 0.9]}
    own = model(calibration=stored | {"categories": {"dark": {"value": 0.1}}})
    found = json.loads(run(own, images, "--json", "--category", "dark")[1])["predictions"]
    assert [row["verdict"] for row in found] == ["good", "bad", "review"]
    assert [row["predicted"] for row in found] == [1, 1, 1]
    assert load(own).predict(images / "b.png").verdict == "bad"
    code, _, stderr = run(own, images, "--category", "other")
    assert code == 2
    assert "it has some for dark" in stderr


@pytest.mark.parametrize(
    ("option", "value", "says"),
    [
        ("--review-band", "0.9,0.3", "lower one first"),
        ("--review-band", "0.5", "LOW,HIGH"),
        ("--review-band", "nan,1", "LOW,HIGH"),
        ("--min-area", "-1", "from 0 on"),
        ("--pixel-threshold", "inf", "finite"),
        ("--save-crops", None, "--out"),
    ],
)
def test_what_is_not_valid_is_one_line(model, images, run, option, value, says) -> None:
    code, stdout, stderr = run(model(), images, option, *([value] if value else []))
    assert (code, stdout) == (2, "")
    assert len(stderr.splitlines()) == 1
    assert says in stderr


def test_without_calibrated_maps_a_pixel_threshold_is_asked_for(model, images, run) -> None:
    without = model(calibration={"threshold": {"value": 0.5}, "score_range": [0, 1]})
    code, _, stderr = run(without, images, "--regions")
    assert code == 2
    assert "--pixel-threshold" in stderr


def test_a_killed_command_goes_on_with_its_regions(tmp_path) -> None:
    """Rows of an image that was being written are made again; other options are refused."""
    root, out = tmp_path / "in", tmp_path / "out"
    options, photo = RowOptions(RegionRule(0.5)), np.zeros((8, 8), np.uint8)
    regions = [{"x": 0, "y": 0, "width": 1, "height": 1, "area": 1.0, "peak": 0.9, "polygon": [(0, 0)]}]

    def row(name: str) -> dict[str, object]:
        return {"path": str(root / name), "score": 1.0, "normalized_score": 1.0, "predicted": 1, "regions": regions}

    writing = results_folder(out, root, None, "model", options=options)
    killed = writing.__enter__()  # and never left, as after kill -9
    killed.add(root / "a.png", None, photo, row("a.png"), WHOLE)
    killed._regions.add(str(root / "b.png"), "b.png", regions, photo)
    killed.close()
    from adcore_runtime.errors import DataError

    with pytest.raises(DataError, match="other options"), results_folder(out, root, None, "model", True, PLAIN):
        pass
    with results_folder(out, root, None, "model", True, options) as results:
        assert results.done == {str(root / "a.png")}
        results.add(root / "b.png", None, photo, row("b.png"), WHOLE)
    assert [Path(one["path"]).name for one in table(out / "regions.csv")] == ["a.png", "b.png"]
    assert [Path(one["path"]).name for one in table(out / "predictions.csv")] == ["a.png", "b.png"]
