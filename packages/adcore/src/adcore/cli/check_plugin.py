"""`adcore check-plugin PACKAGE`: the conformance kit on an installed package, from the command line."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from adcore.cards import BackboneCard, DatasetCard, ModelCard
from adcore.cli.common import parse_settings
from adcore.errors import AdcoreError, PluginError
from adcore.plugins import Origin, discover, load_plugins

KINDS = {ModelCard: "model", DatasetCard: "dataset", BackboneCard: "backbone"}


@click.command("check-plugin")
@click.argument("package")
@click.option("--model", "only", multiple=True, help="Only this model; may be given several times.")
@click.option(
    "--image-size", type=click.IntRange(min=8), default=64, show_default=True, help="Side of the test images."
)
@click.option("--epochs", type=click.IntRange(min=1), default=2, show_default=True)
@click.option("--set", "pairs", multiple=True, metavar="KEY=VALUE", help="A setting for every model that is checked.")
@click.option("--data", multiple=True, metavar="NAME:ROOT", help="Data for the checks of a dataset.")
def command(
    package: str, only: tuple[str, ...], image_size: int, epochs: int, pairs: tuple[str, ...], data: tuple[str, ...]
) -> None:
    """Check the models, datasets and backbones of an installed PACKAGE; exit 1 when a check fails."""
    origin = _find(package)
    plugins = load_plugins()
    for problem in plugins.problems:
        if problem.origin == origin:
            click.echo(f"{problem}\n{problem.details}")
            sys.exit(1)
    names = {kind: [card.name for card, owner in plugins.cards[kind].values() if owner == origin] for kind in KINDS}
    unknown = [name for name in only if name not in names[ModelCard]]
    if unknown:
        known = ", ".join(names[ModelCard]) or "none"
        raise PluginError(f"{origin} has no model '{unknown[0]}'; it has: {known}")
    click.echo(f"{origin}: " + ", ".join(f"{len(found)} {KINDS[kind]}s" for kind, found in names.items()))
    twice = [name for (_, name), owners in plugins.duplicates.items() if origin in owners]
    for name in twice:
        click.echo(f"FAILED  '{name}' is registered by another package as well; choose another name")
    from adcore.request import parse_data

    roots = {name: {"root": str(root)} for name, root in map(parse_data, data)}
    model = {"image_size": image_size, "epochs": epochs, "overrides": parse_settings(pairs)}
    failed = bool(twice)
    chosen = only or names[ModelCard]
    batch = [name for name in chosen if _scores_together(name)]
    failed |= _check("model", {name: model for name in chosen if name not in batch})
    failed |= _check("batch model", {name: {k: v for k, v in model.items() if k != "epochs"} for name in batch})
    if not only:
        failed |= _check("dataset", {name: roots.get(name, {}) for name in names[DatasetCard]})
        failed |= _check("backbone", {name: {} for name in names[BackboneCard]})
    if failed:
        sys.exit(1)


def _scores_together(name: str) -> bool:
    """Whether the model is a BatchModel; False where its class cannot be loaded, which the checks will say."""
    from adcore.model import BatchModel
    from adcore.registry import model_card, model_class

    try:
        return issubclass(model_class(model_card(name)), BatchModel)
    except (AdcoreError, TypeError):
        return False


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


def _check(kind: str, attributes: dict[str, dict[str, Any]]) -> bool:
    """Run, print the table (check x name) and what failed; True when something did."""
    if not attributes:
        return False
    from adcore.testing.checks import check_names, explain, run_checks

    outcomes, checks = run_checks(kind, attributes), check_names(kind)
    table = {(outcome.check, outcome.name): outcome.result for outcome in outcomes}
    width = max(map(len, checks))
    click.echo("  ".join([f"{kind}s".ljust(width), *attributes]))
    for check in checks:
        cells = (table.get((check, name), "not run").ljust(len(name)) for name in attributes)
        click.echo("  ".join([check.ljust(width), *cells]).rstrip())
    bad = [outcome for outcome in outcomes if outcome.result == "failed"]
    for outcome in bad:
        click.echo(f"\n{outcome.name}: {outcome.check} failed: {outcome.reason}")
        click.echo("    " + explain(outcome.check, kind).replace("\n", "\n    "))
    passed = sum(outcome.result == "ok" for outcome in outcomes)
    skipped = [outcome.name for outcome in outcomes if outcome.result == "skipped"]
    click.echo(f"\n{passed} checks passed, {len(bad)} failed, {len(skipped)} skipped")
    if kind == "dataset" and skipped:
        click.echo(f"the skipped checks need data: --data {skipped[0]}:ROOT")
    return bool(bad) or len(table) < len(attributes) * len(checks)
