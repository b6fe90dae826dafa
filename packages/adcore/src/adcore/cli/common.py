"""Options and output that several commands share."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from adcore.errors import PluginError

if TYPE_CHECKING:
    from adcore.plugins import Plugins
    from adcore.run_results import RunResult

HEADLINE = (
    ("image AUROC", "image_auroc"),
    ("image AUPR", "image_aupr"),
    ("image F1 max", "image_f1_max"),
    ("TPR at FPR 1 %", "tpr_at_fpr_1"),
    ("pixel AUROC", "pixel_auroc"),
    ("AUPRO", "aupro"),
)


THRESHOLD_HELP = (
    "f1_percentile, f1_grid, youden, normal_p95; from normal images alone conformal:ALPHA, evt:RATE, quantile:Q or "
    "quantile:Q*FACTOR."
)
DATA_OPTION = "An option of the dataset's reader, of `adcore info DATASET`; may be given several times."

ROI_HELP = (
    "Region of interest: a mask for all images (not 0 counts), a folder of masks, or a JSON file with polygons or rectangles "
    "(COCO, LabelMe). What is outside is not seen, scored or drawn."
)


def data_options(required: bool = True) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """The options that name the data, and those of every run (--out, --overwrite, --device, --backbone-dir, --json)."""
    options = (
        click.option("--data", required=required, metavar="NAME:ROOT", help="Dataset layout and folder: mvtec:PATH."),
        click.option("--category", help="Category, or all: each on its own. May be left out where there is only one."),
        click.option("--pooled", is_flag=True, help="All categories together, as one."),
        click.option("--data-option", "pairs_of_data", multiple=True, metavar="KEY=VALUE", help=DATA_OPTION),
        click.option("--metadata", type=click.Path(), help="Short for --data-option metadata=FILE.csv."),
        click.option("--roi", type=click.Path(exists=True, path_type=Path), metavar="MASK|FOLDER|JSON", help=ROI_HELP),
        click.option("--skip-bad", is_flag=True, help="Leave unreadable images out, and list them in the results."),
        *run_options,
    )

    def add(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            command = option(command)
        return command

    return add


run_options = (
    click.option("--out", type=click.Path(path_type=Path), help="Folder for the results."),
    click.option("--overwrite", is_flag=True, help="Write into a folder that holds results."),
    click.option("--device", default=None, help="auto, cpu, cuda, cuda:1, ..."),
    click.option("--backbone-dir", type=click.Path(path_type=Path), help="Folder of backbone weights."),
    click.option("--json", "as_json", is_flag=True, help="Machine-readable output."),
)


def apply_globals(device: str | None, backbone_dir: Path | None) -> str:
    """Options over settings; the device in force."""
    from adcore.settings import set_globals, settings

    if backbone_dir:
        set_globals(backbone_dir=backbone_dir)
    return device or settings().device


def choose_data(
    data: str,
    category: str | None,
    pooled: bool,
    pairs_of_data: tuple[str, ...],
    metadata: str | None,
    skip_bad: bool,
    roi: Path | None = None,
    val_split: str | None = None,
    val_ratio: float | None = None,
    shots: int | None = None,
    calibration: str | None = None,
    needs_training: bool = True,
) -> list[Any]:
    """A DataChoice for each category that the options name; the category may be left out where there is one only.

    `needs_training`: False where a dataset without training images will do.
    """
    from adcore.errors import ConfigError
    from adcore.registry import check_data_options, open_dataset
    from adcore.request import DataChoice, choose_categories, parse_data, validation_split

    name, root = parse_data(data)
    options = parse_settings(pairs_of_data, "--data-option")
    if metadata and "metadata" in options:
        raise click.UsageError("--metadata and --data-option metadata=... mean the same; give one of them")
    options = check_data_options(name, options | ({"metadata": metadata} if metadata else {}))
    if category is None and not pooled:
        reader = open_dataset(name, str(root), **options)
        reader.needs_training = needs_training
        categories = reader.categories()
        if len(categories) != 1:
            raise ConfigError(
                f"{root} has {len(categories)} categories, choose with --category (all: each on its own), or give --pooled: "
                f"{', '.join(categories)}"
            )
        category = categories[0]
    split = validation_split(val_split, val_ratio)
    chosen = choose_categories(name, root, category, options, pooled, needs_training)
    rest = {"skip_bad": skip_bad, "shots": shots, "calibration": calibration, "roi": roi}
    return [DataChoice(name, root, one, options, **split, **rest) for one in chosen]


def parse_settings(pairs: tuple[str, ...], option: str = "--set") -> dict[str, Any]:
    """("k=v", ...) to a dict; values are JSON where they can be (true, 0.1, ["layer2"]), else text; a,b is a list."""
    parsed: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise click.UsageError(f"{option} takes KEY=VALUE, not '{pair}'")
        try:
            parsed[key.strip()] = json.loads(value)
        except json.JSONDecodeError:
            parsed[key.strip()] = value.split(",") if "," in value else value
    return parsed


def check_lines(measured: dict[str, Any]) -> list[str]:
    """What the gate measured, one line a backend."""
    lines = []
    for backend, found in measured["backends"].items():
        text = f"{backend} {found['version']}: largest difference of a score {found['score']:.1e} of it"
        text += f", of a map {found['map']:.1e} of the range" if found["map"] is not None else ""
        lines.append(f"{text}; {found['flips']} of {measured['images']} decisions differ")
    return lines


def show_problems(plugins: Plugins) -> None:
    """One line on stderr for each broken plugin, and for each name that two packages register."""
    for problem in plugins.problems:
        click.echo(f"adcore: {problem} (details: adcore doctor)", err=True)
    for kind, name in plugins.duplicates:
        try:
            plugins.check_unique(kind, name)
        except PluginError as error:
            click.echo(f"adcore: {error}", err=True)


def show_runs(runs: Iterable[RunResult], as_json: bool, alone: bool) -> None:
    """The headline of each run on stdout as it ends, or all of them as JSON: one object, or a list."""
    found = []
    for run in runs:
        found.append({"folder": str(run.folder), **run.summary})
        if not as_json:
            _show_run(run)
    if as_json:
        click.echo(json.dumps(found[0] if alone else found, indent=2, default=str))


def _show_run(result: RunResult) -> None:
    summary, metrics = result.summary, result.metrics
    click.echo(f"{summary['model']} on {summary['dataset']} {summary['category']}")
    for label, key in HEADLINE:
        value = metrics.values.get(key)
        text = f"{value:.4f}" if value is not None else f"n/a ({metrics.reasons.get(key, 'not measured')})"
        if interval := summary["intervals"].get(key):
            text += f" (95 %: {interval[0]:.4f} to {interval[1]:.4f})"
        click.echo(f"  {label:16}{text}")
    original = summary.get("full_size", {}).get("values", {})
    for label, key in HEADLINE:
        if original.get(key) is not None:
            click.echo(f"  {label:16}{original[key]:.4f} on original pixels")
    timings = summary["timings"]
    if timings.get("fit_seconds") is not None:
        click.echo(f"  {'fit':16}{timings['fit_seconds']:.1f} s")
    if timings.get("ms_per_image") is not None:
        click.echo(f"  {'predict':16}{timings['ms_per_image']:.1f} ms per image")
    if summary["threshold"]:
        threshold = summary["threshold"]
        click.echo(f"  {'threshold':16}{threshold['value']:.6g} ({threshold['method']} on {threshold['source']})")
        if threshold["note"]:
            click.echo(f"  note: {threshold['note']}")
    for note in summary["notes"]:
        click.echo(f"  note: {note}")
    if summary["skipped"]:
        click.echo(f"  skipped {len(summary['skipped'])} unreadable images, listed in result.json")
    click.echo(f"  report          {result.folder / 'report.html'}")
