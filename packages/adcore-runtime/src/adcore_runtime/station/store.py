"""What a station keeps: images as files, results and reviews in an SQLite database beside them."""

from __future__ import annotations

import sqlite3
import threading
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from adcore_runtime.decisions import BAD, GOOD, Result
from adcore_runtime.errors import ConfigError

SCHEMA = 1  # PRAGMA user_version of the database
LABELS = (GOOD, BAD)  # what a person says of an image
TABLES = """
CREATE TABLE results (
    id INTEGER PRIMARY KEY AUTOINCREMENT, created TEXT NOT NULL, name TEXT NOT NULL, image TEXT NOT NULL,
    model TEXT NOT NULL, score REAL NOT NULL, threshold REAL, normalized_score REAL, predicted INTEGER, verdict TEXT
);
CREATE TABLE reviews (
    id INTEGER PRIMARY KEY AUTOINCREMENT, result INTEGER NOT NULL REFERENCES results(id), label TEXT NOT NULL,
    created TEXT NOT NULL
);
CREATE INDEX reviews_result ON reviews(result);
"""
ROWS = """
SELECT results.*, (SELECT label FROM reviews WHERE result = results.id ORDER BY reviews.id DESC LIMIT 1) AS review
FROM results
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


@dataclass(frozen=True)
class Counts:
    """How many results a station has."""

    total: int
    anomalous: int
    reviewed: int


class Store:
    """The folder of a station: `station.db` and `images/`. Its methods may be called from any thread.

    Raises ConfigError for a database of a newer version, or a file that is none.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self._lock = folder, threading.Lock()
        path = folder / "station.db"
        try:
            (folder / "images").mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(path, check_same_thread=False)
            self._database.row_factory = sqlite3.Row
            version = self._database.execute("PRAGMA user_version").fetchone()[0]
            if version > SCHEMA:
                raise ConfigError(
                    f"{path} is of a newer version ({version}); update adcore-runtime, or choose another --data"
                )
            self._database.execute("PRAGMA journal_mode = WAL")
            self._database.execute("PRAGMA synchronous = FULL")  # a result that was answered outlasts a power cut
            if version == 0:
                self._database.executescript(f"BEGIN; {TABLES} PRAGMA user_version = {SCHEMA}; COMMIT;")
        except sqlite3.Error as error:
            raise ConfigError(f"{path}: {error}; choose another --data") from None

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

    def add(self, name: str, image: Path, model: str, result: Result) -> dict[str, Any]:
        """Store a result, on the disk when this returns; its row with the new id."""
        predicted = None if result.is_anomalous is None else int(result.is_anomalous)
        values = (now(), name, image.name, model, result.score, result.threshold, result.normalized_score)
        with self._lock, self._database:
            added = self._database.execute(
                "INSERT INTO results (created, name, image, model, score, threshold, normalized_score, predicted, verdict)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (*values, predicted, result.verdict),
            )
        return self.row(added.lastrowid or 0) or {}

    def row(self, number: int) -> dict[str, Any] | None:
        """The result of an id, or None."""
        found = self._select(f"{ROWS} WHERE results.id = ?", number)
        return found[0] if found else None

    def latest(self, count: int) -> list[dict[str, Any]]:
        """The last results, the newest first."""
        return self._select(f"{ROWS} ORDER BY results.id DESC LIMIT ?", count)

    def after(self, number: int, count: int) -> list[dict[str, Any]]:
        """At most `count` results with an id above `number`, the oldest first."""
        return self._select(f"{ROWS} WHERE results.id > ? ORDER BY results.id LIMIT ?", number, count)

    def queue(self, count: int) -> list[dict[str, Any]]:
        """Results that nobody has looked at and that are anomalous, or in the review band; the newest first."""
        waiting = "review IS NULL AND (predicted = 1 OR verdict IN ('review', 'bad'))"
        return self._select(f"SELECT * FROM ({ROWS}) WHERE {waiting} ORDER BY id DESC LIMIT ?", count)

    def reviewed(self) -> list[dict[str, Any]]:
        """All results that a person has looked at."""
        return self._select(f"SELECT * FROM ({ROWS}) WHERE review IS NOT NULL ORDER BY id")

    def review(self, number: int, label: str) -> None:
        """Store what a person says of an image; the last word counts."""
        with self._lock, self._database:
            self._database.execute(
                "INSERT INTO reviews (result, label, created) VALUES (?, ?, ?)", (number, label, now())
            )

    def undo(self, number: int) -> None:
        """Take the last review of an image back; what was said before it counts again."""
        with self._lock, self._database:
            self._database.execute(
                "DELETE FROM reviews WHERE id = (SELECT MAX(id) FROM reviews WHERE result = ?)", (number,)
            )

    def counts(self) -> Counts:
        """How many results there are, how many anomalous ones, and how many were looked at."""
        query = (
            "SELECT COUNT(*), COALESCE(SUM(predicted), 0), (SELECT COUNT(DISTINCT result) FROM reviews) FROM results"
        )
        with self._lock:
            return Counts(*self._database.execute(query).fetchone())

    def close(self) -> None:
        """Close the database."""
        with self._lock:
            self._database.close()

    def _select(self, query: str, *values: Any) -> list[dict[str, Any]]:
        with self._lock:
            return [dict(row) for row in self._database.execute(query, values)]


def now() -> str:
    """The time in UTC, as ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")
