"""Training and evaluation from Python."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from adcore import pipeline
from adcore.cards import card_for
from adcore.errors import ConfigError
from adcore.files import portable_path
from adcore.model import AnomalyModel
from adcore.registry import register
from adcore.request import ALL, DataChoice, choose_categories, choose_model, parse_data, validation_split
from adcore.run_results import RunResult
from adcore.settings import settings

_DATA_KEYS = {"skip_bad": "skip_bad", "data_options": "options", "shots": "shots", "calibration": "calibration"}
_DATA_KEYS |= {"roi": "roi"}
_RUN_KEYS = (
    *("device", "devices", "overwrite", "threshold", "include_backbone", "callbacks", "resume", "tensorboard", "track"),
)


def train(
    dataset: str | Sequence[str],
    category: str | Sequence[str] | None,
    model: str | type[AnomalyModel],
    *,
    num_epochs: int | None = None,
    out: str | Path | None = None,
    **settings_: Any,
) -> RunResult | list[RunResult]:
    """Train `model` on one category, several, or "all" of them, of one dataset ("mvtec" or "mvtec:ROOT") or several.

    `model` is a name, or a class of your own that no package registers. With `pooled` one model is trained on all categories
    together, and `category` is None.
    One run for each category: a RunResult for one dataset and category, else a list. Keyword settings are the ones of
    `adcore info MODEL`, of training (batch_size, learning_rate, ...) and of the run (val_split, shots, calibration, roi,
    skip_bad, device, ...); `data_options` are those of the dataset's reader (`adcore info DATASET`).
    """
    runs = train_models(dataset, category, [model], num_epochs=num_epochs, out=out, **settings_)
    single = isinstance(dataset, str) and (settings_.get("pooled") or (isinstance(category, str) and category != ALL))
    return runs[0] if single else runs


def train_models(
    dataset: str | Sequence[str] | None = None,
    category: str | Sequence[str] | None = None,
    models: Sequence[str | type[AnomalyModel]] = (),
    *,
    dataset_type: str | Sequence[str] | None = None,
    categories: str | Sequence[str] | None = None,
    num_epochs: int | None = None,
    out: str | Path | None = None,
    pooled: bool = False,
    **settings_: Any,
) -> list[RunResult]:
    """Train each of `models` on each category; every setting of every run is checked before the first one starts.

    `dataset_type` and `categories` are other names of `dataset` and `category`.
    """
    dataset, category = dataset or dataset_type, category or categories
    if not dataset or not models or not (category or pooled):
        raise ConfigError("train_models needs a dataset, categories (or pooled=True) and models")
    data_settings = {field: settings_.pop(key) for key, field in _DATA_KEYS.items() if key in settings_}
    data_settings |= {"roi": _path(data_settings.get("roi"))}
    data_settings |= validation_split(settings_.pop("val_split", None), settings_.pop("val_ratio", None))
    run_options = {key: settings_.pop(key) for key in _RUN_KEYS if key in settings_}
    run_options.setdefault("device", settings().device)
    if num_epochs is not None:
        settings_["epochs"] = num_epochs
    choices = [choose_model(_name(model), settings_) for model in models]
    trains = any(choice.card.training != "none" for choice in choices)
    data = [
        DataChoice(name, root, one, **data_settings)
        for name, root in map(parse_data, [dataset] if isinstance(dataset, str) else dataset)
        for one in choose_categories(name, root, category, data_settings.get("options", {}), pooled, trains)
    ]
    runs = [(choice, chosen) for chosen in data for choice in choices]
    results = []
    for choice, chosen in runs:
        parts = (choice.card.name, chosen.dataset, chosen.category)
        folder = pipeline.folder_of(out, parts, alone=len(runs) == 1)
        results.append(pipeline.train(choice, chosen, folder, **run_options))
    return results


def evaluate(
    artifact: str | Path, dataset: str, category: str, *, out: str | Path | None = None, **options: Any
) -> RunResult:
    """Score the test images of a category with a trained model, at the threshold that it was calibrated with."""
    from adcore import artifact as artifacts

    name, root = parse_data(dataset)
    chosen = {"skip_bad": options.pop("skip_bad", False), "roi": _path(options.pop("roi", None))}
    data = DataChoice(name, root, category, options.pop("data_options", {}), **chosen)
    loaded = artifacts.load(artifact)
    parts = ("evaluate", loaded.model.card.name, name, category)
    folder = Path(out) if out else pipeline.run_folder(settings().output_dir, *parts)
    return pipeline.evaluate(loaded, data, folder, source=Path(artifact), **{"device": settings().device, **options})


def _path(roi: str | Path | None) -> Path | None:
    return None if roi is None else portable_path(str(roi)).expanduser()


def _name(model: str | type[AnomalyModel]) -> str:
    """The name of a model; a class is registered in this process first."""
    if isinstance(model, str):
        return model
    card = card_for(model)
    register(card)
    return card.name
