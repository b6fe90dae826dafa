"""`adcore check-plugin PACKAGE`: the conformance kit on an installed package, from the command line."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from adcore.cards import DatasetCard, ModelCard, load_target
from adcore.cli.common import parse_settings
from adcore.errors import PluginError
from adcore.plugins import Origin, discover, load_plugins


@click.command("check-plugin")
@click.argument("package")
@click.option("--model", "only", multiple=True, help="Only this model; may be given several times.")
@click.option(
    "--image-size", type=click.IntRange(min=8), default=64, show_default=True, help="Side of the test images."
)
@click.option("--epochs", type=click.IntRange(min=1), default=2, show_default=True)
@click.option("--set", "pairs", multiple=True, metavar="KEY=VALUE", help="A setting for every model that is checked.")
def command(package: str, only: tuple[str, ...], image_size: int, epochs: int, pairs: tuple[str, ...]) -> None:
    """Check that the models of an installed PACKAGE behave; exit 1 when one does not."""
    origin = _find(package)
    plugins = load_plugins()
    for problem in plugins.problems:
        if problem.origin == origin:
            click.echo(f"{problem}\n{problem.details}")
            sys.exit(1)
    twice = [name for (_, name), owners in plugins.duplicates.items() if origin in owners]
    cards = {kind: [c for c, owner in known.values() if owner == origin] for kind, known in plugins.cards.items()}
    click.echo(f"{origin}: " + ", ".join(f"{len(found)} {kind.__name__}s" for kind, found in cards.items()))
    failed = bool(twice)
    for name in twice:
        click.echo(f"FAILED  '{name}' is registered by another package as well; choose another name")
    for card in cards[DatasetCard]:
        failed |= not _is_reader(card)
    models = [card.name for card in cards[ModelCard]]
    unknown = [name for name in only if name not in models]
    if unknown:
        raise PluginError(f"{origin} has no model '{unknown[0]}'; it has: {', '.join(models) or 'none'}")
    if models:
        failed |= _check(list(only) or models, image_size, epochs, pairs)
    sys.exit(int(failed))


def _find(package: str) -> Origin:
    """The plugin by entry-point or distribution name."""
    wanted = package.lower().replace("_", "-")
    found = [origin for _, origin in discover()]
    for origin in found:
        if wanted in (origin.plugin.lower().replace("_", "-"), origin.distribution.lower().replace("_", "-")):
            return origin
    known = ", ".join(sorted({origin.distribution for origin in found})) or "none"
    hint = f"; a folder is installed first: pip install -e {package}" if Path(package).is_dir() else ""
    raise PluginError(f"no installed plugin is called '{package}'{hint}; installed: {known}")


def _is_reader(card: DatasetCard) -> bool:
    from adcore.data.samples import DatasetReader

    try:
        right, reason = issubclass(load_target(card.target), DatasetReader), "it is no DatasetReader"
    except Exception as error:  # whatever a foreign module raises is the finding
        right, reason = False, f"{type(error).__name__}: {error}"
    click.echo(f"ok      dataset '{card.name}'" if right else f"FAILED  dataset '{card.name}': {card.target}: {reason}")
    return right


def _check(models: list[str], image_size: int, epochs: int, pairs: tuple[str, ...]) -> bool:
    """Run, print the table (check x model) and what failed; True when something did."""
    from adcore.testing.checks import check_models, check_names, explain

    outcomes = check_models(models, image_size=image_size, epochs=epochs, overrides=parse_settings(pairs))
    table = {(outcome.check, outcome.model): outcome.result for outcome in outcomes}
    width = max(map(len, check_names()))
    click.echo("  ".join([" " * width, *models]))
    for check in check_names():
        cells = (table.get((check, model), "not run").ljust(len(model)) for model in models)
        click.echo("  ".join([check.ljust(width), *cells]).rstrip())
    bad = [outcome for outcome in outcomes if outcome.result == "failed"]
    for outcome in bad:
        click.echo(f"\n{outcome.model}: {outcome.check} failed: {outcome.reason}")
        click.echo("    " + explain(outcome.check).replace("\n", "\n    "))
    passed = sum(outcome.result == "ok" for outcome in outcomes)
    click.echo(f"\n{passed} checks passed, {len(bad)} failed, {len(outcomes) - passed - len(bad)} skipped")
    return bool(bad) or len(table) < len(models) * len(check_names())
