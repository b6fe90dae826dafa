"""Parameters, buffers and images made from their names alone, the same in any environment: only torch is needed.

Two implementations of one model get equal parameters when their names are first turned into the same canonical names.
"""

import hashlib
import math
import re
from collections.abc import Iterable

import torch

Renames = Iterable[tuple[str, str]]  # (pattern, replacement) for re.sub, applied in order


def generator(name: str) -> torch.Generator:
    """A CPU generator seeded by a hash of `name` that no Python or torch version changes."""
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:7], "big")
    return torch.Generator().manual_seed(seed)


def canonical(name: str, renames: Renames) -> str:
    """`name` after every rename."""
    for pattern, replacement in renames:
        name = re.sub(pattern, replacement, name)
    return name


def tensor(name: str, shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """The value of the parameter or buffer `name`: kept in the range where a deep network neither dies nor explodes.

    Weights are normal with variance gain / fan-in, scales and variances uniform in [0.5, 1.5], the rest normal x 0.1.
    """
    shape = tuple(shape)
    leaf = name.rsplit(".", 1)[-1]
    if not dtype.is_floating_point:
        return torch.zeros(shape, dtype=dtype)  # num_batches_tracked and the like
    if leaf in ("w_perm", "w_perm_inv"):  # a flow's fixed permutation: one-hot, and its transpose
        order = torch.randperm(shape[0], generator=generator(name.removesuffix("_inv")))
        matrix = torch.eye(shape[0], dtype=dtype)[order]
        return (matrix.T if leaf == "w_perm_inv" else matrix).reshape(shape).contiguous()
    source = generator(name)
    if leaf == "global_scale":  # FrEIA's scale is 0.1 softplus(x, beta=0.5), so 10 means 1
        return 9.0 + 2.0 * torch.rand(shape, generator=source, dtype=dtype)
    norm = leaf == "weight" and len(shape) in (1, 3)  # 1 dimension: batch or layer norm; 3: a LayerNorm over (C, H, W)
    if norm or leaf in ("running_var", "std", "gamma") or leaf.startswith(("scale", "qb_")):
        return torch.rand(shape, generator=source, dtype=dtype) + 0.5
    values = torch.randn(shape, generator=source, dtype=dtype)
    if ".logits." in name:  # kept small: a saturated softmax would hide differences
        values = values * 0.1
    if leaf == "weight":
        fan_in = math.prod(shape[1:])
        gain = 2.0 if len(shape) == 4 else 1.0  # convolutions are followed by a ReLU, matrices mostly are not
        return values * math.sqrt(gain / fan_in)
    return values * 0.1


def fill_module(module: torch.nn.Module, renames: Renames = (), keep: str | None = None) -> list[tuple[str, list[int]]]:
    """Overwrite every entry of `module.state_dict()`, except those whose canonical name matches `keep`.

    Returns (canonical name, shape) of what was filled, in order; two implementations agree when these sets do.
    """
    filled = []
    for name, value in module.state_dict().items():
        label = canonical(name, renames)
        if keep is not None and re.search(keep, label):
            continue
        with torch.no_grad():
            value.copy_(tensor(label, tuple(value.shape), value.dtype))
        filled.append((label, list(value.shape)))
    return filled


def images(name: str, shape: tuple[int, int, int, int], unit: bool = False) -> torch.Tensor:
    """(B, C, H, W) smooth random pictures plus fine noise, about normal(0, 1); with `unit`, squashed into (0, 1)."""
    source = generator(name)
    batch, channels, height, width = shape
    coarse = torch.randn((batch, channels, 8, 8), generator=source)
    smooth = torch.nn.functional.interpolate(coarse, size=(height, width), mode="bilinear", align_corners=False)
    picture = 1.5 * smooth + 0.2 * torch.randn(shape, generator=source)
    return torch.sigmoid(picture) if unit else picture
