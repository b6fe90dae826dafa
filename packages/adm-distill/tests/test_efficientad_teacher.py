"""Distilling EfficientAD's teacher: what it learns from, that it learns, and that the result is kept."""

import pytest
import torch
from adcore.errors import ConfigError
from adm_distill import efficientad_teacher
from adm_distill.efficientad_teacher import ChannelMoments, Distillation, NaturalImages, patch_features
from PIL import Image


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photographs") / "nested"
    folder.mkdir()
    for i in range(3):
        Image.effect_mandelbrot((90 + i, 70), (-2, -1.5, 1, 1.5 - 0.3 * i), 20 + 10 * i).convert("RGB").save(
            folder / f"{i}.png"
        )
    return folder.parent


def test_channel_moments_equal_those_of_all_at_once():
    features = torch.randn(7, 5, 6, 4) * 3 + 1000  # a mean that would drown the squares
    moments = ChannelMoments()
    for part in features.split((1, 4, 2)):
        moments.add(part)
    torch.testing.assert_close(moments.mean, features.mean((0, 2, 3), keepdim=True))
    torch.testing.assert_close(
        moments.std, features.double().std((0, 2, 3), correction=0, keepdim=True).float(), rtol=1e-4, atol=0
    )


def test_patch_features_average_neighbours_and_channels():
    fine, coarse = torch.rand(1, 512, 8, 8), torch.rand(1, 1024, 4, 4)
    result = patch_features([fine, coarse])
    assert result.shape == (1, 384, 8, 8)
    torch.testing.assert_close(result[0, 2, 3, 4], fine[0, 8:12, 2:5, 3:6].mean())  # 1536 channels, four to each


def test_natural_images_are_drawn_from_all_with_gray_ones(photographs):
    torch.manual_seed(0)
    images = NaturalImages(photographs, "penalty_images")
    drawn = [images.draw((32, 24), 0.5) for _ in range(20)]
    assert drawn[0].shape == (3, 32, 24)
    gray = [bool((image == image[:1]).all()) for image in drawn]
    assert len({float(image.mean()) for image in drawn}) >= 3
    assert len(gray) == 20


def test_distillation_learns_and_is_kept(photographs, monkeypatch, tmp_path, caplog):
    monkeypatch.setenv("ADCORE_BACKBONE_DIR", str(tmp_path))
    seen = []

    def progress(what, done, total):
        seen.append((what, done, total))

    def distillation(steps):
        return Distillation("tf_efficientnet_lite0", photographs, "small", steps, 1, "random", batch=1)

    first = distillation(2).state("cpu", progress)
    assert seen[-1] == ("distilling the teacher", 2, 2)
    seen.clear()
    again = distillation(2).state("cpu", progress)
    assert not seen
    assert "distilled earlier" in caplog.text
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert distillation(3).path != distillation(2).path
    assert [file.name for file in tmp_path.iterdir()] == [distillation(2).path.name]


def test_distillation_needs_images():
    with pytest.raises(ConfigError, match="teacher_images=FOLDER"):
        Distillation("resnet18", None, "small", 1, seed=0)


@pytest.mark.slow
def test_distilled_teacher_comes_closer_to_the_backbone(photographs):
    distillation = Distillation("tf_efficientnet_lite0", photographs, "small", 1, 1, "random", batch=2)

    def distance(steps):
        distillation.steps = steps
        teacher = efficientad_teacher.PatchDescriptionNetwork("small", padding=True)
        teacher.load_state_dict(distillation.run())
        image = distillation.images.read(0, (512, 512))[None]
        with torch.no_grad():
            target = distillation.targets(image)
            moments = ChannelMoments()
            moments.add(target)
            smaller = torch.nn.functional.interpolate(image, scale_factor=0.5, mode="bilinear", antialias=True)
            answer = teacher(efficientad_teacher.normalized(smaller))
            return torch.nn.functional.mse_loss(answer, (target - moments.mean) / moments.std.clamp_min(1e-6))

    assert distance(40) < 0.9 * distance(1)
