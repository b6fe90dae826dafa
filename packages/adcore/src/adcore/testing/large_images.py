"""Checks of images that are larger than what a model sees at once."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from adcore.data.tiles import cut
from adcore.evaluation.score import run_model, score_image
from adcore.model import AnomalyModel
from adcore.registry import model_card
from adcore.request import ModelChoice
from adcore.testing.tiny import tiny_images
from adcore.training.trainer import TrainingSummary


class LargeImageConformance:
    """The checks with tiles; `ModelConformance` has them."""

    model: str

    def test_tiles(self, fitted: tuple[AnomalyModel, TrainingSummary, ModelChoice]) -> None:
        """A large image is seen in tiles, whose maps become one.

        Skipped where the card's `no_tiles` says why not. Fails when the map of a larger image has another size or differs
        from that of a tile where nothing else covers it, or when the score is not that of the most anomalous tile. Fix: take
        images of the size that the model was trained on, and depend on nothing but the image; or set `no_tiles`.
        """
        model, _, choice = fitted
        reason = model_card(self.model).no_tiles
        if reason:
            pytest.skip(f"the card says that it cannot see an image in tiles: {reason}")
        height, width = choice.preprocess.output_size
        tiled = replace(choice.preprocess, size=None, crop=None, tile=(height, width))
        size, channels = (height + height // 2 + 1, width + 3), choice.preprocess.channels
        plane = tiny_images(1, size, seed=7, channels=channels)[0]
        score, anomaly_map = score_image(model, plane, tiled, "cpu", "an image")
        tiles = [cut(tiled, plane, tile) for tile in tiled.tiles(size)]
        alone = [found for tile in tiles for found in run_model(model, [tile], "cpu", ["a tile"])]
        assert score == max(found for found, _ in alone), "the score is not that of the most anomalous tile"
        if anomaly_map is not None:
            assert anomaly_map.shape == size, f"the map has shape {anomaly_map.shape}, not {size}"
            corner = slice(0, height // 2), slice(0, 3)
            assert np.allclose(anomaly_map[corner], alone[0][1][corner], rtol=1e-5), "the map is not that of its tile"
