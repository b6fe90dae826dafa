"""`adcore run CONDITIONS`: experiments, one process a condition."""

from __future__ import annotations

import select
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from adcore.cli.common import parse_settings

if TYPE_CHECKING:
    from adcore.experiments.conditions import Condition
    from adcore.experiments.runner import Runner


@click.command("run")
@click.argument("conditions", required=False, type=click.Path(path_type=Path))
@click.option(
    "--data", metavar="NAME:ROOT", help="Dataset layout and folder of every condition, instead of the file's."
)
@click.option(
    "--ids",
    "--experiment-id",
    "ids",
    default="all",
    show_default=True,
    metavar="0,5-7|all",
    help="Conditions by number in the file.",
)
@click.option(
    "--gpus",
    "--gpu-id",
    "gpus",
    default="auto",
    show_default=True,
    metavar="0,1|auto|none",
    help="auto: all, else the CPU.",
)
@click.option("--jobs", type=click.IntRange(1), help="Conditions at a time; default: one a GPU, else 1.")
@click.option("--repeat", type=click.IntRange(1), help="Runs of each condition, each with the next seed.")
@click.option("--seeds", metavar="42,43", help="Seeds of each condition, instead of its own.")
@click.option(
    "--stagger", type=click.FloatRange(0), default=0.0, metavar="SECONDS", help="Least time between two starts."
)
@click.option("--wait-idle", is_flag=True, help="Start on a GPU only once it is idle (NVML).")
@click.option("--idle-use", default=10.0, show_default=True, metavar="PERCENT", help="Most use of an idle GPU.")
@click.option("--idle-memory", default=10.0, show_default=True, metavar="PERCENT", help="Most used memory of one.")
@click.option(
    "--executor", default="local", show_default=True, metavar="local|submitit|ray|NAME", help="NAME: of a plugin."
)
@click.option("--executor-option", multiple=True, metavar="KEY=VALUE", help="Of submitit's AutoExecutor or ray.init.")
@click.option("--dry-run", is_flag=True, help="Check everything, list the runs, and start none.")
@click.option("--resume", type=click.Path(path_type=Path), metavar="SESSION", help="Go on with a session's folder.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder for the session's folder.")
def command(
    conditions: Path | None,
    data: str | None,
    ids: str,
    gpus: str,
    jobs: int | None,
    repeat: int | None,
    seeds: str | None,
    stagger: float,
    wait_idle: bool,
    idle_use: float,
    idle_memory: float,
    executor: str,
    executor_option: tuple[str, ...],
    dry_run: bool,
    resume: Path | None,
    out: Path | None,
) -> None:
    """Run the CONDITIONS of a file (JSON, also with comments, or YAML); exit code 1 when one of them failed."""
    if (conditions is None) == (resume is None):
        raise click.UsageError("give a file of conditions, or --resume with the folder of a session")
    if resume and (data or ids != "all" or repeat or seeds or dry_run or out):
        raise click.UsageError(
            "--resume takes its runs from the session; leave out --data, --ids, --repeat, --seeds, --out, --dry-run"
        )
    if repeat and seeds:
        raise click.UsageError("give --repeat or --seeds, not both")
    if wait_idle and executor != "local":
        raise click.UsageError(f"--wait-idle is for this machine's GPUs; {executor} has a queue of its own")
    from adcore.experiments.conditions import load_conditions  # heavy from here on
    from adcore.experiments.executors import open_executor
    from adcore.experiments.idle import IdleGpus, need_gpus
    from adcore.experiments.runner import Runner
    from adcore.experiments.session import create_session, load_session, resume_session
    from adcore.experiments.slots import check_room, threads_for
    from adcore.settings import settings

    gpus = "none" if gpus == "auto" and settings().device == "cpu" else gpus
    chosen: list[tuple[int, Condition]] = []
    if conditions:
        chosen = _choose(load_conditions(conditions, data), ids, seeds_of(seeds), repeat or 1)
        check_weights(chosen, dry_run)
        _tell_of_tensorboard(chosen)
        if dry_run and executor != "local":  # a dry run starts no engine
            return _list_runs(chosen, f"through {executor}")
    if conditions:
        runs = [(condition.name, condition.config.devices) for _, condition in chosen]
    else:
        runs = [(run.name, run.devices) for run in load_session(resume).runs]
    engine = open_executor(executor, parse_settings(executor_option, "--executor-option"))
    try:
        slots = engine.slots(gpus, jobs, len(runs))
        check_room(runs, slots)
        if engine.here:
            check_devices(chosen, [slot.device for slot in slots])
        if wait_idle:
            need_gpus(slots)
        idle = IdleGpus(idle_use, idle_memory) if wait_idle else None
        if dry_run:
            places = ", ".join(dict.fromkeys(slot.device for slot in slots))
            return _list_runs(chosen, f"{jobs or len(slots)} at a time on {places}")
        if conditions:
            folder, threads = out or settings().output_dir, threads_for(slots if engine.here else [])
            session = create_session(folder, [condition for _, condition in chosen], conditions, threads)
        else:
            session = resume_session(resume)
        _run(Runner(session, slots, engine, idle, stagger=stagger, stopped=reader_is_gone, jobs=jobs))
    finally:
        engine.close()


