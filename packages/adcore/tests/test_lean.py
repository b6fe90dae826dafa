"""What importing torchvision and timm leaves behind, each case in a Python of its own."""

import subprocess
import sys

import pytest


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_model_is_built_and_predicts_without_the_compiler():
    run("""
import sys, torch
from adcore.registry import create_model
model = create_model("padim", backbone="efficientnet_lite0", layers=["stride8"], weights="random", n_features=4)
with torch.inference_mode():
    model.extractor(torch.rand(1, 3, 64, 64))
assert not {"torch._dynamo", "torch._inductor", "sympy"} & set(sys.modules), "the compiler was imported"
""")


@pytest.mark.parametrize(
    "use",
    [
        "assert torch.compile(lambda x: x + 1, backend='eager')(torch.ones(1)) == 2",
        "torch._dynamo.reset(); assert torch._dynamo.utils.counters is not None",
        "from torch._dynamo import config; assert config.recompile_limit > 0",
        "torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], 0.1).step(); assert torch.compiler.disable(len)([]) == 0",
    ],
)
def test_the_real_compiler_is_there_for_whoever_wants_it(use):
    run(f"import adcore.lean, torch\n{use}")


@pytest.mark.parametrize(
    "use", ["assert torch._dynamo.config.recompile_limit > 0", "from torch._dynamo.utils import counters"]
)
def test_a_stand_in_makes_way_for_the_real_compiler(use):
    run(f"import torch\nfrom adcore import lean\nlean._stand_in()\n{use}")


def test_shapes_only_builds_without_values():
    run("""
import sys
from adcore.lean import shapes_only
import timm
with shapes_only():
    net = timm.create_model("resnet18")
assert all(p.is_meta for p in net.parameters()) and net.fc.weight.shape == (1000, 512)
assert "torch._dynamo" not in sys.modules
""")
