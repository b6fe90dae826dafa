"""Work that a station does beside answering: again and again, in a thread of its own."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

RETRY_SECONDS = 5.0  # after an error

log = logging.getLogger(__name__)


class Repeated:
    """Calls `task`, which returns the seconds until its next turn, until `close`; an error is said once."""

    def __init__(self, name: str, task: Callable[[], float]) -> None:
        self._name, self._task, self._stop = name, task, threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def close(self, seconds: float = 5.0) -> None:
        """No turn after this one, which is waited for at most `seconds`."""
        self._stop.set()
        self._thread.join(seconds)

    def _run(self) -> None:
        said, wait = "", 0.0
        while not self._stop.wait(wait):
            try:
                wait, said = self._task(), ""
            except Exception as error:  # a full disk, a folder without permission: the station stays up
                if self._stop.is_set():  # what it needs is closed
                    return
                wait, reason = RETRY_SECONDS, f"{self._name}: {type(error).__name__}: {error}"
                if reason != said:
                    log.warning("%s; trying again", reason)
                said = reason
