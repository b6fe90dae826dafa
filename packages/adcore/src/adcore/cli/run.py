"""`adcore run CONDITIONS`: experiments, one process a condition."""

from __future__ import annotations

import sys
from pathlib import Path

import click


@click.command("run")
@click.argument("conditions", required=False, type=click.Path(path_type=Path))
@click.option("--ids", default="all", show_default=True, metavar="0,5-7|all", help="Conditions by number in the file.")
@click.option("--gpus", default="auto", show_default=True, metavar="0,1|auto|none", help="auto: all, else the CPU.")
@click.option("--jobs", type=click.IntRange(1), help="Conditions at a time; default: one a GPU, else 1.")
@click.option("--repeat", type=click.IntRange(1), help="Runs of each condition, each with the next seed.")
@click.option("--seeds", metavar="42,43", help="Seeds of each condition, instead of its own.")
@click.option("--dry-run", is_flag=True, help="Check everything, list the runs, and start none.")
@click.option("--resume", type=click.Path(path_type=Path), metavar="SESSION", help="Go on with a session's folder.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder for the session's folder.")
def command(
    conditions: Path | None,
    ids: str,
    gpus: str,
    jobs: int | None,
    repeat: int | None,
    seeds: str | None,
    dry_run: bool,
    resume: Path | None,
    out: Path | None,
) -> None:
    """Run the CONDITIONS of a file (JSON, also with comments, or YAML); exit code 1 when one of them failed."""
    if (conditions is None) == (resume is None):
        raise click.UsageError("give a file of conditions, or --resume with the folder of a session")
    if resume and (ids != "all" or repeat or seeds or dry_run or out):
        raise click.UsageError("--resume runs what the session holds: of the options, --gpus and --jobs go with it")
    if repeat and seeds:
        raise click.UsageError("--repeat counts seeds up, --seeds names them; give one of the two")
    from adcore.experiments.runner import Runner, pick_slots  # heavy from here on
    from adcore.experiments.session import create_session, plan_runs, resume_session
    from adcore.settings import settings

    slots = pick_slots("none" if gpus == "auto" and settings().device == "cpu" else gpus, jobs)
    if resume:
        session = resume_session(resume)
    else:
        from adcore.experiments.conditions import load_conditions

        loaded = load_conditions(conditions)
        chosen = [loaded[number] for number in _numbers(ids, len(loaded))]
        planned = plan_runs(chosen, _seeds(seeds), repeat or 1)
        if dry_run:
            for number in _numbers(ids, len(loaded)):
                for condition in plan_runs([loaded[number]], _seeds(seeds), repeat or 1):
                    domains = f"{condition.config.source_domain} -> {', '.join(condition.targets) or 'itself'}"
                    card = condition.choice.card.name
                    click.echo(f"{number}  {condition.name}  {card}  {domains}  seed {condition.seed}")
            click.echo(
                f"{len(planned)} runs, {len(slots)} at a time on {', '.join(dict.fromkeys(s.device for s in slots))}"
            )
            return
        session = create_session(out or settings().output_dir, planned, conditions)
    click.echo(f"session {session.folder}")
    runner = Runner(session, slots)
    try:
        failed = runner.run()
    except KeyboardInterrupt:
        click.echo(f"go on with: adcore run --resume {session.folder}", err=True)
        raise
    done = sum(run.state == "done" for run in session.runs)
    click.echo(f"{done} of {len(session.runs)} done; tables: adcore analyze {session.folder}")
    for run in failed:
        click.echo(f"failed: {run.name} (seed {run.seed}): {run.error}", err=True)
    if runner.unsaved:
        click.echo(f"the session's files could not be written: {runner.unsaved}", err=True)
    if failed or runner.unsaved:
        sys.exit(1)


def _numbers(text: str, count: int) -> list[int]:
    """ "0,5-7" -> [0, 5, 6, 7]."""
    if text == "all":
        return list(range(count))
    numbers: list[int] = []
    for part in text.split(","):
        first, _, last = part.strip().partition("-")
        if not first.isdecimal() or (last and not last.isdecimal()):
            raise click.UsageError(f"--ids takes numbers such as 0,5-7 or all, not '{text}'")
        numbers += range(int(first), int(last or first) + 1)
    wrong = [number for number in numbers if number >= count]
    if wrong or not numbers:
        raise click.UsageError(f"--ids {text}: the file has the conditions 0 to {count - 1}")
    return list(dict.fromkeys(numbers))


def _seeds(text: str | None) -> list[int]:
    if not text:
        return []
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts):
        raise click.UsageError(f"--seeds takes whole numbers such as 42,43, not '{text}'")
    return list(dict.fromkeys(map(int, parts)))
