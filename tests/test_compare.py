"""`adcore compare`: models ranked on one's own data, and the command that combines the best."""

from __future__ import annotations

import json
import re
import shlex

import numpy as np
import pytest
from adcore.errors import ConfigError
from adcore.experiments.compare import ensemble_commands, write_conditions
from adcore.request import DataChoice
from adcore.testing.tiny import SIDE, write_tiny_mvtec
from PIL import Image

MODELS = ("padim-resnet18", "dfm-efficientnet-lite0")
SETTINGS = ("--set", "weights=random", "--set", f"image_size={SIDE}", "--gpus", "none")


@pytest.fixture
def data(tmp_path) -> str:
    return f"mvtec:{write_tiny_mvtec(tmp_path / 'data')}"


def test_models_are_ranked_and_the_printed_command_combines_them(data, tmp_path, run_cli) -> None:
    out, roi = tmp_path / "out", tmp_path / "roi"
    roi.mkdir()
    for number in range(12):  # of each image its own
        Image.fromarray(np.tri(SIDE, k=number, dtype=np.uint8) * 255).save(roi / f"{number:03}.png")
    code, printed, err = run_cli("compare", *MODELS, "--data", data, *SETTINGS, "--roi", roi, "--out", out)
    assert code == 0, err
    lines = printed.splitlines()
    assert lines[0] == "image_auroc, mean over domains"
    assert {line.split()[1] for line in lines if re.match(r"[12] ", line.strip())} == set(MODELS)
    page = (out / "comparison.html").read_text()
    assert all(model in page for model in MODELS)
    (session,) = [path.parent for path in out.glob("*/session.json")]
    assert {run["state"] for run in json.loads((session / "session.json").read_text())["runs"]} == {"done"}
    assert {json.loads(path.read_text())["roi"] for path in session.rglob("result.json")} == {str(roi)}
    (command,) = [line.partition("one model: ")[2] for line in lines if "one model: " in line]
    code, printed, err = run_cli(*shlex.split(command)[1:])
    assert code == 0, err
    assert printed.startswith("2 models: ")
    assert (out / "ensemble_part.safetensors").is_file()


def test_models_are_combined_for_the_category_that_they_were_trained_on(tmp_path) -> None:
    data = [DataChoice("mvtec", tmp_path, name) for name in ("zipper", "bottle", "wood")]
    files = {
        "bottle": ["b/one", "b/two"],
        "wood": ["w/one"],
        "zipper": ["z/one", "z/two"],
    }  # a model of wood has failed
    zipper, bottle = ensemble_commands(data, files, tmp_path)
    assert "z/one z/two" in zipper
    assert "--category zipper" in zipper
    assert "b/one b/two" in bottle
    assert "--category bottle" in bottle


def test_a_region_for_all_images_is_in_the_conditions_and_in_the_models(tmp_path) -> None:
    Image.fromarray(np.tri(SIDE, dtype=np.uint8) * 255).save(tmp_path / "roi.png")
    chosen = [DataChoice("mvtec", tmp_path, "part", roi=tmp_path / "roi.png")]
    base = json.loads(write_conditions(tmp_path, MODELS, chosen, {"image_size": 64}).read_text())["base"]
    assert base["roi"] == str(tmp_path / "roi.png")
    (command,) = ensemble_commands(chosen, {"part": ["one", "two"]}, tmp_path)
    assert "--roi" not in command  # which the models would refuse
    with pytest.raises(ConfigError, match="--set roi"):
        write_conditions(tmp_path, MODELS, chosen, {"roi": "other.png"})


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("padim-resnet18",), "at least two models"),
        (("padim-resnet18", "padim-resnet18"), "each once"),
        (("padim-resnet18", "no-such-model"), "unknown model 'no-such-model'"),
        ((*MODELS, "--set", "model_type=x"), "the comparison sets it itself"),
        ((*MODELS, "--set", "no_such=1"), "no_such"),
        ((*MODELS, "--seeds", "a"), "whole numbers"),
        ((*MODELS, "--category", "other"), "no domain 'other'"),
    ],
)
def test_a_mistake_is_said_before_anything_is_trained(arguments, says, data, tmp_path, run_cli) -> None:
    code, _, err = run_cli("compare", *arguments, "--data", data, "--out", tmp_path / "out", "--gpus", "none")
    assert (code, says in err) == (2, True), err
    assert not (tmp_path / "out").exists()
