"""What a station keeps: images as files, results, reviews and events in an SQLite database beside them."""

from __future__ import annotations

import json
import logging
import threading
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from adcore_runtime.decisions import BAD, GOOD, Result
from adcore_runtime.station.schema import open_database

LABELS = (GOOD, BAD)  # what a person says of an image
RESULT, REVIEW = "result", "review"  # kinds of events that tell of a result, and are not worth a line in the log
DRIFT, DRIFT_RESET = "drift", "drift-reset"  # an alarm, and that its test has begun anew
ROWS = """
SELECT results.*, reviews.label AS review, reviews.marked AS marked FROM results
LEFT JOIN reviews ON reviews.id = (SELECT MAX(id) FROM reviews WHERE result = results.id)
"""
KINDS = {  # first bytes -> suffix, media type
    b"\x89PNG": (".png", "image/png"),
    b"\xff\xd8": (".jpg", "image/jpeg"),
    b"BM": (".bmp", "image/bmp"),
    b"RIFF": (".webp", "image/webp"),
    b"II": (".tif", "image/tiff"),
    b"MM": (".tif", "image/tiff"),
}
MEDIA_TYPES = dict(KINDS.values())

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Counts:
    """How many results a station has."""

    total: int
    anomalous: int
    reviewed: int


class Seen(NamedTuple):
    """A file of a watched folder, in the state in which it was scored."""

    path: str
    size: int  # bytes
    modified: int  # nanoseconds since 1970


@dataclass(frozen=True)
class Observed:
    """What an image was to the drift test of its model: stored with its result, so that a restart finds the test where it was.

    Its statistics are kept until a whole `state` of the test takes the place of all that came before.
    """

    model: str
    created: str
    statistics: Mapping[str, float]
    alarms: Sequence[Mapping[str, Any]] = ()  # data of the events
    state: str | None = None


class StoredMonitor(NamedTuple):
    """A drift test as it is stored: a state, and what was observed since, the oldest first."""

    key: str  # of adcore_runtime.drift.Monitor
    state: str
    since: list[Observed]


