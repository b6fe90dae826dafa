"""A frozen convolutional network as fast as a CPU runs it.

Batch norms are folded into the convolutions before them, and a convolution applies the activation and adds the shortcut that
follow it, in one pass over its output (oneDNN, as torch.compile uses it, but without a compiler). That takes 0.4 (EfficientNet-
Lite0) to 0.8 (Wide ResNet-50) of the time of the layers one by one, and less memory; values differ by float32 rounding only.
Networks that cannot be traced, or give different values, run unfused, and the log says so once. So does every network on a
torch without the operators `torch.ops.mkldnn`, which are not a public interface.
"""

from __future__ import annotations

import logging
import math
import operator
from collections.abc import Callable, Sequence
from functools import cache
from threading import Lock, get_ident
from typing import Any

import torch
import torch.nn.functional as F
from timm import layers
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

PROBE_SIZE = 64  # of the random image with which a fused network is compared with its original
TOLERANCE = 1e-4  # largest difference allowed there, relative to the largest value

_log = logging.getLogger("adcore")
_tracing = Lock()  # torch.fx patches nn.Module for the time of a trace: one at a time

# What oneDNN calls an activation, and its numbers.
ACTIVATIONS: dict[type, tuple[str, list[float]]] = {
    nn.ReLU: ("relu", []),
    nn.ReLU6: ("hardtanh", [0.0, 6.0]),
    nn.SiLU: ("swish", []),
    nn.Hardswish: ("hardswish", []),
}


class FusedConv2d(nn.Module):
    """A convolution with the batch norm after it folded in; then `+ shortcut`, then an activation."""

    def __init__(self, conv: nn.Conv2d, norm: nn.BatchNorm2d | None) -> None:
        super().__init__()
        weight, bias = conv.weight, conv.bias
        if norm is not None:
            weight, bias = fuse_conv_bn_weights(
                weight, bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
            )
        self.weight, self.bias = weight.detach(), None if bias is None else bias.detach()
        self.same, self.padding = isinstance(conv, layers.Conv2dSame), tuple(conv.padding)
        self.geometry = [*conv.stride], [*conv.dilation], conv.groups
        self.activation: tuple[str, list[float]] = ("none", [])
        self.prepared: dict[tuple[float, float], tuple[Tensor, list[int]]] = {}  # by padding: what oneDNN is given

    def forward(self, x: Tensor, shortcut: Tensor | None = None) -> Tensor:
        """(B, C, H, W) -> (B, C', H', W')."""
        padding = self._same_padding(x) if self.same else self.padding
        if padding not in self.prepared:
            self.prepared[padding] = self._prepare(padding)
        weight, padding = self.prepared[padding]
        name, numbers = self.activation
        if shortcut is None:
            convolve = torch.ops.mkldnn._convolution_pointwise
            return convolve(x, weight, self.bias, padding, *self.geometry, name, numbers, "")
        convolve = torch.ops.mkldnn._convolution_pointwise.binary
        name = None if name == "none" else name
        return convolve(x, shortcut, weight, self.bias, padding, *self.geometry, "add", None, name, numbers, None)

    def _same_padding(self, x: Tensor) -> tuple[float, float]:
        """TensorFlow's padding for this size, on each side; a half where one more comes at the end than at the front."""
        sizes = zip(x.shape[-2:], self.weight.shape[-2:], self.geometry[0], strict=True)
        return tuple(layers.get_same_padding(size, kernel, stride, 1) / 2 for size, kernel, stride in sizes)

    def _prepare(self, padding: tuple[float, float]) -> tuple[Tensor, list[int]]:
        """Weights in oneDNN's layout and whole paddings: a zero in front of the kernel takes back a half too much."""
        whole = [math.ceil(p) for p in padding]
        (top, left) = (int(2 * (w - p)) for w, p in zip(whole, padding, strict=True))
        weight = F.pad(self.weight, (left, 0, top, 0)) if left or top else self.weight
        if weight.shape[-2:] != (1, 1):  # laid out for one batch size, those are slow at others
            weight = torch.ops.mkldnn._reorder_convolution_weight(weight, whole, *self.geometry, None)
        return weight, whole


class _Tracer(fx.Tracer):
    """Follows the calls of its own thread; other threads use their modules meanwhile as ever."""

    def __init__(self) -> None:
        super().__init__()
        self.thread = get_ident()

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        if get_ident() != self.thread:
            return forward(*args, **kwargs)
        return super().call_module(m, forward, args, kwargs)

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        if get_ident() != self.thread:
            return attr_val
        return super().getattr(attr, attr_val, parameter_proxy_cache)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, nn.BatchNorm2d | nn.Conv2d) or super().is_leaf_module(m, module_qualified_name)


def _fusable(module: nn.Module | None) -> bool:
    if type(module) is layers.Conv2dSame:
        return module.dilation == (1, 1)
    return type(module) is nn.Conv2d and module.padding_mode == "zeros" and not isinstance(module.padding, str)


