"""Keys and calls of other frameworks: each ends in the right setting, or in one line that names it."""

from __future__ import annotations

import json
from typing import Any

import adcore
import pytest
import torch
from adcore.errors import ConfigError
from adcore.experiments.conditions import check_condition, load_conditions
from adcore.experiments.reading import RawCondition
from adcore.request import ModelChoice, choose_model
from adcore.settings import set_globals, settings
from adcore.spellings import CONVERTED, LEFT_OUT, RENAMED, known_spellings
from adcore.testing import write_tiny_mvtec

REGISTERS = "vit_base_patch14_reg4_dinov2"
CASES: list[tuple[str, dict[str, Any], dict[str, Any]]] = [  # model, what is written, what it ends in
    (
        "draem",
        {"max_epochs": 5, "learning_rate": 1e-4, "batch_size": 16},
        {"epochs": 5, "learning_rate": 1e-4, "batch_size": 16},
    ),
    ("stfpm", {"num_epochs": 50}, {"epochs": 50}),
    (
        "stfpm",
        {"lr": 0.3, "optimizer": "sgd", "momentum": 0.5},
        {"learning_rate": 0.3, "optimizer": {"type": "sgd", "momentum": 0.5}},
    ),
    ("draem_sevnet", {"optimizer": "adamw", "weight_decay": 1e-4}, {"optimizer": "adamw", "weight_decay": 1e-4}),
    ("draem_sevnet", {"early_stopping_patience": 10}, {"patience": 10}),
    ("draem_sevnet", {"score_combination": "weighted_average"}, {"score_combination": "weighted_average"}),
    ("draem_sevnet", {"severity_loss_type": "smooth_l1"}, {"severity_loss": "smooth_l1"}),
    ("draem_sevnet", {"severity_head_pooling_type": "spatial_aware"}, {"severity_head": "spatial_aware"}),
    ("dinomaly", {"encoder_name": "dinov2reg_vit_base_14"}, {"backbone": "dinov2reg_vit_base_14"}),
    ("dinomaly", {"target_layers": [2, 3, 4, 5, 6, 7, 8, 9]}, {"target_layers": (2, 3, 4, 5, 6, 7, 8, 9)}),
    ("dinomaly", {"gradient_clip_val": 0.1}, {"clip_norm": 0.1}),
    ("patchcore", {"coreset_sampling_ratio": 0.15, "num_neighbors": 12}, {"coreset_ratio": 0.15, "num_neighbors": 12}),
    ("patchcore", {"backbone": "wide_resnet50_2", "layers": ["layer2", "layer3"]}, {"backbone": "wide_resnet50_2"}),
    ("padim", {"backbone": "resnet18", "pre_trained": True}, {"backbone": "resnet18", "weights": "pretrained"}),
    ("padim", {"pre_trained": False}, {"weights": "random"}),
    ("reverse_distillation", {"anomaly_map_mode": "multiply"}, {"anomaly_map": "multiply"}),
    ("draem", {"anomaly_source_path": None}, {"textures": None}),
    ("draem", {"anomaly_source_path": "dtd"}, {"textures": "dtd"}),
    ("efficientad-small", {"normalize": False}, {"normalization": None}),
    ("stfpm", {"normalize": False}, {"normalization": None}),
    ("stfpm", {"img_size": 512, "batch_size": 32}, {"image_size": (512, 512), "batch_size": 32}),
    (
        "stfpm",
        {"target_size": [64, 96], "resize_method": "black_padding"},
        {"image_size": (64, 96), "resize": "black-padding"},
    ),
    ("stfpm", {"num_workers": 8}, {"num_workers": 8}),
    ("stfpm", {"monitor": "val_image_AUROC"}, {"monitor": "val_image_auroc"}),
]


def ending(choice: ModelChoice, key: str) -> Any:
    """The value of a setting, wherever it belongs."""
    preprocess = choice.preprocess
    found = {"image_size": preprocess.size, "resize": preprocess.resize, "normalization": preprocess.mean}
    return {**choice.plan.model_dump(), **choice.config, **found}[key]


@pytest.mark.parametrize(("model", "written", "ends_in"), CASES)
def test_a_key_ends_in_its_setting_in_python_and_in_a_condition(model, written, ends_in, tmp_path) -> None:
    write_tiny_mvtec(tmp_path, "part")
    base = {"dataset": "mvtec", "dataset_root": str(tmp_path), "source_domain": "part", "model_type": model}
    extra = {"val_split_mode": "from_test"} if {"early_stopping_patience", "monitor"} & set(written) else {}
    if written.get("anomaly_source_path"):
        (tmp_path / "dtd").mkdir()
        written = {"anomaly_source_path": str(tmp_path / "dtd")}
        ends_in = {"textures": str(tmp_path / "dtd")}
    if model.startswith("efficientad"):
        written = {**written, "teacher": "random"}
    condition, mistakes = check_condition(RawCondition("x", {**base, **extra, **written}))
    in_python = choose_model(model.replace("_", "-"), written)
    for key, value in ends_in.items():
        assert ending(in_python, key) == value
        if key not in ("textures",):
            assert mistakes == []
            assert ending(condition.choice, key) == value


@pytest.mark.parametrize("key", LEFT_OUT)
def test_a_key_without_a_meaning_is_one_line_with_what_to_do(key) -> None:
    with pytest.raises(ConfigError, match=f"{key} is not a setting; (use|leave it out)") as caught:
        choose_model("stfpm", {key: 1})
    assert "\n" not in str(caught.value)


def test_momentum_without_its_optimizer_names_how_to_write_it() -> None:
    with pytest.raises(ConfigError, match=r'write optimizer=\{"type": "sgd", "momentum": 0.9\}'):
        choose_model("reverse-distillation", {"lr": 0.005, "momentum": 0.9})


