"""Names to cards to objects. Listing imports no torch; creating a model imports exactly that one."""

from __future__ import annotations

from difflib import get_close_matches
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as distribution_version
from typing import TYPE_CHECKING, Any, TypeVar

from adcore.cards import BackboneCard, DatasetCard, ModelCard, load_target
from adcore.errors import AdcoreError, ConfigError, PluginError
from adcore.plugins import Origin, Plugins, load_plugins

if TYPE_CHECKING:
    from adcore.data.samples import DatasetReader
    from adcore.model import AnomalyModel

C = TypeVar("C", ModelCard, DatasetCard, BackboneCard)
_KINDS = {ModelCard: "model", DatasetCard: "dataset", BackboneCard: "backbone"}
_LISTINGS = {
    ModelCard: "adcore list-models",
    DatasetCard: "adcore list-datasets",
    BackboneCard: "adcore list-backbones",
}


def suggest(word: str, choices: list[str]) -> str:
    """ "; did you mean ...?" with the nearest choices, or nothing."""
    near = get_close_matches(word, choices, n=3, cutoff=0.5) or [c for c in choices if word and word in c][:3]
    return f"; did you mean {' or '.join(near)}?" if near else ""


def list_models(family: str | None = None) -> list[ModelCard]:
    """Cards of all installed models, by family and name, but for names that two packages claim."""
    return sorted((c for c in _all(ModelCard) if family in (None, c.family)), key=lambda c: (c.family, c.name))


def model_card(name: str) -> ModelCard:
    """The card of a model by name or alias; ConfigError suggests the nearest names."""
    return _find(ModelCard, name)


def require_model(name: str, package: str, version: str) -> None:
    """Raise PluginError that says what to install when no installed package defines the model `name` of an artifact.

    `package` and `version` are the distribution that the model came from.
    """
    try:
        model_card(name)
        return
    except ConfigError:
        plugins = load_plugins()
    needed = f"its model '{name}' is defined by the package {package} {version}"
    for problem in plugins.problems:
        if problem.origin.distribution == package:
            raise PluginError(f"{needed}, whose plugin is broken: {problem.error} (details: adcore doctor)")
    try:
        installed = distribution_version(package)
    except PackageNotFoundError:
        raise PluginError(f"{needed}, which is not installed; install it: pip install {package}") from None
    if not any(origin.distribution == package for origin in plugins.origins):
        raise PluginError(f"{needed}, which ADCORE_DISABLE_PLUGINS leaves out")
    remedy = "the file may be damaged" if installed == version else f"pip install {package}=={version}"
    raise PluginError(f"{needed}; version {installed} is installed and has no such model; {remedy}")


def dataset_card(name: str) -> DatasetCard:
    """The card of a dataset layout by name or alias; ConfigError suggests the nearest names."""
    return _find(DatasetCard, name)


def backbone_card(name: str) -> BackboneCard:
    """The card of a backbone by name or alias; ConfigError suggests the nearest names."""
    return _find(BackboneCard, name)


def list_datasets() -> list[DatasetCard]:
    """Cards of all dataset layouts."""
    return _all(DatasetCard)


def list_backbones() -> list[BackboneCard]:
    """Cards of all known backbones."""
    return _all(BackboneCard)


def model_origin(name: str) -> Origin:
    """The distribution and version that registered a model."""
    return load_plugins().cards[ModelCard][model_card(name).name][1]


def model_class(card: ModelCard) -> type[AnomalyModel]:
    """The class that a card points at."""
    from adcore.lean import lean_imports

    with lean_imports():  # its module imports torchvision or timm
        import adcore.backbones.networks  # noqa: F401

        return _target(card)


def _target(card: ModelCard | DatasetCard) -> type:
    """What the card's target names; PluginError that names the plugin when it cannot be imported."""
    try:
        return load_target(card.target)
    except AdcoreError:
        raise
    except Exception as error:
        origin = load_plugins().cards[type(card)][card.name][1]
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise PluginError(
            f"{_KINDS[type(card)]} '{card.name}' of plugin '{origin.plugin}' ({origin}) cannot be used: "
            f"{card.target}: {reason} (--debug shows where)"
        ) from error


def create_model(name: str, **config: Any) -> AnomalyModel:
    """Build an untrained model from its card, with `config` over the card's defaults (checked by `adcore.config`)."""
    from adcore.config import checked_config

    card = model_card(name)
    kind = model_class(card)
    full = checked_config(card, kind, config)
    model = kind(**full)
    model.card, model.config = card, full
    return model


def open_dataset(name: str, root: str, **options: Any) -> DatasetReader:
    """A reader for the dataset layout `name` at `root`; ConfigError for an option that it has not, or of a wrong type."""
    return reader_class(name)(root, **check_data_options(name, options))


def reader_class(name: str) -> type[DatasetReader]:
    """The class that reads the dataset layout `name`."""
    return _target(dataset_card(name))


def check_data_options(name: str, options: dict[str, Any]) -> dict[str, Any]:
    """The options of a dataset's reader, checked by `adcore.config`."""
    from adcore.config import checked_options

    return checked_options(name, reader_class(name), options)


def _all(kind: type[C]) -> list[C]:
    plugins = load_plugins()
    return [card for card, _ in plugins.cards[kind].values() if (kind, card.name) not in plugins.duplicates]


def _find(kind: type[C], name: str) -> C:
    plugins = load_plugins()
    plugins.check_unique(kind, name)
    owner = plugins.aliases[kind].get(name)
    if owner is None:
        raise ConfigError(_unknown(plugins, kind, name))
    return plugins.cards[kind][owner][0]


def _unknown(plugins: Plugins, kind: type[C], name: str) -> str:
    """Why there is no such name: a broken plugin that is called like it, else the nearest names and all broken plugins."""
    word = _KINDS[kind]
    named = [p for p in plugins.problems if {name, *_prefixes(name)} & {p.origin.plugin, p.origin.distribution}]
    if named:
        return f"unknown {word} '{name}': {named[0]}; details: adcore doctor"
    known = sorted(plugins.aliases[kind])
    hint = suggest(name, known)
    text = f"unknown {word} '{name}'{f'{hint} See' if hint else '; see'}: {_LISTINGS[kind]}"
    if not known:
        text = f"unknown {word} '{name}': no {word}s are installed; install a family, e.g. pip install adm-memory"
    if plugins.problems:
        text += f"; it may belong to a broken plugin: {'; '.join(map(str, plugins.problems))}; details: adcore doctor"
    return text


def _prefixes(name: str) -> list[str]:
    """my-model-small -> my, my-model."""
    parts = name.split("-")
    return ["-".join(parts[:count]) for count in range(1, len(parts))]
