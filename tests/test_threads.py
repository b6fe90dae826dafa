"""A trained model is loaded from several threads at once, as a server may do."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import adcore
import pytest
import torch
from adcore import artifact as artifacts
from adcore.preprocess import Preprocess
from adcore.registry import create_model

THREADS = 8


@pytest.fixture
def trained(tmp_path):
    """A PatchCore with a bank of random patches."""
    model = create_model("patchcore", backbone="resnet18", layers=["layer1"], weights="random")
    model.memory_bank = torch.rand(50, model.extractor.channels[0], generator=torch.Generator().manual_seed(0))
    model.fitted = True
    artifacts.save(tmp_path / "model.safetensors", artifacts.Artifact(model, Preprocess((32, 32))))
    return tmp_path / "model.safetensors"


def test_eight_threads_load_at_once_and_score_alike(trained) -> None:
    image = torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(1))
    start = Barrier(THREADS)

    def work(_: int) -> tuple[float, float]:
        start.wait(60)
        predictor = adcore.load(trained)
        return predictor.predict(image).score, predictor.predict(image).score

    torch.manual_seed(7)
    expected_draw = torch.rand(1)
    torch.manual_seed(7)
    with ThreadPoolExecutor(THREADS) as pool:
        scores = list(pool.map(work, range(THREADS)))
    assert len({score for pair in scores for score in pair}) == 1
    assert torch.equal(torch.rand(1), expected_draw)  # building networks left the global random state alone
