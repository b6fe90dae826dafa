"""Golden cases of the teacher-student models."""

import functools

import torch
from anomalib.data import ImageBatch
from anomalib.models.image.reverse_distillation.anomaly_map import AnomalyMapGenerationMode
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
    training_batches,
    without_dropout,
)


def stfpm() -> Result:
    options = {"backbone": "resnet18", "layers": ["layer1", "layer2", "layer3"]}
    return learn(peer("Stfpm", 64, **options), "stfpm", options, (2, 3, 64, 64), double=True)


def efficientad(size: str) -> Result:
    """256 px, since its autoencoder takes no less; maps at every fourth pixel.

    Random parts are switched off on both sides: the autoencoder's input is the image unchanged, dropout lets all through.
    Total loss, and its three terms, with Adam at the peer's rate over student and autoencoder.
    """
    name, stride = f"efficientad_{size}", 4
    options = {"model_size": size, "teacher_out_channels": 384, "padding": False, "pad_maps": True}
    module = peer("EfficientAd", 256, **options)
    parameters = filled(module, name)
    model = module.model
    model.choose_random_aug_image = lambda image: image
    without_dropout(model)
    images, image_facts = inputs((2, 3, 256, 256), unit=True)
    batches, train_facts = training_batches(STEPS, (1, 3, 256, 256), unit=True)
    penalties, penalty_facts = training_batches(STEPS, (1, 3, 256, 256), unit=True, prefix="penalty")
    tensors = evaluate(model, images, stride)

    # statistics on which training and the map's scale rest, from the same filled networks
    normal = [ImageBatch(image=image, gt_label=torch.tensor([0])) for image in batches]
    statistics = module.teacher_channel_mean_std(normal)
    tensors |= {"teacher_mean": statistics["mean"].flatten(), "teacher_std": statistics["std"].flatten()}
    model.eval()
    tensors |= {key: torch.as_tensor(value).reshape(1) for key, value in module.map_norm_quantiles(normal).items()}

    model.train()
    optimizer = torch.optim.Adam([*model.student.parameters(), *model.ae.parameters()], lr=1e-4, weight_decay=1e-5)
    terms = []

    def losses():
        for image, penalty in zip(batches, penalties, strict=True):
            three = model(image, penalty)
            terms.append(torch.stack([term.detach().double() for term in three]))
            yield sum(three)

    tensors["losses"] = descend(losses(), optimizer)
    tensors["loss_terms"] = torch.stack(terms)  # (5, 3): student-teacher, autoencoder, student-autoencoder
    tensors |= {f"{key}_after": value for key, value in evaluate(model, images, stride).items()}
    facts = {"options": options, "input": image_facts, "train": train_facts, "penalty": penalty_facts}
    return tensors, facts | {
        "parameters": parameters,
        "optimizer": optimizer_facts(optimizer),
        "map_stride": stride,
    }


def fre() -> Result:
    """64 px: the features are (256, 2, 2), so the autoencoder goes from 1,024 to 40 numbers and back."""
    options = {"backbone": "resnet18", "layer": "layer3", "input_dim": 1024, "latent_dim": 40, "pooling_kernel_size": 2}
    return learn(peer("Fre", 64, **options), "fre", options, (2, 3, 64, 64))


def reverse_distillation(backbone: str, mode: str) -> Result:
    """Trained in float64: Adam's first steps are the gradient's sign times the rate, so rounding alone moves the losses."""
    options = {"backbone": backbone, "layers": ["layer1", "layer2", "layer3"], "anomaly_map_mode": mode}
    module = peer("ReverseDistillation", 64, **options | {"anomaly_map_mode": AnomalyMapGenerationMode(mode)})
    return learn(module, "reverse_distillation", options, (2, 3, 64, 64), double=True)


CASES = {
    "stfpm": stfpm,
    "efficientad_small": functools.partial(efficientad, "small"),
    "efficientad_medium": functools.partial(efficientad, "medium"),
    "fre": fre,
    "reverse_distillation": functools.partial(reverse_distillation, "resnet18", "add"),
    "reverse_distillation_wide": functools.partial(reverse_distillation, "wide_resnet50_2", "multiply"),
}
