"""`calibration="cv:K"`: the threshold rests on scores of training images that the scoring model has not learned from."""

import json
from pathlib import Path

import adcore
import numpy as np
import pytest
import torch
from adcore import AnomalyModel, Batch, Prediction
from adcore.cards import card_for
from adcore.cross_calibration import cross_validated
from adcore.data.samples import Sample
from adcore.data.splits import cross_folds
from adcore.errors import ConfigError, DataError
from adcore.prepared import prepare_run
from adcore.registry import register
from adcore.request import DataChoice, choose_model
from adcore.testing import write_tiny_mvtec
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

MODEL = {"image_size": 64, "normalization": "none"}


class MeanBrightness(AnomalyModel):
    """Scores an image by how far its brightness is from the mean of the training images."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("total", torch.zeros((), dtype=torch.float64))
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))

    def training_step(self, batch: Batch, step: int):
        self.total += batch.images.double().mean((1, 2, 3)).sum()
        self.count += len(batch.images)
        yield from ()

    def forward(self, images: torch.Tensor) -> Prediction:
        away = (images.double() - self.total / self.count).abs().mean(1)
        return Prediction((images.double().mean((1, 2, 3)) - self.total / self.count).abs(), away)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_tiny_mvtec(tmp_path / "data", train=11)


def samples(*categories: int) -> list[Sample]:
    return [Sample(Path(f"c{c}/{i}.png"), "train", 0, f"c{c}") for c, n in enumerate(categories) for i in range(n)]


@given(st.lists(st.integers(1, 9), min_size=1, max_size=4), st.integers(2, 6), st.randoms())
def test_folds_are_a_partition_that_depends_on_names_and_seed_alone(categories, folds, random):
    known = samples(*categories)
    if len(known) < folds:
        with pytest.raises(DataError, match=f"there are {len(known)} normal training images"):
            cross_folds(known, folds, 1)
        return
    parts = cross_folds(known, folds, 1)
    assert sorted(str(one.image_path) for part in parts for one in part) == sorted(str(s.image_path) for s in known)
    for category in {one.category for one in known}:
        shares = [sum(one.category == category for one in part) for part in parts]
        assert max(shares) - min(shares) <= 1, "each fold has its share of each category"
    shuffled = random.sample(known, len(known))
    others = [Sample(Path("c0/a.png"), "test", 0, "c0"), Sample(Path("c0/b.png"), "train", 1, "c0")]
    assert cross_folds([*others, *shuffled], folds, 1) == parts


def test_each_image_is_scored_by_the_mean_of_the_others(data):
    register(card_for(MeanBrightness))
    choice = choose_model(card_for(MeanBrightness).name, MODEL)
    run = prepare_run(choice, DataChoice("mvtec", data, "part", calibration="cv:4"))
    scoring, ranges = cross_validated(run, 4, torch.device("cpu"))
    level = {
        path: np.asarray(Image.open(path), np.float64).mean() / 255 for path in (data / "part/train").rglob("*.png")
    }
    assert {image.sample.image_path for image in scoring.images} == set(level)
    for fold in cross_folds(run.samples, 4, choice.plan.seed):
        left_out = {sample.image_path for sample in fold}
        mean = np.mean([value for path, value in level.items() if path not in left_out])
        for image in scoring.images:
            if image.sample.image_path in left_out:
                assert image.score == pytest.approx(abs(level[image.sample.image_path] - mean), abs=1e-6)
    assert len(ranges) == 11
    assert all(image.anomaly_map is None for image in scoring.images), "no more maps than of a fold are kept"


def test_the_model_learns_from_every_image_and_the_threshold_from_none_that_it_knows(data, tmp_path):
    def run(name: str, **options):
        return adcore.train(f"mvtec:{data}", "part", MeanBrightness, out=tmp_path / name, **MODEL, **options)

    crossed = run("crossed", calibration="cv:5", threshold="conformal:0.2")
    plain = adcore.load(run("plain").artifact, model=MeanBrightness).artifact
    model = adcore.load(crossed.artifact, model=MeanBrightness).artifact
    assert model.model.count == 11
    assert all(torch.equal(a, b) for a, b in zip(model.model.buffers(), plain.model.buffers(), strict=True))
    threshold = crossed.summary["threshold"]
    assert threshold["source"] == "cross-validated"
    assert threshold["normal_images"] == 11
    assert threshold["note"] == (
        "about 0.2 of normal images are expected above it, from 11 normal images, without a guarantee; "
        "chosen on training images, each scored by a model that learned from the others"
    )
    assert len(model.calibration["map_range"]) == 2
    assert crossed.summary["calibration"] == "cv:5"
    assert "cross-validated training" in (crossed.folder / "thresholds.txt").read_text()


def test_without_test_images_none_is_held_out(tmp_path):
    data = write_tiny_mvtec(tmp_path / "data", train=8, normal=0, anomalous=0)
    run = adcore.train(f"mvtec:{data}", "part", MeanBrightness, out=tmp_path / "run", calibration="cv:4", **MODEL)
    assert run.summary["counts"] == {"train": {"normal": 8, "anomalous": 0}}
    assert run.summary["threshold"]["normal_images"] == 8
    assert (run.folder / "report.html").is_file()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"calibration": "cv:1"}, ConfigError, "calibration=cv:1: write cv:K with the number of folds, at least 2"),
        ({"calibration": "loo"}, ConfigError, "calibration=loo: write cv:K"),
        ({"calibration": "cv:12"}, DataError, "there are 11 normal training images, fewer than folds"),
        ({"calibration": "cv:5", "threshold": "conformal:0.01"}, DataError, "needs 99 normal images .* there are 11"),
    ],
)
def test_what_cannot_be_is_one_line_before_anything_starts(data, tmp_path, options, error, message):
    with pytest.raises(error, match=message) as caught:
        adcore.train(f"mvtec:{data}", "part", MeanBrightness, out=tmp_path / "run", **MODEL, **options)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_a_condition_says_which_key_is_wrong(data, tmp_path):
    from adcore.experiments.conditions import load_conditions

    config = {"model_type": "padim-efficientnet-lite0", "dataset": "mvtec", "dataset_root": str(data), "image_size": 64}
    config |= {"source_domain": "part"}

    def condition(calibration: str) -> Path:
        path = tmp_path / "one.json"
        entry = {"name": "one", "config": {**config, "calibration": calibration}}
        path.write_text(json.dumps({"experiment_conditions": [entry]}))
        return path

    assert load_conditions(condition("cv:3"))[0].data().folds == 3
    for wrong in ("cv:1", "cv:99"):
        with pytest.raises(ConfigError, match=f"condition 'one': calibration: calibration=cv:|calibration.*{wrong}"):
            load_conditions(condition(wrong))
