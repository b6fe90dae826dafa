"""Executors start the processes of a session: on this machine, through submitit (Slurm), or Ray; always the same command."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from adcore.errors import ConfigError
from adcore.experiments.slots import ANY_GPU, CPU, Slot, pick_slots
from adcore.ray_cluster import last_line, start_ray
from adcore.registry import load_executor

CARRIED = ("ADCORE_", "OMP_", "MKL_", "PYTHONPATH")  # of the environment, to workers that were started elsewhere
DAY = 24 * 60  # minutes
LOST = 3  # times that Ray starts a run again whose node or worker is gone; the run goes on from its checkpoint
WINDOWS = sys.platform == "win32"
# Ctrl-C is for the runner, which then stops the others
OWN_GROUP = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP} if WINDOWS else {"start_new_session": True}


@dataclass(frozen=True)
class Start:
    """What an executor starts for a run; plain data."""

    command: list[str]
    log: Path  # takes stdout and stderr
    directory: Path  # to work in: relative paths of the conditions and adcore.toml mean the same everywhere
    environment: dict[str, str]
    device: str
    devices: int = 1  # processes that train together, on a GPU each or all on the CPU


class Job(Protocol):
    """A running job."""

    problem: str  # of the engine, in one line, where it has one

    def code(self) -> int | None:
        """The exit code, -N for signal N; None while it runs."""

    def stop(self) -> None:
        """End it, as after Ctrl-C: it can be resumed."""


class Executor(Protocol):
    """Starts runs."""

    here: bool  # they share the processors of this machine

    def slots(self, gpus: str, jobs: int | None, runs: int) -> list[Slot]:
        """Slots for `runs` runs."""

    def start(self, start: Start) -> Job:
        """Start a run; OSError where that fails."""

    def close(self) -> None:
        """Release resources; nothing is started afterwards."""


def open_executor(name: str, options: Mapping[str, Any] | None = None) -> Executor:
    """The executor called `name`, adcore's or a plugin's; ConfigError where there is none, or its package is not installed."""
    kinds = {"local": LocalExecutor, "submitit": SubmititExecutor, "ray": RayExecutor}
    if options and name == "local":
        raise ConfigError("--executor-option goes with --executor submitit or ray")
    return (kinds.get(name) or load_executor(name))(dict(options or {}))


def spawn(start: Start) -> subprocess.Popen:
    """The process of a run. It stops when this process ends, because the pipe to its stdin is closed."""
    start.log.parent.mkdir(parents=True, exist_ok=True)
    with open(start.log, "ab") as log:
        return subprocess.Popen(
            start.command,
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            cwd=start.directory,
            env={**os.environ, **start.environment},
            **OWN_GROUP,
        )


def spawn_and_wait(start: Start) -> int:
    """Run the process on a worker of submitit or Ray; returns its exit code."""
    return spawn(start).wait()


class ResumableRun:
    """`spawn_and_wait` as submitit takes it: told of a time limit or preemption, Slurm queues it again, and it resumes."""

    def __call__(self, start: Start) -> int:
        """Run the process; its exit code."""
        return spawn_and_wait(start)

    def checkpoint(self, start: Start) -> Any:
        """What to queue: the same run, whose process ends with this one and has left its checkpoint."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, start)


def carried_environment() -> dict[str, str]:
    """Environment variables that a run depends on."""
    return {key: value for key, value in os.environ.items() if key.startswith(CARRIED)}


class LocalExecutor:
    """Processes of this machine."""

    here = True

    def __init__(self, options: dict[str, Any]) -> None:
        self.options = options

    def slots(self, gpus: str, jobs: int | None, runs: int) -> list[Slot]:
        """A slot a GPU, or those of the CPU."""
        return pick_slots(gpus, jobs)

    def start(self, start: Start) -> Job:
        """A child process."""
        return LocalJob(spawn(start))

    def close(self) -> None:
        """Nothing to do."""


