"""The checks of a model whose images score one another. A plugin's whole test:

from adcore.testing import BatchConformance

class TestMyModel(BatchConformance):
    model = "my-model"
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from adcore import artifact as artifacts
from adcore.artifact import Artifact
from adcore.cards import load_target
from adcore.config import config_fields
from adcore.errors import DataError
from adcore.model import BatchModel, Prediction
from adcore.registry import create_model, model_card
from adcore.request import choose_model
from adcore.testing.card_conformance import CardConformance
from adcore.testing.offline import sockets_forbidden
from adcore.testing.tiny import tiny_images
from adcore.training.device import seed_everything


class Reading:
    """Images that are read anew each time, as files are; `times` counts how often."""

    def __init__(self, images: torch.Tensor) -> None:
        self.images, self.times = images, 0

    def __iter__(self) -> Iterator[torch.Tensor]:
        self.times += 1
        return (image.clone() for image in self.images)


class BatchConformance(CardConformance):
    """Inherit, and name the model."""

    image_size: ClassVar[int] = 64
    images: ClassVar[int] = 5
    overrides: ClassVar[dict[str, Any]] = {}

    def settings(self) -> dict[str, Any]:
        """`overrides`, with random weights for models that take weights."""
        random = {"weights": "random"} if "weights" in config_fields(load_target(model_card(self.model).target)) else {}
        return {**random, **self.overrides}

    def build(self) -> BatchModel:
        """The model, ready to score."""
        seed_everything(0)
        model = create_model(self.model, **self.settings()).eval()
        model.fitted = True
        return model

    def inputs(self) -> torch.Tensor:
        """Images of the size that the card takes, one of them with a bright square."""
        multiple = model_card(self.model).size_multiple
        side = -(-self.image_size // multiple) * multiple
        images = tiny_images(self.images, (side, side), seed=7)
        images[1, :, side // 4 : side // 2, side // 4 : side // 2] = 1.0
        return images

    @pytest.fixture(scope="class")
    @classmethod
    def scored(cls) -> tuple[BatchModel, torch.Tensor, list[Prediction]]:
        """A model, images, and what it says of them."""
        kit = cls()
        with sockets_forbidden():
            model, images = kit.build(), kit.inputs()
            return model, images, list(model.score_all(images))

    def test_is_a_model_without_training(self) -> None:
        """Users read in the card that nothing is trained, and the pipeline leaves the training out.

        Fails where the class is no BatchModel, or its card says otherwise. Fix: derive from adcore.BatchModel, and set
        training="none" in the card.
        """
        card = model_card(self.model)
        assert issubclass(load_target(card.target), BatchModel), f"{card.target} is no BatchModel"
        assert card.training == "none", f"the card says training={card.training!r}"

    def test_prediction_shapes(self, scored) -> None:
        """Metrics and overlays rely on one score an image, and on maps of the size of the input.

        Fails on another number of predictions, another shape, NaN or infinity. Fix: yield Prediction(score (1,),
        map (1, H, W)) for every image.
        """
        _, images, predictions = scored
        assert len(predictions) == len(images), f"{len(predictions)} predictions of {len(images)} images"
        for one in predictions:
            assert isinstance(one, Prediction), "score_all must yield Predictions"
            assert tuple(one.score.shape) == (1,), f"score has shape {tuple(one.score.shape)}, not (1,)"
            assert one.score.isfinite().all(), "a score is NaN or infinite"
            if one.anomaly_map is not None:
                expected, shape = (1, *images.shape[-2:]), tuple(one.anomaly_map.shape)
                assert shape == expected, f"anomaly_map has shape {shape}, not {expected}"
                assert one.anomaly_map.isfinite().all(), "a map holds NaN or infinity"

    def test_the_order_of_the_images_does_not_matter(self, scored) -> None:
        """The same folder must give the same result, however its files are listed.

        Fails where scores or maps differ by more than rounding. Fix: compare every image with all others, not with those
        before it.
        """
        model, images, predictions = scored
        order = [*range(1, len(images)), 0][::-1]
        for place, one in zip(order, model.score_all(images[order]), strict=True):
            expected = predictions[place]
            torch.testing.assert_close(one.score, expected.score, rtol=1e-3, atol=1e-4 * float(expected.score.abs()))
            if expected.anomaly_map is not None:
                scale = float(expected.anomaly_map.abs().max())
                torch.testing.assert_close(one.anomaly_map, expected.anomaly_map, rtol=1e-3, atol=1e-3 * scale)

    def test_images_are_read_and_not_changed(self, scored) -> None:
        """Images come from files, as often as the model goes through them.

        Fails where a result differs when images are read anew, or where the model changes one. Fix: iterate over `images`,
        do not index them, and do not write into them.
        """
        model, images, predictions = scored
        reading, before = Reading(images), images.clone()
        assert [float(one.score) for one in model.score_all(reading)] == [float(one.score) for one in predictions]
        assert reading.times >= 1
        assert torch.equal(images, before), "the model changes its input"

    def test_one_image_is_refused(self, scored) -> None:
        """A score of an image alone would mean nothing.

        Fails where an image alone gets a score. Fix: raise adcore.errors.DataError in score_all for fewer images than the
        method needs, and do not define forward.
        """
        model, images, _ = scored
        with pytest.raises(DataError):
            model(images[:1])
        with pytest.raises(DataError):
            list(model.score_all(images[:1]))

    def test_input_changes_the_score(self, scored) -> None:
        """A result that is the same for every image is no result.

        Fails when all images get equal results. Fix: look for a saturated activation, or a network whose weights are all zero.
        """
        _, _, predictions = scored
        spread = [one.score if one.anomaly_map is None else one.anomaly_map for one in predictions]
        assert not all(torch.equal(spread[0], one) for one in spread[1:]), "all images got the same result"

    def test_deterministic(self, scored) -> None:
        """The same seed must give the same result, to the last bit.

        Fails when two models of one seed differ. Fix: draw random numbers from torch's global generator alone.
        """
        _, images, predictions = scored
        again = [float(one.score) for one in self.build().score_all(images)]
        assert again == [float(one.score) for one in predictions], "the same seed gave another result"

    def test_save_and_load(self, scored, tmp_path: Path) -> None:
        """What is saved is what is used.

        Fails when a loaded model scores otherwise. Fix: keep what scoring needs in parameters, buffers or settings.
        """
        model, images, predictions = scored
        choice = choose_model(self.model, {"image_size": images.shape[-1], **self.settings()})
        path = tmp_path / "model.safetensors"
        artifacts.save(path, Artifact(model, choice.preprocess))
        loaded = artifacts.load(path).model
        again = [float(one.score) for one in loaded.score_all(images)]
        assert again == [float(one.score) for one in predictions], "the loaded model gives another result"
