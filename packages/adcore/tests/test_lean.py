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
    run(f"import adcore.backbones.networks, torch\n{use}")


@pytest.mark.parametrize(
    "use", ["assert torch._dynamo.config.recompile_limit > 0", "from torch._dynamo.utils import counters"]
)
def test_a_stand_in_makes_way_for_the_real_compiler(use):
    run(f"import torch\nfrom adcore import lean\nlean._stand_in()\n{use}")


def test_shapes_only_builds_without_values():
    run("""
import sys
from adcore.backbones.networks import create_network
from adcore.lean import shapes_only
with shapes_only():
    net = create_network("resnet18")
assert all(p.is_meta for p in net.parameters()) and net.fc.weight.shape == (1000, 512)
assert "torch._dynamo" not in sys.modules
""")


BUILT = """
import sys
from adcore.backbones.networks import create_network
net = create_network("resnet18", features_only=True)
"""


def test_a_network_is_built_from_the_one_file_that_defines_it():
    run(f"""{BUILT}
assert net.feature_info.channels() == [64, 64, 128, 256, 512]
others = [name for name in sys.modules if name.startswith("timm.models.") and not name.startswith("timm.models._")]
assert others == ["timm.models.resnet"], others
assert not {{"torchvision", "huggingface_hub", "torch._dynamo"}} & set(sys.modules)
""")


@pytest.mark.parametrize(
    "use",
    [
        "import timm; assert len(timm.list_models()) > 1000 and timm.create_model('resnet10t').num_features == 512",
        "import timm.models; assert timm.models.vision_transformer and timm.models.resnet.resnet18",
        "from timm.models import *; assert 'vit_tiny_patch16_224' in globals()",
        "from timm.data import create_transform; assert create_transform(32).transforms",
        "from torchvision.ops import misc, nms; assert nms(torch.ones(1, 4), torch.ones(1), 0.5).tolist() == [0]",
        "import timm; assert timm.models.create_feature_extractor(timm.create_model('resnet18'), ['layer1'])",
        "assert create_network('tf_efficientnet_b0_ap').num_features == 1280  # a name that timm has given up",
    ],
)
def test_all_of_timm_is_there_for_whoever_wants_it(use):
    run(f"{BUILT}import torch\n{use}")


def test_timm_that_came_first_stays_as_it_is():
    run(
        "import timm; models = timm.models\nfrom adcore.backbones.networks import create_network\nassert timm.models is models"
    )


def test_a_timm_of_another_shape_is_imported_whole():
    run("""
import sys
sys.modules["timm.data.constants"] = None  # importing it fails, the first time
from adcore.backbones.networks import create_network
import timm
assert create_network("resnet18").num_features == 512 and len(timm.list_models()) > 1000
""")


def test_the_hub_client_fails_as_ever():
    """Once it is called, timm catches the errors that it raises."""
    run(f"""{BUILT}
import os
os.environ["HF_HUB_OFFLINE"] = "1"
import timm.models._hub as hub
try:
    hub.load_model_config_from_hf("nobody/nothing")
except Exception as error:
    assert isinstance(error, OSError) or "huggingface_hub" in type(error).__module__, repr(error)
import huggingface_hub
assert hub.RepositoryNotFoundError is huggingface_hub.utils.RepositoryNotFoundError
""")
