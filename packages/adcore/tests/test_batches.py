"""Batches: what the files say, in an order that can be repeated, with bad files named."""

from __future__ import annotations

import multiprocessing
import threading
import time
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path

import pytest
import torch
from adcore.data.dataset import ImageDataset, make_loader
from adcore.data.mvtec import MVTec
from adcore.data.read_ahead import GROUP, read_ahead, read_together
from adcore.data.samples import NORMAL, DatasetReader, Sample
from adcore.errors import DataError
from adcore.model import Batch
from adcore.preprocess import Preprocess

Make = Callable[..., Path]
Refuses = Callable[..., None]


@pytest.fixture
def nut(tmp_path: Path, make_images: Make) -> Path:
    make_images(
        tmp_path, "train/good/{10-26}.png", "test/good/1.png", "test/cut/{1-2}.png", "ground_truth/cut/1_mask.png"
    )
    return tmp_path


def dataset_of(root: Path, split: str = "train", skip_bad: bool = False) -> ImageDataset:
    reader = MVTec(root)
    samples = [sample for sample in reader.samples(root.name) if sample.split == split]
    return ImageDataset(samples, reader, Preprocess(size=(16, 16)), skip_bad=skip_bad)


def numbers(batches: list[Batch]) -> list[list[int]]:
    return [[int(Path(path).stem) for path in batch.paths] for batch in batches]


def test_batches_hold_what_the_files_say(nut: Path) -> None:
    (batch,) = make_loader(dataset_of(nut, "test"), 8, shuffle=False, seed=0)
    assert batch.images.shape == (3, 3, 16, 16)
    assert batch.images.dtype == torch.float32
    assert batch.labels.tolist() == [1, 1, 0]
    assert [Path(path).parent.name for path in batch.paths] == ["cut", "cut", "good"]
    assert batch.has_mask.tolist() == [True, False, True]  # the second cut has no mask: unknown, not empty
    assert batch.masks.dtype == torch.bool
    assert batch.masks.sum((1, 2)).tolist() == [4 * 4, 0, 0]  # 2 x 3 of 8 x 12 pixels, nearest neighbour at 16 x 16
    item = dataset_of(nut, "test")[0]
    assert torch.equal(item.image, batch.images[0])
    assert torch.equal(item.mask, batch.masks[0])


def test_reading_begins_before_the_first_item_is_asked_for() -> None:
    begun = threading.Event()

    def items() -> Iterator[int]:
        begun.set()
        yield from range(5)

    read = read_ahead(items(), 2)
    assert begun.wait(10)
    assert list(read) == [0, 1, 2, 3, 4]


def test_images_that_are_read_together_come_in_order_and_a_group_at_a_time() -> None:
    begun: list[int] = []

    def fetch(key: int) -> int:
        begun.append(key)
        time.sleep(0.002 * (key % 3))  # later ones are ready sooner
        return 10 * key

    threads = torch.get_num_threads()
    group = max(GROUP, threads)
    read = read_together(fetch, iter(range(2 * group + 5)))
    assert torch.get_num_threads() == threads, "readers keep to one core, the model does not"
    assert [next(read) for _ in range(group)] == [10 * key for key in range(group)]
    assert sorted(begun) == list(range(group)), "nothing is read while the model has its turn"
    assert list(read) == [10 * key for key in range(group, 2 * group + 5)]
    assert list(read_together(fetch, [])) == []


def test_readers_end_when_nobody_wants_more() -> None:
    before = threading.active_count()
    read = read_together(lambda key: key, range(100))
    assert next(read) == 0
    read.close()
    assert threading.active_count() == before


def test_one_by_one_gives_the_same_images_in_the_same_order(nut: Path) -> None:
    loader = make_loader(dataset_of(nut), 4, shuffle=True, seed=1)
    batches = list(loader)
    loader.one_by_one()
    singles = list(loader)
    assert [batch.images.shape[0] for batch in singles] == [1] * len(loader)
    assert torch.equal(torch.cat([b.images for b in singles]), torch.cat([b.images for b in batches]))
    assert [path for b in singles for path in b.paths] == [path for b in batches for path in b.paths]


def test_order_depends_on_seed_and_epoch_only(nut: Path) -> None:
    def orders(seed: int, epochs: range, workers: int = 0) -> list[list[list[int]]]:
        loader = make_loader(dataset_of(nut), 4, shuffle=True, seed=seed, num_workers=workers)
        found = []
        for epoch in epochs:
            loader.set_epoch(epoch)
            found.append(numbers(list(loader)))
        return found

    first = orders(1, range(3))
    assert orders(1, range(3)) == first
    torch.manual_seed(99)
    assert orders(1, range(2, 3)) == first[2:], "nothing before an epoch may matter"
    assert len({str(order) for order in [*first, *orders(2, range(3))]}) == 6
    for order in first:
        assert sorted(chain.from_iterable(order)) == list(range(10, 27))
    assert orders(1, range(3), workers=2) == first
    unshuffled = make_loader(dataset_of(nut), 4, shuffle=False, seed=1)
    assert list(chain.from_iterable(numbers(list(unshuffled)))) == list(range(10, 27))