def test_two_names_of_one_setting_are_refused() -> None:
    with pytest.raises(ConfigError, match="img_size stands beside image_size, which means the same"):
        choose_model("stfpm", {"image_size": 64, "img_size": 64})


def test_no_other_name_hides_a_setting_of_a_model() -> None:
    from adcore.config import config_fields
    from adcore.registry import list_models, model_class
    from adcore.request import PLAN_KEYS, PREPROCESS_KEYS

    for card in list_models():
        own = {*config_fields(model_class(card)), *PLAN_KEYS, *PREPROCESS_KEYS}
        assert set(card.spellings.values()) <= own, card.name
        assert not set(known_spellings(card)) & own, card.name
        assert not {*LEFT_OUT, *CONVERTED} & own, card.name
    assert not set(RENAMED) & {*LEFT_OUT, *CONVERTED}


def test_an_optimizer_with_options_is_the_one_that_trains() -> None:
    plan = choose_model("stfpm", {"optimizer": {"type": "SGD", "momentum": 0.25, "nesterov": True}}).plan
    built = plan.optimization(
        [torch.nn.Parameter(torch.zeros(1))], "adam", learning_rate=0.1, betas=(0.5, 0.9)
    ).optimizer
    assert type(built) is torch.optim.SGD
    assert (built.defaults["momentum"], built.defaults["nesterov"], built.defaults["lr"]) == (0.25, True, 0.1)
    for wrong in ({"momentum": 0.9}, {"type": "sgd", "momemtum": 0.9}, {"type": 3}):
        with pytest.raises(ConfigError, match="optimizer"):
            choose_model("stfpm", {"optimizer": wrong})


def test_the_root_of_the_data_comes_from_the_settings_or_the_command_line(tmp_path, monkeypatch) -> None:
    write_tiny_mvtec(tmp_path / "data" / "mvtec", "part")
    path = tmp_path / "conditions.json"
    entry = {"dataset": "mvtec", "source_domain": "part", "model_type": "padim-resnet18", "weights": "random"}
    path.write_text(json.dumps({"x": entry}))
    with pytest.raises(
        ConfigError, match="dataset_root: missing; give it here, with --data NAME:ROOT, or set dataset_dir"
    ):
        load_conditions(path)
    monkeypatch.setenv("ADCORE_DATASET_DIR", str(tmp_path / "data"))
    assert load_conditions(path)[0].config.dataset_root == tmp_path / "data" / "mvtec"
    monkeypatch.delenv("ADCORE_DATASET_DIR")
    assert (
        load_conditions(path, f"mvtec:{tmp_path / 'data' / 'mvtec'}")[0].config.dataset_root
        == tmp_path / "data" / "mvtec"
    )
    (tmp_path / "adcore.toml").write_text('dataset_dir = "data"\n')
    monkeypatch.chdir(tmp_path)
    assert load_conditions(path)[0].config.dataset_root == tmp_path / "data" / "mvtec"


def test_globals_for_reading_reach_the_loader_and_are_shown(capsys) -> None:
    set_globals(num_workers=2, pin_memory=True, persistent_workers=True, seed=7, show_globals=True)
    shown = capsys.readouterr().out
    assert {"num_workers = 2", "pin_memory = True", "persistent_workers = True"} <= set(shown.splitlines())
    assert settings().pin_memory
    assert (choose_model("stfpm", {}).plan.num_workers, choose_model("stfpm", {}).plan.seed) == (2, 7)
    assert choose_model("stfpm", {"num_workers": 0}).plan.num_workers == 0


def test_all_is_one_model_for_each_category_and_pooled_one_for_all(tmp_path, run_cli) -> None:
    for name in ("bottle", "wood"):
        write_tiny_mvtec(tmp_path / "data", name)
    fast = {"weights": "random", "img_size": 32, "n_features": 8}
    data = f"mvtec:{tmp_path / 'data'}"
    runs = adcore.train(data, "all", "padim-resnet18", out=tmp_path / "python", **fast)
    assert [run.summary["category"] for run in runs] == ["bottle", "wood"]
    runs = adcore.train_models(
        dataset_type=data, categories=["bottle", "wood"], models=["padim-resnet18"], out=tmp_path / "two", **fast
    )
    assert [run.summary["category"] for run in runs] == ["bottle", "wood"]
    pooled = adcore.train(data, None, "padim-resnet18", pooled=True, out=tmp_path / "pooled", **fast)
    assert pooled.summary["counts"]["train"]["normal"] == 12
    options = [
        "padim-resnet18",
        "--data",
        data,
        "--set",
        "weights=random",
        "--set",
        "img_size=32",
        "--set",
        "n_features=8",
    ]
    code, out, err = run_cli("train", *options, "--category", "all", "--out", tmp_path / "each")
    assert code == 0, err
    assert "padim-resnet18 on mvtec bottle" in out
    assert sorted(path.name for path in (tmp_path / "each").iterdir()) == [
        "padim-resnet18_mvtec_bottle",
        "padim-resnet18_mvtec_wood",
    ]
    code, out, err = run_cli("train", *options, "--pooled", "--out", tmp_path / "one", "--json")
    assert code == 0, err
    assert json.loads(out)["category"] == "all"
    model = tmp_path / "one" / "model.safetensors"
    code, out, err = run_cli(
        "evaluate", model, "--data", data, "--category", "all", "--out", tmp_path / "eval", "--json"
    )
    assert code == 0, err
    assert [run["category"] for run in json.loads(out)] == ["bottle", "wood"]
    assert run_cli("train", *options, "--pooled", "--category", "wood", "--out", tmp_path / "no")[0] == 2
