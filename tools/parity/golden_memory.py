"""Golden cases of the memory and adaptation models: fitted once, then evaluated."""

from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from unittest.mock import patch

import timm
import torch
from anomalib.data import ImageBatch
from golden_common import (
    Result,
    descend,
    evaluate,
    filled,
    inputs,
    optimizer_facts,
    peer,
    peer_optimizer,
    training_batches,
)


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
    images, image_facts = inputs((2, 3, 64, 64))
    batches, train_facts = training_batches(3, (2, 3, 64, 64))
    model = module.model.train()
    with torch.no_grad():
        embedding = torch.cat([model(batch) for batch in batches])
    model.memory_bank = embedding
    tensors = evaluate(model, images) | {"embedding_of_first": embedding[:64]}
    return tensors, {"options": options, "input": image_facts, "train": train_facts, "parameters": parameters}


def anomaly_dino() -> Result:
    """Every patch of six images is in the bank; no mask, no turned views (the peer has none)."""
    options = {"encoder_name": "vit_small_patch14_dinov2"}
    module = peer("AnomalyDINO", 112, **options)
    parameters = filled(module, "anomaly_dino")
    images, image_facts = inputs((2, 3, 112, 112))
    batches, train_facts = training_batches(3, (2, 3, 112, 112))
    model = module.model.train()
    with torch.no_grad():
        for batch in batches:
            model(batch)
        model.fit()
    facts = {"options": options, "input": image_facts, "train": train_facts, "parameters": parameters, "map_stride": 2}
    return evaluate(model, images, stride=2), facts


def rad() -> Result:
    """Six images, of which the four most similar ones are searched, around each patch's place."""
    options = {"backbone": "vit_small_patch14_dinov2", "layers": [3, 6, 9, 11], "pre_trained": False, "k_image": 4}
    module = peer("Rad", 112, **options)
    parameters = filled(module, "rad")
    images, image_facts = inputs((2, 3, 112, 112))
    batches, train_facts = training_batches(3, (2, 3, 112, 112))
    model = module.model.train()
    with torch.no_grad():
        for batch in batches:
            model(batch)
        model.build_memory_bank()
    facts = {"options": options, "input": image_facts, "train": train_facts, "parameters": parameters, "map_stride": 2}
    return evaluate(model, images, stride=2), facts


def superadd() -> Result:
    """Six images in four crops each; all of their patches are in the banks."""
    options = {
        "backbone": "vit_small_patch14_reg4_dinov2",
        "layers": [3, 6, 9, 11],
        "patch_size": 56,
        "patch_overlap": 14,
    }
    with patch.object(
        timm, "create_model", partial(timm.create_model, dynamic_img_size=True)
    ):  # it takes 518 alone else
        module = peer("SuperADD", 84, **options)
    parameters = filled(module, "superadd")
    images, image_facts = inputs((2, 3, 84, 84))
    batches, train_facts = training_batches(3, (2, 3, 84, 84))
    model = module.model.train()
    with torch.no_grad():
        for batch in batches:
            model(batch)
        model.subsample_embedding()
    facts = {"options": options, "input": image_facts, "train": train_facts, "parameters": parameters, "map_stride": 2}
    return evaluate(model, images, stride=2), facts


def padim() -> Result:
    """Mean and covariance of 40 images at every position, for the feature indices that are stored along.

    Twice as many images as features: with fewer the covariance is nearly singular, and what would be compared is how its
    float32 inverse rounds (six images and 60 features: the peer's maps are 1.5e-3 of their range off the exact ones).
    """
    options = {"backbone": "resnet18", "layers": ["layer1", "layer2", "layer3"], "n_features": 20}
    module = peer("Padim", 64, **options)
    parameters = filled(module, "padim")
    images, image_facts = inputs((2, 3, 64, 64))
    batches, train_facts = training_batches(10, (4, 3, 64, 64))
    module.model.train()
    with torch.no_grad():
        for batch in batches:
            module.training_step(ImageBatch(image=batch))
    module.fit()
    model = module.model
    tensors = evaluate(model, images) | {"indices": model.idx.clone(), "mean": model.gaussian.mean.clone()}
    return tensors, {"options": options, "input": image_facts, "train": train_facts, "parameters": parameters}


