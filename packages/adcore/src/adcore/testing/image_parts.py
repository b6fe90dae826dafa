"""Checks of images that a model sees in parts: in tiles, and in a region of interest."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from adcore.data.tiles import cut
from adcore.evaluation.score import run_model, score_image
from adcore.model import AnomalyModel
from adcore.registry import model_card
from adcore.request import ModelChoice
from adcore.testing.tiny import tiny_images
from adcore.training.trainer import TrainingSummary

Fitted = tuple[AnomalyModel, TrainingSummary, ModelChoice]


class ImagePartsConformance:
    """The checks with tiles and regions; `ModelConformance` has them."""

    model: str

    def inputs(self, choice: ModelChoice, count: int = 3) -> torch.Tensor:
        """Unseen images of the model's input size."""
        return tiny_images(count, choice.preprocess.output_size, seed=7, channels=choice.preprocess.channels)

    def test_tiles(self, fitted: Fitted) -> None:
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

    def test_region_of_interest(self, fitted: Fitted) -> None:
        """Users mark what part of an image counts (--roi); the rest is black to the model, and must not decide.

        Fails when a result is not finite, when a whole image that counts is scored otherwise than without a region, or when
        it makes no difference to the score which part counts. Fix: take the score from
        adcore.maps.highest(map, self.roi_mask), or from adcore.maps.within; where the score is of the image as a whole, say
        so in the card's `whole_image`.
        """
        model, _, choice = fitted
        image = self.inputs(choice, 1)[0]
        halves = torch.zeros(2, *image.shape[1:], dtype=torch.bool)
        halves[0, : image.shape[1] // 2], halves[1, image.shape[1] // 2 :] = True, True
        plain, everywhere, upper, lower = (
            next(run_model(model, [image], "cpu", ["image"], [seen]))
            for seen in (None, np.ones(image.shape[1:], bool), *halves.numpy())
        )
        assert np.isclose(plain[0], everywhere[0], rtol=1e-4), "a whole image that counts has another score"
        alike = np.isclose(upper[0], lower[0], rtol=1e-6)
        reason = model_card(self.model).whole_image
        assert not alike or reason, (
            "the score is the same whichever half of the image counts, and the card does not say why"
        )
        for half, (score, anomaly_map) in zip(halves.numpy(), (upper, lower), strict=True):
            assert np.isfinite(score), "the score is not finite"
            if anomaly_map is not None:
                assert np.isfinite(anomaly_map).all(), "the map is not finite"
                assert anomaly_map[~half].max() <= anomaly_map[half].min(), "the map is not lowest where nothing counts"
