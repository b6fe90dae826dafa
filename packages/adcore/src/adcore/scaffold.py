"""A complete plugin package from a name: files as templates, in which @name@ and the like are filled in."""

from __future__ import annotations

import keyword
import os
import re
import sys
from importlib.util import find_spec
from pathlib import Path

from adcore import __version__
from adcore.errors import ConfigError
from adcore.files import removed_on_failure

LONGEST = 30  # letters of a name
PYPROJECT = """\
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "@name@"
version = "0.1.0"
description = "@class@, an anomaly detection model for adcore."
readme = "README.md"
requires-python = ">=3.11"
dependencies = ["adcore>=@lowest@,<@next@"]

[project.optional-dependencies]
test = ["pytest>=8", "ruff"]

[project.entry-points.adcore]
@name@ = "@module@.plugin"

[tool.hatch.build.targets.wheel]
packages = ["src/@module@"]

[tool.pytest.ini_options]
addopts = "--import-mode=importlib"
testpaths = ["tests"]

[tool.ruff]
line-length = 120
src = ["src"]

[tool.ruff.lint]
select = ["B", "E", "F", "I", "RUF", "SIM", "UP", "W"]
"""
PLUGIN = '''\
"""What @name@ registers: cards only, no torch, so that listing stays quick."""

from adcore.cards import ModelCard
from adcore.hookspecs import hookimpl


@hookimpl
def adcore_register_models() -> list[ModelCard]:
    """One card for each name that users can type."""
    return [
        ModelCard(
            name="@name@",
            target="@module@.model:@class@",
            family="reconstruction",
            title="@class@",
            paper="Unpublished; put authors, title and venue here",
            year=@year@,
            summary="A small autoencoder; what it cannot reconstruct is anomalous.",
            epochs=20,
            batch_size=8,
            image_size=128,
            normalization="none",  # the model wants values in [0, 1]
        )
    ]
'''
MODEL = '''\
"""@class@: a small convolutional autoencoder, to be replaced by your model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import torch
from adcore.maps import gaussian_blur, upsample
from adcore.model import AnomalyModel, Batch, Optimization, Prediction, Update
from adcore.training.plan import Plan
from pydantic import Field
from torch import Tensor, nn


class @class@(AnomalyModel):
    """Reconstructs normal images through a narrow middle; the error shows what is not normal."""

    def __init__(
        self,
        *,
        width: Annotated[int, Field(ge=1, description="channels of the first convolution")] = 16,
        latent: Annotated[int, Field(ge=1, description="channels in the middle")] = 8,
        sigma: Annotated[float, Field(gt=0, description="smoothing of the map, in pixels")] = 2.0,
    ) -> None:
        super().__init__()
        self.sigma = sigma
        self.encoder = nn.Sequential(
            nn.Conv2d(3, width, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, latent, 4, stride=2, padding=1),
        )
        self.decoder = nn.Sequential(
            nn.Conv2d(latent, 4 * width, 3, padding=1),
            nn.PixelShuffle(2),
            nn.ReLU(),
            nn.Conv2d(width, 12, 3, padding=1),
            nn.PixelShuffle(2),
        )

    def error(self, images: Tensor) -> Tensor:
        """Squared error of the reconstruction at each pixel: (B, 3, H, W) -> (B, H', W')."""
        reconstruction = self.decoder(self.encoder(images))  # (B, 3, H', W'), multiples of 4
        height, width = reconstruction.shape[-2:]
        return (reconstruction - images[..., :height, :width]).square().mean(1)

    def training_step(self, batch: Batch, step: int) -> Iterator[Update]:
        """One optimizer step for each batch."""
        yield Update(self.error(batch.images).mean())

    def configure_optimizers(self, plan: Plan) -> dict[str, Optimization]:
        """Adam; the user's learning_rate, weight_decay and scheduler go before these."""
        return {"main": plan.optimization(self.parameters(), "adam", learning_rate=1e-3)}

    def forward(self, images: Tensor) -> Prediction:
        """(B, 3, H, W) -> raw scores (B,) and maps (B, H, W); higher is more anomalous."""
        smooth = gaussian_blur(self.error(images), self.sigma)
        anomaly_map = upsample(smooth, images.shape[-2:])
        return Prediction(torch.amax(anomaly_map, (1, 2)), anomaly_map)
'''
CONFORMANCE = """\
from adcore.testing import ModelConformance


class Test@class@(ModelConformance):
    model = "@name@"
"""
README = """\
# @name@

An anomaly detection model for [adcore](https://pypi.org/project/adcore/).

```sh
pip install @name@
adcore info @name@
adcore train @name@ --data mvtec:DATA --category CATEGORY
```

## For those who work on it

```sh
pip install -e ".[test]"
pytest
ruff check . && ruff format --check .
adcore check-plugin @name@
```

`src/@module@/plugin.py` tells adcore what there is, without importing torch; `src/@module@/model.py` is the model;
`tests/test_conformance.py` holds the checks that every adcore model passes.
"""
CI = """\
name: ci
on: [push, pull_request]
jobs:
  test:
    runs-on: ubuntu-latest
    steps:
      - uses: actions/checkout@v4
      - uses: actions/setup-python@v5
        with:
          python-version: "3.11"
      - run: pip install ".[test]"
      - run: ruff check . && ruff format --check .
      - run: pytest
"""
FILES = {
    "pyproject.toml": PYPROJECT,
    "README.md": README,
    ".gitignore": "__pycache__/\n*.egg-info/\n.pytest_cache/\n.ruff_cache/\nbuild/\ndist/\nresults/\n",
    ".github/workflows/ci.yml": CI,
    "src/@module@/__init__.py": '"""@class@, a model for adcore."""\n',
    "src/@module@/plugin.py": PLUGIN,
    "src/@module@/model.py": MODEL,
    "tests/test_conformance.py": CONFORMANCE,
}


