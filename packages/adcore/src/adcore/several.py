"""One training in several processes: checks, and how the processes are started, joined and ended together."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import timedelta
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

import torch
import torch.distributed as dist

from adcore.cards import ModelCard
from adcore.child import begin_child, without_interrupts
from adcore.errors import AdcoreError, ConfigError, TrainingError
from adcore.prepared import Prepared, prepare_run
from adcore.registry import create_model, list_models, model_class, register
from adcore.request import DataChoice, ModelChoice
from adcore.settings import settings
from adcore.training.device import pick_device, seed_everything
from adcore.training.processes import LostProcessError, Processes
from adcore.training_run import train_model

TIMEOUT = timedelta(days=1)  # of a process that waits for another: the first one may validate for long
HERE = "127.0.0.1"
CONTEXT = multiprocessing.get_context("spawn")  # threads of torch do not survive a fork
SECONDS = 10  # within which a process that has failed says why, or one that is told to end does so
PAUSE = 0.1  # seconds in which threads finish what they do


def torchrun() -> Processes | None:
    """The processes that torchrun has started, of which this is one; None where it has not."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return None
    return Processes(int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]))


def process_count(devices: int | None) -> int:
    """How many processes train: those of torchrun, else `devices`; ConfigError where these differ."""
    started = torchrun()
    if devices is not None and devices < 1:
        raise ConfigError(f"devices must be at least 1, not {devices}")
    if started and devices not in (None, started.count):
        raise ConfigError(f"torchrun started {started.count} processes; leave --devices {devices} out")
    return started.count if started else devices or 1


def device_of(name: str, rank: int, count: int) -> torch.device:
    """The device of a process: the CPU, or a GPU of its own; ConfigError where there are too few."""
    device = pick_device(name)
    if count == 1 or device.type == "cpu":
        return device
    if device.index is not None:
        raise ConfigError(f"device {name} is one GPU; use --device cuda for {count} processes")
    local, here = int(os.environ.get("LOCAL_RANK", rank)), int(os.environ.get("LOCAL_WORLD_SIZE", count))
    if here > torch.cuda.device_count():
        raise ConfigError(f"{here} processes need {here} GPUs, and torch sees {torch.cuda.device_count()}")
    return torch.device("cuda", local)


def check_several(run: Prepared, count: int) -> None:
    """ConfigError, before anything starts, where `count` processes cannot train the model of `run` on its images."""
    choice, remedy = run.choice, "leave --devices out (devices=1)"
    if count == 1:
        return
    if not dist.is_available():
        raise ConfigError(f"this torch has no torch.distributed; {remedy}")
    if not model_class(choice.card).divisible:
        why = "learns nothing" if choice.card.training == "none" else "needs all images of a batch in one process"
        raise ConfigError(f"{choice.card.name} {why}; {remedy}")
    if run.data.skip_bad:
        raise ConfigError(f"skip_bad leaves images out that other processes count on; remove bad files, or {remedy}")
    if choice.plan.compile:
        raise ConfigError(f"compile=true works in one process only; use compile=false, or {remedy}")
    if choice.preprocess.tile and choice.card.training == "one-pass":
        raise ConfigError(f"{choice.card.name} learns all tiles of an image in one process; {remedy}")
    size, what = (
        (run.learned, "training images")
        if choice.card.training == "one-pass"
        else (min(choice.plan.batch_size, run.learned), "images of a batch")
    )
    if size < count:
        raise ConfigError(f"{size} {what} are too few for {count} processes; {remedy}")


@dataclass(frozen=True)
class Task:
    """What every process needs to know to train."""

    choice: ModelChoice
    data: DataChoice
    device: str


@contextmanager
def started(task: Task, count: int) -> Iterator[Processes]:
    """Inside, this is the first of `count` processes that train together; at the end of the block the others are over.

    They were started by torchrun, or are started here. Raises the error of another process where that ends the training.
    """
    if count == 1:
        yield Processes()
    elif torchrun():
        with joined(Processes(0, count), device_of(task.device, 0, count)) as processes:
            yield processes
    else:
        with _with_children(task, count) as processes:
            yield processes


def follow(task: Task, processes: Processes) -> None:
    """Train beside the first process, which writes, shows and warns."""
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    _make_known(task.choice.card)
    device = device_of(task.device, processes.rank, processes.count)
    run = prepare_run(task.choice, task.data)
    seed_everything(task.choice.plan.seed)
    model = create_model(task.choice.card.name, **task.choice.config)
    train_model(model, run, device, processes=processes)


