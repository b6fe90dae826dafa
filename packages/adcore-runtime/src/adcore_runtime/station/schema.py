"""The station's database: its tables, one step a version."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from adcore_runtime.errors import ConfigError

STEPS = (  # PRAGMA user_version of the database is how many of them it has
    """
CREATE TABLE results (
    id INTEGER PRIMARY KEY AUTOINCREMENT, created TEXT NOT NULL, name TEXT NOT NULL, image TEXT NOT NULL,
    model TEXT NOT NULL, score REAL NOT NULL, threshold REAL, normalized_score REAL, predicted INTEGER, verdict TEXT
);
CREATE TABLE reviews (
    id INTEGER PRIMARY KEY AUTOINCREMENT, result INTEGER NOT NULL REFERENCES results(id), label TEXT NOT NULL,
    created TEXT NOT NULL
);
CREATE INDEX reviews_result ON reviews(result);
""",
    """
ALTER TABLE results ADD COLUMN height INTEGER;
ALTER TABLE results ADD COLUMN width INTEGER;
ALTER TABLE results ADD COLUMN bytes INTEGER NOT NULL DEFAULT 0;
ALTER TABLE results ADD COLUMN regions TEXT;
ALTER TABLE reviews ADD COLUMN marked TEXT;
CREATE INDEX results_flagged ON results(id) WHERE predicted = 1 OR verdict IN ('review', 'bad');
CREATE TABLE events (
    id INTEGER PRIMARY KEY AUTOINCREMENT, created TEXT NOT NULL, kind TEXT NOT NULL, result INTEGER, data TEXT
);
CREATE INDEX events_result ON events(result);
CREATE TABLE sinks (name TEXT PRIMARY KEY, delivered INTEGER NOT NULL);
CREATE TABLE watched (path TEXT PRIMARY KEY, size INTEGER NOT NULL, modified INTEGER NOT NULL);
""",
)


def open_database(path: Path) -> sqlite3.Connection:
    """The database at `path`, new or brought to this version; its rows can be asked by name.

    Raises ConfigError for a database of a newer version, or a file that is none.
    """
    try:
        database = sqlite3.connect(path, check_same_thread=False)
        database.row_factory = sqlite3.Row
        version = database.execute("PRAGMA user_version").fetchone()[0]
        if version > len(STEPS):
            raise ConfigError(
                f"{path} is of a newer version ({version}); update adcore-runtime, or choose another --data"
            )
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = FULL")  # a result that was answered outlasts a power cut
        for number, step in enumerate(STEPS[version:], version + 1):
            database.executescript(f"BEGIN; {step} PRAGMA user_version = {number}; COMMIT;")
    except sqlite3.Error as error:
        raise ConfigError(f"{path}: {error}; choose another --data") from None
    return database
