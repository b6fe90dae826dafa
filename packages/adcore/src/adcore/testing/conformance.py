"""The checks every model must pass. A plugin's whole test:

from adcore.testing import ModelConformance

class TestMyModel(ModelConformance):
    model = "my-model"
"""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from adcore import artifact as artifacts
from adcore.artifact import Artifact
from adcore.cards import load_target
from adcore.errors import ConfigError, NotFittedError
from adcore.model import AnomalyModel, Prediction
from adcore.registry import create_model, model_card
from adcore.request import ModelChoice
from adcore.testing.tiny import fit_tiny, tiny_images
from adcore.training.trainer import FitSummary

Fitted = tuple[AnomalyModel, FitSummary, ModelChoice]


class ModelConformance:
    """Inherit, and name the model. The rest has defaults that suit most models."""

    model: ClassVar[str] = ""
    image_size: ClassVar[int] = 64  # square side; small, for speed
    images: ClassVar[int] = 4
    epochs: ClassVar[int] = 2
    overrides: ClassVar[dict[str, Any]] = {}  # settings; weights are random where the model has that setting
    expected_failures: ClassVar[dict[str, str]] = {}  # check name -> reason

    @pytest.fixture(autouse=True)
    def _expected_failure(self, request: pytest.FixtureRequest) -> None:
        reason = self.expected_failures.get(request.node.originalname)
        if reason:
            request.applymarker(pytest.mark.xfail(reason=reason, strict=True))

    def fit(self, seed: int = 0) -> Fitted:
        """A fresh, quickly fitted model."""
        return fit_tiny(self.model, self.image_size, self.images, self.epochs, seed, **self.settings())

    def settings(self) -> dict[str, Any]:
        """`overrides`, with random weights for models that take weights."""
        from adcore.config import config_fields

        random = {"weights": "random"} if "weights" in config_fields(load_target(model_card(self.model).target)) else {}
        return {**random, **self.overrides}

    @pytest.fixture(scope="class")
    def fitted(self) -> Fitted:
        """One fitted model that the checks of a class share."""
        return self.fit()

    def inputs(self, choice: ModelChoice, count: int = 3) -> torch.Tensor:
        """Unseen images of the model's input size."""
        return tiny_images(count, choice.preprocess.output_size, seed=7)

    def test_card_is_complete(self) -> None:
        """Fill every field of the ModelCard: users read it in `info` and in the model table."""
        card = model_card(self.model)
        for field in ("family", "title", "paper", "summary"):
            assert getattr(card, field).strip(), f"the card's {field} is empty"
        assert 1990 <= card.year <= 2100, "the card's year is not a year"
        assert ":" in card.target, "target must be 'module:Class'"

    def test_listing_imports_no_torch(self) -> None:
        """plugin.py must import cards and hookspecs only; move torch imports into the module of the target."""
        code = "import sys; from adcore.registry import list_models; list_models(); sys.exit('torch' in sys.modules)"
        assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0, "listing imported torch"

    def test_override_keys_are_checked(self) -> None:
        """Take settings as named keyword arguments, not **kwargs, so that a misspelt one is refused by name."""
        with pytest.raises(ConfigError, match="no_such_setting"):
            create_model(self.model, no_such_setting=1)

    def test_unfitted_model_raises(self) -> None:
        """Do not override __call__: AnomalyModel raises NotFittedError before the first fit."""
        model = create_model(self.model, **self.settings())
        with pytest.raises(NotFittedError):
            model(torch.zeros(1, 3, self.image_size, self.image_size))

    def test_prediction_shapes(self, fitted: Fitted) -> None:
        """forward must return one score an image and, if it gives a map, one of the input's height and width."""
        model, _, choice = fitted
        images = self.inputs(choice)
        with torch.no_grad():
            prediction = model(images)
        assert isinstance(prediction, Prediction), "forward must return a Prediction"
        assert prediction.score.shape == (len(images),)
        assert prediction.score.isfinite().all(), "a score is NaN or infinite"
        if prediction.anomaly_map is not None:
            assert prediction.anomaly_map.shape == (len(images), *images.shape[-2:])
            assert prediction.anomaly_map.isfinite().all(), "a map holds NaN or infinity"

    def test_input_changes_the_score(self, fitted: Fitted) -> None:
        """A score that is the same for every image is no score: look for a forward that ignores its input."""
        model, _, choice = fitted
        with torch.no_grad():
            prediction = model(self.inputs(choice))
        spread = prediction.score if prediction.anomaly_map is None else prediction.anomaly_map
        assert not torch.equal(spread[0], spread[1]), "two different images got the same result"

    def test_batch_invariance(self, fitted: Fitted) -> None:
        """An image's score must not depend on the images beside it: no statistics over the batch in forward."""
        model, _, choice = fitted
        images = self.inputs(choice)
        with torch.no_grad():
            together = model(images)
            alone = [model(image[None]) for image in images]
        scale = float(together.score.abs().max()) + 1e-12
        assert torch.allclose(together.score, torch.cat([p.score for p in alone]), rtol=1e-3, atol=1e-4 * scale)
        if together.anomaly_map is not None:
            maps = torch.cat([p.anomaly_map for p in alone])
            scale = float(together.anomaly_map.abs().max()) + 1e-12
            assert torch.allclose(together.anomaly_map, maps, rtol=1e-3, atol=1e-3 * scale)

    def test_learns(self, fitted: Fitted) -> None:
        """Training must change what is stored: a loss that does not fall, or a bank that stays empty, fails here."""
        model, summary, choice = fitted
        if model.configure_optimizers(choice.plan.model_copy(update={"steps_per_epoch": 2})):
            assert summary.history, "no epoch was recorded"
            assert all(torch.isfinite(torch.tensor(list(epoch.values()))).all() for epoch in summary.history)
        fresh = create_model(self.model, **self.settings()).state_dict()
        after = model.state_dict()
        changed = [k for k in after if k not in fresh or not torch.equal(after[k], fresh[k])]
        assert changed, "training changed no parameter and no buffer"

    def test_deterministic(self, fitted: Fitted) -> None:
        """Two fits with one seed must be equal to the last bit: draw random numbers from seeded generators only."""
        first, second = fitted[0].state_dict(), self.fit()[0].state_dict()
        assert first.keys() == second.keys()
        different = [key for key in first if not torch.equal(first[key], second[key])]
        assert not different, f"differs between two runs with one seed: {different[:3]}"

    def test_save_and_load(self, fitted: Fitted, tmp_path: Path) -> None:
        """What training learned must be parameters or registered buffers, or it is lost in the artifact."""
        model, _, choice = fitted
        artifacts.save(tmp_path / "model.safetensors", Artifact(model, choice.preprocess))
        loaded = artifacts.load(tmp_path / "model.safetensors")
        images = self.inputs(choice)
        with torch.no_grad():
            before, after = model(images), loaded.model(images)
        assert torch.equal(before.score, after.score), "the loaded model gives other scores"
        assert before.anomaly_map is None or torch.equal(before.anomaly_map, after.anomaly_map)
        assert loaded.preprocess == choice.preprocess

    def test_state_is_tensors(self, fitted: Fitted) -> None:
        """get_extra_state would need a pickle: keep state in tensors."""
        assert all(isinstance(value, torch.Tensor) for value in fitted[0].state_dict().values())

    def test_cpu_and_offline(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Neither building nor fitting may open a connection; weights are resolved offline by adcore."""

        def refuse(*_: Any, **__: Any) -> None:
            raise AssertionError("the model tried to open a network connection")

        monkeypatch.setattr(socket.socket, "connect", refuse)
        model = self.fit(seed=1)[0]
        devices = {tensor.device.type for tensor in model.state_dict().values()}
        assert devices <= {"cpu"}, "a model that was fitted on the CPU has tensors elsewhere"
