"""Frozen networks with fused convolutions: the same values as the layers one by one, whatever the network looks like."""

import copy
import logging
from threading import Thread
from types import SimpleNamespace

import pytest
import timm
import torch
from adcore.backbones import fused as fusing
from adcore.backbones.features import FeatureExtractor
from adcore.backbones.fused import Frozen, FusedConv2d, fuse
from adcore.export.graph import OLDEST_TORCH
from adcore.model import AnomalyModel
from torch import nn

pytestmark = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this build of torch has no oneDNN")


def settled(net: nn.Module) -> nn.Module:
    """`net` with batch statistics that a training might have left, so that folding them shows."""
    generator = torch.Generator().manual_seed(3)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor, low, high in ((module.running_mean, -0.3, 0.3), (module.running_var, 0.5, 2.0)):
                tensor.copy_(low + (high - low) * torch.rand(tensor.shape, generator=generator))
            module.weight.data.copy_(0.5 + torch.rand(module.weight.shape, generator=generator))
            module.bias.data.copy_(torch.rand(module.bias.shape, generator=generator) - 0.5)
    return net.eval().requires_grad_(False)


def images(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize(
    "name", ["resnet18", "tf_efficientnet_lite0", "mobilenetv2_100", "mobilenetv3_small_100", "efficientnet_b0"]
)
def test_real_networks_keep_their_values(name):
    net = settled(timm.create_model(name, pretrained=False, features_only=True, out_indices=(1, 2, 3)))
    frozen = Frozen(net)
    for shape in ((1, 3, 64, 64), (2, 3, 96, 65), (1, 3, 67, 90)):
        for fused, plain in zip(frozen(images(*shape)), net(images(*shape)), strict=True):
            torch.testing.assert_close(fused, plain, rtol=1e-4, atol=1e-5 * float(plain.abs().max()))
    kinds = [type(module) for module in frozen.fused.modules()]
    assert kinds.count(FusedConv2d) == sum(
        isinstance(m, nn.Conv2d) for m in net.modules() if any(True for _ in m.parameters())
    )
    assert nn.BatchNorm2d not in kinds


class Shortcuts(nn.Module):
    """What an eager fusion gets wrong: values used twice, sums of sums, in-place activations."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = (
            nn.Conv2d(3, 6, 3, padding=1),
            nn.Conv2d(6, 6, 1, bias=False),
            nn.Conv2d(6, 6, 3, padding=1, groups=2),
        )
        self.d = nn.Conv2d(6, 6, 3, padding=2, dilation=2)
        self.norms = nn.ModuleList(nn.BatchNorm2d(6) for _ in range(3))
        self.act, self.gelu, self.drop = nn.ReLU(inplace=True), nn.GELU(), nn.Dropout(0.5)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        first = self.norms[0](self.a(x))
        twice = self.b(first)  # used by its norm, and once more below
        y = self.act(self.norms[1](twice) + first)
        z = self.drop(self.c(y)) + self.d(y)  # the shortcut of one is the output of the other
        z = self.gelu(self.norms[2](z)) + twice
        return [y, z, self.d(z) + self.d(z), self.act(self.d(z))]


def test_odd_connections_keep_their_values():
    net = settled(Shortcuts())
    for fused, plain in zip(fuse(net)(images(2, 3, 20, 20)), net(images(2, 3, 20, 20)), strict=True):
        torch.testing.assert_close(fused, plain, rtol=1e-4, atol=1e-5)


class Branching(nn.Module):
    """Which layers run depends on values."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x) if x.mean() > 0 else self.conv(-x)


class Broadcast(Branching):
    """One number of each channel is added everywhere, which no convolution does by itself."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.abs()
        return x + self.conv(x).mean((2, 3), keepdim=True) + self.conv(x[..., :3, :3])


@pytest.fixture
def log(caplog):
    """What is said in the log of adcore."""
    fusing._say.cache_clear()
    caplog.set_level(logging.INFO, logger="adcore")
    return caplog


@pytest.mark.parametrize("kind", [Branching, Broadcast])
def test_a_network_that_cannot_be_fused_runs_as_it_is_and_the_log_says_so_once(kind, log):
    net = settled(kind())
    for frozen in (Frozen(net), Frozen(net)):
        for sign in (1, -1):
            assert torch.equal(frozen(sign * images(1, 3, 16, 16)), net(images(1, 3, 16, 16)))
        assert frozen.fused is None or frozen.refused == {torch.Size((16, 16))}
    (record,) = log.records
    assert record.name == "adcore"
    assert kind.__name__ in record.message
    assert "unfused" in record.message
    assert "\n" not in record.message


def test_without_the_operators_of_onednn_networks_run_as_they_are_and_the_log_says_so(monkeypatch, log):
    net = settled(timm.create_model("resnet18", pretrained=False, features_only=True, out_indices=(1,)))
    monkeypatch.setattr(torch.ops, "mkldnn", SimpleNamespace())
    frozen = Frozen(net)
    assert torch.equal(frozen(images(1, 3, 32, 32))[0], net(images(1, 3, 32, 32))[0])
    (record,) = log.records
    assert "_convolution_pointwise" in record.message or "_reorder_convolution_weight" in record.message


class Interrupted(nn.Module):
    """While it runs, another thread uses a module of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.others, self.seen = nn.Conv2d(3, 3, 3), [nn.Conv2d(3, 2, 1)], []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        thread = Thread(target=lambda: self.seen.append(self.others[0](torch.ones(1, 3, 4, 4))))
        thread.start()
        thread.join()
        return self.conv(x)


def test_other_threads_use_their_modules_while_a_network_is_traced():
    net = settled(Interrupted())
    fuse(net)
    (seen,) = net.seen
    assert torch.equal(seen, net.others[0](torch.ones(1, 3, 4, 4)))


def test_new_weights_are_noticed():
    net = settled(timm.create_model("resnet18", pretrained=False, features_only=True, out_indices=(1,)))
    frozen, x = Frozen(net), images(1, 3, 32, 32)
    before = frozen(x)[0]
    assert torch.equal(frozen(x)[0], before)
    other = settled(timm.create_model("resnet18", pretrained=False, features_only=True, out_indices=(1,)))
    net.load_state_dict(other.state_dict())
    torch.testing.assert_close(frozen(x)[0], net(x)[0], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(frozen(x)[0], before)
    net.bn1.running_mean.add_(1)
    torch.testing.assert_close(frozen(x)[0], net(x)[0], rtol=1e-4, atol=1e-5)


def test_an_extractor_keeps_its_state_and_can_be_copied():
    extractor = FeatureExtractor("resnet18", ["layer1", "layer2"], weights="random")
    keys, x = set(extractor.state_dict()), images(2, 3, 64, 64)
    maps = extractor(x)
    assert set(extractor.state_dict()) == keys
    assert all(key.startswith("net.") for key in keys)
    twin = copy.deepcopy(extractor)
    assert all(torch.equal(a, b) for a, b in zip(twin(x), maps, strict=True))
    twin.net.conv1.weight.data.zero_()
    assert torch.equal(extractor(x)[0], maps[0])
    with torch.inference_mode():
        assert torch.equal(extractor(x)[0], maps[0])
    assert extractor.double()(x.double())[0].dtype == torch.float64


class WithBackbone(AnomalyModel):
    def __init__(self) -> None:
        super().__init__()
        self.extractor = FeatureExtractor("resnet18", ["layer1"], weights="random")


def test_a_model_is_made_ready_before_its_first_image():
    model = WithBackbone()
    model.warm_up()
    fused = model.extractor.quick.fused
    assert fused is not None
    model.extractor(images(1, 3, 64, 64))
    assert model.extractor.quick.fused is fused


def test_a_size_that_the_fused_form_cannot_run_is_run_unfused(caplog):
    net = settled(timm.create_model("resnet18", pretrained=False, features_only=True, out_indices=(1,)))
    frozen = Frozen(net)
    frozen.warm_up()

    def fails(images: torch.Tensor) -> None:
        raise RuntimeError("could not create a memory")

    frozen.fused.forward = fails
    with caplog.at_level(logging.WARNING, logger="adcore"):
        for _ in range(2):
            assert torch.equal(frozen(images(1, 3, 32, 32))[0], net(images(1, 3, 32, 32))[0])
    (line,) = [record.message for record in caplog.records]
    assert "could not create a memory" in line


@pytest.mark.skipif(torch.__version__ < OLDEST_TORCH, reason=f"models are exported with torch {OLDEST_TORCH} or newer")
def test_an_export_holds_the_networks_own_layers():
    extractor = FeatureExtractor("resnet18", ("layer1",), weights="random").eval()
    extractor(images(1, 3, 64, 64))  # fused from here on
    with torch.no_grad():
        program = torch.export.export(extractor, (images(1, 3, 64, 64),))
    assert "mkldnn" not in program.graph_module.code
    torch.testing.assert_close(
        program.module()(images(1, 3, 64, 64)), extractor(images(1, 3, 64, 64)), rtol=1e-4, atol=1e-4
    )