class LocalJob:
    """A child process of this one."""

    problem = ""

    def __init__(self, process: subprocess.Popen) -> None:
        self.process = process

    def code(self) -> int | None:
        """The exit code, once there is one."""
        code = self.process.poll()
        if code is not None:
            self.process.stdin.close()
        return code

    def stop(self) -> None:
        """Close the pipe; a process that does not stop is killed."""
        self.process.stdin.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class SubmititExecutor:
    """Jobs of Slurm where there is one, else processes that submitit keeps; `options` are those of its AutoExecutor.

    Jobs outlive a runner that is killed; `--resume` then waits for them.
    """

    def __init__(self, options: dict[str, Any]) -> None:
        try:
            import submitit
        except ImportError:
            raise ConfigError('--executor submitit needs one more package: pip install "adcore[submitit]"') from None
        self.cluster = options.pop("cluster", None) or submitit.AutoExecutor.which()
        self.here, self.options = self.cluster == "local", {"timeout_min": DAY, **options}
        with tempfile.TemporaryDirectory() as folder:
            self._engine(Path(folder), CPU)  # wrong options are found before anything starts

    def slots(self, gpus: str, jobs: int | None, runs: int) -> list[Slot]:
        """On Slurm all runs at once, on GPUs unless `gpus` is none: it has a queue of its own."""
        if self.here:
            return pick_slots(gpus, jobs)
        return [Slot(CPU if gpus == "none" else ANY_GPU) for _ in range(jobs or runs)]

    def start(self, start: Start) -> Job:
        """Submit a job; its pickles and logs go into the run's folder."""
        engine = self._engine(start.log.parent / ".submitit", start.device, start.devices)
        return EngineJob(engine.submit(ResumableRun(), start))

    def _engine(self, folder: Path, device: str, devices: int = 1) -> Any:
        import submitit

        options = {"gpus_per_node": devices} if device == ANY_GPU else {}
        options |= {"cpus_per_task": devices} if devices > 1 else {}
        options |= self.options
        try:
            engine = submitit.AutoExecutor(folder, cluster=self.cluster)
            engine.update_parameters(name="adcore", **options)
        except Exception as error:  # submitit raises several types for an unknown name or value
            raise ConfigError(f"--executor-option: submitit says: {last_line(error)}") from None
        return engine

    def close(self) -> None:
        """Nothing to do."""


class EngineJob:
    """A submitit job."""

    def __init__(self, job: Any) -> None:
        self.job, self.problem = job, ""

    def code(self) -> int | None:
        """The exit code that the worker gives, or 1 with the engine's problem."""
        if not self.job.done():
            return None
        try:
            return self.job.result()
        except Exception as error:  # whatever the engine or its transport raises
            self.problem = last_line(error)
            return 1

    def stop(self) -> None:
        """Cancel the job."""
        with suppress(Exception):  # already ended
            self.job.cancel(check=False)


class RayExecutor:
    """Tasks of a Ray cluster, one a run: of a new one on this machine, or of `address`; `options` are those of ray.init."""

    def __init__(self, options: dict[str, Any]) -> None:
        self.here = "address" not in options
        self.ray = start_ray(options)

    def slots(self, gpus: str, jobs: int | None, runs: int) -> list[Slot]:
        """All runs at once, unless `jobs` says fewer: Ray has a queue of its own."""
        resources = self.ray.cluster_resources()
        device = ANY_GPU if gpus != "none" and resources.get("GPU") else CPU
        if gpus not in ("auto", "none"):
            raise ConfigError(f"--gpus {gpus}: Ray chooses the GPUs itself; use --gpus auto or none")
        kinds = ("CPU", "GPU") if device == ANY_GPU else ("CPU",)
        nodes = [node["Resources"] for node in self.ray.nodes() if node["Alive"]]
        most = max((min(int(node.get(kind, 0)) for kind in kinds) for node in nodes), default=1)  # of one node
        return [Slot(device, max(most, 1)) for _ in range(jobs or runs)]

    def start(self, start: Start) -> Job:
        """A task with a CPU for each process, and a GPU where there are some."""
        needs = {"num_cpus": start.devices, "num_gpus": start.devices * (start.device == ANY_GPU)}
        task = self.ray.remote(**needs, max_retries=LOST)(spawn_and_wait)
        return RayJob(self.ray, task.remote(start))

    def close(self) -> None:
        """Leave the cluster; one of our own ends."""
        self.ray.shutdown()


class RayJob:
    """A task of Ray."""

    def __init__(self, ray: Any, reference: Any) -> None:
        self.ray, self.reference, self.problem = ray, reference, ""

    def code(self) -> int | None:
        """The exit code that the task gives, or 1 with Ray's problem."""
        done, _ = self.ray.wait([self.reference], timeout=0)
        if not done:
            return None
        try:
            return self.ray.get(self.reference)
        except Exception as error:  # Ray raises many types, for a lost worker for example
            self.problem = last_line(error)
            return 1

    def stop(self) -> None:
        """Cancel the task; its process ends with its worker."""
        self.ray.cancel(self.reference, force=True)
