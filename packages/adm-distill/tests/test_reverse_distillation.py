"""Reverse Distillation: the decoder mirrors the encoder, maps are joined as told, and a short fit."""

import pytest
import torch
import torch.nn.functional as F
from adcore.errors import ConfigError
from adcore.maps import gaussian_blur
from adcore.registry import create_model
from adcore.testing import fit_tiny
from adm_distill.reverse_distillation import ReverseDistillation


@pytest.mark.parametrize("backbone", ["resnet18", "resnet34", "tf_efficientnet_lite0"])
def test_decoder_gives_the_encoders_shapes_from_a_smaller_code(backbone):
    model = ReverseDistillation(backbone, ("stride4", "stride8", "stride16"), "random").eval()
    with torch.no_grad():
        teacher = model.encoder(torch.rand(2, 3, 96, 64))
        code = model.bottleneck(teacher)
        restored = model.decoder(code)
    assert [r.shape for r in restored] == [t.shape for t in teacher]
    assert code[0].numel() < 0.3 * sum(t[0].numel() for t in teacher)


def test_decoder_can_reach_every_sign_that_the_encoder_has():
    for backbone in ("resnet18", "tf_efficientnet_lite0"):
        model = ReverseDistillation(backbone, ("stride4", "stride8", "stride16"), "random").eval()
        with torch.no_grad():
            pairs = model.features(torch.rand(2, 3, 64, 64))
        assert all((t.min() < 0) == (s.min() < 0) for t, s in pairs)


@pytest.mark.parametrize("joined", ["add", "multiply"])
def test_maps_are_joined_as_told(joined):
    model = ReverseDistillation("resnet18", weights="random", anomaly_map=joined).eval()
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        total = torch.zeros(64, 64) if joined == "add" else torch.ones(64, 64)
        for teacher, student in model.features(images):
            unlike = 1 - (F.normalize(teacher) * F.normalize(student)).sum(1, keepdim=True)
            large = F.interpolate(unlike, (64, 64), mode="bilinear", align_corners=True)[0, 0]
            total = total + large if joined == "add" else total * large
        prediction = model.forward(images)
    torch.testing.assert_close(prediction.anomaly_map, gaussian_blur(total[None], 4.0), rtol=1e-4, atol=1e-5)
    assert prediction.score == prediction.anomaly_map.max()


def test_layers_that_do_not_halve_are_refused():
    with pytest.raises(ConfigError, match="halve"):
        create_model("reverse-distillation-resnet18", weights="random", layers=("layer1", "layer2", "layer4"))


def test_only_bottleneck_and_decoder_learn():
    settings = {"weights": "random", "learning_rate": 1e-3}
    model, summary, _ = fit_tiny("reverse-distillation-resnet18", images=4, epochs=4, **settings)
    fresh = create_model("reverse-distillation-resnet18", weights="random").encoder.state_dict()
    assert all(torch.equal(value, fresh[key]) for key, value in model.encoder.state_dict().items())
    assert summary.history[-1]["loss"] < 0.7 * summary.history[0]["loss"]
