"""Images are decoded once in a training of several passes, and the results are those of decoding them every time."""

from __future__ import annotations

import os
from pathlib import Path
from shutil import rmtree
from threading import Event, Thread

import adcore
import pytest
import torch
from adcore.data import cache as caches
from adcore.data.cache import ImageCache, make_cache, nbytes
from adcore.data.dataset import ImageDataset, make_loader
from adcore.data.mvtec import MVTec
from adcore.data.samples import DatasetReader
from adcore.errors import ConfigError
from adcore.files import sha256_file
from adcore.preprocess import Preprocess
from adcore.request import choose_model
from adcore.testing.tiny import write_tiny_mvtec

POSIX = os.name == "posix"  # worker processes share what was made before they were forked


def dataset_of(root: Path, folder: Path | None = None) -> ImageDataset:
    reader = MVTec(root)
    dataset = ImageDataset(reader.samples("part"), reader, Preprocess(size=(16, 24)))
    dataset.cache = ImageCache(len(dataset), 3, (16, 24), folder)
    return dataset


def bits(values: torch.Tensor) -> torch.Tensor:
    return values.view(torch.int32)


@pytest.mark.parametrize("where", ["memory", "disk"])
def test_what_is_kept_comes_back_to_the_last_bit(where, tmp_path) -> None:
    cache = ImageCache(3, 2, (4, 5), tmp_path if where == "disk" else None)
    image = torch.tensor([float("nan"), -0.0, 1e-45, torch.inf]).repeat(10).view(2, 4, 5)
    mask = torch.arange(20).view(4, 5) % 3 == 0
    assert cache.get(1) is None
    cache.put(1, image, mask)
    cache.put(2, image + 1, None)
    kept, marked = cache.get(1)
    assert torch.equal(bits(kept), bits(image))
    assert torch.equal(marked, mask)
    assert cache.get(2)[1] is None
    kept.zero_()
    assert torch.equal(bits(cache.get(1)[0]), bits(image)), "a copy was given"
    assert cache.get(0) is None
    assert list(tmp_path.iterdir()) == [], "the file has no name"
    cache.close()
    cache.close()
    assert cache.get(1) is None


def test_it_can_be_closed_while_a_thread_reads_ahead() -> None:
    """As where a training fails: its loader is still busy."""
    failures, image, mask = [], torch.rand(3, 64, 64), torch.ones(64, 64, dtype=torch.bool)

    def read(cache: ImageCache, begun: Event) -> None:
        try:
            while cache.get(0) is not None:
                cache.put(0, image, mask)
                begun.set()
        except Exception as error:
            failures.append(error)

    for _ in range(20):
        cache, begun = ImageCache(1, 3, (64, 64)), Event()
        cache.put(0, image, mask)
        thread = Thread(target=read, args=(cache, begun))
        thread.start()
        assert begun.wait(60)
        cache.close()
        thread.join()
    assert failures == []


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.skipif(not POSIX, reason="not forked"))])
def test_after_the_first_pass_no_file_is_needed(workers, tmp_path) -> None:
    write_tiny_mvtec(tmp_path)
    dataset = dataset_of(tmp_path)
    loader = make_loader(dataset, 4, shuffle=False, seed=0, num_workers=workers)
    first = list(loader)
    rmtree(tmp_path / "part")
    for before, after in zip(first, loader, strict=True):
        assert torch.equal(bits(before.images), bits(after.images))
        assert torch.equal(before.masks, after.masks)
        assert (before.paths, before.labels.tolist()) == (after.paths, after.labels.tolist())


def test_what_a_reader_adds_is_asked_for_each_time(tmp_path) -> None:
    class Telling(MVTec):
        def extra(self, sample):
            return {"name": sample.image_path.name}

    write_tiny_mvtec(tmp_path)
    reader = Telling(tmp_path)
    assert issubclass(Telling, DatasetReader)
    dataset = ImageDataset(reader.samples("part"), reader, Preprocess(size=(16, 24)))
    dataset.cache = ImageCache(len(dataset), 3, (16, 24))
    assert dataset[0].extra == dataset[0].extra == {"name": dataset.samples[0].image_path.name}


def test_the_model_is_the_same_however_images_are_kept(tmp_path, caplog) -> None:
    caplog.set_level("INFO", "adcore.data.cache")
    data = write_tiny_mvtec(tmp_path / "data")
    digests = set()
    for kind in ("off", "memory", "disk"):
        options = {"weights": "random", "image_size": 64, "batch_size": 4, "num_epochs": 3, "device": "cpu"}
        run = adcore.train(f"mvtec:{data}", "part", "stfpm-resnet18", out=tmp_path / kind, cache=kind, **options)
        digests.add(sha256_file(run.artifact))
        said = [record.getMessage() for record in caplog.records]
        assert any(f"6 preprocessed images are kept after the first pass: 0 MB, {kind}" in one for one in said) == (
            kind != "off"
        )
        assert not [path for path in run.folder.rglob("*") if path.name.startswith("tmp")]
    assert len(digests) == 1


def test_auto_takes_memory_then_the_disk_then_nothing(tmp_path, monkeypatch) -> None:
    needed = nbytes(10, 3, (8, 8))
    assert needed == 10 * (64 * 13 + 1)

    def made(memory: float, disk: float) -> bool | None:
        monkeypatch.setattr(caches, "available_memory", lambda: memory * needed)
        monkeypatch.setattr(caches.shutil, "disk_usage", lambda _: Usage(disk * needed))
        kinds = []
        monkeypatch.setattr(caches, "ImageCache", lambda *a: kinds.append("disk" if a[3] else "memory"))
        make_cache("auto", 10, 3, (8, 8), tmp_path)
        return kinds[0] if kinds else None

    assert made(memory=5, disk=9) == "memory"
    assert made(memory=3, disk=9) == "disk"
    assert made(memory=3, disk=1) is None
    assert make_cache("off", 10, 3, (8, 8), tmp_path) is None


class Usage:
    def __init__(self, free: float) -> None:
        self.free = free


def test_room_that_is_not_to_be_had_is_one_line(tmp_path) -> None:
    with pytest.raises(ConfigError, match=r"cache=memory: \d+ MB for \d+ images are not to be had") as caught:
        make_cache("memory", 10**9, 3, (4096, 4096), None)
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="only POSIX reserves blocks")
def test_a_full_disk_is_one_line_before_anything_is_kept(tmp_path, monkeypatch) -> None:
    cache = ImageCache(2, 3, (64, 64), tmp_path)
    cache.close()

    def full(*_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(caches.os, "posix_fallocate", full)
    with pytest.raises(ConfigError, match="cache=disk: .* No space left on device"):
        make_cache("disk", 2, 3, (64, 64), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_cache_is_a_setting_that_a_run_can_change(monkeypatch) -> None:
    def chosen(**settings: str) -> str:
        return choose_model("autoencoder", settings).plan.cache

    assert chosen() == "auto"
    monkeypatch.setenv("ADCORE_CACHE", "disk")
    assert (chosen(), chosen(cache="off")) == ("disk", "off")
    monkeypatch.setenv("ADCORE_CACHE", "ram")
    with pytest.raises(ConfigError, match="ADCORE_CACHE must be auto, memory, disk or off, not 'ram'"):
        chosen()
