"""Plugin discovery that survives a broken plugin: each load, registration and hook call is guarded on its own.

pluggy's own entry-point loading ends the host program when one package is broken, so it is not used.
"""

from __future__ import annotations

import os
import sys
import traceback
from contextlib import redirect_stdout
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.metadata import EntryPoint, distributions, entry_points
from threading import RLock

import click
import pluggy

from adcore import hookspecs
from adcore.card_checks import check_card
from adcore.cards import BackboneCard, DatasetCard, ExecutorCard, ExporterCard, MetricCard, ModelCard
from adcore.errors import PluginError

GROUP = "adcore"
WEIGHTS = "adcore-weights-"  # with this begin the names of the wheels that `adcore backbones pack` makes
HOOKS = {
    "adcore_register_models": ModelCard,
    "adcore_register_datasets": DatasetCard,
    "adcore_register_backbones": BackboneCard,
    "adcore_register_metrics": MetricCard,
    "adcore_register_executors": ExecutorCard,
    "adcore_register_exporters": ExporterCard,
}
_lock = RLock()


@dataclass(frozen=True)
class CommandCard:
    """A command that a plugin added to the command line."""

    name: str
    command: click.Command
    aliases: tuple[str, ...] = ()


Card = ModelCard | DatasetCard | BackboneCard | MetricCard | ExecutorCard | ExporterCard | CommandCard
KINDS = (*HOOKS.values(), CommandCard)


@dataclass(frozen=True)
class Origin:
    """The distribution a plugin came from."""

    plugin: str
    distribution: str
    version: str

    def __str__(self) -> str:
        return f"{self.distribution} {self.version}"


@dataclass(frozen=True)
class Problem:
    """A plugin that could not be used, and why; `details` is the traceback for `adcore doctor`."""

    origin: Origin
    error: str
    details: str

    def __str__(self) -> str:
        return f"plugin '{self.origin.plugin}' ({self.origin}) is broken and was left out: {self.error}"


@dataclass
class Plugins:
    """Everything the installed plugins registered, each card with its origin."""

    cards: dict[type, dict[str, tuple[Card, Origin]]] = field(default_factory=lambda: {c: {} for c in KINDS})
    aliases: dict[type, dict[str, str]] = field(default_factory=lambda: {c: {} for c in KINDS})
    duplicates: dict[tuple[type, str], list[Origin]] = field(default_factory=dict)
    origins: list[Origin] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    carriers: dict[str, Origin] = field(default_factory=dict)  # backbone -> the wheel that carries its weights

    def add(self, card: Card, origin: Origin) -> None:
        """Keep the card; a second card of one name makes that name unusable and is reported with both origins.

        A wheel of weights (`adcore backbones pack`) registers no second backbone: it adds the weights to the card that adcore
        or a family has of that name.
        """
        kind, known = type(card), self.cards[type(card)]
        old, owner = known.get(card.name, (None, None))
        if old and card.name not in self.carriers and _carries_weights(card, origin, old):
            known[card.name] = (replace(old, wheel=card.wheel, sha256={**old.sha256, **card.sha256}), owner)
            self.carriers[card.name] = origin
            return
        for name in (card.name, *card.aliases):
            owner = self.aliases[kind].get(name)
            if owner is not None:
                origins = self.duplicates.setdefault((kind, name), [known[owner][1]])
                origins.append(origin)
                return
        known[card.name] = (card, origin)
        self.aliases[kind].update(dict.fromkeys((card.name, *card.aliases), card.name))

    def check_unique(self, kind: type, name: str) -> None:
        """Raise PluginError, naming every claimant, when two plugins registered `name`."""
        origins = self.duplicates.get((kind, name))
        if origins:
            claimants = " and ".join(f"'{o.plugin}' ({o})" for o in origins)
            raise PluginError(f"'{name}' is registered by {claimants}; uninstall one or set ADCORE_DISABLE_PLUGINS")


def _carries_weights(card: Card, origin: Origin, known: Card) -> bool:
    """Whether the card is that of a wheel with weights for the network that `known` describes."""
    if not isinstance(card, BackboneCard) or card.wheel is None or card.wheel[0] != origin.distribution:
        return False
    return (card.architecture, card.target, card.options) == (known.architecture, known.target, known.options)


def disabled_plugins() -> set[str]:
    """Names in ADCORE_DISABLE_PLUGINS (comma separated entry-point or distribution names)."""
    return {name.strip() for name in os.environ.get("ADCORE_DISABLE_PLUGINS", "").split(",") if name.strip()}


