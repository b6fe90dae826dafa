"""Fixtures for comparing a model with the stored answers of anomalib; README.md beside this file tells the format."""

import importlib.util
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest
import torch
from adcore.model import AnomalyModel, Batch
from adcore.training.plan import Plan
from safetensors import safe_open

HERE = Path(__file__).parent
TOOLS = HERE.parents[1] / "tools" / "parity"


def load_module(path: Path) -> ModuleType:
    """A module from its file: the tools are programs of this repository, not an installed package."""
    spec = importlib.util.spec_from_file_location(f"parity_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def normal_batch(images: torch.Tensor) -> Batch:
    """Images (B, 3, H, W) as a batch without anomalies."""
    masks = torch.zeros(len(images), *images.shape[-2:], dtype=torch.bool)
    labels, paths = torch.zeros(len(images), dtype=torch.long), [f"{i}.png" for i in range(len(images))]
    return Batch(images, labels, masks, labels.bool(), paths)


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

    def batches(self) -> list[Batch]:
        """The training batches as a trainer gets them: normal images."""
        return [normal_batch(images) for images in self.train_batches()]

    def defects(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """For each step the damaged training images (B, 3, H, W) and their masks (B, H, W) bool, as the peer was given them."""
        recipe = self.facts["textures"]
        for step, (images, name) in enumerate(zip(self.train_batches(), recipe["names"], strict=True)):
            texture = self.fill.images(name, tuple(recipe["shape"]), recipe["unit"])
            top, left, (height, width) = 4 + 6 * step, 8 + 4 * step, images.shape[-2:]
            mask = torch.zeros(len(images), height, width, dtype=torch.bool)
            mask[:, top : top + height // 4, left : left + width // 4] = True
            yield torch.where(mask[:, None], texture, images), mask

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

    def fill_couplings(self, module: torch.nn.Module, renames=(), keep: str = "^$") -> None:
        """`fill_module` for flows whose couplings keep the peer's permutation matrix `w_perm` as an index."""
        self.fill_module(module, renames, keep=rf"\.permutation$|{keep}", unused=r"\.w_perm(_inv)?$")
        shapes = dict(self.facts["parameters"])
        for name, buffer in module.named_buffers():
            if name.endswith(".permutation"):
                label = self.fill.canonical(name, renames).replace(".permutation", ".w_perm")
                matrix = self.fill.tensor(label, tuple(shapes[label])).flatten(1)  # y = matrix @ x
                buffer.copy_(matrix.argmax(1))

    def train(self, model: AnomalyModel, plan: Plan) -> torch.Tensor:
        """Train `model` on the batches, an optimizer step for each Update; the losses (updates,) float64.

        Random numbers that a model draws in a step are seeded with its number, as on the peer's side.
        """
        losses = []
        optimizations = model.train().configure_optimizers(plan)
        for step, batch in enumerate(self.batches()):
            torch.manual_seed(step)
            for update in model.training_step(batch, step):
                chosen = optimizations[update.optimizer]
                chosen.optimizer.zero_grad()
                update.loss.backward()
                if chosen.clip_norm:
                    parameters = [p for group in chosen.optimizer.param_groups for p in group["params"]]
                    torch.nn.utils.clip_grad_norm_(parameters, chosen.clip_norm)
                chosen.optimizer.step()
                losses.append(update.loss.detach().double())
        return torch.stack(losses)

    def assert_map_close(self, ours: torch.Tensor, key: str = "map", tolerance: float = 1e-4) -> None:
        """Largest difference within `tolerance` times the range of the stored tensor; maps may be stored thinned out."""
        theirs = self.tensors[key].double()
        if key.startswith("map"):
            stride = self.facts.get("map_stride", 1)
            ours = ours[:, ::stride, ::stride]
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
