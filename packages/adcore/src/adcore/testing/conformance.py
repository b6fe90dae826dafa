"""The checks every model must pass. A plugin's whole test:

from adcore.testing import ModelConformance

class TestMyModel(ModelConformance):
    model = "my-model"
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from adcore import artifact as artifacts
from adcore.artifact import Artifact
from adcore.cards import load_target
from adcore.config import config_fields
from adcore.errors import NotFittedError
from adcore.export.gate import Gate
from adcore.export.graph import write_graph
from adcore.export.pictures import CheckImages, seeded_pictures
from adcore.model import AnomalyModel, Prediction
from adcore.registry import create_model, model_card
from adcore.request import ModelChoice
from adcore.testing.card_conformance import CardConformance
from adcore.testing.image_parts import ImagePartsConformance
from adcore.testing.needs import skip_without_onnx
from adcore.testing.offline import sockets_forbidden
from adcore.testing.tiny import fit_tiny
from adcore.training.device import seed_everything
from adcore.training.trainer import TrainingSummary

Fitted = tuple[AnomalyModel, TrainingSummary, ModelChoice]


@dataclass
class FirstFit:
    """What came of the first fit: the model, the attempts to reach the network, the error."""

    fitted: Fitted | None
    attempts: list[str]
    error: Exception | None = None


class ModelConformance(CardConformance, ImagePartsConformance):
    """Inherit, and name the model. The rest has defaults that suit most models.

    A class fits its model twice: once for all checks, and once more to compare.
    """

    image_size: ClassVar[int] = 64  # square side; small, for speed
    images: ClassVar[int] = 4
    epochs: ClassVar[int] = 2
    overrides: ClassVar[dict[str, Any]] = {}  # settings; weights are random where the model has that setting

    def fit(self, seed: int = 0) -> Fitted:
        """A fresh, quickly fitted model."""
        return fit_tiny(self.model, self.side(), self.images, self.epochs, seed, **self.settings())

    def side(self) -> int:
        """`image_size`, rounded up to what the card takes."""
        multiple = model_card(self.model).size_multiple
        return -(-self.image_size // multiple) * multiple

    def settings(self) -> dict[str, Any]:
        """`overrides`, with random weights for models that take weights."""
        random = {"weights": "random"} if "weights" in config_fields(load_target(model_card(self.model).target)) else {}
        return {**random, **self.overrides}

    @pytest.fixture(scope="class")
    @classmethod
    def first_fit(cls) -> FirstFit:
        """The one fit that all checks share, made where no network can be reached."""
        with sockets_forbidden() as attempts:
            try:
                return FirstFit(cls().fit(), attempts)
            except Exception as error:  # reported by test_fits alone
                return FirstFit(None, attempts, error)

    @pytest.fixture(scope="class")
    @classmethod
    def fitted(cls, first_fit: FirstFit) -> Fitted:
        """One fitted model that the checks of a class share; without it they are skipped."""
        if first_fit.fitted is None:
            pytest.skip("the model could not be fitted: see test_fits")
        return first_fit.fitted

    def test_fits(self, first_fit: FirstFit) -> None:
        """Everything else needs a fitted model.

        Fails when the model cannot be built or fitted on a few small images. Fix: look at the error; give `image_size`,
        `images` or `overrides` in the test class (`--image-size` and `--set` of check-plugin) where the model needs them.
        """
        if first_fit.error:
            raise first_fit.error

    def test_unfitted_model_raises(self) -> None:
        """A score from an untrained model would look like any other score.

        Fails when an unfitted model answers. Fix: do not override __call__, and leave `fitted` to the trainer;
        AnomalyModel raises NotFittedError before the first fit.
        """
        model = create_model(self.model, **self.settings())
        with pytest.raises(NotFittedError):
            model(torch.zeros(1, 3, self.side(), self.side()))

    def test_prediction_shapes(self, fitted: Fitted) -> None:
        """Metrics and overlays rely on one score an image, and on maps of the size of the input.

        Fails on another type, another shape, NaN or infinity. Fix: return Prediction(score (B,), map (B, H, W)); upsample
        the map with adcore.maps.upsample; look for a division by zero or a logarithm of zero.
        """
        model, _, choice = fitted
        images = self.inputs(choice)
        with torch.no_grad():
            prediction = model(images)
        assert isinstance(prediction, Prediction), "forward must return a Prediction"
        expected = (len(images),)
        assert prediction.score.shape == expected, f"score has shape {tuple(prediction.score.shape)}, not {expected}"
        assert prediction.score.isfinite().all(), "a score is NaN or infinite"
        if prediction.anomaly_map is not None:
            expected, shape = (len(images), *images.shape[-2:]), tuple(prediction.anomaly_map.shape)
            assert shape == expected, f"anomaly_map has shape {shape}, not {expected}"
            assert prediction.anomaly_map.isfinite().all(), "a map holds NaN or infinity"

    def test_input_changes_the_score(self, fitted: Fitted) -> None:
        """A result that is the same for every image is no result.

        Fails when two different images get equal results. Fix: look for a forward that ignores its input, a saturated
        activation, or a network whose weights are all zero.
        """
        model, _, choice = fitted
        with torch.no_grad():
            prediction = model(self.inputs(choice))
        spread = prediction.score if prediction.anomaly_map is None else prediction.anomaly_map
        assert not torch.equal(spread[0], spread[1]), "two different images got the same result"

    def test_batch_invariance(self, fitted: Fitted) -> None:
        """An image's score must not depend on the images beside it.

        Fails when images alone and in a batch differ by more than rounding. Fix: no statistics over the batch in forward
        (min-max normalisation, batch norm left in training mode); reduce over dimensions 1 and up only.
        """
        model, _, choice = fitted
        images = self.inputs(choice)
        with torch.no_grad():
            together = model(images)
            alone = [model(image[None]) for image in images]
        scale = float(together.score.abs().max()) + 1e-12
        scores = torch.cat([p.score for p in alone])
        assert torch.allclose(together.score, scores, rtol=1e-3, atol=1e-4 * scale), "scores depend on the batch"
        if together.anomaly_map is not None:
            maps = torch.cat([p.anomaly_map for p in alone])
            scale = float(together.anomaly_map.abs().max()) + 1e-12
            assert torch.allclose(together.anomaly_map, maps, rtol=1e-3, atol=1e-3 * scale), "maps depend on the batch"

    def test_groups(self, fitted: Fitted) -> None:
        """In the groups that a model takes on a CPU (most take one image), each image has the very score that it has alone.

        Fails where a bit differs. Fix: leave `group` at 1, or pad every group to one size and keep what depends on the number
        of images (convolutions) to one image at a time.
        """
        model, _, choice = fitted
        images = self.inputs(choice)[: model.group]
        with torch.no_grad():
            alone = [model(image[None]) for image in images]
            for count in range(1, len(images) + 1):
                together = model(images[:count])
                assert together.score.tolist() == [float(one.score) for one in alone[:count]], (
                    "scores depend on the group"
                )
                if together.anomaly_map is not None:
                    maps = torch.cat([one.anomaly_map for one in alone[:count]])
                    assert torch.equal(together.anomaly_map, maps), "maps depend on the group"

    def test_learns(self, fitted: Fitted) -> None:
        """Training must change what is stored.

        Fails on a loss that is not finite, when a model with optimizers ends with the parameters it began with, or one
        without ends with empty buffers; or when the card's `training` says otherwise. Fix: give all trained parameters to
        configure_optimizers, yield an Update whose loss carries a gradient, and register what a one-pass model gathers as
        buffers; set `training` in the card.
        """
        model, summary, choice = fitted
        seed_everything(0)  # as fit() does: the same draw of the first weights
        fresh = create_model(self.model, **choice.config)
        trained = bool(model.configure_optimizers(choice.plan.model_copy(update={"steps_per_epoch": 2})))
        says = model_card(self.model).training
        assert (says == "gradient") == trained, (
            f"the card says training='{says}', but the model has {'' if trained else 'no '}optimizers"
        )
        if says == "none":
            return
        if trained:
            assert summary.history, "no epoch was recorded"
            values = torch.tensor([value for epoch in summary.history for value in epoch.values()])
            assert values.isfinite().all(), "a logged value is NaN or infinite"
        before = dict(fresh.named_parameters()) if trained else fresh.state_dict()
        after = dict(model.named_parameters()) if trained else model.state_dict()
        changed = [k for k in after if k not in before or not torch.equal(after[k], before[k])]
        assert changed, f"training changed no {'parameter' if trained else 'buffer'}"

    def test_deterministic(self, fitted: Fitted) -> None:
        """Two fits with one seed, and two predictions of one image, must be equal to the last bit.

        Fails when a stored tensor or a score differs. Fix: draw random numbers from torch's global generator or from one
        seeded with `fit.plan.seed`, never from the clock, `random` unseeded or set order; draw none in evaluation mode.
        """
        model, _, choice = fitted
        first, second = model.state_dict(), self.fit()[0].state_dict()
        assert first.keys() == second.keys(), "two fits store different tensors"
        different = [key for key in first if not torch.equal(first[key], second[key])]
        assert not different, f"differs between two runs with one seed: {different[:3]}"
        images = self.inputs(choice)
        with torch.no_grad():
            assert torch.equal(model(images).score, model(images).score), "one image got two scores"

    def test_save_and_load(self, fitted: Fitted, tmp_path: Path) -> None:
        """What a user saves is what a user gets back.

        Fails when the loaded model gives other results, or none. Fix: what training learned must be parameters or
        persistent registered buffers; a plain attribute is lost in the file.
        """
        model, _, choice = fitted
        artifacts.save(tmp_path / "model.safetensors", Artifact(model, choice.preprocess))
        loaded = artifacts.load(tmp_path / "model.safetensors")
        images = self.inputs(choice)
        with torch.no_grad():
            before, after = model(images), loaded.model(images)
        assert torch.equal(before.score, after.score), "the loaded model gives other scores"
        assert before.anomaly_map is None or torch.equal(before.anomaly_map, after.anomaly_map), "it gives other maps"
        assert loaded.preprocess == choice.preprocess

    def test_state_is_tensors(self, fitted: Fitted) -> None:
        """A model file is never unpickled, so nothing but tensors goes into it.

        Fails when the state holds anything else, or an extra state. Fix: remove get_extra_state; keep learned state in
        parameters and buffers, and settings in the keyword arguments of __init__.
        """
        state = fitted[0].state_dict()
        foreign = [k for k, v in state.items() if not isinstance(v, torch.Tensor) or k.endswith("_extra_state")]
        assert not foreign, f"the state holds more than tensors: {', '.join(foreign)}"

    def test_cpu_and_offline(self, first_fit: FirstFit, fitted: Fitted) -> None:
        """A factory has no network, and often no GPU.

        Fails when building, fitting or predicting opens a connection or looks up a host, or leaves a tensor on another
        device. Fix: get weights through adcore.backbones.features, which finds them offline; create tensors on the
        device of the input.
        """
        model, _, choice = fitted
        with sockets_forbidden() as attempts, torch.no_grad():
            model(self.inputs(choice, 1))
        attempts = [*first_fit.attempts, *attempts]
        assert not attempts, f"the model tried to reach the network: {attempts[0]}"
        devices = {tensor.device.type for tensor in model.state_dict().values()}
        assert devices <= {"cpu"}, "a model that was fitted on the CPU has tensors elsewhere"

    def test_on_gpu(self) -> None:
        """A model that was trained on a GPU is often used without one.

        Skipped where torch sees no GPU. Fails when the model cannot be fitted on CUDA, or when its scores or maps there
        differ from those of the same model on the CPU. Fix: create tensors on the device of the input; keep state in
        parameters and buffers, which `model.to` moves.
        """
        if not torch.cuda.is_available():
            pytest.skip("torch sees no GPU")
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):  # else convolutions round to 10 bits there
            size = {"size": self.side(), "images": self.images, "epochs": self.epochs}
            model, _, choice = fit_tiny(self.model, **size, device="cuda", **self.settings())
            images = self.inputs(choice)
            with torch.no_grad():
                on_gpu = model(images.cuda())
                on_cpu = model.cpu()(images)
        assert on_gpu.score.is_cuda, "the scores are not on the device of the images"
        scale = float(on_cpu.score.abs().max()) + 1e-12
        assert torch.allclose(on_gpu.score.cpu(), on_cpu.score, rtol=1e-3, atol=1e-3 * scale), "the scores differ"
        if on_cpu.anomaly_map is not None:
            scale = float(on_cpu.anomaly_map.abs().max()) + 1e-12
            same = torch.allclose(on_gpu.anomaly_map.cpu(), on_cpu.anomaly_map, rtol=1e-3, atol=1e-3 * scale)
            assert same, "the maps differ"

    def test_exports(self, fitted: Fitted, tmp_path: Path) -> None:
        """What was trained here has to give the same scores at a station, where torch is not installed.

        Skipped where onnx and onnxscript are not installed. Fails when the model cannot be traced, or when its ONNX graph
        gives other scores or maps than the model, alone or in a batch. Fix: return a module without loops, branches and
        shapes that depend on values or on the number of images from `export_module`; take `images.shape[0]`, not
        `len(images)`; or say in the card's `not_exportable` why it cannot be done.
        """
        skip_without_onnx()
        model, _, choice = fitted
        reason = model_card(self.model).not_exportable
        if reason:
            pytest.skip(f"the card says that it cannot be exported: {reason}")
        pictures = [(f"picture {i}", picture) for i, picture in enumerate(seeded_pictures(choice.preprocess))]
        gate = Gate(Artifact(model, choice.preprocess), CheckImages(pictures, "seeded pictures"), None, None)
        path = tmp_path / "model.onnx"
        write_graph(Artifact(model, choice.preprocess), path, torch.from_numpy(gate.examples()), None, None)
        gate.check_onnx(path)
