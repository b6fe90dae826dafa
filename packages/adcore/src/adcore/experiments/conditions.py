"""Conditions: what each run of an experiment is, all of it checked before the first one starts."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError, field_validator

from adcore.data.samples import select
from adcore.data.splits import fold_count
from adcore.errors import AdcoreError, ConfigError, DataError, WeightsError, suggest
from adcore.evaluation.thresholds import check_method
from adcore.experiments.reading import LINE, RawCondition, read_conditions, short
from adcore.files import portable_path
from adcore.prepared import Prepared, check_model, check_threshold, prepare_run
from adcore.registry import check_data_options, list_models, open_dataset
from adcore.request import ALL, DataChoice, ModelChoice, choose_model, parse_data, validation_split
from adcore.several import check_several
from adcore.spellings import RENAMED
from adcore.training.mlflow_logs import tracking_uri

Mode = Literal["single", "multi", "all"]


class ConditionConfig(BaseModel):
    """The settings of a condition that are not the model's or the training's own; those stay in `model_extra`."""

    model_config = ConfigDict(extra="allow", protected_namespaces=(), frozen=True)

    model_type: str = Field(validation_alias=AliasChoices("model_type", "model"))
    dataset: str = "hdmap"
    dataset_root: Path | None = None  # None: `dataset` below the dataset_dir of the settings
    source_domain: str = Field(validation_alias=AliasChoices("source_domain", "domain", "category"))
    target_domains: list[str] | Literal["auto"] | None = None
    val_split_mode: Literal["none", "from_train", "from_test"] | None = None  # a ratio alone means from_train
    val_split_ratio: float | None = Field(None, gt=0, lt=1)
    threshold: str = "f1_percentile"
    shots: int | None = Field(None, ge=1)  # normal images of the source that train; None: all
    calibration: str | None = None  # "cv:5": the threshold is chosen on the source's training images
    roi: Path | None = None  # a region of interest of all images, or one for each
    skip_bad: bool = False
    devices: int = Field(1, ge=1)  # processes that train together, on a GPU each or all on the CPU
    data_options: dict[str, Any] = Field(default_factory=dict)  # of the dataset's reader
    tensorboard: bool | None = None  # None: where it is installed
    track: str | None = None  # "mlflow" or "mlflow:URI"

    @field_validator("target_domains", mode="before")
    @classmethod
    def _none_is_single(cls, value: Any) -> Any:
        return value or None  # [] and "" ask for no target

    @field_validator("threshold")
    @classmethod
    def _known_method(cls, value: str) -> str:
        try:
            check_method(value)
        except ConfigError as error:
            raise ValueError(str(error)) from None
        return value

    @field_validator("calibration")
    @classmethod
    def _known_calibration(cls, value: str | None) -> str | None:
        try:
            return value if value is None or fold_count(value) else None
        except ConfigError as error:
            raise ValueError(str(error)) from None

    @field_validator("track")
    @classmethod
    def _known_tracking(cls, value: str | None) -> str | None:
        try:
            if value is not None:
                tracking_uri(value)
        except ConfigError as error:
            raise ValueError(str(error)) from None
        return value

    @property
    def overrides(self) -> dict[str, Any]:
        """Settings of the model, its training and preprocessing, as they are written."""
        return dict(self.model_extra or {})


@dataclass(frozen=True)
class Condition:
    """One checked condition; a session runs it once for each seed."""

    name: str
    description: str
    raw: dict[str, Any]  # as in the file, with `base`
    config: ConditionConfig
    choice: ModelChoice
    targets: tuple[str, ...]
    missing: str = ""  # which weights are not on this machine, and where to get them

    @property
    def mode(self) -> Mode:
        """single: one domain; multi: one to others; all: one model over all of them."""
        return "multi" if self.targets else "all" if self.config.source_domain == ALL else "single"

    @property
    def seed(self) -> int:
        """Of the training, and of the validation split."""
        return self.choice.plan.seed

    def data(self, domain: str | None = None) -> DataChoice:
        """Where the images of a domain (default: the source) come from; the source of a multi run validates on its test set."""
        config = self.config
        split = "test" if self.mode == "multi" else config.val_split_mode
        return DataChoice(
            config.dataset,
            config.dataset_root,
            domain or config.source_domain,
            config.data_options,
            **validation_split(split, config.val_split_ratio),
            skip_bad=config.skip_bad,
            shots=config.shots,
            calibration=config.calibration,
            roi=config.roi,
        )


def load_conditions(path: Path, data: str | None = None) -> list[Condition]:
    """The conditions of a file, in its order; `data` ("NAME:ROOT") stands for the dataset of each.

    Raises one ConfigError with a line for every mistake in the whole file: file, condition, key, what is wrong.
    """
    conditions, mistakes, built = [], [], {}
    given = {}
    if data:
        name, root = parse_data(data)
        given = {"dataset": name, "dataset_root": str(root)}
    for raw in read_conditions(path):
        raw = replace(raw, config={**raw.config, **given})
        condition, wrong = check_condition(raw, built)
        mistakes += [f"{path}: condition '{short(raw.name)}': {short(text, LINE)}" for text in wrong]
        if condition:
            conditions.append(condition)
    names = [(condition.name, condition.seed) for condition in conditions]
    for name, seed in sorted({pair for pair in names if names.count(pair) > 1}):
        mistakes.append(f"{path}: condition '{short(name)}': name: used twice with seed {seed}; rename one")
    if mistakes:
        count = f"{len(mistakes)} mistake{'s' if len(mistakes) > 1 else ''}"
        raise ConfigError("\n".join([f"{count}, nothing was started", *mistakes]))
    return conditions


def check_condition(
    raw: RawCondition, built: dict[Any, AdcoreError | None] | None = None
) -> tuple[Condition | None, list[str]]:
    """The checked condition, or None and its mistakes as "key: what is wrong".

    `built` keeps what came of building each model, for conditions that differ in data or seed alone.
    """
    settings = dict(raw.config)
    mistakes: list[str] = []
    try:
        config = ConditionConfig(**settings)
    except ValidationError as error:
        for entry in error.errors():
            key = str(entry["loc"][0])
            mistakes.append(f"{key}: {entry['msg'][0].lower()}{entry['msg'][1:]}" + _given(entry))
            settings.pop(key, None)
        known = {key: value for key, value in settings.items() if key not in ("cls", "_fields_set")}  # its parameters
        config = ConditionConfig.model_construct(**{"model_type": None, "source_domain": None, **known})
    choice = None
    if isinstance(config.model_type, str):
        choice, wrong = _check_model(config)
        mistakes += wrong
    written = settings.get("dataset_root")
    if written is None and isinstance(config.dataset, str):
        try:
            written = str(parse_data(config.dataset)[1])
        except ConfigError:
            mistakes.append(
                "dataset_root: missing; give it here, with --data NAME:ROOT, or set dataset_dir in adcore.toml"
            )
    if not isinstance(written, str):
        return None, mistakes
    try:
        root = portable_path(written).expanduser().absolute()
    except ConfigError as error:
        return None, [*mistakes, f"dataset_root: {error}"]
    except RuntimeError:
        return None, [*mistakes, f"dataset_root: there is no home folder for {short(written)}"]
    needs_training = choice is None or choice.card.training != "none"
    targets, wrong = _check_domains(config, root, needs_training)
    mistakes += wrong
    if mistakes or choice is None:
        return None, mistakes
    roi = config.roi and portable_path(str(config.roi)).expanduser().absolute()
    config = config.model_copy(update={"dataset_root": root, "roi": roi})
    condition = Condition(raw.name, raw.description, raw.config, config, choice, targets)
    try:
        run = prepare_run(choice, condition.data())
    except ConfigError as error:
        key = next((key for key in ("calibration", "shots", "roi") if str(error).startswith(key)), "val_split_mode")
        return None, [f"{_written(config, error, key)}: {error}"]
    except (AdcoreError, OSError) as error:
        split = condition.data().val_split in ("from_train", "from_test") and "validation images" in str(error)
        own = str(error).partition("=")[0]  # of the message "shots=5: ..."
        own = "roi" if config.roi and str(config.roi) in str(error) else own
        key = own if own in ("shots", "calibration", "roi") else "val_split_mode" if split else "dataset_root"
        return None, [f"{key}: {error}"]
    mistakes, missing = _check_run(condition, run), ""
    wrong = _built(run, {} if built is None else built)
    if isinstance(wrong, WeightsError):
        missing = str(wrong)
    elif wrong is not None:
        mistakes.append(f"{_written(config, wrong, 'config')}: {wrong}")
    return (None if mistakes else replace(condition, missing=missing)), mistakes


def _built(run: Prepared, known: dict[Any, AdcoreError | None]) -> AdcoreError | None:
    """What is wrong with the run's model, from `known` where the same one was built already."""
    choice = run.choice
    key = choice.card.name, repr(choice.config), run.learned, choice.preprocess.output_size
    if key not in known:
        try:
            known[key] = check_model(run)
        except AdcoreError as error:
            known[key] = error
    return known[key]


