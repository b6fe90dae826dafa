"""Golden cases of the models on foundation features."""

import torch
from golden_common import (
    STEPS,
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

CLIP = 0.1
STRIDE = 2  # of the stored maps, to keep the file small


def dinomaly(encoder: str, name: str) -> Result:
    """Small DINOv2 with filled weights at 112 px; dropout 0; losses at the start and at the end of the hard-mining ramp."""
    size = 112
    options = {"encoder_name": encoder, "bottleneck_dropout": 0.0, "decoder_depth": 8}
    images, image_facts = inputs((2, 3, size, size))
    batches, train_facts = training_batches(STEPS, (2, 3, size, size))
    tensors: dict[str, torch.Tensor] = {}
    for key, first_step in (("losses", 0), ("losses_mined", 1000)):
        module = peer("Dinomaly", size, **options)
        optimizer = peer_optimizer(module)  # before filling: it initialises weights
        parameters = filled(module, name)
        model = module.model
        tensors |= evaluate(model, images, STRIDE)
        losses = (model(batch, global_step=first_step + i) for i, batch in enumerate(batches))
        tensors[key] = descend(losses, optimizer, CLIP)
    tensors |= {f"{key}_after": value for key, value in evaluate(model, images, STRIDE).items()}
    facts = {"options": options, "input": image_facts, "train": train_facts, "parameters": parameters, "clip": CLIP}
    facts["map_stride"] = STRIDE
    return tensors, facts | {"optimizer": optimizer_facts(optimizer), "first_step_of_losses_mined": 1000}


CASES = {
    "dinomaly_small": lambda: dinomaly("vit_small_patch14_dinov2", "dinomaly_small"),
    "dinomaly_small_reg": lambda: dinomaly("vit_small_patch14_reg4_dinov2", "dinomaly_small_reg"),
}
