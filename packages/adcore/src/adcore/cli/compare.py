"""`adcore compare MODEL MODEL ... --data NAME:ROOT --out DIR`: which model suits one's own data."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from adcore.cli.common import DATA_OPTION, ROI_HELP, choose_data, parse_settings
from adcore.cli.run import check_devices, check_weights, reader_is_gone, seeds_of


@click.command("compare")
@click.argument("models", nargs=-1, required=True, metavar="MODEL MODEL...")
@click.option("--data", required=True, metavar="NAME:ROOT", help="Dataset layout and folder: mvtec:PATH.")
@click.option("--category", default="all", show_default=True, help="Category, or all: one model for each.")
@click.option("--data-option", "pairs_of_data", multiple=True, metavar="KEY=VALUE", help=DATA_OPTION)
@click.option(
    "--set", "pairs", multiple=True, metavar="KEY=VALUE", help="A setting of every model, such as image_size=256."
)
@click.option("--roi", type=click.Path(exists=True, path_type=Path), metavar="MASK|FOLDER|JSON", help=ROI_HELP)
@click.option("--seeds", metavar="42,43", help="Train each model with each of these seeds.")
@click.option("--metric", default="image_auroc", show_default=True, help="Metric that models are ranked by.")
@click.option("--gpus", default="auto", show_default=True, metavar="0,1|auto|none", help="auto: all, else the CPU.")
@click.option("--jobs", type=click.IntRange(1), help="Trainings at a time; default: one a GPU, else 1.")
@click.option("--skip-bad", is_flag=True, help="Leave unreadable images out.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder for runs and page.")
@click.option("--overwrite", is_flag=True, help="Write into a folder that holds results.")
def command(
    models: tuple[str, ...],
    data: str,
    category: str,
    pairs_of_data: tuple[str, ...],
    pairs: tuple[str, ...],
    roi: Path | None,
    seeds: str | None,
    metric: str,
    gpus: str,
    jobs: int | None,
    skip_bad: bool,
    out: Path,
    overwrite: bool,
) -> None:
    """Train MODELS on the same data and rank them: a leaderboard, a page, and the command that combines the best three."""
    chosen_seeds, settings = seeds_of(seeds), parse_settings(pairs)
    chosen = choose_data(data, category, False, pairs_of_data, None, skip_bad, roi)
    from adcore.experiments import compare, present
    from adcore.experiments.conditions import load_conditions
    from adcore.experiments.executors import open_executor
    from adcore.experiments.runner import Runner
    from adcore.experiments.session import create_session, plan_runs
    from adcore.experiments.slots import check_room, threads_for
    from adcore.files import folder_lock, new_folder, removed_on_failure

    compare.several(models)
    engine = open_executor("local", {})
    with folder_lock(out):
        with removed_on_failure(out):  # until the first run starts; what has been trained stays
            new_folder(out, overwrite)
            path = compare.write_conditions(out, models, chosen, settings)
            planned = plan_runs(load_conditions(path), chosen_seeds, 1)
            check_weights(list(enumerate(planned)), dry_run=False)
            slots = engine.slots(gpus, jobs, len(planned))
            check_room([(condition.name, condition.config.devices) for condition in planned], slots)
            check_devices(list(enumerate(planned)), [slot.device for slot in slots])
            session = create_session(out, planned, path, threads_for(slots))
        try:
            failed = Runner(session, slots, engine, stopped=reader_is_gone, jobs=jobs).run()
        except (KeyboardInterrupt, BrokenPipeError):
            resume, report = f"adcore run --resume {session.folder}", f"adcore report {session.folder}"
            click.echo(f"go on with: {resume}, then: {report}", err=True)
            raise
        for run in failed:
            click.echo(f"failed: {run.name} (seed {run.seed}): {run.error}", err=True)
        board, files = compare.present(out, session.folder, metric)
    click.echo(present.as_text([board], []), nl=False)
    click.echo(f"page: {out / compare.PAGE}")
    for line in compare.ensemble_commands(chosen, files, out):
        click.echo(f"the best as one model: {line}")
    if failed:
        sys.exit(1)