def with_seed(condition: Condition, seed: int) -> Condition:
    """The same condition with another seed."""
    plan = condition.choice.plan.with_seed(seed)
    return replace(condition, choice=replace(condition.choice, plan=plan), raw={**condition.raw, "seed": seed})


def model_name(name: str) -> str:
    """The card's name for what a user wrote: `draem_sevnet`, `efficient_ad`, `PaDiM-ResNet18`; else `name` itself."""
    names = {_plain(known): card.name for card in list_models() for known in (*card.aliases, card.name)}
    return names.get(_plain(name), name)


def _plain(name: str) -> str:
    return re.sub(r"[-_\s]", "", name.lower())


def _check_model(config: ConditionConfig) -> tuple[ModelChoice | None, list[str]]:
    """The model with its settings; when they are wrong, each is tried alone to find the wrong key."""
    name = model_name(config.model_type)
    try:
        return choose_model(name, config.overrides), []
    except AdcoreError as error:
        whole = error
    try:
        choose_model(name, {})
    except AdcoreError as error:
        return None, [f"model_type: {error}"]
    mistakes = []
    for key, value in config.overrides.items():
        try:
            choose_model(name, {key: value})
        except AdcoreError as error:
            mistakes.append(f"{key}: {error}")
    return None, mistakes or [f"{_written(config, whole, 'config')}: {whole}"]