def test_workers_give_the_same_bits_and_leave_the_global_seed_alone(nut: Path) -> None:
    def load(workers: int) -> tuple[list[Batch], torch.Tensor]:
        torch.manual_seed(5)
        loader = make_loader(dataset_of(nut), 4, shuffle=True, seed=3, num_workers=workers)
        return list(loader), torch.rand(1)

    torch.manual_seed(5)
    untouched = torch.rand(1)
    (alone, after_alone), (helped, after_helped) = load(0), load(2)
    assert torch.equal(after_alone, untouched)
    assert torch.equal(after_helped, untouched)
    for one, other in zip(alone, helped, strict=True):
        assert one.paths == other.paths
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.masks, other.masks)


@pytest.mark.parametrize("drop_last", [False, True])
def test_a_run_continues_in_the_middle_of_an_epoch(nut: Path, drop_last: bool) -> None:
    loader = make_loader(dataset_of(nut), 4, shuffle=True, seed=1, drop_last=drop_last)
    assert len(loader) == (4 if drop_last else 5)  # 17 images
    loader.set_epoch(7)
    whole = list(loader)
    assert len(whole) == len(loader)
    again = make_loader(dataset_of(nut), 4, shuffle=True, seed=1, drop_last=drop_last)
    again.set_epoch(7, start=2)
    rest = list(again)
    assert numbers(rest) == numbers(whole)[2:]
    assert all(torch.equal(one.images, other.images) for one, other in zip(rest, whole[2:], strict=True))
    assert len(again) == len(loader), "steps per epoch do not depend on where a run was interrupted"
    again.set_epoch(8)
    assert sum(len(batch.paths) for batch in again) == (16 if drop_last else 17)


@pytest.fixture
def two_bad(nut: Path) -> Path:
    (nut / "train/good/12.png").write_bytes(b"")
    (nut / "train/good/20.png").write_bytes((nut / "train/good/20.png").read_bytes()[:-30])
    return nut


@pytest.mark.parametrize("workers", [0, 2])
def test_a_bad_file_is_an_error(two_bad: Path, workers: int) -> None:
    loader = make_loader(dataset_of(two_bad), 4, shuffle=False, seed=0, num_workers=workers)
    with pytest.raises(DataError) as caught:
        list(loader)
    assert str(caught.value).startswith(str(two_bad / "train/good/12.png"))
    assert "\n" not in str(caught.value), "also out of a worker process it is one clear line"
    assert not multiprocessing.active_children(), "worker processes end with the error, though its traceback is kept"


@pytest.mark.parametrize("workers", [0, 2])
def test_bad_files_are_skipped_and_listed_on_request(two_bad: Path, workers: int) -> None:
    dataset = dataset_of(two_bad, skip_bad=True)
    loader = make_loader(dataset, 4, shuffle=False, seed=0, num_workers=workers)
    for _ in range(2):
        assert list(chain.from_iterable(numbers(list(loader)))) == [n for n in range(10, 27) if n not in (12, 20)]
    assert [Path(entry["path"]).name for entry in dataset.skipped] == ["12.png", "20.png"]  # each once
    assert "empty" in dataset.skipped[0]["reason"]


def test_nothing_but_bad_files(nut: Path, refuses: Refuses) -> None:
    for path in (nut / "train/good").iterdir():
        path.write_bytes(b"")
    loader = make_loader(dataset_of(nut, skip_bad=True), 4, shuffle=True, seed=0)
    refuses(lambda: list(loader), "all 17 images had to be skipped", "empty")


def test_a_mask_of_another_size_is_refused(nut: Path, make_images: Make, refuses: Refuses) -> None:
    make_images(nut, "ground_truth/cut/1_mask.png", size=(8, 12))
    refuses(lambda: dataset_of(nut, "test")[0], "1_mask.png", "8x12", "12x8", "EXIF")
    make_images(nut, "ground_truth/cut/1_mask.png", size=(24, 16))
    refuses(lambda: dataset_of(nut, "test")[0], "24x16 px for an image of 12x8 px")


def test_a_reader_of_ones_own(tmp_path: Path) -> None:
    class Noise(DatasetReader):
        def image(self, sample: Sample) -> torch.Tensor:
            return torch.full((3, 4, 5), float(sample.image_path.name))

    samples = [Sample(Path(str(number)), "train", NORMAL, "noise") for number in range(3)]
    (batch,) = make_loader(ImageDataset(samples, Noise(tmp_path), Preprocess(size=(4, 5))), 3, shuffle=False, seed=0)
    assert batch.images[:, 0, 0, 0].tolist() == [0, 1, 2]
