"""Golden cases of the memory and adaptation models: fitted once, then evaluated."""

import torch
from anomalib.data import ImageBatch
from golden_common import Result, evaluate, filled, inputs, peer, training_batches


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


CASES = {"patchcore": patchcore, "padim": padim}