def mean_anywhere(mean: Callable, *arguments, device: torch.device | None = None, **options) -> torch.Tensor:
    """`torch.mean` that takes a `device`: the peer's DFM passes one for score "nll", and its fit fails there."""
    return mean(*arguments, **options)


def fitted_once(kind: str, name: str, options: dict) -> tuple[torch.nn.Module, Result]:
    """Peer and case of an image-level fit: 24 images in one pass, then two others evaluated."""
    module = peer(kind, 64, **options)
    parameters = filled(module, name)
    images, image_facts = inputs((2, 3, 64, 64))
    batches, train_facts = training_batches(6, (4, 3, 64, 64))
    module.model.train()
    with torch.no_grad():
        for batch in batches:
            module.training_step(ImageBatch(image=batch))
    with patch.object(torch, "mean", partial(mean_anywhere, torch.mean)):
        module.fit()
    facts = {"options": options, "input": image_facts, "train": train_facts, "parameters": parameters}
    return module.model, (evaluate(module.model, images), facts)


def dfkde() -> Result:
    """PCA and kernel density of pooled features; its score is a probability made from the log-density."""
    model, (tensors, facts) = fitted_once("Dfkde", "dfkde", {"backbone": "resnet18", "layers": ["layer4"]})
    pca, kde = model.classifier.pca_model, model.classifier.kde_model
    tensors |= {"mean": pca.mean.clone(), "points": kde.dataset.clone(), "max_length": model.classifier.max_length}
    return tensors, facts


def dfm_score(name: str, score: str) -> Result:
    """Mean, subspace and Gaussian of one layer; rows of the projector stand for the directions (signs are free)."""
    options = {"backbone": "resnet18", "layer": "layer3", "pooling_kernel_size": 2, "score_type": score}
    model, (tensors, facts) = fitted_once("Dfm", name, options)
    directions = model.pca_model.singular_vectors
    tensors |= {"mean": model.pca_model.mean.clone(), "components": torch.tensor(directions.shape[1])}
    tensors["projector"] = directions[:16] @ directions.T
    if score == "nll":
        tensors["deviations"] = model.gaussian_model.sigma_mat.clone()
    return tensors, facts


def dfm() -> Result:
    """Scored by the feature reconstruction error."""
    return dfm_score("dfm", "fre")


def dfm_nll() -> Result:
    """Scored by the negative log-likelihood."""
    return dfm_score("dfm_nll", "nll")


def cfa() -> Result:
    """The bank from all training batches, then five steps of which each sees one of them.

    In double precision: the peer's distances are differences of large squares, and its float32 maps 1e-4 of their range off.
    """
    options = {"backbone": "resnet18"}
    module = peer("Cfa", 64, **options)
    optimizer = peer_optimizer(module)
    parameters = filled(module, "cfa")
    images, image_facts = inputs((2, 3, 64, 64))
    batches, train_facts = training_batches(5, (2, 3, 64, 64))
    torch.set_default_dtype(torch.float64)  # also for the coordinates, which the peer makes as it goes
    module.double()
    model = module.model
    images, batches = images.double(), [SimpleNamespace(image=b.double()) for b in batches]  # ImageBatch has float32
    for part in (
        model,
        module.loss,
    ):  # not a leaf, so the peer never learns it; it would forbid copies and second steps
        part.radius = part.radius.detach().double()
    model.initialize_centroid(batches)
    tensors = evaluate(model, images) | {"bank": model.memory_bank.float()}
    model.train()
    losses = (module.training_step(batch)["loss"] for batch in batches)
    tensors["losses"] = descend(losses, optimizer)
    tensors |= {f"{key}_after": value for key, value in evaluate(model, images).items()}
    torch.set_default_dtype(torch.float32)
    facts = {"options": options, "input": image_facts, "train": train_facts, "parameters": parameters}
    return tensors, facts | {"optimizer": optimizer_facts(optimizer), "dtype": "float64"}


CASES = {"patchcore": patchcore, "padim": padim, "dfkde": dfkde, "dfm": dfm, "dfm_nll": dfm_nll, "cfa": cfa}
CASES |= {"anomaly_dino": anomaly_dino, "rad": rad, "superadd": superadd}
