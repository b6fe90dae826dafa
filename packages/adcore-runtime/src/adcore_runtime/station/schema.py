"""The station's database: its tables, one step a version."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from adcore_runtime.errors import ConfigError

FLAGGED = "(predicted = 1 OR verdict IN ('review', 'bad'))"  # a result that a person should look at
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
    # Counters and the queue of the page, kept by triggers, since counting takes long where there are many results.
    f"""
DROP INDEX results_flagged;
CREATE TABLE waiting (result INTEGER PRIMARY KEY);
INSERT INTO waiting SELECT id FROM results WHERE {FLAGGED} AND id NOT IN (SELECT result FROM reviews);
CREATE TABLE counts (total INTEGER NOT NULL, anomalous INTEGER NOT NULL, reviewed INTEGER NOT NULL);
INSERT INTO counts SELECT COUNT(*), COALESCE(SUM(predicted), 0), (SELECT COUNT(DISTINCT result) FROM reviews) FROM results;
CREATE TRIGGER result_added AFTER INSERT ON results BEGIN
    UPDATE counts SET total = total + 1, anomalous = anomalous + COALESCE(new.predicted, 0);
    INSERT INTO waiting SELECT id FROM results WHERE id = new.id AND {FLAGGED};
END;
CREATE TRIGGER result_deleted AFTER DELETE ON results BEGIN
    UPDATE counts SET total = total - 1, anomalous = anomalous - COALESCE(old.predicted, 0);
    DELETE FROM waiting WHERE result = old.id;
END;
CREATE TRIGGER first_review_added AFTER INSERT ON reviews
WHEN (SELECT COUNT(*) FROM reviews WHERE result = new.result) = 1 BEGIN
    UPDATE counts SET reviewed = reviewed + 1;
    DELETE FROM waiting WHERE result = new.result;
END;
CREATE TRIGGER last_review_deleted AFTER DELETE ON reviews
WHEN NOT EXISTS (SELECT 1 FROM reviews WHERE result = old.result) BEGIN
    UPDATE counts SET reviewed = reviewed - 1;
    INSERT INTO waiting SELECT id FROM results WHERE id = old.result AND {FLAGGED};
END;
CREATE TABLE monitors (model TEXT PRIMARY KEY, key TEXT NOT NULL, state TEXT NOT NULL);
CREATE TABLE observations (
    id INTEGER PRIMARY KEY AUTOINCREMENT, model TEXT NOT NULL, created TEXT NOT NULL, statistics TEXT NOT NULL
);
CREATE INDEX observations_model ON observations(model);
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
