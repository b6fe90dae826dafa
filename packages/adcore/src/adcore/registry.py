"""Names to cards to objects. Listing imports no torch; creating a model imports exactly that one."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, TypeVar

from adcore.cards import BackboneCard, DatasetCard, ModelCard, load_target
from adcore.errors import ConfigError
from adcore.plugins import Origin, load_plugins

if TYPE_CHECKING:
    from adcore.data.samples import DatasetReader
    from adcore.model import AnomalyModel

C = TypeVar("C", ModelCard, DatasetCard, BackboneCard)
_KINDS = {ModelCard: "model", DatasetCard: "dataset", BackboneCard: "backbone"}
_LISTINGS = {ModelCard: "adcore list-models", DatasetCard: "adcore info", BackboneCard: "adcore backbones list"}


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

        return load_target(card.target)


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
    """A reader for the dataset layout `name` at `root`."""
    return load_target(dataset_card(name).target)(root, **options)


def _all(kind: type[C]) -> list[C]:
    plugins = load_plugins()
    return [card for card, _ in plugins.cards[kind].values() if (kind, card.name) not in plugins.duplicates]


def _find(kind: type[C], name: str) -> C:
    plugins = load_plugins()
    plugins.check_unique(kind, name)
    owner = plugins.aliases[kind].get(name)
    if owner is None:
        known = sorted(plugins.aliases[kind])
        if not known:
            raise ConfigError(f"no {_KINDS[kind]}s are installed; install a family, e.g. pip install adm-memory")
        hint = suggest(name, known)
        raise ConfigError(
            f"unknown {_KINDS[kind]} '{name}'{hint} See: {_LISTINGS[kind]}"
            if hint
            else f"unknown {_KINDS[kind]} '{name}'; see: {_LISTINGS[kind]}"
        )
    return plugins.cards[kind][owner][0]