def _check_domains(config: ConditionConfig, root: Path, needs_training: bool) -> tuple[tuple[str, ...], list[str]]:
    """The target domains, and what is wrong with dataset, folder, source or targets."""
    try:
        check_data_options(config.dataset, config.data_options)
    except AdcoreError as error:
        return (), [f"{'data_options' if 'unknown dataset' not in str(error) else 'dataset'}: {error}"]
    try:
        reader = open_dataset(config.dataset, str(root), **config.data_options)
        reader.needs_training = needs_training
        known = reader.categories()
    except (AdcoreError, OSError) as error:  # a name that is too long, a folder that may not be read
        return (), [f"dataset_root: {error}"]
    source, wanted, mistakes = config.source_domain, config.target_domains, []
    if source is None:
        return (), []
    if source not in (*known, ALL):
        mistakes.append(f"source_domain: {root} has no domain '{source}'{_hint(source, known)}")
    if source == ALL and wanted:
        mistakes.append("target_domains: source_domain all trains on every domain, so that no target is left")
    if isinstance(wanted, list):
        targets = tuple(wanted)
        mistakes += [
            f"target_domains: {root} has no domain '{name}'{_hint(name, known)}"
            for name in targets
            if name not in known
        ]
        if source in targets:
            mistakes.append(f"target_domains: '{source}' is the source; leave it out")
        if len(set(targets)) < len(targets):
            mistakes.append("target_domains: a domain is listed twice")
    else:
        targets = tuple(name for name in known if name != source) if wanted == "auto" else ()
        if wanted == "auto" and not targets:
            mistakes.append(f"target_domains: {root} has no domain but '{source}'")
    if targets and config.val_split_mode not in (None, "none"):
        mistakes.append("val_split_mode: with target_domains the source's test set validates; leave it out")
    return targets, mistakes


def _check_run(condition: Condition, run: Prepared) -> list[str]:
    """What the source and the targets lack."""
    if condition.config.tensorboard and find_spec("tensorboard") is None:
        return ['tensorboard: TensorBoard is not installed: pip install "adcore[tensorboard]"']
    if condition.config.track and find_spec("mlflow") is None:
        return ['track: MLflow is not installed: pip install "adcore[mlflow]"']
    try:
        empty = [name for name in condition.targets if not select(run.reader.samples(name), "test")]
    except (AdcoreError, OSError) as error:
        return [f"dataset_root: {error}"]
    if empty:
        return [f"target_domains: '{empty[0]}' has no test image"]
    if condition.mode == "multi" and not select(run.samples, "val"):
        return [f"source_domain: '{condition.config.source_domain}' has no test image to validate on"]
    try:
        check_threshold(run, condition.config.threshold)
    except DataError as error:
        return [f"threshold: {error}"]
    try:
        check_several(run, condition.config.devices)
    except ConfigError as error:
        return [f"devices: {error}"]
    return []


def _written(config: ConditionConfig, error: AdcoreError, otherwise: str) -> str:
    """The key of the file that an error is about: the message begins with the setting's name."""
    about = str(error).partition(" ")[0].partition("=")[0]
    return next((key for key in config.overrides if about in (key, RENAMED.get(key))), otherwise)


def _hint(name: str, known: Sequence[str]) -> str:
    return suggest(name, list(known)) or f"; it has: {', '.join(known)}"


def _given(entry: Any) -> str:
    return "" if entry["type"] == "missing" else f" (got {short(repr(entry['input']))})"
