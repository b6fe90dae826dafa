"""Executors, slots and idle GPUs, without starting a process: what the runner is told, and what it makes of it."""

from __future__ import annotations

import errno
import json
import os
import sys
from types import SimpleNamespace

import pytest
from adcore.errors import ConfigError
from adcore.experiments.executors import EngineJob, Start, open_executor
from adcore.experiments.idle import IdleGpus, need_gpus
from adcore.experiments.runner import Runner
from adcore.experiments.session import Run, Session
from adcore.experiments.slots import ANY_GPU, CPU, Slot, check_room, environment_of, pick_slots, threads_for
from rich.console import Console


@pytest.fixture
def session(tmp_path) -> Session:
    """Three queued runs."""
    runs = [Run(name, "toy", "single", "cold", (), 42, name, f"{name}.log") for name in ("one", "two", "three")]
    for run in runs:
        (tmp_path / run.folder).mkdir()
    return Session(tmp_path, runs, "c.json", str(tmp_path), threads=3)


class Ended:
    """A job that is over at once."""

    problem = ""

    def code(self) -> int:
        return 0


class Writes:
    """An executor whose runs leave a result and nothing else."""

    here = True

    def __init__(self) -> None:
        self.started: list[Start] = []

    def start(self, start: Start) -> Ended:
        self.started.append(start)
        result = {"source_results": {"image_auroc": 0.75}, "target_results": {"hot": {"image_auroc": 0.5}}}
        (start.log.parent / "result.json").write_text(json.dumps(result))
        return Ended()


def test_every_run_is_started_by_the_same_command_in_the_sessions_folder(session) -> None:
    executor = Writes()
    runner = Runner(session, [Slot(CPU), Slot("7")], executor)
    assert runner.run() == []
    on_cpu, on_gpu = executor.started[:2]
    assert on_cpu.command[1:] == ["-m", "adcore.experiments.child", str(session.folder / "one"), "cpu"]
    assert on_gpu.command[1:] == ["-m", "adcore.experiments.child", str(session.folder / "two"), "cuda"]
    assert on_cpu.environment["OMP_NUM_THREADS"] == "3"
    assert "CUDA_VISIBLE_DEVICES" not in on_cpu.environment
    assert on_gpu.environment["CUDA_VISIBLE_DEVICES"] == "7"
    assert on_cpu.directory == session.folder
    assert runner.details["one"] == "source 0.7500, target 0.5000"
    lines = [line[20:] for line in (session.folder / "session.log").read_text().splitlines()]
    assert "one (seed 42): running" in lines
    assert "one (seed 42): done: source 0.7500, target 0.5000" in lines
    assert "one,toy,single,cold,42,done,0.75,0.5," in (session.folder / "summary.csv").read_text()