def write_plugin(name: str, parent: str | Path = ".", year: int = 2026) -> Path:
    """Write a complete package for a model called `name` into `parent`/`name`, whole or not at all; returns the folder.

    Raises ConfigError when the name cannot be used or the folder exists.
    """
    module = _module_name(name)
    folder = Path(parent) / name
    if folder.exists():
        raise ConfigError(f"{folder} exists already; choose another name, or another folder with --out")
    major, minor = __version__.split(".")[:2]
    values = {
        "name": name,
        "module": module,
        "class": "".join(part[:1].upper() + part[1:] for part in name.split("-")),
        "year": str(year),
        "lowest": f"{major}.{minor}",
        "next": f"{major}.{int(minor) + 1}",
    }
    temporary = folder.with_name(f".{name}.{os.getpid()}.tmp")
    with removed_on_failure(temporary):
        for path, text in FILES.items():
            target = temporary / _fill(path, values)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(_fill(text, values), encoding="utf-8")
        temporary.rename(folder)
    return folder


def _fill(text: str, values: dict[str, str]) -> str:
    return re.sub(r"@(\w+)@", lambda found: values[found[1]], text)


def _module_name(name: str) -> str:
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name):
        raise ConfigError(f"'{name}' cannot be a package's name; use small letters, digits and hyphens: my-model")
    if len(name) > LONGEST:
        raise ConfigError(f"'{name}' is too long for a package's name; use {LONGEST} letters at most")
    module = name.replace("-", "_")
    if keyword.iskeyword(module) or module in sys.stdlib_module_names or find_spec(module):
        raise ConfigError(f"'{name}' is taken: Python has a module '{module}' already; choose another name")
    from adcore.registry import list_models

    if any(name in (card.name, *card.aliases) for card in list_models()):
        raise ConfigError(f"'{name}' is taken by an installed model; choose another name (see: adcore list-models)")
    return module