def check_weights(chosen: list[tuple[int, Condition]], dry_run: bool) -> None:
    """Weights that are not on this machine are a note of a dry run, and refused before a session begins."""
    from adcore.errors import WeightsError

    missing = {condition.name: condition.missing for _, condition in chosen if condition.missing}
    lines = [f"condition '{name}': {text}" for name, text in missing.items()]
    if lines and not dry_run:
        raise WeightsError("\n".join([f"weights of {len(lines)} conditions are missing, nothing was started", *lines]))
    for line in lines:
        click.echo(f"note: {line}", err=True)


def _tell_of_tensorboard(chosen: list[tuple[int, Condition]]) -> None:
    """Say once what all runs would note."""
    from adcore.experiments.domains import NO_TENSORBOARD, has_tensorboard

    if not has_tensorboard() and any(condition.config.tensorboard is None for _, condition in chosen):
        click.echo(f"note: {NO_TENSORBOARD}", err=True)


def check_devices(chosen: list[tuple[int, Condition]], devices: list[str]) -> None:
    """ConfigError for a condition whose plan a device of this machine cannot carry out."""
    import torch

    from adcore.experiments.slots import CPU
    from adcore.training.networks import check_plan

    for _, condition in chosen:
        for device in set(devices):
            check_plan(condition.choice.plan, torch.device(CPU if device == CPU else "cuda"))


def reader_is_gone() -> bool:
    """Whether nobody reads stdout any more, as after `| head -1`; False where the system cannot tell."""
    try:
        poll = select.poll()
        poll.register(sys.stdout.fileno(), 0)  # errors are always reported
    except (AttributeError, OSError, ValueError):  # Windows; no real file
        return False
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))


def _choose(loaded: list[Condition], ids: str, seeds: list[int], repeat: int) -> list[tuple[int, Condition]]:
    """What is to run: each chosen condition, with its number in the file, for each seed."""
    from adcore.experiments.session import plan_runs

    numbers = _numbers(ids, len(loaded))
    plan_runs([loaded[number] for number in numbers], seeds, repeat)  # checked together, so that no seed is used twice
    return [(number, condition) for number in numbers for condition in plan_runs([loaded[number]], seeds, repeat)]


def _run(runner: Runner) -> None:
    """Run and print the outcome; exit code 1 when a run failed."""
    session = runner.session
    click.echo(f"session {session.folder}")
    try:
        failed = runner.run()
    except (KeyboardInterrupt, BrokenPipeError):
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


def _list_runs(chosen: list[tuple[int, Condition]], where: str) -> None:
    """What --dry-run shows."""
    for number, condition in chosen:
        domains = f"{condition.config.source_domain} -> {', '.join(condition.targets) or 'itself'}"
        click.echo(f"{number}  {condition.name}  {condition.choice.card.name}  {domains}  seed {condition.seed}")
    click.echo(f"{len(chosen)} runs, {where}")


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


def seeds_of(text: str | None) -> list[int]:
    """ "42,43" -> [42, 43]; nothing for None."""
    if not text:
        return []
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts):
        raise click.UsageError(f"--seeds takes whole numbers such as 42,43, not '{text}'")
    return list(dict.fromkeys(map(int, parts)))
