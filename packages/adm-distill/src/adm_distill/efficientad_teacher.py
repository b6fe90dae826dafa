"""EfficientAD's teacher: found as a weights file, or distilled from a pretrained backbone on natural images (paper, alg. 3)."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
import torch.nn.functional as F
from adcore.backbones.build import read_state
from adcore.backbones.features import FeatureExtractor
from adcore.backbones.resolve import WeightsFile, resolve, search_folders
from adcore.data.image_io import read_image
from adcore.data.layout import found_in, images_below
from adcore.errors import ConfigError, DataError, WeightsError
from adcore.files import write_tensors
from adcore.preprocess import IMAGENET_MEAN, IMAGENET_STD
from adcore.registry import backbone_card
from einops import rearrange
from torch import Tensor
from torchvision.transforms.v2.functional import rgb_to_grayscale

from adm_distill.pdn import TEACHER_CHANNELS, PatchDescriptionNetwork, PDNSize

log = logging.getLogger(__name__)
STATISTICS_IMAGES = 10_000  # for mean and standard deviation of the backbone's features
LEARNING_RATE, WEIGHT_DECAY = 1e-4, 1e-5
GRAY = 0.1  # share of images shown without colours


def normalized(
    images: Tensor, mean: tuple[float, ...] = IMAGENET_MEAN, std: tuple[float, ...] = IMAGENET_STD
) -> Tensor:
    """(B, 3, H, W) in [0, 1] with `mean` taken off and divided by `std`."""
    mean, std = (images.new_tensor(values)[:, None, None] for values in (mean, std))
    return (images - mean) / std


class NaturalImages:
    """A folder of everyday photographs, such as ImageNet or Imagenette; subfolders count. DataError when it has none."""

    def __init__(self, folder: str | Path, setting: str) -> None:
        self.files = images_below(Path(folder))
        if not self.files:
            raise DataError(f"{setting}={folder}: expected a folder of natural images; {found_in(Path(folder))}")

    def draw(self, size: tuple[int, int], gray: float) -> Tensor:
        """(3, *size) in [0, 1]: a random image, without colours with probability `gray`."""
        index, colour = int(torch.randint(len(self.files), ())), float(torch.rand(()))
        return self.read(index, size, colour < gray)

    def read(self, index: int, size: tuple[int, int], gray: bool = False) -> Tensor:
        """(3, *size): image `index`, resized without regard to its proportions."""
        image = F.interpolate(read_image(self.files[index])[None], size, mode="bilinear", antialias=True)[0]
        return rgb_to_grayscale(image, num_output_channels=3) if gray else image


def teacher_images(folder: str | Path | None) -> NaturalImages:
    """The images to distil on; ConfigError where no folder is given."""
    if folder is None:
        raise ConfigError(
            "teacher=distill needs teacher_images=FOLDER of natural images (ImageNet, Imagenette, COCO, ...)"
        )
    return NaturalImages(folder, "teacher_images")


def find_teacher(teacher: str, size: PDNSize) -> WeightsFile:
    """The teacher's weights: of the file or folder given, or, for "pretrained", where weights of backbones are found.

    WeightsError says what to get.
    """
    name = f"efficientad_teacher_{size}"
    path = None if teacher == "pretrained" else Path(teacher).expanduser()
    if path and os.path.isdir(path):  # False for a name that no system takes
        held = [path / file for file in backbone_card(name).filenames]
        path = next((file for file in held if file.is_file()), held[0])
    try:
        return resolve(name, path)
    except WeightsError as error:
        raise WeightsError(
            f"{error}; or distil a teacher from a backbone you have: teacher=distill teacher_images=FOLDER of natural "
            "images (teacher_backbone=NAME)"
        ) from None


def patch_features(maps: list[Tensor]) -> Tensor:
    """PatchCore's locally aware features in as many channels as the teacher has.

    Maps (B, C_l, h_l, w_l), finest first, to (B, 384, h_1, w_1): means over 3 x 3 neighbourhoods, brought to one
    resolution, and averaged over neighbouring channels.
    """
    smooth = [F.avg_pool2d(features, 3, stride=1, padding=1) for features in maps]
    size = smooth[0].shape[-2:]
    joined = torch.cat([F.interpolate(f, size, mode="bilinear", align_corners=False) for f in smooth], 1)
    pooled = F.adaptive_avg_pool1d(rearrange(joined, "b c h w -> b (h w) c"), TEACHER_CHANNELS)
    return rearrange(pooled, "b (h w) c -> b c h w", h=size[0])


class Distillation:
    """A patch description network learns, at 256 px, what a backbone says of the same images at 512 px."""

    def __init__(
        self,
        backbone: str,
        images: str | Path | None,
        size: PDNSize,
        steps: int,
        seed: int,
        weights: str = "pretrained",
        batch: int = 16,
    ) -> None:
        self.images, self.size, self.steps, self.seed = teacher_images(images), size, steps, seed
        self.batch = batch
        self.extractor = FeatureExtractor(backbone, ("stride8", "stride16"), weights)

    @property
    def path(self) -> Path:
        """Where the result is kept for later fits: its name tells all that it depends on."""
        info = self.extractor.net.weights_info
        names = "\n".join(f"{file.name} {file.stat().st_size}" for file in self.images.files)
        key = hashlib.sha256(f"{info.sha256} {self.steps} {self.batch} {self.seed} {names}".encode()).hexdigest()
        return search_folders()[0][0] / f"efficientad_teacher_{self.size}_{info.backbone}_{key[:12]}.safetensors"

    def targets(self, images: Tensor) -> Tensor:
        """(B, 3, 512, 512) in [0, 1] -> (B, 384, 64, 64)."""
        card = self.extractor.card
        return patch_features(self.extractor(normalized(images, card.mean, card.std)))

    def run(
        self,
        device: torch.device | str = "cpu",
        progress: Callable[[str, int, int], None] = lambda *_: None,
    ) -> dict[str, Tensor]:
        """The trained teacher's state; the loss is the mean squared difference from the standardised features."""
        extractor = self.extractor.to(device)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            teacher = PatchDescriptionNetwork(self.size, padding=True).to(device)
        generator = torch.Generator().manual_seed(self.seed)
        optimizer = torch.optim.Adam(teacher.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY, fused=True)
        extractor.eval()
        with ThreadPoolExecutor() as pool:  # reads the next batch while this one is learned
            mean, std = self._statistics(device, progress, pool)
            waiting = self._submit(pool, generator)
            for step in range(self.steps):
                images = torch.stack([future.result() for future in waiting]).to(device)
                waiting = self._submit(pool, generator) if step + 1 < self.steps else []
                with torch.no_grad():
                    target = (self.targets(images) - mean) / std
                    smaller = F.interpolate(images, scale_factor=0.5, mode="bilinear", antialias=True)
                loss = F.mse_loss(teacher(normalized(smaller)), target)
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
                progress("distilling the teacher", step + 1, self.steps)
        log.info("teacher distilled from %s: last loss %.4f", extractor.card.name, float(loss.detach()))
        return {key: value.detach().cpu() for key, value in teacher.state_dict().items()}

    def state(self, device: torch.device | str, progress: Callable[[str, int, int], None]) -> dict[str, Tensor]:
        """What `run` gives, from the file of an earlier run where there is one; that is said in the log."""
        if self.path.is_file():
            log.warning("using the teacher distilled earlier: %s", self.path)
            return read_state(self.path)
        state = self.run(device, progress)
        write_tensors(self.path, state)
        log.warning("the distilled teacher is kept for later fits: %s", self.path)
        return state

    def _submit(self, pool: ThreadPoolExecutor, generator: torch.Generator) -> list:
        indices = torch.randint(len(self.images.files), (self.batch,), generator=generator).tolist()
        grays = (torch.rand(self.batch, generator=generator) < GRAY).tolist()
        return [pool.submit(self.images.read, i, (512, 512), gray) for i, gray in zip(indices, grays, strict=True)]

    @torch.no_grad()
    def _statistics(
        self,
        device: torch.device | str,
        progress: Callable[[str, int, int], None],
        pool: ThreadPoolExecutor,
    ) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of each target channel over the images, (384, 1, 1) each."""
        moments, count = ChannelMoments(), min(len(self.images.files), STATISTICS_IMAGES)
        for start in range(0, count, self.batch):
            indices = range(start, min(start + self.batch, count))
            images = torch.stack(list(pool.map(lambda i: self.images.read(i, (512, 512)), indices)))
            moments.add(self.targets(images.to(device)))
            progress("measuring the backbone's features", indices.stop, count)
        return moments.mean[0], moments.std[0]


class ChannelMoments:
    """Mean and standard deviation of each channel over batches of (B, C, h, w), without keeping them."""

    def __init__(self) -> None:
        self.count, self.mean, self.squares = 0, None, None

    def add(self, features: Tensor) -> None:
        """Merge a batch: the means first, so that squares are only of differences (Chan et al. 1979)."""
        count = features.numel() // features.shape[1]
        variance, mean = torch.var_mean(features, (0, 2, 3), correction=0, keepdim=True)  # (1, C, 1, 1)
        if self.mean is None:
            self.mean, self.squares = torch.zeros_like(mean), torch.zeros_like(mean)
        total = self.count + count
        delta = mean - self.mean
        self.mean = self.mean + delta * (count / total)
        self.squares = self.squares + variance * count + delta.square() * (self.count * count / total)
        self.count = total

    @property
    def std(self) -> Tensor:
        """(1, C, 1, 1), never 0: a channel may be silent in all images."""
        return (self.squares / self.count).sqrt().clamp_min(1e-6)