def test_staggered_runs_start_so_many_seconds_apart(session, monkeypatch) -> None:
    now, started = [100.0], []
    monkeypatch.setattr("adcore.experiments.runner.time.monotonic", lambda: now[0])
    monkeypatch.setattr("adcore.experiments.runner.time.sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))

    class Timed(Writes):
        def start(self, start: Start) -> Ended:
            started.append(now[0])
            return super().start(start)

    Runner(session, [Slot(CPU), Slot(CPU), Slot(CPU)], Timed(), stagger=3.0).run()
    first, second, third = started
    assert first == 100
    assert 3 <= second - first <= 3.5
    assert 3 <= third - second <= 3.5


class Waits:
    """A job that is over when it has been asked so many times."""

    problem = ""

    def __init__(self, times: int) -> None:
        self.times = times

    def code(self) -> int | None:
        self.times -= 1
        return None if self.times > 0 else 0


class Together(Writes):
    """An executor that notes which GPUs are in use at each start."""

    def __init__(self) -> None:
        super().__init__()
        self.running: list[tuple[Waits, str]] = []
        self.at_once: list[list[str]] = []

    def start(self, start: Start) -> Waits:
        super().start(start)
        job = Waits(3)
        self.running = [(other, gpus) for other, gpus in self.running if other.times > 0]
        self.running.append((job, start.environment["CUDA_VISIBLE_DEVICES"]))
        self.at_once.append([gpus for _, gpus in self.running])
        return job


@pytest.fixture
def at_once(monkeypatch) -> None:
    monkeypatch.setattr("adcore.experiments.runner.time.sleep", lambda seconds: None)


def test_a_run_on_two_gpus_waits_for_both_and_those_after_it_wait_too(session, at_once) -> None:
    session.runs[1].devices = 2
    executor = Together()
    assert Runner(session, [Slot("4"), Slot("7")], executor).run() == []
    assert executor.at_once == [["4"], ["4,7"], ["4"]]
    assert [start.devices for start in executor.started] == [1, 2, 1]


def test_no_more_runs_than_jobs_share_the_gpus(session, at_once) -> None:
    executor = Together()
    Runner(session, [Slot("4"), Slot("7")], executor, jobs=1).run()
    assert executor.at_once == [["4"]] * 3


@pytest.mark.parametrize(
    ("slots", "message"),
    [
        (
            [Slot("0"), Slot("1"), Slot("0")],
            "condition 'big': devices=3, but a run can have 2 here; use devices=2 or less",
        ),
        ([Slot("MIG-a"), Slot("MIG-b"), Slot("MIG-c")], "MIG"),
        ([Slot(ANY_GPU, most=1), Slot(ANY_GPU, most=1), Slot(ANY_GPU, most=1)], "a run can have 1 here"),
    ],
)
def test_a_run_that_would_wait_for_ever_is_refused(slots, message) -> None:
    with pytest.raises(ConfigError, match=message):
        check_room([("small", 1), ("big", 3)], slots)
    check_room([("small", 1), ("big", 3)], [Slot(CPU)])  # three processes
    check_room([("small", 1), ("big", 3)], [Slot(ANY_GPU)])  # a queue that knows


def test_the_table_shows_what_runs_first_where_the_screen_is_small(session) -> None:
    session.runs[2].state = "running"
    for height, first in ((40, "one"), (7, "three")):
        table = Runner(session, [Slot(CPU)], console=Console(height=height, width=120)).table()
        assert next(table.columns[0].cells) == first
        assert table.title == "1 running, 2 queued"


def test_a_session_whose_own_files_cannot_be_written_goes_on_and_says_so(session, monkeypatch) -> None:
    def full(self: Session) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(self.folder / "session.json"))

    monkeypatch.setattr(Session, "save", full)
    runner = Runner(session, [Slot(CPU)], Writes())
    assert runner.run() == []
    assert {run.state for run in session.runs} == {"done"}
    assert "No space left on device" in runner.unsaved


class Lost:
    """A job whose worker is gone."""

    def done(self) -> bool:
        return True

    def result(self) -> int:
        raise RuntimeError("Job 7 is lost\n  node: n1 is down\n")


def test_an_engines_own_problem_is_the_reason(session) -> None:
    executor = SimpleNamespace(start=lambda start: EngineJob(Lost()))
    failed = Runner(session, [Slot(CPU)], executor).run()
    assert {run.error for run in failed} == {"RuntimeError: node: n1 is down"}


@pytest.mark.parametrize("engine", ["submitit", "ray"])
def test_an_engine_that_is_not_installed_is_named_with_its_command(engine, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, engine, None)
    with pytest.raises(ConfigError, match=rf'pip install "adcore\[{engine}\]"'):
        open_executor(engine)


def test_wrong_options_of_an_engine_are_found_before_anything_starts() -> None:
    pytest.importorskip("submitit", reason="pip install adcore[submitit]")
    with pytest.raises(ConfigError, match="timeout"):
        open_executor("submitit", {"timeout": 3})
    with pytest.raises(ConfigError, match="moon"):
        open_executor("submitit", {"cluster": "moon"})
    with pytest.raises(ConfigError, match="submitit or ray"):
        open_executor("local", {"a": 1})


