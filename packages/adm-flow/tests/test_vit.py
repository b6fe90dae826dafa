"""Token maps of transformers against timm's own intermediate outputs."""

from dataclasses import replace

import pytest
import timm
import torch
from adcore.backbones import features
from adcore.errors import ConfigError
from adcore.registry import backbone_card
from adm_flow import vit
from adm_flow.vit import TransformerFeatures


@pytest.fixture(
    params=[("cait_s24_224", "cait_xxs24_224"), ("deit_base_distilled_patch16_384", "deit_tiny_distilled_patch16_224")]
)
def small(request, monkeypatch) -> str:
    """A backbone's name that stands for the smallest network of the same kind."""
    name, architecture = request.param
    card = replace(backbone_card(name), architecture=architecture)
    for module in (features, vit):
        monkeypatch.setattr(module, "backbone_card", lambda _: card)
    return architecture


def test_map_equals_timms_intermediate(small):
    extractor = TransformerFeatures(small, ("blocks.7",), "random")
    net = timm.create_model(small, num_classes=0).eval()
    net.load_state_dict(extractor.net.state_dict(), strict=False)
    images = torch.randn(2, 3, 224, 224)
    with torch.no_grad():
        expected = net.forward_intermediates(images, indices=[7], norm=True, intermediates_only=True)[0]
    (ours,) = extractor(images)
    assert ours.shape == (2, *extractor.channels, 14, 14)
    torch.testing.assert_close(ours, expected)


def test_other_sizes_and_no_wasted_blocks(small):
    extractor = TransformerFeatures(small, ("blocks.2",), "random")
    assert len(extractor.net.blocks) == 3
    assert not extractor.train().net.training
    assert extractor(torch.randn(1, 3, 64, 96))[0].shape == (1, extractor.channels[0], 4, 6)
    with pytest.raises(ConfigError, match="multiples of 16"):
        extractor(torch.randn(1, 3, 60, 64))


@pytest.mark.parametrize("layers", [("layer1",), ("blocks.24",), ("blocks.1", "blocks.2")])
def test_wrong_layers_name_the_right_ones(small, layers):
    with pytest.raises(ConfigError, match=r"blocks\.0 to blocks\."):
        TransformerFeatures(small, layers, "random")