def follow_torchrun(task: Task, processes: Processes) -> None:
    """Train in a process that torchrun started, beside the first one, which says what all of them would say."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    check_several(prepare_run(task.choice, task.data), processes.count)
    try:
        with joined(processes, device_of(task.device, processes.rank, processes.count)):
            follow(task, processes)
    except LostProcessError:
        sys.exit(2)


@contextmanager
def joined(processes: Processes, device: torch.device, store: dist.Store | None = None) -> Iterator[Processes]:
    """Inside, the processes can add up what they have; `store`: where they meet, by default that of torchrun."""
    if device.type == "cuda":
        torch.cuda.set_device(device)
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    meeting = {} if store is None else {"store": store, "rank": processes.rank, "world_size": processes.count}
    dist.init_process_group(backend, timeout=TIMEOUT, **meeting)
    try:
        yield processes
        processes.same(None)  # none leaves while another may still be reading what it sent
    finally:
        # gloo's threads free tensors, for which they need Python's lock; destroying the group holds it while it waits for them
        time.sleep(PAUSE)
        dist.destroy_process_group()


def _make_known(card: ModelCard) -> None:
    """Register a model class that no package registers, as the process that started this one has done."""
    if card not in list_models():
        register(card)


@dataclass(frozen=True)
class _Child:
    rank: int
    process: BaseProcess
    messages: Connection

    def error(self, count: int) -> AdcoreError | None:
        """Why it ended, which it has; None where it ended well."""
        try:
            message = self.messages.recv() if self.messages.poll() else None
        except EOFError:
            message = None
        if message is not None:
            return message[0](message[1])
        code = self.process.exitcode
        if not code:
            return None
        how = f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
        return TrainingError(f"process {self.rank} of {count} {how}, perhaps for want of memory; go on with --resume")


@contextmanager
def _with_children(task: Task, count: int) -> Iterator[Processes]:
    store = dist.TCPStore(HERE, 0, count, is_master=True, wait_for_workers=False)
    device, threads = device_of(task.device, 0, count), torch.get_num_threads()
    share = max(1, threads // count)
    children: list[_Child] = []
    try:
        for rank in range(1, count):
            children.append(_start(task, Processes(rank, count), share, store.port))
        for child in children:
            _wait_for(child, count)
        torch.set_num_threads(share)
        with joined(Processes(0, count), device, store) as processes:
            yield processes
    except LostProcessError as lost:
        if reason := _reason(children, count):
            raise reason from lost
        raise
    finally:
        _end(children)
        torch.set_num_threads(threads)


def _reason(children: Sequence[_Child], count: int) -> AdcoreError | None:
    """Why the first of them ended that does not merely miss another one."""
    until, running = time.monotonic() + SECONDS, list(children)
    while running and (left := until - time.monotonic()) > 0:
        ended = wait([child.process.sentinel for child in running], left)
        for child in [child for child in running if child.process.sentinel in ended]:
            child.process.join()
            running.remove(child)
            error = child.error(count)
            if error and not isinstance(error, LostProcessError):
                return error
    return None


def _end(children: Sequence[_Child]) -> None:
    """Wait a second for those that end by themselves, and end the others."""
    until = time.monotonic() + 1
    for child in children:
        child.process.join(max(0, until - time.monotonic()))
    for child in children:
        child.process.terminate()
    for child in children:
        child.process.join(SECONDS)
        child.process.kill()  # where it is still there
        child.process.join()


def _start(task: Task, processes: Processes, threads: int, port: int) -> _Child:
    receiver, sender = CONTEXT.Pipe(duplex=False)
    arguments = (task, processes, threads, port, asdict(settings()), sender)
    process = CONTEXT.Process(target=_child, args=arguments, name=f"adcore {processes.rank}", daemon=True)
    with without_interrupts():
        process.start()
    sender.close()  # so that its end is seen here
    return _Child(processes.rank, process, receiver)


def _wait_for(child: _Child, count: int) -> None:
    """Until it can begin."""
    try:
        message = child.messages.recv()
    except EOFError:
        message = None
    if message != "ready":
        child.process.join(SECONDS)
        raise message[0](message[1]) if message else child.error(count)


def _child(
    task: Task, processes: Processes, threads: int, port: int, values: dict[str, Any], messages: Connection
) -> None:
    """The whole of a process that `_start` starts. What ends it goes to the first process, which says it."""
    try:
        begin_child(threads, values)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        multiprocessing.current_process().daemon = False  # it may start processes that read images
        store = dist.TCPStore(HERE, port, processes.count, is_master=False)
        device = device_of(task.device, processes.rank, processes.count)
        torch.empty(1, device=device)  # a GPU that does not work ends this one before the others wait for it
        messages.send("ready")
        with joined(processes, device, store):
            follow(task, processes)
    except AdcoreError as error:
        messages.send((type(error), str(error)))
        os._exit(1)
    except BaseException as error:
        reason = f"process {processes.rank} of {processes.count}: {type(error).__name__}: {error}"
        messages.send((TrainingError, reason.splitlines()[0]))
        os._exit(1)