def test_slurm_gets_all_runs_at_once_each_with_a_gpu(tmp_path, monkeypatch) -> None:
    pytest.importorskip("submitit", reason="pip install adcore[submitit]")
    (tmp_path / "srun").touch(mode=0o755)  # what submitit takes for Slurm; nothing is submitted here
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    engine = open_executor("submitit", {"cluster": "slurm", "slurm_partition": "gpu"})
    assert [slot.device for slot in engine.slots("auto", None, 5)] == ["cuda"] * 5
    assert [slot.device for slot in engine.slots("none", 2, 5)] == [CPU] * 2
    assert not engine.here


class Nvml:
    """NVML as far as it is used: GPU 0 is busy for some questions, then idle; 1 is a part of one (MIG), with full memory."""

    class NVMLError(Exception):
        """As there."""

    class NVMLError_NotSupported(NVMLError):
        """As there."""

    def __init__(self, busy: int = 2) -> None:
        self.busy = busy

    def nvmlInit(self) -> None:
        """There is a driver."""

    def nvmlDeviceGetHandleByIndex(self, number: int) -> int:
        return number

    def nvmlDeviceGetHandleByUUID(self, name: str) -> int:
        return {"GPU-zero": 0, "MIG-part": 1}[name]

    def nvmlDeviceGetUtilizationRates(self, handle: int) -> SimpleNamespace:
        if handle == 1:
            raise self.NVMLError_NotSupported
        self.busy -= handle == 0
        return SimpleNamespace(gpu=97 if self.busy >= 0 else 3)

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> SimpleNamespace:
        return SimpleNamespace(used=(500, 9_000)[handle], total=10_000)


def test_a_run_waits_until_its_gpu_is_idle(session, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", Nvml())
    monkeypatch.setattr("adcore.experiments.idle.EVERY", 0.0)
    executor = Writes()
    assert Runner(session, [Slot("0"), Slot("1")], executor, IdleGpus()).run() == []
    assert [start.environment["CUDA_VISIBLE_DEVICES"] for start in executor.started] == ["0"] * 3


def test_idle_is_asked_now_and_then_and_by_uuid_too(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", Nvml(busy=0))
    idle = IdleGpus()
    assert idle("GPU-zero")
    assert not idle("GPU-zero")  # asked just now: what was started is not seen yet
    assert not idle("1")
    assert IdleGpus(memory=95)("1")
    assert IdleGpus(memory=95)("MIG-part")
    assert not IdleGpus()("MIG-part")
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with pytest.raises(ConfigError, match=r'pip install "adcore\[gpu\]"'):
        IdleGpus()
    with pytest.raises(ConfigError, match="leave it out"):
        need_gpus([Slot(CPU)])


def test_slots_are_the_gpus_that_this_process_may_see(monkeypatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert [slot.device for slot in pick_slots("auto", None)] == ["0", "1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,GPU-five")
    assert [slot.device for slot in pick_slots("auto", 3)] == ["3", "GPU-five", "3"]
    assert [slot.device for slot in pick_slots("1", None)] == ["GPU-five"]
    assert [slot.device for slot in pick_slots("none", 2)] == [CPU, CPU]
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)  # of the parts of GPUs a process sees the first
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-a, MIG-b")
    assert environment_of(pick_slots("auto", None)[1:])["CUDA_VISIBLE_DEVICES"] == "MIG-b"
    assert [slot.device for slot in pick_slots("1", None)] == ["MIG-b"]
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,GPU-five")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: range(8), raising=False)
    assert threads_for(pick_slots("none", 3)) == 2
    assert threads_for(pick_slots("auto", None)) is None
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert threads_for(pick_slots("none", 3)) == 5
