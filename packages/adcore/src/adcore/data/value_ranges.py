"""Value ranges of decoded images, by split and domain: images of another range look anomalous whatever they show."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from adcore.data.read_ahead import read_together
from adcore.data.samples import DatasetReader, Sample

MEASURED = 8  # images of each domain and split, at equal distances in their list


@dataclass(frozen=True)
class ValueRange:
    """The values of some images of one domain and split, as decoded; low, high and mean are None where none is finite."""

    split: str
    domain: str
    images: int  # that were read
    of: int
    low: float | None
    high: float | None
    mean: float | None
    nan: int  # values that are NaN or infinite, where the reader lets them pass
    unreadable: int = 0  # images

    @property
    def line(self) -> str:
        """For a log."""
        values = "none" if self.mean is None else f"min {self.low:.4g} max {self.high:.4g} mean {self.mean:.4g}"
        bad = f", {self.unreadable} unreadable" if self.unreadable else ""
        return f"values {self.split} {self.domain}: {values} NaN {self.nan} ({self.images} of {self.of} images{bad})"


def value_ranges(reader: DatasetReader, samples: Iterable[Sample], channels: int = 3) -> list[ValueRange]:
    """The ranges of `samples` by split and domain, in their order; an image that cannot be read is only counted."""
    groups: dict[tuple[str, str], list[Sample]] = defaultdict(list)
    for sample in samples:
        groups[sample.split, sample.category].append(sample)
    reader.channels = channels
    return [_measure(reader, split, domain, group) for (split, domain), group in groups.items()]


def range_notes(ranges: Sequence[ValueRange], others: Sequence[ValueRange]) -> list[str]:
    """A line for each of `others` whose values hardly overlap those of the training images among `ranges`.

    That is where the mean of one lies beyond all values of the other. A domain is compared with its own training images
    where it has some.
    """
    train = [one for one in ranges if one.split == "train" and one.mean is not None]
    notes = []
    for one in others:
        own = [known for known in train if known.domain == one.domain] or train
        if one.split == "train" or one.mean is None or not own:
            continue
        low, high = min(known.low for known in own), max(known.high for known in own)
        mean = float(np.mean([known.mean for known in own]))
        if not (low <= one.mean <= high and one.low <= mean <= one.high):
            notes.append(
                f"the values of {one.split} images of {one.domain} ({one.low:.4g} to {one.high:.4g}, mean {one.mean:.4g}) and "
                f"of the training images ({low:.4g} to {high:.4g}, mean {mean:.4g}) do not overlap, so that scores say "
                "little; save all images in one range"
            )
    return notes


def _measure(reader: DatasetReader, split: str, domain: str, samples: Sequence[Sample]) -> ValueRange:
    chosen = np.unique(np.linspace(0, len(samples) - 1, min(MEASURED, len(samples))).round().astype(int))

    def values(index: int) -> tuple[float, float, float, int] | str:
        try:
            image = reader.image(samples[index]).numpy()
        except (Exception, SystemExit):  # the run reads it again, and then says what is wrong
            return "unreadable"
        finite = image[np.isfinite(image)]
        bad = int(image.size - finite.size)
        if not finite.size:
            return np.nan, np.nan, np.nan, bad
        return float(finite.min()), float(finite.max()), float(finite.mean(dtype=np.float64)), bad

    found = list(read_together(values, chosen.tolist()))
    read = [one for one in found if not isinstance(one, str)]
    known = [one for one in read if np.isfinite(one[2])]
    low, high, mean = None, None, None
    if known:
        low, high = min(one[0] for one in known), max(one[1] for one in known)
        mean = float(np.mean([one[2] for one in known]))
    bad = sum(one[3] for one in read)
    return ValueRange(split, domain, len(read), len(samples), low, high, mean, bad, len(found) - len(read))
