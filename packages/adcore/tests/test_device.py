"""What a result says of the device that it comes from."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from adcore.training.device import device_record, peak_memory_mb


def test_a_processor_has_a_name_and_a_run_a_peak() -> None:
    record = device_record(torch.device("cpu"))
    assert record["device"] == "cpu"
    assert record["name"]
    before = peak_memory_mb()["process"]
    kept = torch.ones(64 * 2**18)  # 64 MB
    assert peak_memory_mb()["process"] >= before
    assert kept.sum() == len(kept)


def test_a_gpu_has_name_memory_driver_and_cuda(monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Fast GPU")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(total_memory=8 * 2**30))
    monkeypatch.setattr("adcore.training.device._driver", lambda: "580.1")
    record = device_record(torch.device("cuda:1"))
    assert record.pop("cuda") == torch.version.cuda
    assert record == {"device": "cuda:1", "name": "Fast GPU", "memory_mb": 8192, "driver": "580.1"}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA")
def test_a_real_gpu_says_its_driver_and_its_peak() -> None:
    torch.ones(2**20, device="cuda")
    record = device_record(torch.device("cuda"))
    assert record["name"]
    assert record["memory_mb"] > 1000
    assert record["driver"][0].isdigit()
    assert peak_memory_mb()["gpu"] >= 4
