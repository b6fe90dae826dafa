"""`adcore ensemble`: several trained models in one file that is used like any other."""

from __future__ import annotations

import json
from pathlib import Path

import adcore
import numpy as np
import pytest
import torch
from adcore import artifact as artifacts
from adcore.backbones.features import FeatureExtractor, create_features
from adcore.backbones.shared import remembering, share
from adcore.backbones.transformer import TransformerFeatures
from adcore.ensemble import comparable
from adcore.files import sha256_file
from adcore.testing.needs import skip_without_onnx
from adcore.testing.tiny import SIDE, write_tiny_mvtec
from hypothesis import given
from hypothesis import strategies as st

SETTINGS = {"weights": "random", "image_size": SIDE, "device": "cpu"}
MODELS = ["padim-resnet18", "patchcore-resnet18", "dfm-efficientnet-lite0"]


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_tiny_mvtec(tmp_path_factory.mktemp("data"), train=10, normal=8)


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory) -> list[Path]:
    folder = tmp_path_factory.mktemp("runs")
    return [adcore.train(f"mvtec:{data}", "part", name, out=folder / name, **SETTINGS).artifact for name in MODELS]


@pytest.fixture
def combine(trained, data, tmp_path, run_cli):
    """combine(*options) -> (exit code, printed, errors); the file is tmp_path/e.safetensors."""

    def run(*options: object, members=trained, out: str = "e.safetensors"):
        return run_cli("ensemble", *members, "--data", f"mvtec:{data}", "--out", tmp_path / out, *options)

    return run


EIGHTHS = st.integers(-800, 800).map(lambda number: number / 8)  # exact in float32


@given(st.lists(EIGHTHS, min_size=2, max_size=30), st.lists(EIGHTHS.map(lambda value: 3 * value), min_size=2))
def test_comparable_scores_keep_the_order_and_agree_with_numpy(normal, scores):
    knots = torch.tensor(sorted(normal))
    values = comparable(torch.tensor(sorted(scores)), knots).double()
    assert (values.diff() >= -1e-4 * values.abs().max()).all()
    if len(set(normal)) == len(normal):
        inside = [*(s for s in scores if knots[0] < s < knots[-1]), float(knots[0]), float(knots[-1])]
        expected = np.interp(inside, knots.numpy(), np.linspace(0, 1, len(knots)))
        np.testing.assert_allclose(comparable(torch.tensor(inside), knots).numpy(), expected, atol=1e-4)


def test_scores_are_the_mean_of_the_members_places_among_normal_images(combine, trained, data, tmp_path):
    code, printed, err = combine()
    assert code == 0, err
    assert printed.startswith(f"3 models: {', '.join(MODELS)}")
    before = [sha256_file(path) for path in trained]
    ensemble = adcore.load(tmp_path / "e.safetensors")
    normal, image = sorted((data / "part/test/good").iterdir()), data / "part/test/spot/019.png"
    parts, maps = [], []
    for path in trained:
        member = adcore.load(path)
        scores = np.sort([member.predict(one).score for one in normal])
        score, anomaly_map = member.predict(image).score, member.predict(image).anomaly_map
        knots = np.quantile(scores, np.linspace(0, 1, 101))
        inside = np.interp(score, knots, np.linspace(0, 1, 101))
        parts.append(1 + (score - scores[-1]) / (scores[-1] - knots[50]) if score > scores[-1] else inside)
        known = [member.predict(one).anomaly_map for one in normal]
        low, high = np.median([np.median(m) for m in known]), max(m.max() for m in known)
        maps.append((anomaly_map - low) / (high - low))
    result = ensemble.predict(image)
    assert result.score == pytest.approx(np.mean(parts), rel=1e-3)
    np.testing.assert_allclose(result.anomaly_map, np.mean(maps, 0), rtol=1e-3, atol=1e-3 * np.mean(maps, 0).max())
    assert [sha256_file(path) for path in trained] == before, "the members stay as they are"


