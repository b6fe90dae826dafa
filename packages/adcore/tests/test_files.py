"""Folders that a failure leaves: none that were not there before, and all that were."""

from __future__ import annotations

from pathlib import Path

import pytest
from adcore.files import removed_on_failure


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
