"""A watched folder: images that appear there are scored, each once."""

from __future__ import annotations

import os
from concurrent.futures import CancelledError
from pathlib import Path

from adcore_runtime.errors import DataError
from adcore_runtime.listing import images_below
from adcore_runtime.station.scoring import Scorer
from adcore_runtime.station.store import Seen

SECONDS = 1.0  # between two looks


class Watch:
    """Scores the images below `folder` that have not changed between two looks, also those that came while it was away.

    A file is known by its path, size and time of change: one that is written anew is scored again.
    """

    def __init__(self, folder: Path, scorer: Scorer, max_bytes: int) -> None:
        self.folder, self._scorer, self._max_bytes = folder.absolute(), scorer, max_bytes
        self._before: dict[str, Seen] = {}  # what the last look has found
        self._done: set[Seen] = set()  # of these
        self._problem = ""

    def turn(self) -> float:
        """Look once, and score what is complete; the seconds until the next look."""
        try:
            found = {str(path): _seen(path) for path in self._images()}
        except (OSError, DataError) as error:
            self._say(f"{error}; it is watched again when that has changed")
            return SECONDS
        if self._problem:
            self._problem = ""
            self._scorer.store.event("watch", {"message": f"{self.folder} is watched again"})
        self._done &= set(found.values())
        for path, file in found.items():
            if file not in self._done and file == self._before.get(path) and file.size:
                self._score(file)
                self._done.add(file)
        self._before = found
        return SECONDS

    def _images(self) -> list[Path]:
        if not self.folder.is_dir():
            raise DataError(f"{self.folder} is gone")
        return [path for path in images_below(self.folder) if path.is_file()]

    def _score(self, file: Seen) -> None:
        store, name = self._scorer.store, os.path.relpath(file.path, self.folder)
        if store.was_seen(file):
            return
        try:
            if file.size > self._max_bytes:
                raise DataError(f"the file has more than {self._max_bytes} bytes; start with a larger --max-mb")
            self._scorer.score_file(Path(file.path).read_bytes(), name, file)
        except FileNotFoundError:  # taken away meanwhile
            pass
        except DataError as error:
            store.mark_seen(file)
            store.event("skipped", {"name": name, "message": f"{name}: {error}"})
        except (CancelledError, RuntimeError):  # the station ends; the image has its turn when it starts again
            pass

    def _say(self, problem: str) -> None:
        if problem != self._problem:
            self._problem = problem
            self._scorer.store.event("watch", {"message": problem})


def _seen(path: Path) -> Seen:
    status = path.stat()
    return Seen(str(path), status.st_size, status.st_mtime_ns)
