"""Drift on the station: alarms, their acknowledgement, and a monitor that outlasts a restart."""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Callable, Iterator

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="pip install 'adcore-runtime[serve]'")

from adcore_runtime import load
from adcore_runtime.drift import Monitor
from adcore_runtime.station.app import build_app
from adcore_runtime.station.scoring import Scorer
from adcore_runtime.station.sinks import open_sink
from adcore_runtime.station.store import Store
from fastapi.testclient import TestClient

KNOWN = {"brightness": (np.arange(60) / 600 + 0.2).tolist()}  # that of a.png is not much higher, that of b.png is


@pytest.fixture
def start(model, tmp_path) -> Iterator[Callable[..., TestClient]]:
    """start(token=..., known=...): a client of a station in tmp_path / "data"; its model `tiny` is watched, `plain` is not."""
    stores = []

    def station(token: str | None = None, known: dict = KNOWN) -> TestClient:
        watched = load(model(calibration={"threshold": {"value": 2.0}, "statistics": known}))
        stores.append(Store(tmp_path / "data"))
        return TestClient(
            build_app(Scorer({"tiny": watched, "plain": load(model())}, stores[-1], 4), 100_000, token, sinks())
        )

    def sinks() -> list:
        return [open_sink(str(tmp_path / "events.jsonl"), stores[-1])]

    yield station
    for store in stores:
        store.close()


def send(client: TestClient, image, count: int = 12) -> None:
    for _ in range(count):
        assert client.post("/predict", content=image.read_bytes()).status_code == 200


def drift(client: TestClient) -> dict:
    (one,) = client.get("/state").json()["drift"]
    return one


def test_an_alarm_is_an_event_and_a_state(start, images) -> None:
    client = start()
    assert drift(client) | {"level": 0} == {"model": "tiny", "statistic": "brightness", "level": 0, "alarm": None}
    send(client, images / "b.png")
    (told,) = client.get("/state").json()["alarms"]
    assert (told["event"], told["model"], told["statistic"]) == ("drift", "tiny", "brightness")
    assert "tiny: brightness is higher than in the calibration images" in told["message"]
    shown = drift(client)
    assert shown["level"] == 1
    assert 1 < shown["alarm"]["image"] == told["image"] <= 12
    assert (shown["alarm"]["direction"], shown["alarm"]["since"][:10]) == ("higher", told["created"][:10])


def test_an_operator_acknowledges_and_the_alarm_returns_while_the_images_stay_different(
    start, images, tmp_path
) -> None:
    client = start()
    send(client, images / "b.png")
    answer = client.post("/drift/tiny/reset").json()
    assert answer["acknowledged"] == ["brightness"]
    assert answer["drift"] == [drift(client)]
    assert drift(client)["alarm"] is None
    assert drift(client)["level"] < 0.5
    send(client, images / "b.png")
    assert drift(client)["alarm"]
    assert client.post("/drift/tiny/reset").json()["acknowledged"] == ["brightness"]
    assert client.post("/drift/tiny/reset").json()["acknowledged"] == []
    kinds = ["drift", "drift-reset", "drift", "drift-reset", "drift-reset"]
    with sqlite3.connect(tmp_path / "data" / "station.db") as database:
        stored = database.execute("SELECT kind, data FROM events WHERE kind LIKE 'drift%' ORDER BY id").fetchall()
    assert [kind for kind, _ in stored] == kinds
    assert json.loads(stored[1][1])["message"] == "tiny: drift of brightness acknowledged, the test begins anew"
    sink = open_sink(str(tmp_path / "events.jsonl"), Store(tmp_path / "data"))
    sink.turn()
    lines = map(json.loads, (tmp_path / "events.jsonl").read_text().splitlines())
    assert [event["event"] for event in lines if event["event"] != "result"] == kinds


def test_who_may_not_write_may_not_acknowledge_and_unknown_models_are_told(start) -> None:
    client, bearer = start(token="secret"), {"Authorization": "Bearer secret"}
    assert client.post("/drift/tiny/reset").status_code == 401
    assert client.post("/drift/tiny/reset", headers=bearer | {"Origin": "http://elsewhere"}).status_code == 403
    assert client.post("/drift/none/reset", headers=bearer).status_code == 404
    assert client.post("/drift/plain/reset", headers=bearer).status_code == 409
    assert client.post("/drift/tiny/reset", headers=bearer).status_code == 200


def test_a_restart_finds_the_monitor_where_the_stored_results_end(start, model, images, monkeypatch) -> None:
    """After each of some images, and whether the last of them was stored with a whole state, an alarm, a reset or alone."""
    monkeypatch.setattr("adcore_runtime.station.drift.WHOLE_STATE", 4)
    client, one_stream = start(), Monitor(KNOWN)
    names = ["a", "b", "a", "a", "a", "b", "b", "b", "b", "b", "b", "b", "b", "b", "a", "b", "b"]
    for number, name in enumerate(names):
        send(client, images / f"{name}.png", 1)
        if number == 13:
            assert drift(client)["alarm"]
            client.post("/drift/tiny/reset")
        before, client = drift(client), start()
        assert drift(client) == before
    predictor = load(model(calibration={"threshold": {"value": 2.0}, "statistics": KNOWN}))
    for name in names[14:]:
        one_stream.update(predictor.observe(images / f"{name}.png")[1])
    share = one_stream.evidence()["brightness"]
    assert before["level"] == pytest.approx(1 + math.log(share) / math.log(one_stream.limit))


def test_a_result_that_could_not_be_stored_was_not_seen_by_the_monitor(start, images, tmp_path) -> None:
    client = start()
    send(client, images / "b.png", 3)
    before = drift(client)
    with sqlite3.connect(tmp_path / "data" / "station.db") as database:
        database.execute(
            "CREATE TRIGGER full BEFORE INSERT ON results BEGIN SELECT RAISE(ABORT, 'the disk is full'); END"
        )
    assert client.post("/predict", content=(images / "b.png").read_bytes()).status_code == 507
    assert drift(client) == before
    with sqlite3.connect(tmp_path / "data" / "station.db") as database:
        database.execute("DROP TRIGGER full")
    send(client, images / "b.png", 1)
    assert drift(client)["level"] > before["level"]


def test_another_calibration_begins_anew_and_says_so(start, images) -> None:
    client = start()
    send(client, images / "b.png")
    client = start(known={"brightness": [0.1, 0.2, 0.3]})
    assert drift(client)["alarm"] is None
    told = client.get("/state").json()["alarms"][0]
    assert (told["event"], told["reason"], told["acknowledged"]) == ("drift-reset", "calibration", [])
    assert len(start(known={"brightness": [0.1, 0.2, 0.3]}).get("/state").json()["alarms"]) == 2  # said once
