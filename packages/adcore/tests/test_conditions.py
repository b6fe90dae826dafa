"""Conditions: the known forms of the file, the keys its users write, and every mistake at once."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile
from adcore.errors import ConfigError
from adcore.experiments.conditions import check_condition, load_conditions, model_name
from adcore.experiments.reading import RawCondition
from adcore.experiments.record import read_condition, write_condition
from adcore.experiments.session import plan_runs
from adcore.prepared import prepare_run
from adcore.registry import create_model


@pytest.fixture
def root(tmp_path) -> Path:
    for domain in ("domain_A", "domain_B", "domain_C"):
        for folder in ("train/good", "test/good", "test/fault"):
            (tmp_path / "hd" / domain / folder).mkdir(parents=True)
            for i in range(2):
                tifffile.imwrite(tmp_path / "hd" / domain / folder / f"{i}.tiff", np.zeros((31, 95), np.float32))
    return tmp_path / "hd"


def write(root: Path, data: object, name: str = "c.json") -> Path:
    path = root.parent / name
    path.write_text(data if isinstance(data, str) else json.dumps(data), encoding="utf-8")
    return path


def config(root: Path, **more: object) -> dict[str, object]:
    return {"model_type": "padim_resnet18", "dataset_root": str(root), "source_domain": "domain_A", **more}


def test_both_forms_comments_and_yaml_mean_the_same(root) -> None:
    one = write(root, {"experiment_conditions": [{"name": "x", "description": "d", "config": config(root)}]})
    text = f"""{{
      // a comment, with a "quote
      "x": {{"description": "d", /* here too */ "model_type": "padim_resnet18", "dataset_root": "{root}",
             "source_domain": "domain_A",}},
    }}"""
    two = write(root, text, "two.jsonc")
    three = write(
        root,
        f"x:\n  description: d\n  model_type: padim_resnet18\n  dataset_root: {root}\n  source_domain: domain_A\n",
        "c.yaml",
    )
    first, second, third = (load_conditions(path) for path in (one, two, three))
    assert first == second == third
    assert [(c.name, c.description, c.choice.card.name, c.mode) for c in first] == [
        ("x", "d", "padim-resnet18", "single")
    ]


def test_a_url_in_a_string_is_no_comment(root) -> None:
    path = write(root, {"x": {"description": "see https://example.org/* */,}", "config": config(root)}})
    assert load_conditions(path)[0].description == "see https://example.org/* */,}"


def test_the_keys_that_users_write_reach_the_settings(root) -> None:
    keys = {
        "max_epochs": 7, "max_steps": 30, "early_stopping_patience": 3, "learning_rate": 0.01, "optimizer": "adamw",
        "weight_decay": 0.1, "scheduler": {"type": "cosine", "T_max": 7}, "batch_size": 4, "target_size": [64, 96],
        "resize_method": "keep_aspect", "num_workers": 1, "seed": 5, "val_split_mode": "from_test",
        "val_split_ratio": 0.5, "weights": "random", "layers": ["layer1"],
    }  # fmt: skip
    condition = load_conditions(write(root, {"x": config(root, model_type="stfpm-resnet18", **keys)}))[0]
    plan, preprocess = condition.choice.plan, condition.choice.preprocess
    assert (plan.epochs, plan.max_steps, plan.patience, plan.learning_rate, plan.seed) == (7, 30, 3, 0.01, 5)
    assert (plan.optimizer, plan.weight_decay, plan.batch_size, plan.num_workers) == ("adamw", 0.1, 4, 1)
    assert (preprocess.size, preprocess.resize) == ((64, 96), "keep-aspect")
    assert condition.choice.config["layers"] == ("layer1",)
    assert (condition.data().val_split, condition.data().val_ratio) == ("from_test", 0.5)


def test_auto_targets_are_all_other_domains_and_the_source_validates(root) -> None:
    condition = load_conditions(write(root, {"x": config(root, target_domains="auto")}))[0]
    assert (condition.mode, condition.targets) == ("multi", ("domain_B", "domain_C"))
    assert condition.data().val_split == "test"
    everything = load_conditions(write(root, {"x": config(root, source_domain="all")}))[0]
    assert everything.mode == "all"


def test_base_and_grid_give_the_cross_product(root) -> None:
    data = {
        "base": {"dataset_root": str(root), "batch_size": 3},
        "grid": {"model_type": ["padim-resnet18", "stfpm"], "source_domain": ["domain_A", "domain_B"], "seed": [1, 2]},
    }
    conditions = load_conditions(write(root, data))
    assert len(conditions) == 8
    assert len({condition.name for condition in conditions}) == 4
    assert {condition.choice.plan.batch_size for condition in conditions} == {3}
    assert [c.seed for c in plan_runs(conditions[:1], [], 3)] == [1, 2, 3]
    assert [c.seed for c in plan_runs(conditions[::2], [7, 9])] == [7, 9] * 4
    with pytest.raises(ConfigError, match="twice with seed 7"):
        plan_runs(conditions[:2], [7])


@pytest.mark.parametrize(
    ("written", "card"),
    [("draem_sevnet", "draem-sevnet"), ("efficient_ad", "efficientad-medium"), ("PaDiM_ResNet18", "padim-resnet18")],
)
def test_underscored_model_names(written, card) -> None:
    assert model_name(written) == card


def test_five_mistakes_are_five_messages_with_condition_and_key(root, run_cli) -> None:
    data = {
        "wrong-key": config(root, bach_size=3),
        "wrong-type": config(root, batch_size="many"),
        "wrong-model": config(root, model_type="padimm"),
        "wrong-domain": config(root, target_domains=["domain_Z"], val_split_ratio=2),
        "right": config(root),
    }
    path = write(root, data)
    code, _, err = run_cli("run", path, "--out", root.parent / "results")
    assert code == 2
    lines = [line for line in err.splitlines() if str(path) in line]
    expected = [
        ("wrong-key", "bach_size"), ("wrong-type", "batch_size"), ("wrong-model", "model_type"),
        ("wrong-domain", "val_split_ratio"), ("wrong-domain", "target_domains"),
    ]  # fmt: skip
    assert len(lines) == 5
    for line, (name, key) in zip(lines, expected, strict=True):
        assert f"condition '{name}': {key}: " in line
    assert not (root.parent / "results").exists()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"optimizer": "adagrid"}, "optimizer: unknown optimizer"),
        ({"scheduler": {"type": "stairs"}}, "scheduler: unknown scheduler type"),
        ({"resize_method": "stretch"}, "resize_method: unknown resize"),
        ({"model_type": "stfpm-resnet18", "early_stopping_patience": 3}, "early_stopping_patience: .*val_split_mode"),
        ({"target_domains": ["domain_A"]}, "is the source"),
        ({"target_domains": "auto", "val_split_mode": "from_train"}, "source's test set validates"),
        ({"max_epochs": 3, "epochs": 4}, "epochs stands beside max_epochs"),
        ({"dataset": "hdmapp"}, "dataset: unknown dataset"),
        ({"dataset_root": "/nowhere"}, "dataset_root: "),
        ({"devices": 3}, "devices: 2 training images are too few for 3 processes"),
        ({"devices": 0}, "devices: input should be greater than or equal to 1"),
        ({"devices": 2, "model_type": "efficientad-small"}, "devices: efficientad-small needs all images of a batch"),
    ],
)
def test_what_would_fail_later_is_found_before(root, more, message) -> None:
    with pytest.raises(ConfigError, match=message):
        load_conditions(write(root, {"x": config(root, **more)}))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"x": {}, "x": {}}', "'x' is given twice"),
        ("[1]", "expected"),
        ('{"x": ', "not valid JSON"),
        ("{}", "no condition"),
        ('{"x": {"config": {}, "confg": 1}}', "confg"),
        ('{"grid": {"seed": 3}}', "must be a list"),
    ],
)
def test_a_file_of_another_form_is_refused_with_its_name(root, text, message) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        load_conditions(write(root, text))
    assert "c.json" in str(caught.value)


def test_equal_names_with_equal_seeds_are_refused(root) -> None:
    data = {"experiment_conditions": [{"name": "x", "config": config(root)}] * 2}
    with pytest.raises(ConfigError, match="used twice"):
        load_conditions(write(root, data))


BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{name}: &{name} [{','.join([f'*{before}'] * 9)}]\n" for before, name in zip("abcdefg", "bcdefgh", strict=True)
)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("deep.json", "[" * 100_000, "nested too deeply"),
        ("deep.yaml", "[" * 5_000, "nested too deeply"),
        ("nested.json", '{"a":' * 30 + "1" + "}" * 30, "nested more than 20 levels deep"),
        ("bomb.yaml", BOMB, "more than 100000 values"),
        ("cycle.yaml", "a: &a [*a]", "nested more than 20 levels deep"),
        ("twice.yaml", "x: {seed: 1}\nx: {seed: 2}", "'x' is given twice"),
        ("nan.json", '{"x": {"learning_rate": NaN}}', "nan is not a finite number"),
        ("inf.yaml", "x: {learning_rate: .inf}", "inf is not a finite number"),
        ("long.json", '{"x": {"seed": ' + "9" * 5_000 + "}}", "not valid JSON"),
        ("large.json", '{"x": {"seed": ' + "9" * 50 + "}}", "more than 63 bits"),
        ("date.yaml", "x: {seed: 2020-01-01}", "put it into quotes"),
        ("number.yaml", "1: {seed: 1}", "the key 1 must be text"),
        ("nul.json", '{"x": {"dataset_root": "a\\u0000b"}}', "not text"),
        ("surrogate.json", '{"x\\ud800": {}}', "not text"),
        ("open.json", "{" + "/*" * 200_000, "not valid JSON"),
        ("grid.json", json.dumps({"grid": {letter: [1, 2, 3] for letter in "abcdefghijkl"}}), "531441 combinations"),
        ("huge.json", " " * 2**23, "larger than 4 MB"),
    ],
)
def test_hostile_files_are_one_line_that_names_the_file(tmp_path, name, text, words) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_conditions(tmp_path / name)
    assert words in str(caught.value)
    assert str(tmp_path / name) in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_a_condition_goes_to_its_process_as_it_was_checked(root, tmp_path, monkeypatch) -> None:
    settings = config(root, image_size="32x64", target_domains="auto", layers=["layer1"], weights="random")
    (condition,) = load_conditions(write(root, {"x": settings}))
    write_condition(tmp_path / "run", condition)
    written = json.loads((tmp_path / "run" / "condition.json").read_text())
    assert written["config"]["image_size"] == "32x64"  # as people wrote it
    assert written["checked"]["targets"] == ["domain_B", "domain_C"]
    monkeypatch.setattr("adcore.experiments.conditions.check_condition", None)
    read = read_condition(tmp_path / "run")
    assert (read.choice.plan, read.choice.preprocess) == (condition.choice.plan, condition.choice.preprocess)
    assert (read.config, read.targets, read.mode) == (condition.config, condition.targets, "multi")
    assert read.data() == condition.data()
    assert create_model(read.choice.card.name, **read.choice.config).config["layers"] == ("layer1",)


@pytest.mark.parametrize("text", ["", "[]", '{"name": "x", "config": {}}', '{"checked": {"model": 3}}', "[" * 10_000])
def test_a_damaged_condition_of_a_session_is_one_line(tmp_path, text) -> None:
    (tmp_path / "condition.json").write_text(text)
    with pytest.raises(ConfigError, match="condition.json is not what adcore writes") as caught:
        read_condition(tmp_path)
    assert len(str(caught.value).splitlines()) == 1


def test_one_wrong_setting_of_training_does_not_hide_the_others(root) -> None:
    with pytest.raises(ConfigError) as caught:
        load_conditions(write(root, {"x": config(root, max_steps=["many"], image_size=0)}))
    assert {line.split(": ")[2] for line in str(caught.value).splitlines()[1:]} == {"max_steps", "image_size"}


@pytest.mark.parametrize("folder", ["a" * 5_000, "~nobody-of-this-name/data"])
def test_a_folder_that_no_file_system_has_is_named(root, folder) -> None:
    with pytest.raises(ConfigError, match="dataset_root"):
        load_conditions(write(root, {"x": config(root, dataset_root=folder)}))


def test_a_key_with_the_name_of_a_python_parameter_is_a_mistake_like_any_other() -> None:
    config = {"model_type": ["32x64"], "cls": 1, "source_domain": "part", "dataset_root": "."}
    condition, mistakes = check_condition(RawCondition("odd", config, ""))
    assert condition is None
    assert any(text.startswith("model_type: ") for text in mistakes)


def settled(root: Path, **more: object):
    """The plan that the run of a condition makes, and the notes that its result will have."""
    (condition,) = load_conditions(write(root, {"x": config(root, **more)}))
    run = prepare_run(condition.choice, condition.data())
    return run.choice.plan, run.notes


TRAINED = {"model_type": "stfpm-resnet18", "weights": "random", "early_stopping_patience": 2}


@pytest.mark.parametrize(
    ("more", "watched"),
    [
        ({"val_split_mode": "from_train"}, "val_loss"),
        ({"val_split_ratio": 0.5}, "val_loss"),  # a ratio alone is of the training images
        ({"val_split_mode": "from_test"}, "val_image_auroc"),
        ({"val_split_mode": "from_test", "monitor": "val_loss"}, "val_loss"),
        ({"target_domains": "auto"}, "val_image_auroc"),
        ({"target_domains": "auto", "val_split_ratio": 0.1}, "val_image_auroc"),
        ({"source_domain": "all", "val_split_mode": "from_test"}, "val_image_auroc"),
        ({"source_domain": "all", "val_split_ratio": 0.1}, "val_loss"),
    ],
)
def test_patience_watches_what_the_validation_images_allow(root, more, watched) -> None:
    plan, notes = settled(root, **TRAINED, **more)
    assert (plan.monitor, plan.patience, notes) == (watched, 2, [])


def test_a_source_whose_test_images_are_all_normal_is_watched_by_its_loss(root) -> None:
    for file in (root / "domain_A" / "test" / "fault").iterdir():
        file.unlink()
    assert settled(root, **TRAINED, target_domains="auto")[0].monitor == "val_loss"


def test_one_pass_models_leave_out_what_they_share_a_base_for_and_say_so(root) -> None:
    shared = {"max_epochs": 9, "early_stopping_patience": 2, "learning_rate": 0.1, "optimizer": "adamw"}
    plan, notes = settled(root, target_domains="auto", weights="random", **shared)
    assert (plan.epochs, plan.patience, plan.monitor, plan.learning_rate, plan.optimizer) == (1, None, None, None, None)
    assert notes == ["padim-resnet18 learns in one pass and does not use epochs, patience, learning_rate, optimizer"]
    assert settled(root, max_epochs=1, weights="random")[1] == []


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({**TRAINED, "monitor": "val_image_auroc", "val_split_mode": "from_train"}, "monitor: .*normal and anomalous"),
        ({"model_type": "stfpm-resnet18", "target": 0.9, "val_split_mode": "from_train"}, "target: .*normal and anom"),
        ({**TRAINED, "monitor": "val_loss"}, "monitor: .*needs validation images"),
        ({**TRAINED, "layers": ["layer9"], "val_split_ratio": 0.5}, "config: .*layer9"),
        ({"model_type": "supersimplenet-supervised", "weights": "random"}, "dataset_root: .*labelled anomalies"),
    ],
)
def test_the_check_makes_what_the_run_makes(root, more, message) -> None:
    with pytest.raises(ConfigError, match=message):
        settled(root, **more)


def test_too_few_images_to_split_are_found_before(root) -> None:
    (root / "domain_A" / "train" / "good" / "1.tiff").unlink()
    with pytest.raises(ConfigError, match="val_split_mode: cannot take validation images from 1 train images"):
        load_conditions(write(root, {"x": config(root, val_split_ratio=0.1)}))


def test_missing_weights_are_a_note_of_a_dry_run_and_stop_a_real_one(root, run_cli) -> None:
    path = write(root, {"x": config(root), "y": config(root, weights="random")})
    code, out, err = run_cli("run", path, "--dry-run")
    assert code == 0
    assert "note: condition 'x': no weights for backbone 'resnet18'" in err
    assert "'y'" not in err
    assert "2 runs" in out
    code, _, err = run_cli("run", path, "--out", root.parent / "results")
    assert code == 2
    assert "nothing was started" in err
    assert not (root.parent / "results").exists()


def test_a_model_that_learns_nothing_needs_no_training_images(root) -> None:
    for folder in root.glob("*/train"):
        shutil.rmtree(folder)
    musc = {"model_type": "musc-efficientnet-lite0", "weights": "random"}
    condition = load_conditions(write(root, {"x": config(root, target_domains="auto", **musc)}))[0]
    assert condition.targets == ("domain_B", "domain_C")
    with pytest.raises(ConfigError, match="shots: shots=1: musc-efficientnet-lite0 does not learn"):
        load_conditions(write(root, {"x": config(root, shots=1, **musc)}))
    with pytest.raises(ConfigError, match="dataset_root"):
        load_conditions(write(root, {"x": config(root)}))
