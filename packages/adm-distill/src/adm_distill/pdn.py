"""The patch description networks of EfficientAD: four or six convolutions that see 33 x 33 pixels (paper, tables 6 and 7)."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

PDNSize = Literal["small", "medium"]
TEACHER_CHANNELS = 384


class PatchDescriptionNetwork(nn.Module):
    """Describes each 33 x 33 patch of an ImageNet-normalised image: (B, 3, H, W) -> (B, channels, H/4 - 8, W/4 - 8).

    With `padding` the output is (H/4, W/4): the form in which a teacher is distilled.
    """

    def __init__(self, size: PDNSize = "small", channels: int = TEACHER_CHANNELS, padding: bool = False) -> None:
        super().__init__()
        wide, one, three = (1 if size == "small" else 2), int(padding), 3 * int(padding)
        self.conv1 = nn.Conv2d(3, 128 * wide, 4, padding=three)
        self.conv2 = nn.Conv2d(128 * wide, 256 * wide, 4, padding=three)
        self.pool = nn.AvgPool2d(2, 2, padding=one)
        if size == "small":
            self.conv3 = nn.Conv2d(256, 256, 3, padding=one)
            self.conv4 = nn.Conv2d(256, channels, 4)
            self.middle, self.last = (self.conv3,), "conv4"
        else:
            self.conv3 = nn.Conv2d(512, 512, 1)
            self.conv4 = nn.Conv2d(512, 512, 3, padding=one)
            self.conv5 = nn.Conv2d(512, channels, 4)
            self.conv6 = nn.Conv2d(channels, channels, 1)
            self.middle, self.last = (self.conv3, self.conv4, self.conv5), "conv6"

    def body(self, images: Tensor) -> Tensor:
        """All but the last convolution."""
        hidden = self.pool(F.relu(self.conv1(images)))
        hidden = self.pool(F.relu(self.conv2(hidden)))
        for convolution in self.middle:
            hidden = F.relu(convolution(hidden))
        return hidden

    def head(self, hidden: Tensor, channels: slice = slice(None)) -> Tensor:
        """The last convolution, computing only the output channels asked for."""
        last = getattr(self, self.last)
        return F.conv2d(hidden, last.weight[channels], last.bias[channels])

    def forward(self, images: Tensor) -> Tensor:
        """Descriptions of all patches, every fourth pixel."""
        return self.head(self.body(images))
