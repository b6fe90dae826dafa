"""A model class without a package: trained, saved, loaded with the class, and a clear line without it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import adcore
import pytest
import torch
from adcore import AnomalyModel, Batch, Prediction, Update
from adcore.cards import MetricCard, ModelCard
from adcore.errors import PluginError
from adcore.plugins import load_plugins
from adcore.registry import model_card, register
from adcore.testing import write_tiny_mvtec


class MeanLevel(AnomalyModel):
    """Distance of an image's mean to that of the training images."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("total", torch.zeros(()))
        self.register_buffer("count", torch.zeros(()))

    def training_step(self, batch: Batch, step: int) -> Iterator[Update]:
        self.total += batch.images.mean((1, 2, 3)).sum()
        self.count += len(batch.images)
        yield from ()

    def forward(self, images: torch.Tensor) -> Prediction:
        return Prediction((images.mean((1, 2, 3)) - self.total / self.count).abs())


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    """What a test registers is gone after it."""
    load_plugins.cache_clear()
    yield
    load_plugins.cache_clear()


def test_a_class_is_trained_and_loaded(tmp_path) -> None:
    data = write_tiny_mvtec(tmp_path / "data")
    run = adcore.train(f"mvtec:{data}", "part", model=MeanLevel, image_size=32, out=tmp_path / "run")
    assert run.summary["model"] == "mean-level"
    image = data / "part" / "test" / "spot" / "009.png"
    score = adcore.load(run.artifact, model=MeanLevel).predict(image).score
    row = next(row for row in run.predictions if row["path"] == str(image))
    assert score == row["score"]

    load_plugins.cache_clear()  # as another process would start
    with pytest.raises(PluginError, match=r"class MeanLevel of the module .*test_in_process.*model=MeanLevel"):
        adcore.load(run.artifact)


def test_a_class_may_bring_its_card_and_register_again() -> None:
    facts = {"family": "x", "title": "T", "paper": "P", "year": 2020, "summary": "S"}
    register(ModelCard("mine", "a:B", aliases=("ours",), epochs=3, **facts))
    assert model_card("ours").epochs == 3
    register(ModelCard("mine", "a:B", epochs=4, **facts))
    assert model_card("mine").epochs == 4
    with pytest.raises(adcore.AdcoreError, match="unknown model 'ours'"):
        model_card("ours")


def test_a_name_of_an_installed_package_is_refused() -> None:
    facts = {"family": "x", "title": "T", "paper": "P", "year": 2020, "summary": "S"}
    with pytest.raises(PluginError, match="'mvtec' is taken by adcore"):
        register(adcore.DatasetCard("mvtec", "a:B", "T", "L"))
    with pytest.raises(PluginError, match="epochs must be int"):
        register(ModelCard("mine", "a:B", epochs="many", **facts))


def test_a_metric_that_fails_is_undefined_with_its_reason(tmp_path) -> None:
    register(MetricCard("broken", f"{__name__}:broken_metric", "Broken"))
    register(MetricCard("count", f"{__name__}:count_metric", "Count", "images scored"))
    data = write_tiny_mvtec(tmp_path / "data")
    run = adcore.train(f"mvtec:{data}", "part", model=MeanLevel, image_size=32, out=tmp_path / "run")
    values, reasons = run.summary["test"]["values"], run.summary["test"]["reasons"]
    assert values["broken"] is None
    assert "ZeroDivisionError" in reasons["broken"]
    assert values["count"] == 6
    assert "images scored" in (run.folder / "report.html").read_text(encoding="utf-8")


def broken_metric(scores, labels, maps, masks) -> float:
    return 1 / 0


def count_metric(scores, labels, maps, masks) -> float:
    return len(scores)


class Contrast(AnomalyModel):
    """Scores an image by its own contrast; there is nothing to learn."""

    card = ModelCard(
        name="contrast",
        target=f"{__name__}:Contrast",
        family="x",
        title="T",
        paper="P",
        year=2020,
        summary="S",
        normalization="none",
        training="none",
    )

    def training_step(self, batch: Batch, step: int) -> Iterator[Update]:
        yield from ()

    def forward(self, images: torch.Tensor) -> Prediction:
        return Prediction(images.std((1, 2, 3)))


def test_a_training_free_model_needs_no_training_images(tmp_path) -> None:
    data = write_tiny_mvtec(tmp_path / "data")
    shutil.rmtree(data / "part" / "train")
    with pytest.raises(adcore.AdcoreError, match="train"):
        adcore.train(f"mvtec:{data}", "part", model=MeanLevel, image_size=32, out=tmp_path / "no")
    run = adcore.train(f"mvtec:{data}", "part", model=Contrast, image_size=32, out=tmp_path / "run")
    assert run.metrics["image_auroc"] > 0.9
    again = adcore.evaluate(run.artifact, f"mvtec:{data}", "part", out=tmp_path / "again")
    assert [row["score"] for row in again.predictions] == [row["score"] for row in run.predictions]
