"""kill -9 of the station under load: every answered result is in the database, and the station starts again.

Half of ADCORE_KILL_COUNT (6) kills; ADCORE_KILL_SEED (0) chooses other moments. `hatch run kill` makes 50.
"""

from __future__ import annotations

import importlib.util
import io
import json
import os
import random
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.request
from contextlib import suppress
from http.client import HTTPException
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("uvicorn", reason="pip install 'adcore-runtime[serve]'")
pytestmark = [pytest.mark.kill, pytest.mark.slow]

CONFTEST = Path(__file__).parents[2] / "packages" / "adcore-runtime" / "tests" / "conftest.py"
SPEC = importlib.util.spec_from_file_location("tiny", CONFTEST)
tiny = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(tiny)


def send(url: str, data: bytes, answered: dict[int, float]) -> None:
    """Send images until the station is gone; `answered` has the scores by id."""
    with suppress(OSError, HTTPException, ValueError):
        while True:
            with urllib.request.urlopen(urllib.request.Request(f"{url}/predict", data), timeout=30) as answer:
                row = json.load(answer)
                answered[row["id"]] = row["score"]


def test_every_answered_result_outlasts_kills_under_load(tmp_path) -> None:
    chosen = random.Random(f"station {os.environ.get('ADCORE_KILL_SEED', 0)}")
    model, picture = tmp_path / "model.onnx", io.BytesIO()
    calibration = {**tiny.RECORD["calibration"], "statistics": {"brightness": [0.7, 0.8, 0.9] * 20}}
    model.write_bytes(tiny.tiny_model({**tiny.RECORD, "calibration": calibration}))
    Image.fromarray(np.full((20, 30, 3), 200, np.uint8)).save(picture, "PNG")
    command = [
        sys.executable,
        "-m",
        "adcore_runtime.station.command",
        model,
        "--port",
        "0",
        "--data",
        tmp_path / "data",
    ]
    answered: dict[int, float] = {}
    for _ in range(max(1, int(os.environ.get("ADCORE_KILL_COUNT", 6)) // 2)):
        with subprocess.Popen(
            [*command, "--sink", tmp_path / "events.jsonl"], stdout=subprocess.PIPE, text=True
        ) as process:
            url = process.stdout.readline().split()[0]  # it has started, with the database of the last kill
            clients = [threading.Thread(target=send, args=(url, picture.getvalue(), answered)) for _ in range(4)]
            for client in clients:
                client.start()
            before, latest = len(answered), time.monotonic() + 60
            while len(answered) == before and time.monotonic() < latest:
                time.sleep(0.005)
            time.sleep(chosen.random())
            process.kill()
            for client in clients:
                client.join()
        with sqlite3.connect(tmp_path / "data" / "station.db") as database:
            assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            stored = dict(database.execute("SELECT id, score FROM results"))
            names = {name for (name,) in database.execute("SELECT image FROM results")}
            (state,) = database.execute("SELECT state FROM monitors").fetchone()
            (since,) = database.execute("SELECT COUNT(*) FROM observations").fetchone()
        assert json.loads(state)["monitor"]["images"] + since == len(stored)  # the drift test has each result once
        assert answered.items() <= stored.items()
        assert names <= {path.name for path in (tmp_path / "data" / "images").iterdir()}
    assert answered
    events = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().rpartition("\n")[0].splitlines()]
    numbers = list(dict.fromkeys(event["number"] for event in events))
    assert numbers == list(range(1, len(numbers) + 1))  # none is missing, whatever came twice