class Store:
    """The folder of a station: `station.db` and `images/`. Its methods may be called from any thread.

    Raises ConfigError for a database of a newer version, or a file that is none.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self._lock = folder, threading.Lock()
        (folder / "images").mkdir(parents=True, exist_ok=True)
        self._database = open_database(folder / "station.db")

    def keep_image(self, data: bytes) -> Path:
        """Write an image below `images/` under a new name, with the suffix of what it is."""
        suffix = next((kind[0] for head, kind in KINDS.items() if data.startswith(head)), ".bin")
        path = self.folder / "images" / f"{uuid.uuid4().hex}{suffix}"
        try:
            path.write_bytes(data)
        except OSError:
            path.unlink(missing_ok=True)
            raise
        return path

    def add(
        self,
        name: str,
        image: Path,
        model: str,
        result: Result,
        regions: list[dict[str, Any]] | None = None,
        seen: Seen | None = None,
        observed: Observed | None = None,
    ) -> dict[str, Any]:
        """Store a result, on the disk when this returns; its row with the new id. `seen`: the watched file it is of.

        `observed`: what it was to the drift test, whose alarms are told as events.
        """
        values = {"created": now(), "name": name, "image": image.name, "model": model, "score": result.score}
        values |= {"threshold": result.threshold, "normalized_score": result.normalized_score}
        values |= {"predicted": None if result.is_anomalous is None else int(result.is_anomalous)}
        values |= {"verdict": result.verdict, "bytes": image.stat().st_size}
        values |= dict(zip(("height", "width"), result.size or (None, None), strict=True))
        values["regions"] = None if regions is None else json.dumps(regions)
        columns, marks = ", ".join(values), ", ".join(f":{key}" for key in values)
        with self._lock, self._database:
            added = self._database.execute(f"INSERT INTO results ({columns}) VALUES ({marks})", values).lastrowid or 0
            self._insert_event(RESULT, added, None)
            if seen:
                self._insert_seen(seen)
            if observed:
                self._insert_observed(observed)
        for alarm in observed.alarms if observed else ():
            _log(DRIFT, alarm)
        return self.row(added) or {}

    def event(self, kind: str, data: Mapping[str, Any]) -> int:
        """Tell of something besides a result, such as an alarm: in the log, on the page and to all sinks. Its number.

        `data` is plain, for JSON; its `message`, one line, is what the log has.
        """
        with self._lock, self._database:
            number = self._insert_event(kind, None, json.dumps(data))
        _log(kind, data)
        return number

    def monitor(self, model: str) -> StoredMonitor | None:
        """The drift test of a model, where one is stored."""
        found = self.select("SELECT key, state FROM monitors WHERE model = ?", model)
        rows = self.select("SELECT created, statistics FROM observations WHERE model = ? ORDER BY id", model)
        since = [Observed(model, row["created"], json.loads(row["statistics"])) for row in rows]
        return StoredMonitor(found[0]["key"], found[0]["state"], since) if found else None

    def set_monitor(self, model: str, key: str, state: str, told: Mapping[str, Any] | None = None) -> None:
        """Store the state of a drift test in place of what was observed before; `told` are the data of an event DRIFT_RESET."""
        with self._lock, self._database:
            self._database.execute("INSERT OR REPLACE INTO monitors VALUES (?, ?, ?)", (model, key, state))
            self._database.execute("DELETE FROM observations WHERE model = ?", (model,))
            if told:
                self._insert_event(DRIFT_RESET, None, json.dumps(told))
        if told:
            _log(DRIFT_RESET, told)

    def events_after(self, number: int, count: int) -> list[dict[str, Any]]:
        """At most `count` events above `number`, the oldest first: `event` is the kind, the rest a result's row or the data."""
        found = []
        for one in self.select("SELECT * FROM events WHERE id > ? ORDER BY id LIMIT ?", number, count):
            told = json.loads(one["data"]) if one["result"] is None else self.row(one["result"]) or {}
            found.append({"event": one["kind"], "number": one["id"], "created": one["created"], **told})
        return found

    def last_event(self) -> int:
        """The number of the newest event; 0 without one."""
        return self.select("SELECT COALESCE(MAX(id), 0) AS last FROM events")[0]["last"]

    def last_alarms(self, count: int) -> list[dict[str, Any]]:
        """The newest events that are neither results nor reviews."""
        found = self.select("SELECT * FROM events WHERE result IS NULL ORDER BY id DESC LIMIT ?", count)
        return [{"event": one["kind"], "created": one["created"], **json.loads(one["data"])} for one in found]

    def row(self, number: int) -> dict[str, Any] | None:
        """The result of an id, or None."""
        found = self._rows(f"{ROWS} WHERE results.id = ?", number)
        return found[0] if found else None

    def latest(self, count: int) -> list[dict[str, Any]]:
        """The last results, the newest first."""
        return self._rows(f"{ROWS} ORDER BY results.id DESC LIMIT ?", count)

    def after(self, number: int, count: int) -> list[dict[str, Any]]:
        """At most `count` results with an id above `number`, the oldest first."""
        return self._rows(f"{ROWS} WHERE results.id > ? ORDER BY results.id LIMIT ?", number, count)

    def queue(self, count: int) -> list[dict[str, Any]]:
        """Results that nobody has looked at and that are anomalous, or in the review band; the newest first."""
        wanted = "SELECT result FROM waiting ORDER BY result DESC LIMIT ?"
        return self._rows(f"{ROWS} WHERE results.id IN ({wanted}) ORDER BY results.id DESC", count)

    def scores(self, count: int) -> list[dict[str, Any]]:
        """id, model, score and threshold of the last results, the oldest first."""
        return self.select("SELECT id, model, score, threshold FROM results ORDER BY id DESC LIMIT ?", count)[::-1]

    def reviewed(self) -> list[dict[str, Any]]:
        """All results that a person has looked at."""
        return self._rows(f"{ROWS} WHERE reviews.id IS NOT NULL ORDER BY results.id")

    def review(self, number: int, label: str, marked: list[list[float]] | None = None) -> None:
        """Store what a person says of an image, with the boxes [x, y, width, height] that were drawn; the last word counts."""
        text = json.dumps(marked) if marked else None
        with self._lock, self._database:
            self._database.execute(
                "INSERT INTO reviews (result, label, created, marked) VALUES (?, ?, ?, ?)", (number, label, now(), text)
            )
            self._insert_event(REVIEW, number, None)

    def undo(self, number: int) -> None:
        """Take the last review of an image back; what was said before it counts again."""
        with self._lock, self._database:
            self._database.execute(
                "DELETE FROM reviews WHERE id = (SELECT MAX(id) FROM reviews WHERE result = ?)", (number,)
            )
            self._insert_event(REVIEW, number, None)

    def counts(self) -> Counts:
        """How many results there are, how many anomalous ones, and how many were looked at."""
        return Counts(**self.select("SELECT total, anomalous, reviewed FROM counts")[0])

    def was_seen(self, file: Seen) -> bool:
        """Whether this file of a watched folder was dealt with, in this state."""
        return bool(self.select("SELECT 1 FROM watched WHERE path = ? AND size = ? AND modified = ?", *file))

    def mark_seen(self, file: Seen) -> None:
        """Remember a file of a watched folder that has no result."""
        with self._lock, self._database:
            self._insert_seen(file)

    def delivered(self, sink: str) -> int:
        """The number of the last event that a sink has; a sink that is new here begins after the newest event."""
        with self._lock, self._database:
            newest = "SELECT ?, COALESCE(MAX(id), 0) FROM events"
            self._database.execute(f"INSERT OR IGNORE INTO sinks {newest}", (sink,))
            return self._database.execute("SELECT delivered FROM sinks WHERE name = ?", (sink,)).fetchone()[0]

    def set_delivered(self, sink: str, number: int) -> None:
        """Remember the number of the last event that a sink has."""
        with self._lock, self._database:
            self._database.execute("UPDATE sinks SET delivered = ? WHERE name = ?", (number, sink))

    def use_sinks(self, names: Iterable[str]) -> None:
        """Forget how far sinks are that are not among `names`: nothing is kept for them any more."""
        names = set(names)
        for row in self.select("SELECT name FROM sinks"):
            if row["name"] not in names:
                with self._lock, self._database:
                    self._database.execute("DELETE FROM sinks WHERE name = ?", (row["name"],))

    def forget_events(self, before: str) -> None:
        """Delete events from before a time that tell of no result."""
        with self._lock, self._database:
            self._database.execute("DELETE FROM events WHERE result IS NULL AND created < ?", (before,))

    def forget(self, rows: Sequence[Mapping[str, Any]]) -> int:
        """Delete results, given by `id` and `image`, with reviews, events and files; the events that a sink lacked."""
        numbers, lost = [(row["id"],) for row in rows], 0
        late = "SELECT COUNT(*) FROM events WHERE result = ? AND id > (SELECT MIN(delivered) FROM sinks)"
        with self._lock, self._database:
            for number in numbers:
                lost += self._database.execute(late, number).fetchone()[0]
            for table, column in (("events", "result"), ("reviews", "result"), ("results", "id")):
                self._database.executemany(f"DELETE FROM {table} WHERE {column} = ?", numbers)
        for row in rows:
            (self.folder / "images" / row["image"]).unlink(missing_ok=True)
        return lost

    def close(self) -> None:
        """Close the database."""
        with self._lock:
            self._database.close()

    def _insert_event(self, kind: str, result: int | None, data: str | None) -> int:
        values = now(), kind, result, data
        query = "INSERT INTO events (created, kind, result, data) VALUES (?, ?, ?, ?)"
        return self._database.execute(query, values).lastrowid or 0

    def _insert_observed(self, observed: Observed) -> None:
        model, database = observed.model, self._database
        if observed.state is None:
            values = model, observed.created, json.dumps(observed.statistics)
            database.execute("INSERT INTO observations (model, created, statistics) VALUES (?, ?, ?)", values)
        else:
            database.execute("UPDATE monitors SET state = ? WHERE model = ?", (observed.state, model))
            database.execute("DELETE FROM observations WHERE model = ?", (model,))
        for alarm in observed.alarms:
            self._insert_event(DRIFT, None, json.dumps(alarm))

    def _insert_seen(self, file: Seen) -> None:
        self._database.execute("INSERT OR REPLACE INTO watched VALUES (?, ?, ?)", file)

    def _rows(self, query: str, *values: Any) -> list[dict[str, Any]]:
        lists = ("regions", "marked")
        return [row | {key: json.loads(row[key] or "[]") for key in lists} for row in self.select(query, *values)]

    def select(self, query: str, *values: Any) -> list[dict[str, Any]]:
        """The rows of a query."""
        with self._lock:
            return [dict(row) for row in self._database.execute(query, values)]


def _log(kind: str, data: Mapping[str, Any]) -> None:
    log.warning("%s: %s", kind, data.get("message") or json.dumps(data))


def now() -> str:
    """The time in UTC, as ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")
