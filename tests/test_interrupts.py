"""SIGINT and SIGTERM at any moment of a command: one line, the exit code of that signal, and nothing half-written."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from adcore.testing.tiny import SIDE, write_tiny_mvtec

pytestmark = pytest.mark.skipif(os.name == "nt", reason="sends signals")
SETTINGS = ("--set", "weights=random", "--set", f"image_size={SIDE}")
STARTED = """
import sys

def say(event, arguments):
    if event == "import" and arguments[0] == "adcore.cli":  # the first heavy import
        print("STARTED", flush=True)

sys.addaudithook(say)
from adcore.__main__ import main
main()
"""


def start(*arguments: object) -> subprocess.Popen:
    """A command's process, once it has begun with its imports."""
    command = [sys.executable, "-c", STARTED, *map(str, arguments)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "STARTED\n", process.stderr.read()
    return process


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_tiny_mvtec(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def train(data, tmp_path_factory):
    """(the arguments of a training, its seconds)."""
    arguments = ("train", "padim-resnet18", "--data", f"mvtec:{data}", *SETTINGS, "--out")
    began, process = time.monotonic(), start(*arguments, tmp_path_factory.mktemp("calm") / "run")
    _, err = process.communicate()
    assert process.returncode == 0, err
    return arguments, time.monotonic() - began


def interrupt(arguments: tuple[object, ...], folder: Path, seconds: float, number: signal.Signals) -> int:
    process = start(*arguments, folder / "run")
    time.sleep(seconds)
    process.send_signal(number)
    _, err = process.communicate(timeout=300)
    if process.returncode == 0:  # it was over, or at its last line
        assert (folder / "run" / "result.json").is_file()
        assert err.strip() == ""
    else:
        assert process.returncode == 128 + number, (seconds, err)
        assert len(err.strip().splitlines()) == 1, (seconds, err)  # rich ends a progress bar with empty ones
        assert err.strip().startswith("adcore: interrupted"), (seconds, err)
        assert not folder.exists(), (seconds, sorted(folder.rglob("*")))
    return process.returncode


def test_a_signal_at_a_random_moment(train, tmp_path) -> None:
    arguments, whole = train
    seconds = random.Random(0).uniform(0.1, 0.7) * whole
    while not interrupt(arguments, tmp_path / f"{seconds:.3f}", seconds, signal.SIGTERM):
        seconds /= 2  # it was over before: the training that was timed had other programs beside it


@pytest.mark.slow
def test_an_interrupt_at_many_moments(train, tmp_path) -> None:
    """Some five minutes: `hatch run test -m slow tests/test_interrupts.py`; ADCORE_INTERRUPTS gives the count."""
    arguments, whole = train
    moments = random.Random(1)
    for i in range(int(os.environ.get("ADCORE_INTERRUPTS", 60))):
        interrupt(arguments, tmp_path / str(i), moments.uniform(0, 1.05) * whole, signal.SIGINT)


@pytest.mark.parametrize(("place", "number"), [("__del__", "SIGINT"), ("the end", "SIGINT"), ("the end", "SIGTERM")])
def test_a_signal_where_python_would_drop_it(place, number) -> None:
    """In a deleted object it comes again; after the command it is too late, and says nothing."""
    code = """
import sys
import adcore.__main__ as process, os, signal, time

class Deleted:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.2)

def command():
    if sys.argv[1] == "__del__":
        Deleted()
        time.sleep(60)
    else:
        class Last:
            def __del__(self):
                send(process_id, number)
                wait(0.1)

        send, process_id, number, wait = os.kill, os.getpid(), signal.Signals[sys.argv[2]], time.sleep
        sys.last = Last()  # which Python deletes after it has given up its own signal handlers

import adcore.cli
adcore.cli.main = command
process.main()
"""
    command = [sys.executable, "-c", code, place, number]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=50)
    if place == "__del__":
        assert (done.returncode, len(done.stderr.splitlines())) == (130, 1), done.stderr
    else:
        assert (done.returncode, done.stderr) == (0, "")


def test_an_import_that_turns_an_interrupt_into_an_error_of_its_own() -> None:
    code = """
import adcore.__main__ as process, os, signal, adcore.cli

def command():
    try:
        os.kill(os.getpid(), signal.SIGINT)
    except KeyboardInterrupt:
        raise ImportError("numpy.core.multiarray failed to import")

adcore.cli.main = command
process.main()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=50)
    assert (done.returncode, done.stderr) == (130, "adcore: interrupted; nothing half-written was left\n")
