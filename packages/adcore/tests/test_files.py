"""Folders that a failure leaves: none that were not there before, and all that were. Locks, leftovers, full disks."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from adcore.errors import ConfigError
from adcore.files import (
    atomic_path,
    folder_lock,
    holds_files,
    new_folder,
    remove_leftovers,
    removed_on_failure,
    write_json,
    write_tensors,
    write_text,
)
from safetensors import SafetensorError


def write_and_fail(folder: Path, unless: Path | None = None) -> None:
    with removed_on_failure(folder, unless):
        (folder / "deep").mkdir(parents=True, exist_ok=True)
        (folder / "deep" / "half").write_text("half")
        raise KeyboardInterrupt


def write_a_run_and_stop(folder: Path) -> None:
    folder.mkdir(parents=True)
    raise KeyboardInterrupt


def left_after(folder: Path, root: Path, unless: Path | None = None) -> set[str]:
    """What is below `root` after a failure in `folder`."""
    with pytest.raises(KeyboardInterrupt):
        write_and_fail(folder, unless)
    return {path.relative_to(root).as_posix() for path in root.rglob("*")}


def test_a_failure_takes_the_new_folders_along(tmp_path) -> None:
    assert left_after(tmp_path / "results" / "today" / "run", tmp_path) == set()


def test_what_was_there_before_stays(tmp_path) -> None:
    (tmp_path / "results").mkdir()
    assert left_after(tmp_path / "results" / "run", tmp_path) == {"results"}
    (tmp_path / "results" / "run").mkdir()
    (tmp_path / "results" / "run" / "old").touch()
    assert "results/run/old" in left_after(tmp_path / "results" / "run", tmp_path)


def test_another_run_in_the_same_new_folder_stays(tmp_path) -> None:
    results = tmp_path / "results"
    with pytest.raises(KeyboardInterrupt), removed_on_failure(results / "first"):
        write_a_run_and_stop(results / "second")
    assert [path.name for path in results.iterdir()] == ["second"]


def test_all_stays_beside_the_file_that_is_worth_it(tmp_path) -> None:
    worth_it = tmp_path / "run" / "deep" / "half"
    assert left_after(tmp_path / "run", tmp_path, unless=worth_it) == {"run", "run/deep", "run/deep/half"}


HOLDER = """
import sys, time
from pathlib import Path
from adcore.files import folder_lock
with folder_lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def test_a_folder_is_of_one_process_at_a_time_until_that_one_is_killed(tmp_path) -> None:
    folder = tmp_path / "run"
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(folder)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(ConfigError) as caught, folder_lock(folder):
            pass
        assert f"run is in use by process {holder.pid} on {socket.gethostname()}; " in str(caught.value)
        assert "choose another --out" in str(caught.value)
    finally:
        holder.kill()
        holder.communicate()
    with folder_lock(folder):
        assert not holds_files(folder)
        assert new_folder(folder, overwrite=False) == folder


def test_a_lock_leaves_no_folder_that_stayed_empty_and_every_other_one(tmp_path) -> None:
    with folder_lock(tmp_path / "results" / "run"):
        pass
    assert list(tmp_path.iterdir()) == []
    with folder_lock(tmp_path / "results" / "run"):
        (tmp_path / "results" / "run" / "file").touch()
    assert (tmp_path / "results" / "run" / "file").is_file()
    with pytest.raises(KeyboardInterrupt), folder_lock(tmp_path / "new" / "run"):
        write_and_fail(tmp_path / "new" / "run")
    assert not (tmp_path / "new").exists()


def test_a_lock_on_a_file_says_so(tmp_path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="file is a file"), folder_lock(tmp_path / "file"):
        pass


def test_only_what_a_dead_process_of_ours_left_half_written_is_removed(tmp_path) -> None:
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    pid = int(dead.stdout)
    ours = [f".adcore-{pid}-0.tmp.json", f"checkpoints/.adcore-{pid}-7.tmp.safetensors"]
    others = [
        ".notes.tmp", ".draft.12.tmp.txt", "photos/.cache.tmp1", "checkpoints/.mine.tmp", f"photos/.adcore-{pid}-0.tmp",
        f".adcore-{os.getppid()}-0.tmp.json",
    ]  # fmt: skip
    for name in ours + others:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    remove_leftovers(tmp_path, "checkpoints", "visualizations")
    assert {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()} == set(others)


def test_the_temporary_file_of_a_long_name_is_short_and_of_a_kill_is_recognised(tmp_path) -> None:
    name = "x" * 245 + ".json"
    with atomic_path(tmp_path / name) as temporary:
        temporary.write_text("{}")
        assert temporary.suffix == ".json"
        copy = tmp_path / temporary.name.replace(str(os.getpid()), "99999999")
        copy.touch()
    remove_leftovers(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("write", [write_text, write_json])
@pytest.mark.parametrize("named", [True, False])
def test_a_full_disk_names_the_file_and_leaves_nothing(tmp_path, monkeypatch, write, named) -> None:
    def full(path: Path, text: str, **_: object) -> None:
        path.touch()
        raise OSError(errno.ENOSPC, "No space left on device", *([str(path)] if named else []))

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError) as caught:
        write(tmp_path / "result.json", "text")
    assert caught.value.errno == errno.ENOSPC
    assert caught.value.filename == str(tmp_path / "result.json")
    assert list(tmp_path.iterdir()) == []


def test_tensors_on_a_full_disk_are_an_os_error_with_the_name_of_the_file(tmp_path, monkeypatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("safetensors.torch.serialize_file", full)
    with pytest.raises(OSError) as caught:
        write_tensors(tmp_path / "model.safetensors", {"a": torch.zeros(2)})
    assert (caught.value.errno, caught.value.filename) == (28, str(tmp_path / "model.safetensors"))
    assert list(tmp_path.iterdir()) == []
