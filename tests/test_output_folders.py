"""What commands do to the folder given by --out: whose it is, what stays in it, and what a full disk leaves there."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
import warm
from adcore.files import folder_lock
from adcore.testing.tiny import SIDE, write_tiny_mvtec

SETTINGS = ("--set", "weights=random", "--set", f"image_size={SIDE}")


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_tiny_mvtec(tmp_path_factory.mktemp("data"))


@pytest.fixture
def train(run_cli, data, tmp_path):
    """Train into tmp_path / name: (exit code, stdout, stderr)."""

    def run(name: str, *more: object) -> tuple[int, str, str]:
        return run_cli("train", "padim-resnet18", "--data", f"mvtec:{data}", "--out", tmp_path / name, *SETTINGS, *more)

    return run


def content(folder: Path) -> dict[str, bytes]:
    """The files below `folder` but for the hidden ones, which are locks."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith(".")
    }


@pytest.mark.parametrize("overwrite", [(), ("--overwrite",)])
def test_an_evaluation_never_goes_into_the_folder_of_a_trained_model(run_cli, train, data, tmp_path, overwrite) -> None:
    assert train("run")[0] == 0
    before = content(tmp_path / "run")
    code, _, err = run_cli(
        "evaluate", tmp_path / "run", "--data", f"mvtec:{data}", "--out", tmp_path / "run", *overwrite
    )
    assert code == 2
    assert len(err.strip().splitlines()) == 1
    assert content(tmp_path / "run") == before
    (tmp_path / "kept").mkdir()
    (tmp_path / "run" / "model.safetensors").rename(tmp_path / "kept" / "part.st")
    code, _, err = run_cli(
        "evaluate", tmp_path / "kept" / "part.st", "--data", f"mvtec:{data}", "--out", tmp_path / "kept", *overwrite
    )
    assert code == 2
    assert list(content(tmp_path / "kept")) == ["part.st"]


def test_an_evaluation_that_overwrites_another_leaves_what_is_not_its_own(run_cli, train, data, tmp_path) -> None:
    assert train("run")[0] == 0
    evaluate = ("evaluate", tmp_path / "run", "--data", f"mvtec:{data}", "--out", tmp_path / "seen", "--overwrite")
    (tmp_path / "seen").mkdir()
    (tmp_path / "seen" / "notes.txt").write_text("mine")
    assert run_cli(*evaluate)[0] == 0
    assert run_cli(*evaluate)[0] == 0
    (tmp_path / "seen" / "visualizations" / "test" / "99_old.png").touch()
    (tmp_path / "seen" / "visualizations" / "mine.png").touch()
    assert run_cli(*evaluate)[0] == 0
    names = {name for name in content(tmp_path / "seen") if not name.startswith("visualizations/test/")}
    left = {"predictions.csv", "report.html", "result.json", "thresholds.txt", "histogram.png"}
    assert names == {*left, "notes.txt", "visualizations/mine.png"}
    assert not (tmp_path / "seen" / "visualizations" / "test" / "99_old.png").exists()


def test_a_training_that_overwrites_leaves_foreign_temporary_files(train, tmp_path) -> None:
    foreign = [tmp_path / "run" / name for name in (".draft.tmp", "photos/.cache.tmp.png", "checkpoints2/.a.1.tmp")]
    for path in foreign:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("mine")
    assert train("run", "--overwrite")[0] == 0
    assert all(path.read_text() == "mine" for path in foreign)


def test_a_folder_in_use_is_named_with_its_process(run_cli, train, data, tmp_path) -> None:
    with folder_lock(tmp_path / "run"):
        code, _, err = train("run")
        assert code == 2
        assert f"{tmp_path / 'run'} is in use by process {os.getpid()} on " in err
    assert not (tmp_path / "run").exists()
    assert train("run")[0] == 0
    with folder_lock(tmp_path / "seen"):
        out = ("--out", tmp_path / "seen")
        code, _, err = run_cli("evaluate", tmp_path / "run", "--data", f"mvtec:{data}", *out)
        assert (code, "is in use by process" in err) == (2, True)
        assert content(tmp_path / "seen") == {}
        code, _, err = run_cli("predict", tmp_path / "run", data, *out)
        assert (code, "is in use by process" in err) == (2, True)
        assert content(tmp_path / "seen") == {}


def test_of_two_trainings_that_start_at_once_into_one_new_folder_one_is_refused(data, tmp_path) -> None:
    command = [
        "adcore",
        "train",
        "padim-resnet18",
        "--data",
        f"mvtec:{data}",
        *SETTINGS,
        "--out",
        str(tmp_path / "run"),
    ]
    folders = [tmp_path / "one", tmp_path / "other"]
    for folder in folders:
        folder.mkdir()
    both = [warm.start(command, folder) for folder in folders]
    for process in both:
        process.join(timeout=300)
    outputs = [(folder / warm.OUTPUT).read_text(encoding="utf-8") for folder in folders]
    assert sorted(process.exitcode for process in both) == [0, 2], outputs
    assert any("is in use by process" in text or "exists and is not empty" in text for text in outputs)
    assert (tmp_path / "run" / "result.json").is_file()


FULL = [
    "adcore.tensorfile.write_tensors",
    "adcore.evaluation.evaluate.atomic_path",
    "adcore.run_results.write_page",
    "adcore.run_results.write_json",
]


@pytest.mark.parametrize("where", FULL)
def test_a_disk_that_fills_up_is_one_line_and_leaves_nothing(train, tmp_path, monkeypatch, where) -> None:
    def full(path: Path, *_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(where, full)
    code, _, err = train("results/run")
    assert code == 2
    lines = err.strip().splitlines()
    assert len(lines) == 1, err
    assert "No space left on device" in lines[0]
    assert str(tmp_path / "results" / "run") in lines[0]
    assert not (tmp_path / "results").exists()


def can_mount() -> bool:
    try:
        return subprocess.run(["unshare", "-rm", "true"], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


@pytest.mark.slow  # the tests above say that the disk is full
@pytest.mark.skipif(not can_mount(), reason="mounts a tiny folder, which is not allowed here")
def test_a_disk_that_is_really_full(data, tmp_path) -> None:
    """The model does not fit onto it."""
    disk, found = tmp_path / "disk", tmp_path / "found"
    disk.mkdir()
    script = f'mount -t tmpfs -o size=64k none {disk} && "$@"; code=$?; find {disk} -mindepth 1 > {found}; exit $code'
    command = [sys.executable, "-m", "adcore", "train", "padim-resnet18", "--data", f"mvtec:{data}", *SETTINGS]
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", script, "sh", *command, "--out", str(disk / "run")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert "No space left on device" in done.stderr
    assert "Traceback" not in done.stderr
    assert found.read_text() == ""