def test_it_is_used_like_any_model(combine, data, tmp_path, run_cli):
    assert combine("--combine", "max", "--threshold", "conformal:0.2")[0] == 0
    path = tmp_path / "e.safetensors"
    run = adcore.evaluate(path, f"mvtec:{data}", "part", out=tmp_path / "seen", device="cpu")
    assert (tmp_path / "seen/report.html").is_file()
    assert run.summary["threshold"]["method"] == "conformal:0.2"
    code, printed, err = run_cli("predict", path, data / "part/test", "--json")
    assert code == 0, err
    scores = {row["path"]: row["score"] for row in json.loads(printed)["predictions"]}
    assert list(scores.values()) == [row["score"] for row in run.predictions]
    code, printed, err = run_cli("threshold", path, "--value", "1.5", "--out", tmp_path / "t.safetensors")
    assert code == 0, err
    assert adcore.load(tmp_path / "t.safetensors").predict(next(iter(scores))).score == scores[next(iter(scores))]
    code, printed, err = run_cli("info", path)
    assert code == 0, err
    assert "padim-resnet18, patchcore-resnet18, dfm-efficientnet-lite0" in printed
    assert len(printed) < 3000, "the stored distributions are not printed"


def test_its_members_are_exported_not_it(combine, tmp_path, run_cli):
    skip_without_onnx()
    assert combine()[0] == 0
    code, _, err = run_cli("export", tmp_path / "e.safetensors", "--to", "onnx", "--out", tmp_path / "x")
    assert (code, "export each of them" in err) == (2, True)


def test_a_new_process_loads_it(combine, tmp_path, monkeypatch):
    assert combine("--weights", "2,1,0")[0] == 0
    from adcore import plugins

    plugins.load_plugins.cache_clear()  # as a process that has made no ensemble
    loaded = artifacts.load(tmp_path / "e.safetensors")
    assert loaded.model.config["weights"] == (2.0, 1.0, 0.0)
    assert loaded.training["members"] == MODELS
    assert "ensemble" not in {card.name for card in adcore.list_models()}, "it is none to train"


def test_members_with_the_same_network_run_it_once_and_score_as_alone(combine, trained, data, tmp_path, monkeypatch):
    assert combine()[0] == 0
    ensemble = artifacts.load(tmp_path / "e.safetensors").model
    image = torch.rand(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    ran, run = [], FeatureExtractor.run
    monkeypatch.setattr(FeatureExtractor, "run", lambda self, images: [ran.append(self), run(self, images)][1])
    with torch.inference_mode():
        alone = ensemble(image)
        assert len(ran) == 3
        ensemble.warm_up()
        ran.clear()
        together = ensemble(image)
        assert len(ran) == 2, "PaDiM and PatchCore have one ResNet-18"
        assert torch.equal(alone.score, together.score)
        assert torch.equal(alone.anomaly_map, together.anomaly_map)
        weight = next(ensemble.parts[0].extractor.net.parameters())
        weight.data += 0.1
        ensemble.warm_up()
        ran.clear()
        ensemble(image)
        assert len(ran) == 3, "another weight makes another network"


def test_transformers_are_shared_block_by_block(monkeypatch):
    small, large = (
        create_features("dinov2_vit_small_14", layers, "random") for layers in (["block1"], ["block0", "block1"])
    )
    other = TransformerFeatures("dinov2_vit_small_14", ["block1"], "random", norm=False)
    images = torch.rand(1, 3, 28, 42)
    expected = [part(images) for part in (small, large, other)]
    (shared,) = share([small, large, other])
    assert shared.lead is large
    monkeypatch.setattr(small.net, "patch_embed", None)  # it is not run
    with remembering([shared]):
        found = [part(images) for part in (small, large, other)]
    for mine, theirs in zip(expected, found, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(mine, theirs, strict=True))
    images += 1
    assert not torch.equal(small(images)[0], expected[0][0]), "an image that was changed in place is another image"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--weights", "1,2"), "one for each of the 3 models"),
        (("--weights", "a"), "such as 2,1,1"),
        (("--threshold", "conformal:0.01"), "needs 99 normal images"),
    ],
)
def test_what_cannot_be_is_one_line_and_leaves_no_file(combine, tmp_path, options, says):
    code, _, err = combine(*options)
    assert (code, says in err) == (2, True), err
    assert not (tmp_path / "e.safetensors").exists()


def test_members_must_see_images_alike(combine, trained, data, tmp_path):
    out = tmp_path / "other"
    small = adcore.train(f"mvtec:{data}", "part", "padim-resnet18", out=out, **SETTINGS | {"image_size": 32}).artifact
    code, _, err = combine(members=[trained[1], small])
    assert code == 2
    assert "do not see an image alike" in err
    assert len(err.strip().splitlines()) == 1
    code, _, err = combine(members=trained[:1])
    assert (code, "at least two models" in err) == (2, True)
    assert combine(out="model.txt")[0] == 2
