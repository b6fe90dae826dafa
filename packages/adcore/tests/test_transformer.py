"""Maps from inside vision transformers against timm's own intermediate outputs, at the usual size and at others."""

from dataclasses import replace

import pytest
import timm
import torch
import torch.nn.functional as F
from adcore.backbones import build, features, transformer
from adcore.backbones.features import FeatureExtractor, create_features
from adcore.errors import ConfigError
from adcore.registry import backbone_card

SMALL = {  # a known backbone -> the smallest network of the same kind, and its usual size
    "cait_s24_224": ("cait_xxs24_224", 224),
    "deit_base_distilled_patch16_384": ("deit_tiny_distilled_patch16_224", 224),
    "vit_base_patch14_dinov2": ("vit_small_patch14_dinov2", 518),
    "vit_base_patch14_reg4_dinov2": ("vit_small_patch14_reg4_dinov2", 518),
}


@pytest.fixture
def stand_for(monkeypatch):
    """stand_for(name): the backbone `name` is the smallest network of its kind; returns its architecture and size."""

    def patch(name: str) -> tuple[str, int]:
        card = replace(backbone_card(name), architecture=SMALL[name][0])
        for module in (build, features, transformer):
            monkeypatch.setattr(module, "backbone_card", lambda _: card)
        return SMALL[name]

    return patch


def whole(architecture: str, extractor: torch.nn.Module, **options: object) -> torch.nn.Module:
    """timm's network with the extractor's weights."""
    net = timm.create_model(architecture, num_classes=0, **options).eval()
    net.load_state_dict(extractor.net.state_dict(), strict=False)
    return net


def images(*size: int) -> torch.Tensor:
    return torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", SMALL)
def test_maps_equal_timms_intermediates_in_the_order_asked_for(name, stand_for):
    architecture, size = stand_for(name)
    extractor = create_features(name, ("block3", "blocks.1", "block3"), "random")
    x = images(size, size)
    with torch.no_grad():
        low, high = whole(architecture, extractor).forward_intermediates(
            x, indices=[1, 3], norm=True, intermediates_only=True
        )
    patch = extractor.size_multiple
    assert extractor.strides == [patch] * 3
    for ours, expected in zip(extractor(x), (high, low, high), strict=True):
        assert ours.shape == (1, extractor.channels[0], size // patch, size // patch)
        torch.testing.assert_close(ours, expected)


@pytest.mark.parametrize("name", ["deit_base_distilled_patch16_384", *(n for n in SMALL if "dinov2" in n)])
def test_positions_are_resampled_as_timm_does(name, stand_for):
    architecture, _ = stand_for(name)
    extractor = transformer.TransformerFeatures(name, ("block2",), "random", antialias=True)
    patch = extractor.size_multiple
    x = images(5 * patch, 8 * patch)
    net = whole(architecture, extractor, dynamic_img_size=True)
    with torch.no_grad():
        (expected,) = net.forward_intermediates(x, indices=[2], norm=True, intermediates_only=True)
    (ours,) = extractor(x)
    assert ours.shape == (1, extractor.channels[0], 5, 8)
    torch.testing.assert_close(ours, expected)


@pytest.mark.parametrize("registers", [False, True])
def test_positions_of_dinov2_are_resampled_as_its_own_code_does(registers, stand_for):
    """Meta's code antialiases where there are registers, and not where there are none; compared at 224 px."""
    name = f"vit_base_patch14{'_reg4' * registers}_dinov2"
    stand_for(name)
    extractor = create_features(name, ("block1",), "random")
    table = (
        extractor.net.pos_embed if registers else extractor.net.pos_embed[:, 1:]
    )  # registers: the class token has none
    grid = table.reshape(1, 37, 37, -1).permute(0, 3, 1, 2)
    resized = F.interpolate(grid, (16, 16), mode="bicubic", antialias=registers).flatten(2).mT
    seen = []
    extractor.net.blocks[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    x = images(224, 224)
    extractor(x)
    patches = extractor.net.patch_embed(x)
    torch.testing.assert_close(seen[0][:, extractor.prefix :], patches + resized)


def test_only_the_blocks_needed_are_built_and_they_stay_in_evaluation_mode(stand_for):
    stand_for("cait_s24_224")
    extractor = create_features("cait_s24_224", ("blocks.2",), "random")
    assert len(extractor.net.blocks) == 3
    assert not extractor.train().net.training
    assert extractor(images(64, 96))[0].shape == (1, extractor.channels[0], 4, 6)


def test_a_size_that_patches_do_not_divide_names_the_nearest(stand_for):
    stand_for("vit_base_patch14_dinov2")
    extractor = create_features("vit_base_patch14_dinov2", ("block0",), "random")
    with pytest.raises(ConfigError, match="256 x 100 is not a multiple of 14; nearest: 252 x 98"):
        extractor(images(256, 100))


@pytest.mark.parametrize("layers", [("layer1",), ("block24",), ("blocks.1", "stride14")])
def test_wrong_layers_name_the_right_ones(layers, stand_for):
    stand_for("cait_s24_224")
    with pytest.raises(ConfigError, match=r"no layer '.*'; layers: block0 to block23"):
        create_features("cait_s24_224", layers, "random")


def test_a_convolutional_network_takes_its_own_layers_and_any_size():
    extractor = create_features("resnet18", ("layer1", "stride8"), "random")
    assert isinstance(extractor, FeatureExtractor)
    assert (extractor.channels, extractor.strides, extractor.size_multiple) == ([64, 128], [4, 8], 1)


def test_a_model_for_convolutional_networks_says_so_before_the_weights_are_looked_for():
    with pytest.raises(ConfigError, match="'vit_base_patch14_dinov2' is not one of timm's convolutional"):
        FeatureExtractor("dinov2_vit_base_14", ("stride14",))
