"""PatchCore against brute force, and its memory."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from adcore import artifact as artifacts
from adcore.artifact import Artifact
from adcore.errors import TrainingError
from adcore.maps import gaussian_blur, upsample
from adcore.testing import fit_tiny, tiny_batches
from adcore.training.plan import Plan
from adcore.training.trainer import Trainer
from adm_memory.patchcore import PatchCore, reweight

SIZE = (64, 96)
GRID = (8, 12)


def fitted(**config: object) -> PatchCore:
    model = PatchCore("resnet18", ("layer2", "layer3"), "random", **config)
    Trainer(model, Plan(), tiny_batches(6, SIZE, 2), 6).run()
    return model


def test_the_bank_is_a_coreset_of_the_patches() -> None:
    model = fitted(coreset_ratio=0.25)
    images = torch.cat([batch.images for batch in tiny_batches(6, SIZE, 2)])
    patches = model.embed(images)[0]
    assert model.memory_bank.shape == (int(len(patches) * 0.25), 384)
    assert torch.cdist(model.memory_bank, patches).amin(1).max() < 1e-2  # each entry is one of the patches
    covered = torch.cdist(patches, model.memory_bank).amin(1).max()
    drawn = patches[torch.randperm(len(patches), generator=torch.Generator().manual_seed(0))[: len(model.memory_bank)]]
    assert covered < torch.cdist(patches, drawn).amin(1).max()  # better than as many drawn at random


def test_what_is_learned_in_one_pass_stays_exact_in_mixed_precision(monkeypatch) -> None:
    monkeypatch.setattr("adcore.training.device.has_mixed_precision", lambda device: True)
    banks = [
        fit_tiny("patchcore-resnet18", weights="random", precision=precision)[0].memory_bank
        for precision in ("float32", "mixed")
    ]
    assert torch.equal(*banks)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("num_neighbors", [1, 4, 500])  # 500: more than the bank has
def test_scores_and_maps_equal_brute_force(num_neighbors, dtype) -> None:
    model = fitted(coreset_ratio=0.2, num_neighbors=num_neighbors, bank_dtype=dtype)
    assert model.memory_bank.dtype == getattr(torch, dtype)
    bank = model.memory_bank.double()
    query = tiny_batches(3, SIZE, 3, anomalous=True, seed=3)[0].images
    with torch.no_grad():
        patches = model.embed(query)[0].double().unflatten(0, (3, -1))
        prediction = model(query)
    for i, image in enumerate(patches):
        distances = torch.cdist(image, bank)
        nearest, index = distances.min(1)
        worst = nearest.argmax()
        score = nearest[worst]
        if num_neighbors > 1:
            star = index[worst]  # m*
            support = torch.cdist(bank[star][None], bank)[0].topk(min(num_neighbors, len(bank)), largest=False).indices
            to_support = torch.linalg.vector_norm(bank[support] - image[worst], dim=1)
            score = (1 - (to_support[0].exp() / to_support.exp().sum())) * score
        torch.testing.assert_close(prediction.score[i].double(), score, rtol=1e-4, atol=0)
        expected = gaussian_blur(upsample(nearest.reshape(1, *GRID), SIZE), 4.0)[0]
        torch.testing.assert_close(prediction.anomaly_map[i].double(), expected, rtol=1e-4, atol=1e-4)


def test_a_patch_near_a_rare_entry_weighs_more_than_one_near_a_common_entry() -> None:
    score = torch.tensor([5.0, 5.0])
    rare, common = [5.0, 9.0, 9.0], [5.0, 5.0, 5.0]
    weighted = reweight(score, torch.tensor([rare, common]))
    assert weighted[1] < weighted[0] < 5.0
    assert weighted[1] == pytest.approx(5.0 * 2 / 3)


@pytest.mark.skipif(not Path("/proc/self/maps").is_file(), reason="asks Linux which file is mapped")
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_bank_larger_than_memory_stays_in_the_file_and_gives_the_same_bits(dtype, tmp_path, monkeypatch) -> None:
    model, _, choice = fit_tiny("patchcore-resnet18", weights="random", bank_dtype=dtype)
    artifacts.save(tmp_path / "model.safetensors", Artifact(model, choice.preprocess))
    images = tiny_batches(2, (64, 64), 2, anomalous=True, seed=3)[0].images
    in_memory = artifacts.load(tmp_path / "model.safetensors").model
    for module in ("adcore.artifact", "adm_memory.neighbours"):
        monkeypatch.setattr(f"{module}.available_memory", lambda: 2)
    monkeypatch.setattr("adm_memory.neighbours.STREAMED", 2**15)  # several blocks
    mapped = artifacts.load(tmp_path / "model.safetensors").model
    assert [file_mapped_at(one.memory_bank) for one in (in_memory, mapped)] == [None, "model.safetensors"]
    with torch.no_grad():
        expected, found = in_memory(images), mapped(images)
    assert torch.equal(found.score, expected.score)
    assert torch.equal(found.anomaly_map, expected.anomaly_map)


def file_mapped_at(tensor: torch.Tensor) -> str | None:
    """The name of the file whose mapping holds the tensor."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        span, *_, last = line.split()
        start, end = (int(number, 16) for number in span.split("-"))
        if start <= tensor.data_ptr() < end:
            return Path(last).name if last.endswith(".safetensors") else None
    return None


def test_features_that_half_precision_cannot_hold_are_refused(monkeypatch) -> None:
    monkeypatch.setattr(PatchCore, "embed", lambda self, images: (torch.full((len(images) * 96, 8), 1e5), GRID))
    with pytest.raises(TrainingError, match="leave bank_dtype out"):
        fitted(bank_dtype="float16")


def test_a_second_fit_starts_anew() -> None:
    model = fitted(coreset_ratio=0.1)
    query = tiny_batches(1, SIZE, 1, seed=3)[0].images
    before = model(query).score
    Trainer(model, Plan(), tiny_batches(6, SIZE, 2, seed=9), 6).run()
    assert not torch.equal(model(query).score, before)


def test_patches_are_collected_into_one_buffer_that_is_gone_after_the_fit() -> None:
    model = PatchCore("resnet18", ("layer2", "layer3"), "random")
    buffers = set()
    step = model.training_step

    def watched(batch, number):
        yield from step(batch, number)
        buffers.add(model._patches.untyped_storage().data_ptr())

    model.training_step = watched
    Trainer(model, Plan(), tiny_batches(6, SIZE, 2), 6).run()
    assert len(buffers) == 1
    assert not hasattr(model, "_patches")
