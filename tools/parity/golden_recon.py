"""Golden cases of the reconstruction models."""

import functools

import torch
from golden_common import Result, learn, peer, training_batches


class GivenDefects(torch.nn.Module):
    """Stands in for the peer's random augmenter: batch i becomes `defect.i` inside a rectangle that depends on i."""

    def __init__(self, shape: tuple[int, int, int, int], count: int) -> None:
        super().__init__()
        self.textures, self.facts = training_batches(count, shape, unit=True, prefix="defect")
        self.step = 0

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The augmented batch and its mask (B, 1, H, W) of zeros and ones."""
        height, width = images.shape[-2:]
        top, left = 4 + 6 * self.step, 8 + 4 * self.step
        mask = torch.zeros(len(images), 1, height, width)
        mask[:, :, top : top + height // 4, left : left + width // 4] = 1.0
        augmented = images * (1 - mask) + self.textures[self.step] * mask
        self.step += 1
        return augmented, mask


def draem(sspcab: bool) -> Result:
    """The peer's own step and optimizer, but the synthetic defects are given."""
    name = "draem_sspcab" if sspcab else "draem"
    options = {"enable_sspcab": sspcab}
    shape = (2, 3, 64, 64)
    module = peer("Draem", 64, dtd_dir=None, **options)
    module.augmenter = GivenDefects(shape, 5)
    if sspcab:
        module.on_train_start()
    tensors, facts = learn(module, name, options, shape, unit=True)
    rectangle = "height / 4 by width / 4 at (4 + 6 i, 8 + 4 i) holds texture i, mask 1"
    return tensors, facts | {"textures": module.augmenter.facts, "rectangle": rectangle}


CASES = {"draem": functools.partial(draem, False), "draem_sspcab": functools.partial(draem, True)}
