"""A watched folder: images that appear there are scored, each once."""

from __future__ import annotations

import os
from concurrent.futures import CancelledError
from contextlib import suppress
from pathlib import Path
from stat import S_ISREG

from adcore_runtime.errors import AdcoreError, DataError
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
        self._held: set[Seen] = set()  # that could not be read
        self._problem = ""

    def turn(self) -> float:
        """Look once, and score what is complete; the seconds until the next look."""
        try:
            found = self._look()
        except (OSError, DataError) as error:
            self._say(f"{error}; it is watched again when that has changed")
            return SECONDS
        if self._problem:
            self._problem = ""
            self._scorer.store.event("watch", {"message": f"{self.folder} is watched again"})
        self._done &= set(found.values())
        for path, file in found.items():
            if file not in self._done and file == self._before.get(path) and file.size and self._score(file):
                self._done.add(file)
        self._before = found
        return SECONDS

    def _look(self) -> dict[str, Seen]:
        """The images of now, by path."""
        if not self.folder.is_dir():
            raise DataError(f"{self.folder} is gone")
        found = {}
        for path in images_below(self.folder):
            with suppress(FileNotFoundError):  # taken away meanwhile
                status = path.stat()
                if S_ISREG(status.st_mode):
                    found[str(path)] = Seen(str(path), status.st_size, status.st_mtime_ns)
        return found

    def _score(self, file: Seen) -> bool:
        """Score a file that was not scored before; whether it is done with."""
        store, name = self._scorer.store, os.path.relpath(file.path, self.folder)
        if store.was_seen(file):
            return True
        try:
            if file.size > self._max_bytes:
                raise DataError(f"the file has more than {self._max_bytes} bytes; start with a larger --max-mb")
            data = Path(file.path).read_bytes()
        except FileNotFoundError:  # taken away meanwhile
            return False
        except PermissionError as error:  # perhaps its writer holds it
            if file not in self._held:
                self._held.add(file)
                store.event("skipped", {"name": name, "message": f"{error}; it is tried again"})
            return False
        except DataError as error:
            return self._skip(file, name, error)
        try:
            self._scorer.score_file(data, name, file)
        except AdcoreError as error:
            return self._skip(file, name, error)
        except (CancelledError, RuntimeError):  # the station ends; the image has its turn when it starts again
            return False
        return True

    def _skip(self, file: Seen, name: str, error: AdcoreError) -> bool:
        self._scorer.store.mark_seen(file)
        self._scorer.store.event("skipped", {"name": name, "message": f"{name}: {error}"})
        return True

    def _say(self, problem: str) -> None:
        if problem != self._problem:
            self._problem = problem
            self._scorer.store.event("watch", {"message": problem})
