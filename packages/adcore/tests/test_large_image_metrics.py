"""Metrics beyond one number for all: by defect type, cut at a pixel threshold, on original pixels, and how sure they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from adcore.data.samples import DatasetReader, Sample
from adcore.evaluation.evaluate import defect_rows
from adcore.evaluation.full_size import full_size_metrics
from adcore.evaluation.intervals import auroc_interval, pixel_intervals
from adcore.evaluation.metrics import image_metrics
from adcore.evaluation.pixel import defect_aupro, pixel_metrics
from adcore.evaluation.score import ScoredImage, Scoring
from adcore.evaluation.segmentation import segmentation_metrics
from adcore.preprocess import RESIZE_METHODS, Preprocess

RANDOM = np.random.default_rng(0)
SIZE = (24, 20)
KINDS = ("good", "good", "crack", "spot", "crack")


class Masks(DatasetReader):
    """Masks of one square each, in original pixels."""

    def __init__(self, sizes: list[tuple[int, int]]) -> None:
        super().__init__(".")
        self.sizes = sizes

    def mask(self, sample: Sample) -> torch.Tensor:
        height, width = self.sizes[int(sample.image_path.stem)]
        mask = torch.zeros(height, width, dtype=torch.bool)
        mask[height // 3 : height // 2, width // 4 : width // 2] = True
        mask[-2:, -2:] = True
        return mask


def scoring_of(preprocess: Preprocess, sizes: list[tuple[int, int]]) -> Scoring:
    reader, images = Masks(sizes), []
    for number, (kind, size) in enumerate(zip(KINDS, sizes, strict=True)):
        sample = Sample(Path(f"{number}.png"), "test", int(kind != "good"), "part", kind)
        full = reader.mask(sample) & (sample.label == 1)
        mask = preprocess.mask(full).numpy()
        values = RANDOM.normal(size=preprocess.output_size).astype(np.float32) + mask
        images.append(ScoredImage(sample, float(values.max()), values, mask, size=size))
    return Scoring(images)


@pytest.mark.parametrize("resize", RESIZE_METHODS)
def test_original_pixels_are_those_of_maps_that_torch_enlarges(resize) -> None:
    sizes = [(61, 50), (48, 40), (75, 33), (30, 90), (24, 20)]
    preprocess = Preprocess(SIZE, None, None, None, resize)
    scoring = scoring_of(preprocess, sizes)
    maps, masks = [], []
    for image in scoring.images:
        from adcore_runtime.geometry import centred, inner_size

        rows, columns = centred(SIZE, inner_size(resize, SIZE, *image.size))
        part = torch.from_numpy(image.anomaly_map[rows, columns])[None, None]
        maps.append(F.interpolate(part, image.size, mode="bilinear", align_corners=False)[0, 0].numpy())
        masks.append(Masks(sizes).mask(image.sample).numpy() & (image.sample.label == 1))
    expected, found = pixel_metrics(maps, masks).values, full_size_metrics(scoring, Masks(sizes), preprocess).values
    assert found == pytest.approx(expected, abs=1e-3)


def test_what_a_crop_cut_off_is_left_out() -> None:
    sizes, preprocess = [(48, 40)] * 5, Preprocess(SIZE, (12, 10), None, None)
    scoring = scoring_of(preprocess, sizes)
    for image in scoring.images:  # a map that is right on the pixels that it shows
        image.anomaly_map = np.zeros((12, 10), np.float32)
        middle = Masks(sizes).mask(image.sample).float()[12:36, 10:30]
        if image.sample.label:
            image.anomaly_map = F.avg_pool2d(middle[None], 2)[0].numpy()
    found = full_size_metrics(scoring, Masks(sizes), preprocess).values
    assert found["pixel_auroc"] > 0.99  # the corner, which no map shows, would be a missed half of each mask
    assert found["aupro"] > 0.99


def test_each_defect_type_is_measured_against_all_normal_images() -> None:
    scoring = scoring_of(Preprocess(SIZE), [(40, 40)] * 5)
    maps, masks = ([getattr(image, name) for image in scoring.images] for name in ("anomaly_map", "mask"))
    found = defect_aupro(maps, masks, [None if kind == "good" else kind for kind in KINDS])
    for kind in ("crack", "spot"):
        chosen = [i for i, one in enumerate(KINDS) if one in ("good", kind)]
        alone = pixel_metrics([maps[i] for i in chosen], [masks[i] for i in chosen]).values["aupro"]
        assert found[kind] == pytest.approx(alone)
    rows = {row["defect"]: row for row in defect_rows(scoring, 0.0)}
    assert rows["crack"]["images"] == 2
    assert rows["crack"]["aupro"] == found["crack"]
    scoring.images[3].mask = None  # of the spot
    assert {row["defect"]: row["aupro"] for row in defect_rows(scoring, 0.0)}["spot"] is None


def test_seg_f1_counts_pixels_at_the_threshold() -> None:
    maps = [np.array([[0.1, 0.5], [0.6, 0.9]], np.float32)]
    masks = [np.array([[False, False], [True, True]])]
    assert segmentation_metrics(maps, masks, 0.5)["seg_f1"] == pytest.approx(0.8)  # 2 found, 1 false alarm
    assert segmentation_metrics(maps, masks, 2.0)["seg_f1"] == 0
    assert "normal image" in segmentation_metrics(maps, masks, None).reasons["seg_f1"]
    assert "no anomalous pixel" in segmentation_metrics(maps, [masks[0] & False], 0.5).reasons["seg_f1"]


def test_an_interval_holds_the_auroc_and_narrows_with_more_images() -> None:
    widths = []
    for count in (20, 500):
        scores = np.concatenate([RANDOM.normal(size=count), RANDOM.normal(1.0, size=count)]).round(1)  # with ties
        labels = np.repeat([0, 1], count)
        low, high = auroc_interval(scores, labels)
        assert low < image_metrics(scores, labels)["image_auroc"] < high
        assert auroc_interval(scores, labels) == (low, high)
        widths.append(high - low)
    assert widths[1] < widths[0] / 2
    assert auroc_interval([1.0, 2.0], [0, 1]) == (1, 1)
    assert auroc_interval([1.0, 1.0], [0, 1]) == (0.5, 0.5)
    assert auroc_interval([1.0, 1.0], [0, 0]) is None


def test_pixel_intervals_hold_the_values_and_narrow_with_more_images() -> None:
    widths = []
    for count in (6, 40):
        masks = [np.zeros(SIZE, bool) for _ in range(2 * count)]
        for mask in masks[count:]:
            top, left = RANDOM.integers(0, 15, 2)
            mask[top : top + 6, left : left + 5] = True
        maps = [(RANDOM.normal(size=SIZE) + RANDOM.uniform(0, 3) * mask).astype(np.float32) for mask in masks]
        labels, exact = np.repeat([0, 1], count), pixel_metrics(maps, masks).values
        found = pixel_intervals(maps, masks, labels)
        assert set(found) == set(exact)
        assert all(low < exact[name] < high for name, (low, high) in found.items())
        assert pixel_intervals(maps, masks, labels) == found
        widths.append(found["aupro"][1] - found["aupro"][0])
    assert widths[1] < widths[0]
    assert pixel_intervals(maps[:count], masks[:count], labels[:count]) == {}
