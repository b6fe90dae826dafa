"""One function a model: build the peer's model small, fill it, run it, return (tensors, facts)."""

import copy
from collections.abc import Callable

import anomalib.models
import fill
import names
import torch
from anomalib.data import ImageBatch
from anomalib.pre_processing import PreProcessor
from torchvision.transforms import v2

Result = tuple[dict[str, torch.Tensor], dict]
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


def inputs(name: str, shape: tuple[int, int, int, int], unit: bool = False) -> tuple[torch.Tensor, dict]:
    """Images by name, with the facts a reader needs to make them again."""
    return fill.images(name, shape, unit), {"name": name, "shape": list(shape), "unit": unit}


def evaluate(model: torch.nn.Module, images: torch.Tensor) -> dict[str, torch.Tensor]:
    """Map (B, H, W) and score (B,) of `model` in eval mode, without touching the model that trains on."""
    with torch.no_grad():
        output = copy.deepcopy(model).eval()(images)
    tensors = {"score": output.pred_score.reshape(len(images)).float()}
    if output.anomaly_map is not None:
        tensors["map"] = output.anomaly_map.reshape(len(images), *output.anomaly_map.shape[-2:]).float()
    return tensors


def train(module: torch.nn.Module, batches: list[torch.Tensor]) -> tuple[torch.Tensor, dict]:
    """Losses (STEPS,) of the peer's own training step and optimizer, one batch a step, and the optimizer's facts."""
    configured = module.configure_optimizers()
    optimizer = configured["optimizer"] if isinstance(configured, dict) else configured
    if isinstance(optimizer, (list, tuple)):
        optimizer = optimizer[0][0] if isinstance(optimizer[0], (list, tuple)) else optimizer[0]
    losses = []
    for step, images in enumerate(batches):
        output = module.training_step(ImageBatch(image=images), step)
        loss = output["loss"] if isinstance(output, dict) else output
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach().double())
    return torch.stack(losses), optimizer_facts(optimizer)


def optimizer_facts(optimizer: torch.optim.Optimizer) -> dict:
    """Class and hyperparameters, as plain JSON."""
    plain = (bool, int, float, str, tuple, list)
    return {"class": type(optimizer).__name__} | {k: v for k, v in optimizer.defaults.items() if isinstance(v, plain)}


def training_batches(
    count: int, shape: tuple[int, int, int, int], unit: bool = False
) -> tuple[list[torch.Tensor], dict]:
    """`count` batches named train.0, train.1, ..."""
    batches = [fill.images(f"train.{i}", shape, unit) for i in range(count)]
    return batches, {"names": [f"train.{i}" for i in range(count)], "shape": list(shape), "unit": unit}


def filled(module: torch.nn.Module, name: str) -> list[tuple[str, list[int]]]:
    return fill.fill_module(module.model, names.RENAMES[name], names.KEEP)


def patchcore() -> Result:
    """The bank holds every patch of six images (ratio 1), so that no random selection enters."""
    options = {
        "backbone": "resnet18",
        "layers": ["layer2", "layer3"],
        "coreset_sampling_ratio": 1.0,
        "num_neighbors": 9,
    }
    module = peer("Patchcore", 64, **options)
    parameters = filled(module, "patchcore")
    images, image_facts = inputs("input", (2, 3, 64, 64))
    batches, train_facts = training_batches(3, (2, 3, 64, 64))
    model = module.model.train()
    with torch.no_grad():
        embedding = torch.cat([model(batch) for batch in batches])
    model.memory_bank = embedding
    tensors = evaluate(model, images) | {"embedding_of_first": embedding[:64]}
    return tensors, {"options": options, "input": image_facts, "train": train_facts, "parameters": parameters}


def padim() -> Result:
    """Mean and covariance of six images at every position, for the feature indices that are stored along."""
    options = {"backbone": "resnet18", "layers": ["layer1", "layer2", "layer3"], "n_features": 60}
    module = peer("Padim", 64, **options)
    parameters = filled(module, "padim")
    images, image_facts = inputs("input", (2, 3, 64, 64))
    batches, train_facts = training_batches(3, (2, 3, 64, 64))
    model = module.model.train()
    with torch.no_grad():
        for batch in batches:
            module.training_step(ImageBatch(image=batch))
    module.fit()
    tensors = evaluate(model, images) | {"indices": model.idx.clone(), "mean": model.gaussian.mean.clone()}
    return tensors, {"options": options, "input": image_facts, "train": train_facts, "parameters": parameters}


def stfpm() -> Result:
    options = {"backbone": "resnet18", "layers": ["layer1", "layer2", "layer3"]}
    module = peer("Stfpm", 64, **options)
    parameters = filled(module, "stfpm")
    return learn(module, options, parameters, 64)


def fastflow() -> Result:
    options = {"backbone": "resnet18", "flow_steps": 8, "conv3x3_only": False, "hidden_ratio": 1.0}
    module = peer("Fastflow", 64, pre_trained=True, **options)
    parameters = filled(module, "fastflow")
    return learn(module, options, parameters, 64)


def learn(
    module: torch.nn.Module, options: dict, parameters: list, size: int, unit: bool = False, batch: int = 2
) -> Result:
    """Eval output before training, five losses of the peer's own step, eval output after them."""
    images, image_facts = inputs("input", (2, 3, size, size), unit)
    batches, train_facts = training_batches(STEPS, (batch, 3, size, size), unit)
    tensors = evaluate(module.model, images)
    tensors["losses"], optimizer = train(module, batches)
    tensors |= {f"{key}_after": value for key, value in evaluate(module.model, images).items()}
    facts = {
        "options": options,
        "input": image_facts,
        "train": train_facts,
        "optimizer": optimizer,
        "parameters": parameters,
    }
    return tensors, facts


CASES: dict[str, Callable[[], Result]] = {"patchcore": patchcore, "padim": padim, "stfpm": stfpm, "fastflow": fastflow}
