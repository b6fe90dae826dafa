"""Models whose images score one another, as users meet them: no training images, folders alone, results that say so."""

import json

import adcore
import pytest
from adcore.errors import DataError
from adcore.experiments.conditions import load_conditions
from adcore.experiments.domains import run_condition
from adcore.inference import predictor
from adcore.testing import write_tiny_mvtec


def test_a_folder_without_training_images_is_scored_and_the_result_says_how(tmp_path, run_cli):
    write_tiny_mvtec(tmp_path / "data", train=0, normal=6, anomalous=1)
    data, options = f"mvtec:{tmp_path / 'data'}", {"weights": "random", "image_size": 64}
    run = adcore.train(data, "part", "musc-efficientnet-lite0", out=tmp_path / "run", **options)
    assert run.summary["protocol"] == "transductive"
    assert run.summary["pool"]["images"] == 7
    assert run.summary["counts"] == {"test": {"normal": 6, "anomalous": 1}}
    assert run.metrics["image_auroc"] == 1.0  # the one that has no like
    again = adcore.evaluate(run.artifact, data, "part", out=tmp_path / "again")
    assert again.summary["pool"] == run.summary["pool"]
    assert [row["score"] for row in again.predictions] == [row["score"] for row in run.predictions]
    code, out, err = run_cli("predict", run.artifact, tmp_path / "data/part/test", "--json")
    assert code == 0, err
    assert {round(row["score"], 5) for row in json.loads(out)["predictions"]} == {
        round(row["score"], 5) for row in run.predictions
    }
    one = tmp_path / "data/part/test/spot/006.png"
    for arguments in (
        ("predict", run.artifact, one),
        ("predict", run.artifact, one.parent, "--resume", "--out", tmp_path / "p"),
    ):
        code, _, err = run_cli(*arguments)
        assert code == 2
        assert len(err.strip().splitlines()) == 1, err
    assert not (tmp_path / "p").exists()
    with pytest.raises(DataError, match="no score for one alone"):
        adcore.load(run.artifact).predict(one)


def test_a_folder_is_scored_without_a_model_file(tmp_path, run_cli, monkeypatch):
    photos = write_tiny_mvtec(tmp_path / "data", train=0, normal=5, anomalous=1) / "part/test"
    load = predictor.choose_model
    small = {"weights": "random", "image_size": 64}  # stands for the weights that a user has
    monkeypatch.setattr(predictor, "choose_model", lambda name, overrides: load(name, small))
    code, out, err = run_cli("predict", "musc-efficientnet-lite0", photos, "--json", "--out", tmp_path / "scored")
    assert code == 0, err
    said = json.loads(out)
    rows = said["predictions"]
    assert max(rows, key=lambda row: row["score"])["path"].endswith("spot/005.png")
    assert {row["predicted"] for row in rows} == {None}  # nothing to choose a threshold on
    assert (said["protocol"], said["pool"]["images"]) == ("transductive", 6)
    stored = json.loads((tmp_path / "scored/protocol.json").read_text())
    assert stored == {"protocol": said["protocol"], "pool": said["pool"]}
    code, _, err = run_cli("predict", "patchcore", photos)
    assert (code, "does not exist" in err) == (2, True), "a model that has to be trained is a file"


def test_a_dataset_of_test_images_alone_needs_no_category_and_no_shots(tmp_path, run_cli):
    data = f"mvtec:{write_tiny_mvtec(tmp_path / 'data', train=0, normal=3, anomalous=1)}"
    settings = ("--set", "weights=random", "--set", "image_size=64", "--out", tmp_path / "run")
    code, _, err = run_cli("train", "musc-efficientnet-lite0", "--data", data, "--shots", "4", *settings)
    assert (code, "shots=4: musc-efficientnet-lite0 does not learn" in err) == (2, True)
    assert run_cli("train", "musc-efficientnet-lite0", "--data", data, *settings)[0] == 0
    assert (
        run_cli("evaluate", tmp_path / "run", "--data", data, "--category", "all", "--out", tmp_path / "again")[0] == 0
    )


def test_a_bad_file_is_left_out_and_named(tmp_path):
    data = write_tiny_mvtec(tmp_path / "data", train=0, normal=4, anomalous=3)
    (data / "part/test/good/001.png").write_bytes(b"nothing")
    options = {"weights": "random", "image_size": 64, "out": tmp_path / "run"}
    with pytest.raises(DataError, match=r"001\.png"):
        adcore.train(f"mvtec:{data}", "part", "musc-efficientnet-lite0", **options)
    run = adcore.train(f"mvtec:{data}", "part", "musc-efficientnet-lite0", skip_bad=True, **options)
    assert run.summary["pool"]["images"] == 6
    assert [one["path"].endswith("001.png") for one in run.summary["skipped"]] == [True]


def test_the_result_names_the_images_of_each_target_domain(tmp_path):
    for number, name in enumerate(("here", "there")):
        write_tiny_mvtec(tmp_path / "data", name, train=1, normal=3 + number, anomalous=1)
    config = {"model_type": "musc-efficientnet-lite0", "dataset": "mvtec", "dataset_root": str(tmp_path / "data")}
    config |= {"source_domain": "here", "target_domains": ["there"], "weights": "random", "image_size": 64}
    (tmp_path / "conditions.json").write_text(json.dumps({"one": config | {"tensorboard": False}}))
    (condition,) = load_conditions(tmp_path / "conditions.json")
    result = run_condition(condition, tmp_path / "run", "cpu").summary
    assert result["target_pools"]["there"]["images"] == 5
    assert result["target_pools"]["there"]["sha256"] != result["pool"]["sha256"]
