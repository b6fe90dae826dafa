"""Golden cases of the models on foundation features."""

from unittest.mock import patch

import fill
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


def inp_former() -> Result:
    """Small DINOv2 with registers and filled weights at 112 px."""
    size, options = 112, {"encoder_name": "vit_small_patch14_reg4_dinov2"}
    images, image_facts = inputs((2, 3, size, size))
    batches, train_facts = training_batches(STEPS, (2, 3, size, size))
    module = peer("InpFormer", size, **options)
    optimizer = peer_optimizer(module)
    parameters = filled(module, "inp_former")
    model = module.model.train()
    tensors = evaluate(model, images, STRIDE)
    tensors["losses"] = descend((model(batch) for batch in batches), optimizer, CLIP)
    for key, value in vars(model).items():  # it keeps tensors of its last step, and a copy takes none with a history
        if isinstance(value, torch.Tensor):
            setattr(model, key, value.detach())
    tensors |= {f"{key}_after": value for key, value in evaluate(model, images, STRIDE).items()}
    facts = {"options": options, "input": image_facts, "train": train_facts, "parameters": parameters, "clip": CLIP}
    return tensors, facts | {"optimizer": optimizer_facts(optimizer), "map_stride": STRIDE}


class GivenNoise:
    """Stands in for the peer's random draws: noise and Perlin mask i are made from their names."""

    def __init__(self, generator: torch.nn.Module) -> None:
        self.std, self.step = generator.noise_std, 0
        generator.generate_perlin = self.mask

    def mask(self, count: int, height: int, width: int) -> torch.Tensor:
        """(count, 1, height, width) of zeros and ones: the sign of smooth random pictures, none in every second one."""
        mask = (fill.images(f"mask.{self.step}", (count, 1, height, width)) > 0).float()
        mask[1::2] = 0
        return mask

    def normal(self, mean: float, std: float, size: torch.Size, **_: object) -> torch.Tensor:
        """Instead of torch.normal."""
        assert (mean, std) == (0.0, self.std)
        return std * torch.randn(tuple(size), generator=fill.generator(f"noise.{self.step}"))


def supersimplenet(supervised: bool) -> Result:
    """The peer's model on ResNet-18 features, its noise given, in float64; supervised: with masks and labels too."""
    name, shape = "supersimplenet", (2, 3, 128, 128)
    options = {"backbone": "resnet18.tv_in1k", "layers": ["layer2", "layer3"]}
    module = peer("Supersimplenet", 128, **options)
    optimizer = peer_optimizer(module)
    parameters = filled(module, name)
    module.double()
    images, image_facts = inputs(shape)
    batches, train_facts = training_batches(STEPS, shape)
    tensors = evaluate(module.model, images.double(), stride=2)
    given = GivenNoise(module.model.anomaly_generator)
    module.model.train()
    module.model.feature_extractor.eval()

    def losses():
        for step, batch in enumerate(batches):
            given.step = step
            masks, labels = torch.zeros(2, 128, 128).double(), torch.zeros(2).double()
            if supervised:
                masks[0, 10 + 9 * step : 50 + 9 * step, 30:75] = 1.0
                labels[0] = 1.0
            with patch("torch.normal", given.normal):
                yield module.loss(*module.model(batch.double(), masks, labels))

    tensors["losses"] = descend(losses(), optimizer)
    tensors |= {f"{key}_after": value for key, value in evaluate(module.model, images.double(), stride=2).items()}
    facts = {"options": options, "input": image_facts, "train": train_facts, "parameters": parameters}
    facts |= {"optimizer": optimizer_facts(optimizer), "map_stride": 2, "supervised": supervised, "dtype": "float64"}
    return tensors, facts


class Nothing(torch.nn.Module):
    """A loss that is always 0."""

    def forward(self, *_: torch.Tensor) -> torch.Tensor:
        return torch.zeros(())


def uninet() -> Result:
    """Everything after the filling in float64: AdamW's first steps are signs, so rounding alone would show. Even so it
    grows ten thousandfold a step, which is why nothing is evaluated after the fifth.

    Two things of the peer are switched off. It leaves the source teacher, which never learns, in training mode, so that
    its batch statistics drift. And it adds a classifier of the labels, which are all normal here.
    """
    options = {"student_backbone": "wide_resnet50_2", "teacher_backbone": "wide_resnet50_2", "temperature": 0.4}
    shape = (2, 3, 64, 64)
    module = peer("UniNet", 64, **options)
    optimizer = peer_optimizer(module)
    parameters = filled(module, "uninet")
    module.double()
    images, image_facts = inputs(shape)
    batches, train_facts = training_batches(STEPS, shape)
    model = module.model
    tensors = evaluate(model, images.double())
    model.bce_loss = Nothing()
    model.train()
    model.teachers.source_teacher.eval()
    losses = (model(batch.double(), None, torch.zeros(2, dtype=torch.float64)) for batch in batches)
    tensors["losses"] = descend(losses, optimizer)
    facts = {"options": options, "input": image_facts, "train": train_facts, "parameters": parameters}
    return tensors, facts | {"optimizer": optimizer_facts(optimizer), "dtype": "float64"}


CASES = {
    "supersimplenet": lambda: supersimplenet(False),
    "supersimplenet_supervised": lambda: supersimplenet(True),
    "uninet": uninet,
    "dinomaly_small": lambda: dinomaly("vit_small_patch14_dinov2", "dinomaly_small"),
    "dinomaly_small_reg": lambda: dinomaly("vit_small_patch14_reg4_dinov2", "dinomaly_small_reg"),
    "inp_former": inp_former,
}
