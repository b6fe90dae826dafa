"""Fixtures for comparing a model with the stored answers of anomalib; README.md beside this file tells the format."""

import importlib.util
import json
import re
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest
import torch
from safetensors import safe_open

HERE = Path(__file__).parent
TOOLS = HERE.parents[1] / "tools" / "parity"


def load_module(path: Path) -> ModuleType:
    """A module from its file: the tools are programs of this repository, not an installed package."""
    spec = importlib.util.spec_from_file_location(f"parity_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@dataclass(frozen=True)
class Golden:
    """One golden file: its tensors, its facts, and the recipe module that makes inputs and parameters."""

    tensors: dict[str, torch.Tensor]
    facts: dict
    fill: ModuleType

    def input(self, **overrides) -> torch.Tensor:
        """The images that the eval outputs belong to."""
        recipe = self.facts["input"] | overrides
        return self.fill.images(recipe["name"], tuple(recipe["shape"]), recipe["unit"])

    def train_batches(self) -> list[torch.Tensor]:
        """The training batches, one a step (or all that a one-pass model was fitted on)."""
        recipe = self.facts["train"]
        return [self.fill.images(name, tuple(recipe["shape"]), recipe["unit"]) for name in recipe["names"]]

    def fill_module(
        self, module: torch.nn.Module, renames=(), keep: str | None = None, unused: str | None = None
    ) -> None:
        """Fill `module` in place; `renames` make its names canonical, `keep` matches what is not to be filled.

        Fails when the two sides do not name the same tensors with the same shapes. `unused` matches canonical
        names that only the peer has, such as layers of its backbone behind the last one needed.
        """
        ours = dict(self.fill.fill_module(module, renames, keep))
        theirs = {name: shape for name, shape in self.facts["parameters"] if not unused or not re.search(unused, name)}
        missing, extra = sorted(theirs.keys() - ours.keys()), sorted(ours.keys() - theirs.keys())
        assert (missing, extra) == ([], []), f"only in the golden file: {missing[:9]}; only in ours: {extra[:9]}"
        different = {name: (ours[name], theirs[name]) for name in ours if list(ours[name]) != list(theirs[name])}
        assert not different, f"shapes differ (ours, theirs): {different}"

    def assert_map_close(self, ours: torch.Tensor, key: str = "map", tolerance: float = 1e-4) -> None:
        """Largest difference within `tolerance` times the range of the stored tensor."""
        theirs = self.tensors[key].double()
        assert ours.shape == theirs.shape, f"{key}: shape {tuple(ours.shape)}, stored {tuple(theirs.shape)}"
        scale = (theirs.max() - theirs.min()).clamp(min=theirs.abs().max() * 1e-3).item()
        worst = (ours.detach().double() - theirs).abs().max().item()
        assert worst <= tolerance * scale, f"{key}: differs by {worst:.3g}, {worst / scale:.2g} of its range"

    def assert_relative(self, ours: torch.Tensor, key: str, tolerance: float = 1e-4) -> None:
        """Every element within `tolerance` relative; for scores and losses."""
        theirs = self.tensors[key].double()
        torch.testing.assert_close(torch.as_tensor(ours).detach().double(), theirs, rtol=tolerance, atol=0.0)


@pytest.fixture(scope="session")
def golden():
    """`golden("stfpm")` reads tests/parity/golden/stfpm.safetensors."""
    fill = load_module(TOOLS / "fill.py")

    def read(name: str) -> Golden:
        with safe_open(HERE / "golden" / f"{name}.safetensors", framework="pt") as file:
            facts = json.loads(file.metadata()["facts"])
            return Golden({key: file.get_tensor(key) for key in file.keys()}, facts, fill)  # noqa: SIM118

    return read