def discover() -> list[tuple[EntryPoint, Origin]]:
    """Entry points of the group, without importing any of them; wheels of weights last, after what they complete."""
    off = disabled_plugins()
    try:
        points = [(point, point.dist.name, point.dist.version) for point in entry_points(group=GROUP)]
    except Exception as error:  # damaged metadata, which stops pip as well
        raise PluginError(f"{_damaged()} has damaged metadata ({error}); install it again") from None
    found = []
    for point, distribution, version in sorted(points, key=lambda p: (p[1].startswith(WEIGHTS), p[0].name)):
        if point.name not in off and distribution not in off:
            found.append((point, Origin(point.name, distribution, version)))
    return found


def _damaged() -> str:
    """The package whose metadata cannot be read."""
    for distribution in distributions():
        try:
            _ = distribution.entry_points, distribution.name, distribution.version
        except Exception:
            folder = next((file.parts[0] for file in distribution.files or () if file.suffix == ".py"), "?")
            return f"the installed package with the module '{folder}' in {distribution.locate_file('')}"
    return "an installed package"


@cache
def load_plugins(without: frozenset[str] = frozenset()) -> Plugins:
    """Load every installed plugin once; broken ones are listed in `problems` and never stop the others.

    `without` names entry points to leave out. What a plugin prints while it loads goes to stderr.
    """
    plugins = Plugins()
    own = Origin("adcore", "adcore", _own_version())
    with _lock:  # the redirection below holds for the whole process
        for card in _ask(_builtin(), own):
            plugins.add(card, own)
        for point, origin in discover():
            if origin.plugin in without:
                continue
            try:
                cards = load_cards(point, origin)
            except (Exception, SystemExit) as error:  # a plugin may fail in any way
                plugins.problems.append(problem_of(origin, error))
            except KeyboardInterrupt as stop:  # the user's, or the plugin's own: they cannot be told apart
                raise KeyboardInterrupt(f"while plugin '{origin.plugin}' ({origin}) was loading") from stop
            else:
                plugins.origins.append(origin)
                for card in cards:
                    plugins.add(card, origin)
    return plugins


def load_cards(point: EntryPoint, origin: Origin) -> list[Card]:
    """Import one plugin and return its checked cards; whatever the plugin raises passes through."""
    with redirect_stdout(sys.stderr):
        return _ask(point.load(), origin)


def problem_of(origin: Origin, error: BaseException) -> Problem:
    """The problem that an exception at loading is."""
    reason = (f"{type(error).__name__}: {error}".splitlines() or [""])[0]
    return Problem(origin, reason, "".join(traceback.format_exception(error)))


def _ask(module: object, origin: Origin) -> list[Card]:
    """Call the module's hooks and return their cards, or raise; never a part of them."""
    check_compatible(origin)
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    manager.register(module)
    manager.check_pending()
    cards: list[Card] = []
    for hook, kind in HOOKS.items():
        for answer in getattr(manager.hook, hook)():
            if not isinstance(answer, list | tuple) or not all(isinstance(card, kind) for card in answer):
                raise PluginError(f"{hook} must return a list of {kind.__name__}, not {_describe(answer)}")
            for card in answer:
                check_card(card)
            cards.extend(answer)
    cards.extend(_commands(manager))
    if not manager.get_hookcallers(module):
        raise PluginError("the module implements no adcore hook (decorate them with adcore.hookspecs.hookimpl)")
    return cards


def _commands(manager: pluggy.PluginManager) -> list[CommandCard]:
    group = click.Group()
    manager.hook.adcore_register_commands(cli=group)
    return [CommandCard(name, command) for name, command in group.commands.items()]


def check_compatible(origin: Origin) -> None:
    """Raise PluginError when the distribution asks for an adcore version other than the installed one."""
    if origin.distribution in ("adcore", "unknown"):
        return
    from importlib.metadata import requires

    own = next((r for r in requires(origin.distribution) or [] if r.replace(" ", "").startswith("adcore")), None)
    if own is None:
        return
    from packaging.requirements import Requirement

    requirement = Requirement(own)
    if requirement.name == "adcore" and not requirement.specifier.contains(_own_version(), prereleases=True):
        raise PluginError(f"it needs adcore{requirement.specifier}, but adcore {_own_version()} is installed")


def _describe(answer: object) -> str:
    if isinstance(answer, list | tuple):
        return "a list of " + ", ".join(sorted({type(item).__name__ for item in answer}))
    return type(answer).__name__


def _builtin() -> object:
    from adcore import builtin

    return builtin


def _own_version() -> str:
    from adcore import __version__

    return __version__
