"""Random conditions over every method: what passes the check runs to its end.

The quick part draws a few; `pytest -m slow tests/test_random_conditions.py` draws 300.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from adcore.cards import load_target
from adcore.config import config_fields
from adcore.experiments.conditions import check_condition
from adcore.experiments.domains import run_condition
from adcore.experiments.reading import RawCondition
from adcore.experiments.record import read_condition, write_condition
from adcore.registry import model_card
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

LITE0 = "efficientnet-lite0"
ENCODER = {"backbone": "dinov2_vit_small_14", "target_layers": [0, 1], "decoder_depth": 2}
ENCODER |= {"encoder_groups": [[0], [1]], "decoder_groups": [[0], [1]], "image_size": [28, 42]}
WIDTHS = {"reconstructive_width": 4, "discriminative_width": 4}
METHODS: dict[str, dict[str, Any]] = {  # every method once, as small as it can be
    f"padim-{LITE0}": {"n_features": 8},
    f"patchcore-{LITE0}": {},
    f"dfkde-{LITE0}": {},
    f"dfm-{LITE0}": {},
    f"cfa-{LITE0}": {},
    f"cflow-{LITE0}": {"coupling_blocks": 1, "condition_channels": 8},
    f"fastflow-{LITE0}": {"flow_steps": 1},
    f"csflow-{LITE0}": {"cross_conv_channels": 16, "coupling_blocks": 1, "image_size": [64, 128]},
    f"uflow-{LITE0}": {"flow_steps": 1},
    f"stfpm-{LITE0}": {},
    f"fre-{LITE0}": {"latent": 8},
    f"reverse-distillation-{LITE0}": {},
    "efficientad-small": {"teacher": "random", "image_size": 256},
    "autoencoder": {"width": 4},
    "ganomaly": {"levels": 2, "n_features": 4, "latent": 8},
    "draem": WIDTHS,
    "draem-sevnet": WIDTHS,
    "dsr": {"embedding_dim": 4, "num_embeddings": 16},
    "dinomaly-small-224": ENCODER,
    "dinomaly-gem": {**ENCODER, "crop_size": "none"},
    "dinomaly-focal": ENCODER,
    "dinomaly-aux": ENCODER,
    "dinomaly-scale": ENCODER,
    f"supersimplenet-{LITE0}": {},
    f"uninet-{LITE0}": {},
}
COUNTS = {  # images of a domain: to train on, normal and faulty ones to test on
    "usual": {"cold": (5, 3, 3), "warm": (4, 2, 2), "hot": (3, 2, 3)},
    "few": {"cold": (1, 1, 1), "warm": (2, 1, 2), "hot": (2, 2, 0)},
    "normal": {"cold": (4, 3, 0), "warm": (3, 2, 0), "hot": (2, 0, 2)},
}


def random_conditions() -> st.SearchStrategy[dict[str, Any]]:
    """The keys of a condition, about half of them present."""
    choices = {
        "target_domains": st.sampled_from(["auto", ["warm"]]),
        "val_split_mode": st.sampled_from(["none", "from_train", "from_test"]),
        "val_split_ratio": st.sampled_from([0.1, 0.3, 0.5]),
        "early_stopping_patience": st.integers(1, 2),
        "monitor": st.sampled_from(["val_loss", "val_image_auroc"]),
        "max_epochs": st.integers(1, 2),
        "max_steps": st.integers(1, 3),
        "validate_every_steps": st.integers(1, 2),
        "accumulate": st.just(2),
        "learning_rate": st.just(1e-4),
        "threshold": st.sampled_from(["f1_percentile", "f1_grid", "youden", "normal_p95"]),
    }
    always = {
        "model_type": st.sampled_from(sorted(METHODS)),
        "data": st.sampled_from(sorted(COUNTS)),
        "source_domain": st.sampled_from(["cold", "hot", "all"]),
        "batch_size": st.integers(1, 3),
        "seed": st.integers(0, 9),
    }
    return st.fixed_dictionaries(always, optional=choices)


@pytest.fixture(scope="module")
def roots(tmp_path_factory) -> Path:
    """The folders of COUNTS."""
    rng, folder = np.random.default_rng(0), tmp_path_factory.mktemp("data")
    for name, domains in COUNTS.items():
        for domain, counts in domains.items():
            for part, count in zip(("train/good", "test/good", "test/fault"), counts, strict=True):
                (folder / name / domain / part).mkdir(parents=True)
                for number in range(count):
                    values = rng.random((31, 95), np.float32) + ("fault" in part)
                    tifffile.imwrite(folder / name / domain / part / f"{number}.tiff", values)
    return folder


def check_and_run(roots: Path, folder: Path, drawn: dict[str, Any]) -> str:
    """Run what passes the check; the folder is empty afterwards. Says what became of it."""
    name = drawn["model_type"]
    fields = config_fields(load_target(model_card(name).target))
    weights = {"weights": "random"} if "weights" in fields else {}
    config = {"image_size": [32, 96], "epochs": 1, **weights, **METHODS[name], **drawn}
    config["dataset_root"] = str(roots / config.pop("data"))
    if "max_epochs" in config:
        del config["epochs"]
    condition, mistakes = check_condition(RawCondition("drawn", config))
    assert (condition is None) == bool(mistakes)
    if condition is None:
        return "refused"
    assert not condition.missing
    try:
        write_condition(folder / "run", condition)
        run_condition(read_condition(folder / "run"), folder / "run", "cpu")
        result = json.loads((folder / "run" / "result.json").read_text())
    finally:
        shutil.rmtree(folder / "run")
    unused = config.keys() & {"early_stopping_patience", "monitor", "learning_rate", "accumulate"}
    if model_card(name).training == "one-pass" and unused:
        assert "learns in one pass and does not use" in result["notes"][0]
    return result["plan"]["monitor"] or "nothing watched"


few = settings(max_examples=10, suppress_health_check=list(HealthCheck))
many = settings(max_examples=300, suppress_health_check=list(HealthCheck))


@few
@given(drawn=random_conditions())
def test_what_passes_the_check_runs(roots, tmp_path_factory, drawn) -> None:
    check_and_run(roots, tmp_path_factory.mktemp("few"), drawn)


@pytest.mark.slow
@many
@given(drawn=random_conditions())
def test_300_conditions_that_pass_the_check_run(roots, tmp_path_factory, drawn) -> None:
    check_and_run(roots, tmp_path_factory.mktemp("many"), drawn)
