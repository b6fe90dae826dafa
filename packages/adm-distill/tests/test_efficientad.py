"""EfficientAD: its parts by brute force, where its teacher comes from, what is held out, and a short fit."""

import logging

import pytest
import torch
from adcore import artifact as artifacts
from adcore.artifact import Artifact
from adcore.errors import ConfigError, DataError, WeightsError
from adcore.model import Fit
from adcore.registry import create_model, model_card
from adcore.testing import fit_tiny, tiny_batches
from adcore.training.plan import Plan
from adm_distill.efficientad import Autoencoder, EfficientAD, hard_mean, jitter
from adm_distill.pdn import PatchDescriptionNetwork


def fit_of(batches, val_batches=None):
    images = sum(len(batch.paths) for batch in batches)
    val = (lambda: val_batches) if val_batches else None
    silent = {"log": lambda *_: None, "progress": lambda *_: None}
    return Fit(Plan(steps_per_epoch=len(batches)), torch.device("cpu"), images, lambda: batches, val, **silent)


@pytest.mark.parametrize("quantile", [0.0, 0.5, 0.9, 0.999])
def test_hard_mean_is_the_mean_from_the_quantile_on(quantile):
    distance = torch.rand(3, 7, 11, 13, dtype=torch.float64)  # in float32 rounding would move the quantile
    expected = torch.stack([d[d >= torch.quantile(d, quantile)].mean() for d in distance]).mean()
    torch.testing.assert_close(hard_mean(distance, quantile), expected)


