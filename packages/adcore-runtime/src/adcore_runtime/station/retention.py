"""What a station keeps for a limited time: results and images go, the oldest first, by age or by the size of the images."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from adcore_runtime.station.store import Store

SECONDS = 60.0  # between two sweeps
BATCH = 200  # results deleted at a time, so that no answer waits long
ORPHAN_SECONDS = 3600  # a file this old that no result names was left by a kill
OLD = "SELECT id, image, bytes FROM results WHERE {} ORDER BY id LIMIT ?"
UNREVIEWED = "NOT EXISTS (SELECT 1 FROM reviews WHERE reviews.result = results.id)"

log = logging.getLogger(__name__)


@dataclass
class Retention:
    """Deletes results, with their images and events, beyond `days` or beyond `gigabytes` of images.

    Those that a person has reviewed stay, unless `reviewed` is set.
    """

    store: Store
    days: float | None = None
    gigabytes: float | None = None
    reviewed: bool = False
    _full: bool = False  # whether that reviewed images take more than `gigabytes` was said

    def turn(self) -> float:
        """Sweep once; the seconds until the next time."""
        removed = lost = 0
        if self.days is not None:
            before = datetime.now(UTC) - timedelta(days=self.days)
            text = before.isoformat(timespec="milliseconds")
            self.store.forget_events(text)
            while rows := self._oldest("created < ?", text):
                lost += self.store.forget(rows)
                removed += len(rows)
        if self.gigabytes is not None:
            (size,) = self.store.select("SELECT COALESCE(SUM(bytes), 0) AS total FROM results")
            excess = size["total"] - self.gigabytes * 1e9
            while excess > 0 and (rows := _first(self._oldest("1"), excess)):
                lost += self.store.forget(rows)
                removed += len(rows)
                excess -= sum(row["bytes"] for row in rows)
            if excess > 0 and not self._full:
                log.warning("images take %.2f GB more than --keep-gb, all of them reviewed", excess / 1e9)
            self._full = excess > 0
        if removed:
            late = f"; {lost} events of them had not reached all sinks" if lost else ""
            log.warning("%d results were deleted, as --keep-days or --keep-gb ask for%s", removed, late)
        return SECONDS

    def remove_orphans(self) -> None:
        """Delete images that no result names: a kill came between the two."""
        known = {row["image"] for row in self.store.select("SELECT image FROM results")}
        for path in (self.store.folder / "images").iterdir():
            if path.name not in known and time.time() - path.stat().st_mtime > ORPHAN_SECONDS:
                path.unlink(missing_ok=True)

    def _oldest(self, condition: str, *values: Any) -> list[dict[str, Any]]:
        wanted = condition if self.reviewed else f"{condition} AND {UNREVIEWED}"
        return self.store.select(OLD.format(wanted), *values, BATCH)


def _first(rows: list[dict[str, Any]], excess: float) -> list[dict[str, Any]]:
    """The first of `rows`, as many as it takes to have `excess` bytes."""
    total = 0
    for count, row in enumerate(rows, 1):
        total += row["bytes"]
        if total >= excess:
            return rows[:count]
    return rows
