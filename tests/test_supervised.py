"""Labelled anomalies reach the models that ask for them, and no others."""

from __future__ import annotations

from pathlib import Path

import adcore
import pytest
from adcore.cards import load_target
from adcore.errors import DataError
from adcore.registry import model_card
from adcore.testing import write_tiny_mvtec

NORMAL, FAULTY = 6, 2  # training images
SETTINGS = {
    "supersimplenet-supervised": {"backbone": "resnet18", "weights": "random"},
    "draem-sevnet": {"reconstructive_width": 4, "discriminative_width": 4},
    "supersimplenet": {"backbone": "resnet18", "weights": "random"},
}


@pytest.fixture
def parts(tmp_path) -> Path:
    """A `folder` dataset: train/good, train/bad with masks, test/good, test/bad with masks."""
    tree = write_tiny_mvtec(tmp_path / "tiny", train=NORMAL, normal=2, anomalous=2 + FAULTY) / "part"
    for number, image in enumerate(sorted((tree / "test/spot").iterdir())):
        split = "train" if number < FAULTY else "test"
        target = tree / split / "bad" / image.name
        target.parent.mkdir(exist_ok=True)
        image.rename(target)
    (tree / "test/spot").rmdir()
    (tree / "ground_truth/spot").rename(tree / "ground_truth/bad")
    return tree


@pytest.fixture
def seen(monkeypatch):
    """watch(model) -> list that fills with (label, pixels of the mask) of every training image."""

    def watch(name: str) -> list[tuple[int, int]]:
        rows: list[tuple[int, int]] = []
        target = load_target(model_card(name).target)
        step = target.training_step

        def watched(self, batch, number):
            rows.extend(zip(batch.labels.tolist(), batch.masks.sum((1, 2)).tolist(), strict=True))
            yield from step(self, batch, number)

        monkeypatch.setattr(target, "training_step", watched)
        return rows

    return watch


@pytest.mark.parametrize("name", SETTINGS)
def test_labelled_anomalies_and_masks_reach_supervised_cards_only(name, parts, seen, tmp_path) -> None:
    rows = seen(name)
    settings = {"num_epochs": 1, "batch_size": 4, "image_size": 64, "device": "cpu"} | SETTINGS[name]
    adcore.train(f"folder:{parts}", "part", name, out=tmp_path / "out", **settings)
    assert len([row for row in rows if row == (0, 0)]) == NORMAL
    faulty = [row for row in rows if row != (0, 0)]
    if model_card(name).supervised:
        assert faulty == [(1, 16 * 16)] * FAULTY
    else:
        assert faulty == []


def test_normal_images_alone_are_a_clear_error_for_a_supervised_card(tmp_path) -> None:
    root = write_tiny_mvtec(tmp_path / "tiny")
    settings = {"num_epochs": 1, "image_size": 64} | SETTINGS["supersimplenet-supervised"]
    with pytest.raises(
        DataError, match=r"supersimplenet-supervised learns from labelled anomalies; .* has none"
    ) as error:
        adcore.train(f"mvtec:{root}", "part", "supersimplenet-supervised", out=tmp_path / "out", **settings)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out" / "model.safetensors").exists()


def test_which_cards_are_supervised() -> None:
    assert [card.name for card in adcore.list_models() if card.supervised] == ["supersimplenet-supervised"]
