"""Overrides are checked before anything starts, and the message says what is valid."""

from __future__ import annotations

from typing import Annotated

import pytest
from adcore.cards import ModelCard
from adcore.config import checked_config, describe_config
from adcore.errors import ConfigError
from adcore.request import _size, choose_model, make_preprocess, parse_data
from adcore.training.plan import Plan
from pydantic import Field


class Model:
    def __init__(
        self,
        ratio: Annotated[float, Field(gt=0, le=1, description="a part")] = 0.1,
        layers: tuple[str, ...] = ("a",),
        count: int | None = None,
        groups: Annotated[tuple[int, ...] | None, Field(description="of layers")] = None,
        either: str | tuple[str, ...] = "x",
    ) -> None:
        pass


CARD = ModelCard("toy", "x:Y", "toy", "Toy", "none", 2020, "toy", config={"ratio": 0.2}, epochs=3, batch_size=5)


def test_card_defaults_lie_over_the_signature_and_overrides_over_both() -> None:
    plain = {"ratio": 0.2, "layers": ("a",), "count": None, "groups": None, "either": "x"}
    assert checked_config(CARD, Model, {}) == plain
    assert checked_config(CARD, Model, {"ratio": "0.5", "layers": ["b", "c"], "count": 3})["layers"] == ("b", "c")


def test_one_value_for_a_tuple_is_a_tuple_of_one() -> None:
    found = checked_config(CARD, Model, {"layers": "stride8", "groups": 3, "either": "y"})
    assert (found["layers"], found["groups"], found["either"]) == (("stride8",), (3,), "y")
    assert checked_config(CARD, Model, {"groups": None})["groups"] is None


def test_an_unknown_key_names_the_valid_ones() -> None:
    with pytest.raises(
        ConfigError, match=r"no setting 'ratoi'; did you mean ratio\? valid ones: count, either, groups, layers, ratio"
    ):
        checked_config(CARD, Model, {"ratoi": 1})


@pytest.mark.parametrize(("key", "value"), [("ratio", 2.0), ("ratio", "much"), ("count", 1.5), ("layers", 3)])
def test_an_ill_typed_value_is_named_on_one_line(key, value) -> None:
    with pytest.raises(ConfigError, match=rf"toy: {key}.*got {value!r}") as caught:
        checked_config(CARD, Model, {key: value})
    assert "\n" not in str(caught.value)


def test_settings_are_described() -> None:
    assert ("ratio", "float", 0.2, "a part") in describe_config(CARD, Model)


def test_the_plan_takes_the_cards_epochs_and_checks_overrides() -> None:
    plan = Plan.for_card(CARD, batch_size=2, learning_rate=None)
    assert (plan.epochs, plan.batch_size, plan.learning_rate) == (3, 2, None)
    with pytest.raises(ConfigError, match="epochs: .*greater than or equal to 1"):
        Plan.for_card(CARD, epochs=0)
    with pytest.raises(ConfigError, match="epoch'; did you mean epochs"):
        Plan.for_card(CARD, epoch=1)


@pytest.mark.parametrize(
    "wrong",
    [
        {"seed": -1}, {"seed": 2**32}, {"seed": 2**80}, {"seed": True}, {"batch_size": 10**30},
        {"epochs": 10**12}, {"epochs": True}, {"max_steps": 10**20}, {"max_steps": "many"}, {"num_workers": 10**6},
        {"learning_rate": True}, {"learning_rate": float("inf")}, {"accumulate": False}, {"accumulate": 10**30},
    ],
)  # fmt: skip
def test_numbers_out_of_range_and_booleans_are_refused_by_name(wrong) -> None:
    [key] = wrong
    with pytest.raises(ConfigError, match=f"training: {key}: input should be ") as caught:
        Plan.for_card(CARD, **wrong)
    assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match="seed: input should be less than or equal to 4294967295"):
        Plan().with_seed(2**32)


def test_a_models_numbers_are_no_booleans_either() -> None:
    with pytest.raises(ConfigError, match="toy: ratio: input should be a number, not true or false"):
        checked_config(CARD, Model, {"ratio": True})


@pytest.mark.parametrize(
    ("given", "size"), [(256, (256, 256)), ("256x320", (256, 320)), ([64, 96], (64, 96)), ("64", (64, 64))]
)
def test_sizes(given, size) -> None:
    assert _size(given, "image_size") == size


@pytest.mark.parametrize(
    "given", ["wide", "1x2x3", 0, [-1, 5], None, True, [64, True], 64.5, 10**9, "100000x64", 1e400]
)
def test_wrong_sizes(given) -> None:
    with pytest.raises(ConfigError, match="image_size"):
        _size(given, "image_size")


def test_normalization_follows_the_backbone_in_use() -> None:
    card = ModelCard("toy", "x:Y", "toy", "Toy", "none", 2020, "toy", config={"backbone": "resnet18"})
    assert make_preprocess(card, {"backbone": "resnet18"}).mean == (0.485, 0.456, 0.406)
    assert make_preprocess(card, {"backbone": "tf_efficientnet_lite0"}).mean == (0.5, 0.5, 0.5)
    assert make_preprocess(card, {}, normalization="none").mean is None
    with pytest.raises(ConfigError, match="valid ones: backbone, imagenet, none"):
        make_preprocess(card, {}, normalization="all")


@pytest.mark.parametrize(
    ("size", "words"),
    [
        (256, "image_size: {} takes images whose sides are multiples of 14, not 256x256; nearest: 252x252 or 266x266"),
        ("28x30", "multiples of 14, not 28x30; nearest: 28x28 or 28x42"),
        (5, "multiples of 14, not 5x5; nearest: 14x14"),
    ],
)
def test_a_size_that_the_model_cannot_take_is_refused_before_an_image_is_read(size, words) -> None:
    name = "dinomaly-small-224"
    with pytest.raises(ConfigError) as caught:
        choose_model(name, {"image_size": size})
    assert words.format(name) in str(caught.value)
    assert choose_model(name, {"image_size": 28}).preprocess.output_size == (28, 28)


def test_the_size_of_another_layer_is_left_to_the_model() -> None:
    assert choose_model("csflow", {"image_size": 64, "layer": "blocks.4"}).preprocess.output_size == (64, 64)
    with pytest.raises(ConfigError, match="multiples of 128"):
        choose_model("csflow", {"image_size": 64})


def test_a_new_size_drops_the_cards_crop() -> None:
    card = ModelCard(
        "toy", "x:Y", "toy", "Toy", "none", 2020, "toy", image_size=448, crop_size=392, normalization="none"
    )
    assert make_preprocess(card, {}).output_size == (392, 392)
    assert make_preprocess(card, {}, image_size=64).output_size == (64, 64)
    with pytest.raises(ConfigError, match="larger than image_size"):
        make_preprocess(card, {}, image_size=64, crop_size=65)


def test_data_specs(tmp_path, monkeypatch) -> None:
    assert parse_data(f"mvtec:{tmp_path}") == ("mvtec", tmp_path)
    with pytest.raises(ConfigError, match="mvtec:PATH"):
        parse_data("mvtec")
    monkeypatch.setenv("ADCORE_DATASET_DIR", str(tmp_path))
    (tmp_path / "mvtec").mkdir()
    assert parse_data("mvtec") == ("mvtec", tmp_path / "mvtec")
