"""From names to cards to objects. Listing imports no torch; creating a model imports only that model."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as distribution_version
from typing import TYPE_CHECKING, Any, TypeVar

from adcore.card_checks import check_card
from adcore.cards import BackboneCard, DatasetCard, ExecutorCard, ExporterCard, MetricCard, ModelCard, load_target
from adcore.errors import AdcoreError, ConfigError, PluginError, suggest
from adcore.plugins import Origin, Plugins, load_plugins

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    from adcore.data.samples import DatasetReader
    from adcore.model import AnomalyModel

C = TypeVar("C", ModelCard, DatasetCard, BackboneCard, MetricCard, ExecutorCard, ExporterCard)
_KINDS = {
    ModelCard: "model",
    DatasetCard: "dataset",
    BackboneCard: "backbone",
    MetricCard: "metric",
    ExecutorCard: "executor",
    ExporterCard: "exporter",
}
_LISTINGS = {
    ModelCard: "adcore list-models",
    DatasetCard: "adcore list-datasets",
    BackboneCard: "adcore list-backbones",
    MetricCard: "adcore doctor",
    ExecutorCard: "adcore run --help",
    ExporterCard: "adcore export --help",
}
OWN = "adcore."  # modules of adcore itself
IN_PROCESS = "in-process"  # in place of a plugin's name, for what `register` has added


def list_models(family: str | None = None) -> list[ModelCard]:
    """Cards of all installed models, by family and name, without names that two packages register.

    What adcore makes of trained models (an ensemble) is no model to choose, and left out.
    """
    chosen = (card for card in _all(ModelCard) if family in (None, card.family) and not _of_adcore(card_origin(card)))
    return sorted(chosen, key=lambda card: (card.family, card.name))


def _of_adcore(origin: Origin) -> bool:
    return origin.plugin == IN_PROCESS and origin.distribution.startswith(OWN)


def model_card(name: str) -> ModelCard:
    """The card of a model by name or alias; ConfigError suggests the nearest names."""
    return _find(ModelCard, name)


def register(card: ModelCard | DatasetCard | BackboneCard | MetricCard | ExecutorCard | ExporterCard) -> None:
    """Make a card known in this process, as an installed plugin would; a card of the same name replaces an earlier one.

    PluginError for a card that is not valid, and for a name that an installed package has.
    """
    check_card(card)
    plugins, kind = load_plugins(), type(card)
    known, aliases = plugins.cards[kind], plugins.aliases[kind]
    for name in (card.name, *card.aliases):
        owner = known[aliases[name]][1] if name in aliases else None
        if owner and owner.plugin != IN_PROCESS:
            raise PluginError(f"the {_KINDS[kind]} name '{name}' is taken by {owner}; choose another name")
    if known.pop(card.name, None):
        for name in [name for name, owner in aliases.items() if owner == card.name]:
            del aliases[name]
    plugins.add(card, Origin(IN_PROCESS, getattr(card, "target", card.name), ""))


def require_model(name: str, package: str, version: str) -> None:
    """Raise PluginError that says what to install when no installed package defines the model `name` of an artifact.

    `package` and `version` are the distribution that the model came from.
    """
    try:
        model_card(name)
        return
    except ConfigError:
        plugins = load_plugins()
    if package.startswith(OWN):  # a model that adcore makes of others; known once its module is needed
        register(import_module(package.partition(":")[0]).CARD)
        return
    if ":" in package:  # of `register`, not of a package
        module, _, attribute = package.partition(":")
        raise PluginError(
            f"its model '{name}' is the class {attribute} of the module {module}, which no package registers; import the "
            f"class and pass it: adcore.load(path, model={attribute})"
        )
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


def list_metrics() -> list[MetricCard]:
    """Cards of the metrics that plugins add."""
    return _all(MetricCard)


def load_metric(card: MetricCard) -> Any:
    """The function or class that a metric's card names."""
    return _target(card)


def metric_origin(card: MetricCard) -> Origin:
    """The distribution and version that registered a metric."""
    return load_plugins().cards[MetricCard][card.name][1]


def load_executor(name: str) -> type:
    """The class of an executor that a plugin adds; ConfigError for an unknown name."""
    return _target(_find(ExecutorCard, name))


def list_exporters() -> list[ExporterCard]:
    """Cards of the forms in which models are exported."""
    return _all(ExporterCard)


def load_exporter(name: str) -> Callable[..., Any]:
    """The function of an exporter by name; ConfigError for an unknown one."""
    return _target(_find(ExporterCard, name))


def list_backbones() -> list[BackboneCard]:
    """Cards of all known backbones."""
    return _all(BackboneCard)


def model_origin(name: str) -> Origin:
    """The distribution and version that registered a model."""
    return card_origin(model_card(name))


def card_origin(card: C) -> Origin:
    """The distribution and version that registered a card."""
    return load_plugins().cards[type(card)][card.name][1]


def model_class(card: ModelCard) -> type[AnomalyModel]:
    """The class that a card points at."""
    return _target(card)


def backbone_builder(card: BackboneCard) -> Callable[..., nn.Module]:
    """The function that builds a backbone which timm does not know."""
    return _target(card)


def _target(card: Any) -> Any:
    """What the card's target names; PluginError that names the plugin when it cannot be imported."""
    try:
        return load_target(card.target)
    except AdcoreError:
        raise
    except Exception as error:
        origin = card_origin(card)
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
    """A reader for the dataset layout `name` at `root`; ConfigError for an unknown option or a wrong type."""
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
    """The error for an unknown name: a broken plugin of a similar name, else the nearest names and all broken plugins."""
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
