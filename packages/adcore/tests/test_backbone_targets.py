"""A backbone that timm does not know: its card names the function that builds it; in a Python of its own."""

from pathlib import Path

import pytest
from adcore.testing.site import run_python, write_distribution

PLUGIN = """
from adcore.cards import BackboneCard
from adcore.hookspecs import hookimpl

@hookimpl
def adcore_register_backbones():
    facts = {"source": "our file server", "licence": "MIT", "size_mb": 1}
    return [
        BackboneCard("shiny", "shiny", ("shiny.pth",), target="shiny_net:build", options={"width": 6}, **facts),
        BackboneCard("missing", "no_such_net_50", ("missing.pth",), **facts),
        BackboneCard("stuck", "shiny", ("stuck.pth",), target="shiny_net:untraceable", **facts),
    ]
"""
NET = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, stride=2, padding=1)
        self.body = nn.Sequential(nn.Conv2d(width, 2 * width, 3, stride=2, padding=1), nn.ReLU())
        self.head = nn.Conv2d(2 * width, 1, 1)

    def forward(self, x):
        return self.head(self.body(self.stem(x)))

class Stuck(Net):
    def forward(self, x):
        return super().forward(x if x.sum() > 0 else -x)

def build(width):
    return Net(width)

def untraceable():
    return Stuck(4)
"""


@pytest.fixture
def ask(tmp_path: Path):
    """ask(code): run code where the plugin is installed and its weights are in the backbone folder; its output."""
    site = write_distribution(tmp_path / "site", "shiny-plugin", {"shiny.py": PLUGIN, "shiny_net.py": NET}, "shiny")

    def run(code: str) -> str:
        return run_python(code, site, ADCORE_BACKBONE_DIR=str(tmp_path))

    return run


def test_a_network_of_a_plugin_gives_its_layers_its_weights_and_a_model(ask) -> None:
    ask("""
import os, torch
from pathlib import Path
from shiny_net import build
from adcore.backbones.features import create_features
from adcore.registry import create_model
net = build(6).eval()
torch.save(net.state_dict(), Path(os.environ["ADCORE_BACKBONE_DIR"]) / "shiny.pth")
features = create_features("shiny", ["body", "stem"])
assert (features.channels, features.strides, features.size_multiple) == ([12, 6], [4, 2], 1)
images = torch.rand(2, 3, 40, 48)
stem = net.stem(images)
for ours, expected in zip(features(images), (net.body(stem), stem), strict=True):
    torch.testing.assert_close(ours, expected)
assert not hasattr(features.net, "head") and not any(p.requires_grad for p in features.parameters())
model = create_model("patchcore", backbone="shiny", layers=["stem", "body"])
assert model.embed(images)[0].shape == (2 * 20 * 24, 18)
""")


CULPRITS = [  # backbone, layers, what the error says
    ("shiny", ["layer9"], "no layer 'layer9'; layers: stem, body, body.0, body.1, head"),
    (
        "missing",
        ["layer1"],
        "'missing' of plugin 'shiny-plugin' (shiny-plugin 1.0) names the architecture 'no_such_net",
    ),
    ("stuck", ["stem"], "'stuck' (shiny_net:untraceable) gives no maps of the layers stem: TraceError"),
]


def test_what_does_not_work_is_one_line_that_names_the_culprit(ask) -> None:
    out = ask(f"""
from adcore.backbones.features import create_features
from adcore.errors import ConfigError
for backbone, layers, _ in {CULPRITS!r}:
    try:
        create_features(backbone, layers, "random")
    except ConfigError as error:
        print(error)
""")
    lines = out.splitlines()
    assert len(lines) == len(CULPRITS)
    assert all(words in line for line, (_, _, words) in zip(lines, CULPRITS, strict=True))
