"""What every golden case shares: building the peer's model small, filling it, evaluating it, training it a few steps."""

import copy
from types import SimpleNamespace
from unittest.mock import MagicMock

import anomalib.models
import fill
import names
import torch
from anomalib.data import ImageBatch
from anomalib.pre_processing import PreProcessor
from torchvision.transforms import v2

Result = tuple[dict[str, torch.Tensor], dict]  # tensors and facts of one golden file
Shape = tuple[int, int, int, int]
STEPS = 5


def peer(kind: str, size: int, **options) -> torch.nn.Module:
    """The peer's Lightning module without post-processing, evaluation and pictures; `.model` is its torch model."""
    transform = v2.Compose([v2.Resize((size, size), antialias=True)])  # only so that it knows its input size
    return getattr(anomalib.models, kind)(
        **options,
        pre_processor=PreProcessor(transform=transform),
        post_processor=False,
        evaluator=False,
        visualizer=False,
    )


def filled(module: torch.nn.Module, name: str) -> list[tuple[str, list[int]]]:
    """Fill the torch model of `module` under the canonical names of model `name`; returns the list of what was filled."""
    return fill.fill_module(module.model, names.RENAMES[name], names.KEEP)


def inputs(shape: Shape, unit: bool = False, name: str = "input") -> tuple[torch.Tensor, dict]:
    """Images by name, with the facts a reader needs to make them again."""
    return fill.images(name, shape, unit), {"name": name, "shape": list(shape), "unit": unit}


def training_batches(
    count: int, shape: Shape, unit: bool = False, prefix: str = "train"
) -> tuple[list[torch.Tensor], dict]:
    """`count` batches named train.0, train.1, ... and their facts."""
    labels = [f"{prefix}.{i}" for i in range(count)]
    return [fill.images(label, shape, unit) for label in labels], {"names": labels, "shape": list(shape), "unit": unit}


def evaluate(model: torch.nn.Module, images: torch.Tensor, stride: int = 1) -> dict[str, torch.Tensor]:
    """Map (B, H, W), every `stride`-th pixel, and score (B,) of a copy of `model` in eval mode."""
    with torch.no_grad():
        output = copy.deepcopy(model).eval()(images)
    tensors = {"score": output.pred_score.reshape(len(images)).float()}
    if output.anomaly_map is not None:
        maps = output.anomaly_map.reshape(len(images), *output.anomaly_map.shape[-2:]).float()
        tensors["map"] = maps[:, ::stride, ::stride]
    return tensors


def peer_optimizer(module: torch.nn.Module) -> torch.optim.Optimizer:
    """The optimizer that the peer configures for itself; schedules are left out, the rate stays at its first value."""
    module._trainer = MagicMock(max_steps=1000, max_epochs=1, global_step=0)
    configured = module.configure_optimizers()
    module._trainer = None
    if isinstance(configured, dict):
        configured = configured["optimizer"]
    while isinstance(configured, (list, tuple)):
        configured = configured[0]
    for group in configured.param_groups:
        group["lr"] = group.pop("initial_lr", group["lr"])  # a schedule has already been at work here
    return configured


def optimizer_facts(optimizer: torch.optim.Optimizer) -> dict:
    """Class, hyperparameters of the first parameter group, and those of every group, as plain JSON."""
    plain = (bool, int, float, str, tuple, list)
    groups = [
        {key: value for key, value in group.items() if key != "params" and isinstance(value, plain)}
        for group in optimizer.param_groups
    ]
    return {"class": type(optimizer).__name__, **groups[0], "groups": groups}


def descend(losses, optimizer: torch.optim.Optimizer, clip: float | None = None) -> torch.Tensor:
    """Plain steps over an iterable of losses, each computed only after the step before it; returns them, (steps,) float64.

    `clip` bounds the norm of all gradients together.
    """
    seen = []
    for loss in losses:
        optimizer.zero_grad()
        loss.backward()
        if clip is not None:
            torch.nn.utils.clip_grad_norm_([p for group in optimizer.param_groups for p in group["params"]], clip)
        optimizer.step()
        seen.append(loss.detach().double())
    return torch.stack(seen)


def step_losses(module: torch.nn.Module, batches: list[torch.Tensor]):
    """The peer's own training step on each batch, one loss at a time."""
    for step, images in enumerate(batches):
        output = module.training_step(ImageBatch(image=images), step)
        yield output["loss"] if isinstance(output, dict) else output


def double_losses(module: torch.nn.Module, batches: list[torch.Tensor]):
    """`step_losses` on float64 batches, which the peer's batch class would cast to float32."""
    for step, images in enumerate(batches):
        output = module.training_step(SimpleNamespace(image=images.double(), batch_size=len(images)), step)
        yield output["loss"] if isinstance(output, dict) else output


def learn(
    module: torch.nn.Module, name: str, options: dict, shape: Shape, unit: bool = False, double: bool = False
) -> Result:
    """Eval output before training, five losses of the peer's own step and optimizer, eval output after them.

    With `double` the training and what comes after it are in float64: where rounding alone grows to more than the bar.
    """
    optimizer = peer_optimizer(module)  # before filling: some models initialise weights here
    parameters = filled(module, name)
    images, image_facts = inputs((2, *shape[1:]), unit)
    batches, train_facts = training_batches(STEPS, shape, unit)
    tensors = evaluate(module.model, images)
    if double:
        module.double()
        images = images.double()
    tensors["losses"] = descend((double_losses if double else step_losses)(module, batches), optimizer)
    tensors |= {f"{key}_after": value for key, value in evaluate(module.model, images).items()}
    facts = {"options": options, "input": image_facts, "train": train_facts, "parameters": parameters}
    facts |= {"training_dtype": "float64"} if double else {}
    return tensors, facts | {"optimizer": optimizer_facts(optimizer)}


def without_dropout(model: torch.nn.Module) -> None:
    """Every dropout layer lets everything through, so that training is the same on both sides."""
    for layer in model.modules():
        if isinstance(layer, torch.nn.modules.dropout._DropoutNd):
            layer.p = 0.0