@pytest.mark.parametrize(("size", "sides"), [("small", (256, 288)), ("medium", (260, 257))])
def test_network_sees_33_pixels_every_fourth_and_autoencoder_follows(size, sides):
    network = PatchDescriptionNetwork(size).eval()
    images = torch.zeros(1, 3, *sides)
    with torch.no_grad():
        plain = network(images)
        changed = network(images.index_fill(3, torch.tensor([100]), 5.0))
        assert Autoencoder()(images, plain.shape[-2:]).shape == plain.shape
    assert plain.shape[1:] == (384, *((side - 1) // 4 - 7 for side in sides))
    columns = (changed - plain).abs().sum((0, 1, 2)).nonzero()[:, 0].tolist()
    seen = [x for x in range(plain.shape[-1]) if 4 * x <= 100 <= 4 * x + 32]
    assert columns == seen


def test_padding_gives_a_quarter_of_the_resolution():
    assert PatchDescriptionNetwork("small", padding=True)(torch.zeros(1, 3, 64, 128)).shape == (1, 384, 16, 32)


def test_head_computes_only_what_is_asked_for():
    network = PatchDescriptionNetwork("small", 768)
    hidden = network.body(torch.rand(1, 3, 64, 64))
    torch.testing.assert_close(network.head(hidden, slice(384, None)), network.head(hidden)[:, 384:])


def test_jitter_changes_one_property_of_each_image():
    torch.manual_seed(0)
    images = torch.rand(1, 3, 8, 8).expand(12, -1, -1, -1) * 0.5 + 0.2
    altered = jitter(images)
    assert altered.shape == images.shape
    assert len({float(image.sum()) for image in altered}) > 6
    brighter = [bool((a / images[0]).std() < 1e-5) for a in altered]  # one factor for all pixels
    assert 0 < sum(brighter) < 12


def test_missing_teacher_says_what_to_get(monkeypatch, tmp_path):
    monkeypatch.setenv("ADCORE_BACKBONE_DIR", str(tmp_path))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    model = create_model("efficientad")
    assert model.card is model_card("efficientad-medium")
    with pytest.raises(
        WeightsError, match=r"pretrained_teacher_medium\.pth.*efficientad_pretrained_weights\.zip.*teacher=distill"
    ):
        model.on_fit_start(fit_of(tiny_batches(1, (256, 256), 1)))


@pytest.mark.parametrize("given", ["folder", "file", "backbone_dir"])
def test_teacher_from_a_file_in_any_key_naming(given, monkeypatch, tmp_path):
    torch.manual_seed(3)
    network = PatchDescriptionNetwork("small")
    renamed = {f"net.{i}": value for i, value in enumerate(network.state_dict().values())}
    folder = tmp_path / "efficientad_pretrained_weights"
    folder.mkdir()
    path = folder / "pretrained_teacher_small.pth"
    torch.save(renamed, path)
    monkeypatch.setenv("ADCORE_BACKBONE_DIR", str(tmp_path))
    teacher = {"folder": str(tmp_path), "file": str(path), "backbone_dir": "pretrained"}[given]
    model = EfficientAD(teacher=teacher)
    model._load_teacher(fit_of([]))
    assert torch.equal(model.teacher.conv3.weight, network.conv3.weight)
    with pytest.raises(WeightsError, match="8 tensors.*has 12"):
        EfficientAD(size="medium", teacher=str(path))._load_teacher(fit_of([]))


def test_wrong_settings_are_one_clear_line(tmp_path):
    with pytest.raises(ConfigError, match="256"):
        EfficientAD(teacher="random").on_fit_start(fit_of(tiny_batches(1, (128, 128), 1)))
    with pytest.raises(ConfigError, match="teacher_images"):
        EfficientAD(teacher="distill").on_fit_start(fit_of(tiny_batches(1, (256, 256), 1)))
    with pytest.raises(DataError, match="penalty_images"):
        EfficientAD(teacher="random", penalty_images=str(tmp_path)).on_fit_start(fit_of(tiny_batches(1, (256, 256), 1)))


def test_without_validation_a_tenth_is_never_trained_on(caplog):
    batches = tiny_batches(5, (256, 256), 1)
    model = EfficientAD(teacher="random")
    with caplog.at_level(logging.WARNING):
        model.on_fit_start(fit_of(batches))
    assert "no penalty_images" in caplog.text
    assert "1 training images are held out" in caplog.text
    [held_out] = model._held_out
    updates = {batch.paths[0]: list(model.training_step(batch, 0)) for batch in batches[:2]}
    assert all(bool(step) == (path != held_out) for path, step in updates.items())
    unseen = torch.cat([images for images, _ in model._unseen(fit_of(batches))])
    assert torch.equal(unseen, torch.cat([b.images for b in batches if b.paths[0] == held_out]))


def test_the_rate_falls_for_the_last_twentieth_of_the_steps_that_are_taken():
    model = EfficientAD(teacher="random")

    def drop(**plan):
        return model.configure_optimizers(Plan(steps_per_epoch=1000, **plan))["main"].scheduler.step_size

    assert drop(batch_size=1) == 950
    assert drop(batch_size=1, accumulate=10) == 95
    model._trained_share = 0.9  # a tenth is held out, and a batch of one image then is no step
    assert (drop(batch_size=1), drop(batch_size=8)) == (855, 950)


def test_quantiles_ignore_anomalous_validation_images():
    model = EfficientAD(teacher="random")
    validation = tiny_batches(4, (256, 256), 2, anomalous=True, seed=2)
    model.on_fit_start(fit_of(tiny_batches(2, (256, 256), 1), validation))
    assert not model._held_out
    unseen = torch.cat([images for images, _ in model._unseen(fit_of([], validation))])
    assert torch.equal(unseen, torch.cat([batch.images[batch.labels == 0] for batch in validation]))


@pytest.mark.parametrize("validated", [True, False])
def test_quantiles_are_of_the_pixels_that_count(validated, monkeypatch):
    model = EfficientAD(teacher="random")
    inside = torch.zeros(256, 256, dtype=torch.bool)
    inside[64:192, 100:200] = True
    monkeypatch.setattr(model, "maps", lambda images: (images[:, 0], images[:, 1]))
    batches = tiny_batches(4, (256, 256), 2)
    for batch in batches:
        batch.images[:, :, ~inside] = 0  # as the preprocessing leaves it
        batch.seen = [inside.numpy()] * 2
    model._measure_maps(fit_of([], batches) if validated else fit_of(batches))
    values = torch.cat([batch.images for batch in batches])[:, :, inside]
    assert float(model.qa_st) == pytest.approx(float(values[:, 0].quantile(0.9)))
    assert float(model.qb_ae) == pytest.approx(float(values[:, 1].quantile(0.995)))


def test_fit_predict_and_load_without_the_teachers_file(tmp_path):
    from PIL import Image

    Image.effect_noise((300, 280), 60).convert("RGB").save(tmp_path / "photo.jpg")
    path = tmp_path / "pretrained_teacher_small.pth"
    torch.save(PatchDescriptionNetwork("small").state_dict(), path)
    model, summary, choice = fit_tiny(
        "efficientad-small", 256, images=1, epochs=2, batch_size=1, teacher=str(path), penalty_images=str(tmp_path)
    )
    student = [epoch["student"] for epoch in summary.history]  # the other terms depend on the jitter drawn
    assert student == sorted(student, reverse=True)
    assert model.qb_st > model.qa_st > 0
    artifacts.save(tmp_path / "model.safetensors", Artifact(model, choice.preprocess))
    path.unlink()
    (tmp_path / "photo.jpg").unlink()
    loaded = artifacts.load(tmp_path / "model.safetensors").model
    images = tiny_batches(1, (256, 256), 1, seed=5)[0].images
    with torch.no_grad():
        assert torch.equal(loaded(images).score, model(images).score)
