"""Fixtures for comparing a model with the stored answers of anomalib; README.md beside this file tells the format."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
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


TIGHT = 1e-4  # allowed difference, relative or in parts of a map's range, where no training has amplified rounding
MULTIPLE = 50  # after training: this many times the movement by one unit in the last place (an AMD processor needed 30)
MEANINGLESS = 0.05  # where even that allows more, a comparison would prove nothing
DRAWN = "b5d0e4eb4ec7264c"  # of the numbers that the golden files were made from


@dataclass(frozen=True)
class Golden:
    """One golden file: its tensors, its facts, and the recipe module that makes inputs and parameters.

    `sensitivity` has for each tensor after training its movement by rounding, one number or one a step. `redrawn`: a
    processor without AVX2 draws normal numbers that differ in the last place of float32. `observer` is
    tools/parity/sensitivity.py while it measures. `steps` limits a comparison to the first steps of the training.
    """

    name: str
    tensors: dict[str, torch.Tensor]
    facts: dict
    fill: ModuleType
    sensitivity: dict[str, float | list[float]]
    redrawn: bool = False
    observer: object | None = None
    steps: int | None = None

    def first(self, steps: int | None) -> Golden:
        """The same with the first `steps` steps of the training alone: nothing after the training is compared then."""
        return replace(self, steps=steps)

    def input(self, **overrides) -> torch.Tensor:
        """The images that the eval outputs belong to."""
        recipe = self.facts["input"] | overrides
        return self.fill.images(recipe["name"], tuple(recipe["shape"]), recipe["unit"])

    def train_batches(self, dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
        """The training batches, one a step (or all that a one-pass model was fitted on), in the type that trains."""
        recipe = self.facts["train"]
        made = [self.fill.images(name, tuple(recipe["shape"]), recipe["unit"]).to(dtype) for name in recipe["names"]]
        made = made[: self.steps]
        return [self.observer.perturb(images) for images in made] if self.observer else made

    def batches(self, dtype: torch.dtype = torch.float32) -> list[Batch]:
        """The training batches as a trainer gets them: normal images."""
        return [normal_batch(images) for images in self.train_batches(dtype)]

    def defects(self, dtype: torch.dtype) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """For each step the damaged training images (B, 3, H, W) and their masks (B, H, W) bool, as the peer was given them."""
        recipe = self.facts["textures"]
        for step, (images, name) in enumerate(zip(self.train_batches(dtype), recipe["names"], strict=True)):
            texture = self.fill.images(name, tuple(recipe["shape"]), recipe["unit"]).to(dtype)
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

    def allowed(self, key: str, tolerance: float) -> torch.Tensor:
        """The largest difference allowed of tensor `key`: () or one a step; infinite where it would prove nothing.

        Training in float64 amplifies rounding too much to start from other numbers: then its first losses are left.
        """
        bounds = (MULTIPLE * torch.tensor(self.sensitivity.get(key, 0.0))).double().clamp(min=tolerance)
        if (
            self.redrawn
            and key in self.sensitivity
            and "float64" in (self.facts.get("dtype"), self.facts.get("training_dtype"))
        ):
            bounds[... if bounds.ndim == 0 else slice(1, None)] = torch.inf
        return bounds.where(bounds <= MEANINGLESS, torch.inf)

    def assert_map_close(self, ours: torch.Tensor, key: str = "map", tolerance: float = TIGHT) -> None:
        """Largest difference within what is allowed of the stored tensor's range; maps may be stored thinned out."""
        if self.steps and key.endswith("_after"):
            return
        theirs = self.tensors[key].double()
        if key.startswith("map"):
            stride = self.facts.get("map_stride", 1)
            ours = ours[:, ::stride, ::stride]
        assert ours.shape == theirs.shape, f"{key}: shape {tuple(ours.shape)}, stored {tuple(theirs.shape)}"
        scale = (theirs.max() - theirs.min()).clamp(min=theirs.abs().max() * 1e-3).item()
        self.check(key, (ours.detach().double() - theirs) / scale, tolerance)

    def assert_relative(self, ours: torch.Tensor, key: str, tolerance: float = TIGHT) -> None:
        """Every element within what is allowed, relative; for scores and losses."""
        if self.steps and key.endswith("_after"):
            return
        theirs = self.tensors[key].double()
        theirs = theirs[: self.steps] if "loss" in key else theirs
        ours = torch.as_tensor(ours).detach().double()
        assert ours.shape == theirs.shape, f"{key}: shape {tuple(ours.shape)}, stored {tuple(theirs.shape)}"
        self.check(key, (ours - theirs) / theirs.abs(), tolerance)

    def check(self, key: str, difference: torch.Tensor, tolerance: float) -> None:
        """Assert that the relative `difference` is allowed: its largest element, of losses that of each step."""
        worst = difference.abs()
        worst = worst.reshape(len(worst), -1).amax(1) if "loss" in key else worst.max()
        if self.observer:
            if not self.steps:
                self.observer.see(self.name, key, difference)
            return
        bounds = self.allowed(key, tolerance)
        bounds = bounds[: self.steps] if bounds.ndim else bounds
        assert (worst <= bounds).all(), f"{key}: differs by {worst.tolist()}, allowed are {bounds.tolist()}"


@pytest.fixture(params=[1, pytest.param(None, marks=pytest.mark.slow)], ids=["one step", "all steps"])
def steps(request: pytest.FixtureRequest) -> int | None:
    """How many steps of a large model's training are compared."""
    return request.param


@pytest.fixture(scope="session")
def golden(request: pytest.FixtureRequest):
    """`golden("stfpm")` reads tests/parity/golden/stfpm.safetensors."""
    fill = load_module(TOOLS / "fill.py")
    observer = request.config.pluginmanager.get_plugin("parity-observer")
    drawn = hashlib.sha256(fill.tensor("layer.weight", (64, 64)).numpy().tobytes()).hexdigest()
    sensitivities = json.loads((HERE / "golden" / "sensitivity.json").read_text(encoding="utf-8"))["movements"]

    def read(name: str) -> Golden:
        with safe_open(HERE / "golden" / f"{name}.safetensors", framework="pt") as file:
            facts = json.loads(file.metadata()["facts"])
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        return Golden(name, tensors, facts, fill, sensitivities.get(name, {}), not drawn.startswith(DRAWN), observer)

    return read