def fuse(net: nn.Module) -> fx.GraphModule:
    """The network with its convolutions fused; `net`, in evaluation mode, keeps its own layers and weights.

    Raises whatever torch.fx raises about a network whose layers depend on values.
    """
    with _tracing:
        graph = _Tracer().trace(net)
    fused = fx.GraphModule(net, graph)

    def module(node: fx.Node | None) -> nn.Module | None:
        return fused.get_submodule(node.target) if node is not None and node.op == "call_module" else None

    def only_user(node: fx.Node) -> fx.Node | None:
        return next(iter(node.users)) if len(node.users) == 1 else None

    def absorb(node: fx.Node, into: fx.Node) -> None:
        node.replace_all_uses_with(into)
        graph.erase_node(node)

    for node in list(graph.nodes):
        if isinstance(module(node), nn.Identity | nn.Dropout):
            absorb(node, into=node.args[0])
    place = {node: i for i, node in enumerate(graph.nodes)}
    for node in list(graph.nodes):
        if not _fusable(conv := module(node)):
            continue
        norm, activation = module(after := only_user(node)), None
        if isinstance(norm, nn.BatchNorm2d):
            # timm's norms carry their activation
            own = norm.act if isinstance(norm, layers.BatchNormAct2d) else nn.Identity()
            activation = ACTIVATIONS.get(type(own))
            if activation or isinstance(own, nn.Identity):
                absorb(after, into=node)
            else:
                after.target += ".act"
        fusion = FusedConv2d(conv, norm if isinstance(norm, nn.BatchNorm2d) else None)
        after = only_user(node)
        if activation is None and after is not None and after.target in (operator.add, operator.iadd):
            shortcut = after.args[after.args[0] is node]  # the other of two
            if isinstance(shortcut, fx.Node) and place[shortcut] < place[node]:
                node.args = (*node.args, shortcut)
                absorb(after, into=node)
                after = only_user(node)
        if activation is None and (activation := ACTIVATIONS.get(type(module(after)))):
            absorb(after, into=node)
        fusion.activation = activation or fusion.activation
        node.target = f"fused_{node.name}"  # of the place: a layer that is used twice may have two activations
        fused.add_submodule(node.target, fusion)
    fused.delete_all_unused_submodules()
    fused.recompile()
    return fused


class Frozen:
    """Runs a frozen network: fused on a CPU in float32, as it is elsewhere and where fusing does not work.

    The fused form is made when it is first needed, and again when a weight of `net` has changed. It is never a part of a
    state: `net` is.
    """

    def __init__(self, net: nn.Module) -> None:
        self.net = net
        # Where `net` keeps its tensors: looked through for every image, so only where there are any.
        self.owners = [group for m in net.modules() for group in (m._parameters, m._buffers) if group]
        self.made_from: list[tuple[int, int]] | None = None
        self.fused: nn.Module | None = None
        self.refused: set[torch.Size] = set()  # (H, W) of images that the fused form cannot take

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "made_from": None, "fused": None}  # a copy makes its own

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor | Sequence[Tensor]:
        if images.device.type != "cpu" or images.dtype != torch.float32 or not torch.backends.mkldnn.is_available():
            return self.net(images)
        if (
            torch.compiler.is_compiling()
        ):  # torch.export: other runtimes have no oneDNN operators, and fuse for themselves
            return self.net(images)
        self.warm_up()
        if self.fused is not None and images.shape[-2:] not in self.refused:
            try:
                return self.fused(images)
            except RuntimeError as error:  # oneDNN of older versions of torch lacks some shapes
                _say(type(self.net).__name__, f"{type(error).__name__}: {error}".splitlines()[0])
                self.refused.add(images.shape[-2:])  # other sizes stay fused: each size always gives the same values
        return self.net(images)

    @torch.no_grad()
    def warm_up(self) -> None:
        """Warm up before the first image: fuse the network, again where a weight has changed."""
        tensors = [t for group in self.owners for t in group.values() if t is not None]
        try:
            weights = [(id(t), t._version) for t in tensors]  # asked for every image
        except RuntimeError:  # tensors of an inference mode count no changes
            weights = [(id(t), 0 if t.is_inference() else t._version) for t in tensors]
        if weights != self.made_from:
            self.made_from, self.fused = weights, self._fuse()

    @torch.inference_mode(False)
    @torch.no_grad()
    def _fuse(self) -> nn.Module | None:
        """The fused network, if it does what the original does."""
        probe = torch.rand(1, 3, PROBE_SIZE, PROBE_SIZE, generator=torch.Generator().manual_seed(0))
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # so small an image is no work for more, and images are being read beside it
        try:
            fused = fuse(self.net)
            pairs = [*zip(_listed(self.net(probe)), _listed(fused(probe)), strict=True)]
        except Exception as error:  # whatever torch.fx or a missing operator raises; the original runs every network
            _say(type(self.net).__name__, f"{type(error).__name__}: {error}".splitlines()[0])
            return None
        finally:
            torch.set_num_threads(threads)
        if all(x.shape == y.shape and (x - y).abs().max() <= TOLERANCE * x.abs().max() for x, y in pairs):
            return fused
        _say(type(self.net).__name__, "the fused form gives different values")
        return None


@cache
def _say(network: str, reason: str) -> None:
    """Once for each network and reason."""
    _log.warning("the network %s runs unfused, which is slower on a CPU: %s", network, reason)


def _listed(maps: Tensor | Sequence[Tensor]) -> Sequence[Tensor]:
    return [maps] if isinstance(maps, Tensor) else maps
