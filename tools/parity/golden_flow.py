"""Golden cases of the normalizing flows."""

import torch
from anomalib.data import ImageBatch
from golden_common import (
    STEPS,
    Result,
    descend,
    evaluate,
    filled,
    inputs,
    learn,
    optimizer_facts,
    peer,
    peer_optimizer,
    step_losses,
    training_batches,
)


def fastflow() -> Result:
    options = {"backbone": "resnet18", "flow_steps": 8, "conv3x3_only": False, "hidden_ratio": 1.0}
    return learn(peer("Fastflow", 64, **options), "fastflow", options, (2, 3, 64, 64))


def cflow() -> Result:
    """The peer steps its optimizer inside its training step, once a fibre; every fibre's loss is kept, (steps, fibres)."""
    options = {"backbone": "resnet18", "layers": ["layer2", "layer3"]}
    module = peer("Cflow", 128, **options)
    optimizer = peer_optimizer(module)
    parameters = filled(module, "cflow")
    images, image_facts = inputs((2, 3, 128, 128))
    batches, train_facts = training_batches(STEPS, (2, 3, 128, 128))
    tensors = evaluate(module.model, images, stride=4)
    losses = []

    def backward(loss: torch.Tensor) -> None:
        losses.append(loss.detach().double())
        loss.backward()

    module.optimizers, module.manual_backward = (lambda *_, **__: optimizer), backward
    module.model.train()
    for step, batch in enumerate(batches):
        torch.manual_seed(step)  # of the fibres' shuffling
        module.training_step(ImageBatch(image=batch), step)
    tensors["losses"] = torch.stack(losses).view(STEPS, -1)
    tensors |= {f"{key}_after": value for key, value in evaluate(module.model, images, stride=4).items()}
    facts = {"options": options, "input": image_facts, "train": train_facts, "parameters": parameters, "map_stride": 4}
    return tensors, facts | {"optimizer": optimizer_facts(optimizer)}


def uflow() -> Result:
    options = {"backbone": "resnet18"}
    return learn(peer("Uflow", 64, **options), "uflow", options, (2, 3, 64, 64))


def csflow() -> Result:
    options = {"cross_conv_hidden_channels": 32, "n_coupling_blocks": 2}
    module = peer("Csflow", 128, **options)
    optimizer = peer_optimizer(module)
    parameters = [entry for entry in filled(module, "csflow") if not entry[0].startswith("unused.")]
    images, image_facts = inputs((2, 3, 128, 128))
    batches, train_facts = training_batches(STEPS, (2, 3, 128, 128))
    tensors = evaluate(module.model, images, stride=2)
    module.model.train()
    clip = module.trainer_arguments["gradient_clip_val"]
    tensors["losses"] = descend(step_losses(module, batches), optimizer, clip)
    tensors |= {f"{key}_after": value for key, value in evaluate(module.model, images, stride=2).items()}
    permutations = [layer.perm for layer in module.model.graph.graph.module_list if hasattr(layer, "perm")]
    tensors["permutations"] = torch.stack([torch.stack(scales) for scales in permutations])
    facts = {"options": options, "input": image_facts, "train": train_facts, "parameters": parameters, "map_stride": 2}
    return tensors, facts | {"optimizer": optimizer_facts(optimizer), "clip": clip}


CASES = {"fastflow": fastflow, "cflow": cflow, "uflow": uflow, "csflow": csflow}
