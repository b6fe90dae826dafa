"""Options of dataset readers: checked like a model's settings, the same on the command line, in Python and in conditions."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import adcore
import pytest
from adcore.errors import ConfigError
from adcore.experiments.conditions import check_condition
from adcore.experiments.reading import RawCondition
from adcore.request import DataChoice, choose_model
from adcore.testing import write_tiny_mvtec
from adcore.training_run import run_identity

FAST = {"width": 4, "latent": 4, "image_size": 64}


@pytest.fixture
def parts(tmp_path) -> tuple[Path, Path]:
    """A folder of images, and a CSV file beside it that names six of them."""
    root = write_tiny_mvtec(tmp_path / "data") / "part"
    rows = [(f"train/good/{i:03}.png", "train", "normal") for i in range(3)]
    rows += [("test/good/006.png", "test", "normal"), ("test/spot/009.png", "test", "anomalous")]
    table = tmp_path / "list.csv"
    with open(table, "w", newline="") as file:
        csv.writer(file).writerows(
            [("image_path", "split", "label", "defect", "mask_path"), *((*r, "", "") for r in rows)]
        )
    return root, table


def train_args(root: Path, out: Path, *more: object) -> list[object]:
    settings = [part for key, value in FAST.items() for part in ("--set", f"{key}={value}")]
    return ["train", "autoencoder", "--data", f"folder:{root}", "--epochs", 1, *settings, "--out", out, "--json", *more]


@pytest.mark.parametrize("option", ["--metadata", "--data-option"])
def test_the_command_line_passes_options_and_records_them(parts, tmp_path, run_cli, option) -> None:
    root, table = parts
    value = str(table) if option == "--metadata" else f"metadata={table}"
    code, _, err = run_cli(*train_args(root, tmp_path / "run", option, value))
    assert code == 0, err
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["data_options"] == {"metadata": str(table)}
    assert result["counts"]["train"]["normal"] == 3
    code, _, err = run_cli(
        "evaluate", tmp_path / "run", "--data", f"folder:{root}", option, value, "--out", tmp_path / "again"
    )
    assert code == 0, err
    result = json.loads((tmp_path / "again" / "result.json").read_text())
    assert result["data_options"] == {"metadata": str(table)}


@pytest.mark.parametrize(
    ("layout", "options", "words"),
    [
        ("mvtec", ["--metadata", "x.csv"], "dataset 'mvtec' has no option 'metadata'; valid ones: none"),
        (
            "folder",
            ["--data-option", "metadta=x.csv"],
            "no option 'metadta'; did you mean metadata or write_metadata? valid ones: metadata, test_ratio",
        ),
        ("folder", ["--data-option", "test_ratio=2"], "dataset 'folder': test_ratio: input should be less than 1"),
        ("folder", ["--data-option", "write_metadata=maybe"], "write_metadata: input should be a valid boolean"),
        ("visa", ["--data-option", "split_csv=5"], "dataset 'visa': split_csv: input should be a valid string"),
    ],
)
def test_a_wrong_option_is_one_line(tmp_path, run_cli, layout, options, words) -> None:
    code, _, err = run_cli(
        "train", "autoencoder", "--data", f"{layout}:{tmp_path}", *options, "--out", tmp_path / "run"
    )
    assert code == 2
    assert words in err
    assert err.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_the_short_form_beside_the_long_one_is_refused(tmp_path, run_cli) -> None:
    both = ["--metadata", "a.csv", "--data-option", "metadata=b.csv"]
    code, _, err = run_cli("train", "autoencoder", "--data", f"folder:{tmp_path}", *both)
    assert code == 2
    assert "give one of them" in err


def test_python_takes_data_options(parts, tmp_path) -> None:
    root, table = parts
    options = {"metadata": table}
    run = adcore.train(
        f"folder:{root}", "all", "autoencoder", num_epochs=1, out=tmp_path / "run", data_options=options, **FAST
    )
    (run,) = run
    assert run.summary["data_options"] == {"metadata": str(table)}
    again = adcore.evaluate(run.artifact, f"folder:{root}", "part", out=tmp_path / "again", data_options=options)
    assert again.summary["counts"]["test"] == {"normal": 1, "anomalous": 1}
    with pytest.raises(ConfigError, match="no option 'metadta'"):
        adcore.train(f"folder:{root}", "part", "autoencoder", data_options={"metadta": table})


def test_conditions_take_data_options(parts) -> None:
    root, table = parts
    config = {"model_type": "autoencoder", "dataset": "folder", "dataset_root": str(root), "source_domain": "part"}
    right = RawCondition("a", {**config, "data_options": {"metadata": str(table)}}, "")
    condition, mistakes = check_condition(right)
    assert mistakes == []
    assert condition.data().options == {"metadata": str(table)}
    _, mistakes = check_condition(RawCondition("a", {**config, "data_options": {"metadta": "x"}}, ""))
    assert mistakes[0].startswith("data_options: dataset 'folder' has no option 'metadta'")
    _, mistakes = check_condition(RawCondition("a", {**config, "data_options": "x"}, ""))
    assert mistakes[0].startswith("data_options: ")


def test_a_checkpoint_knows_the_options_of_its_data(parts) -> None:
    root, table = parts
    choice = choose_model("autoencoder", FAST)
    identities = [
        run_identity(choice, DataChoice("folder", root, "part", options), 3) for options in ({}, {"metadata": table})
    ]
    assert identities[0] != identities[1]
    json.dumps(identities)


def test_info_shows_the_options_of_a_dataset(run_cli) -> None:
    code, out, _ = run_cli("info", "folder")
    assert code == 0
    assert "test_ratio = 0.2  [float] normal images that go to test" in out
    assert "options:     none" in run_cli("info", "mvtec-ad")[1]
    options = json.loads(run_cli("info", "folder", "--json")[1])["options"]
    assert [option["key"] for option in options] == ["metadata", "write_metadata", "test_ratio"]
