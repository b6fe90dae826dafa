"""What a station does beside answering: sinks, a watched folder, retention."""

from __future__ import annotations

import json
import os
import socket
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import IO

import numpy as np
import pytest
from adcore_runtime import load
from adcore_runtime.decisions import Result
from adcore_runtime.station.repeated import Repeated
from adcore_runtime.station.retention import Retention
from adcore_runtime.station.scoring import Scorer
from adcore_runtime.station.sinks import BATCH, LONGEST_WAIT, open_sink
from adcore_runtime.station.store import Store
from adcore_runtime.station.watch import Watch
from PIL import Image


@pytest.fixture
def store(tmp_path) -> Iterator[Store]:
    opened = Store(tmp_path / "data")
    yield opened
    opened.close()


def add(store: Store, score: float = 0.5, size: int = 1000) -> int:
    path = store.keep_image(b"x" * size)
    return store.add("part", path, "tiny", Result(score, None, None, None, None))["id"]


def events(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_file_gets_every_event_once_in_order_and_goes_on_after_a_restart(store, tmp_path) -> None:
    add(store)  # before there was a sink
    target = tmp_path / "out" / "events.jsonl"
    sink = open_sink(str(target), store)
    number = add(store, 0.75)
    store.event("alarm", {"message": "drift", "what": ["brightness"]})
    store.review(number, "bad", [[1, 2, 3, 4]])
    sink.turn()
    first, second, third = events(target)
    assert (first["event"], first["id"], first["score"]) == ("result", number, 0.75)
    assert (second["event"], second["what"]) == ("alarm", ["brightness"])
    assert (third["event"], third["review"], third["marked"]) == ("review", "bad", [[1, 2, 3, 4]])
    sink.close()
    with open(target, "a") as file:
        file.write('{"event": "resu')  # a kill came in the middle
    add(store, 0.25)
    sink = open_sink(str(target), store)
    sink.turn()
    sink.turn()
    assert [event.get("score") for event in events(target)] == [0.75, None, 0.75, 0.25]
    sink.close()


class Receiver:
    """A web server that answers as `answers` says, and keeps the bodies that it has taken."""

    def __init__(self) -> None:
        self.answers: list[int] = []
        self.bodies: list[dict] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                code = outer.answers.pop(0) if outer.answers else 200
                if code == 200:
                    outer.bodies.append(body)
                self.send_response(code)
                self.send_header("Location", "/elsewhere")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook?key=secret"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.close()


def test_a_webhook_is_tried_again_later_and_later_and_loses_nothing(store, receiver, caplog) -> None:
    sink = open_sink(receiver.url, store)
    numbers = [add(store) for _ in range(BATCH + 5)]
    receiver.answers = [200, 500, 302, 429]
    assert [sink.turn() for _ in range(3)] == [1.0, 2.0, 4.0]
    assert sink.state() == {"name": sink.name, "waiting": BATCH + 4, "problem": "HTTP 429"}
    assert [record.getMessage().count("wait in the database") for record in caplog.records] == [1]  # said once
    while sink.turn() == 0.0:
        pass
    assert [body["id"] for body in receiver.bodies] == numbers
    assert sink.state()["waiting"] == 0
    assert "is back" in caplog.text
    assert "secret" not in caplog.text + sink.name


def test_what_a_webhook_refuses_is_said_and_left_out(store, receiver, caplog) -> None:
    sink = open_sink(receiver.url, store)
    add(store)
    last = add(store)
    receiver.answers = [422]
    sink.turn()
    assert [body["id"] for body in receiver.bodies] == [last]
    assert "refuses event 1" in caplog.text


def test_waits_have_a_limit_where_nobody_answers(store) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"http://127.0.0.1:{free.getsockname()[1]}/"
    sink = open_sink(address, store)
    add(store)
    assert [sink.turn() for _ in range(9)][-3:] == [LONGEST_WAIT] * 3


class Broker:
    """As much of an MQTT broker as one client needs; it hangs up once, at its third message, without an answer."""

    def __init__(self) -> None:
        self.messages: list[bytes] = []  # topic and text
        self._hung_up = False
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:  # closed
                return
            with connection, connection.makefile("rb") as stream, suppress(OSError, IndexError):
                self._talk(connection, stream)

    def _talk(self, connection: socket.socket, stream: IO[bytes]) -> None:
        while head := stream.read(1):
            length, shift = 0, 0
            while (byte := stream.read(1)[0]) & 128:
                length, shift = length | (byte & 127) << shift, shift + 7
            body = stream.read(length | byte << shift)
            if head[0] >> 4 == 1:  # CONNECT
                connection.sendall(b"\x20\x02\x00\x00")
            elif head[0] >> 4 == 3:  # PUBLISH
                if len(self.messages) == 2 and not self._hung_up:
                    self._hung_up = True
                    return
                size = int.from_bytes(body[:2], "big")
                self.messages.append(body[2 : 2 + size] + b" " + body[4 + size :])
                connection.sendall(b"\x40\x02" + body[2 + size : 4 + size])


def test_mqtt_delivers_in_order_over_a_connection_that_breaks(store, monkeypatch) -> None:
    pytest.importorskip("paho.mqtt", reason="pip install 'adcore-runtime[mqtt]'")
    monkeypatch.setattr("adcore_runtime.station.sinks.TIMEOUT", 0.5)
    broker = Broker()
    sink = open_sink(f"mqtt://user:secret@{broker.address}/line/1", store)
    numbers = [add(store) for _ in range(4)]
    for _ in range(20):
        sink.turn()
        if not sink.state()["waiting"]:
            break
    sink.close()
    broker.close()
    topics, texts = zip(*(message.split(b" ", 1) for message in broker.messages), strict=True)
    assert set(topics) == {b"line/1"}
    assert list(dict.fromkeys(json.loads(text)["id"] for text in texts)) == numbers
    assert "secret" not in sink.name


@pytest.fixture
def watched(model, store, tmp_path) -> Iterator[tuple[Path, Watch]]:
    folder = tmp_path / "camera"
    folder.mkdir()
    scorer = Scorer({"tiny": load(model())}, store, 4)
    yield folder, Watch(folder, scorer, 100_000)
    scorer.close()


def picture(path: Path, level: int) -> None:
    Image.fromarray(np.full((20, 30, 3), level, np.uint8)).save(path)


def names(store: Store) -> list[str]:
    return [row["name"] for row in store.after(0, 100)]


def test_a_watched_image_is_scored_once_when_it_is_complete(watched, store, model) -> None:
    folder, watch = watched
    picture(folder / "a.png", 40)
    whole = (folder / "a.png").read_bytes()
    (folder / "a.png").write_bytes(whole[:50])
    watch.turn()
    (folder / "a.png").write_bytes(whole)  # it has grown since
    watch.turn()
    assert names(store) == []
    watch.turn()
    watch.turn()
    assert names(store) == ["a.png"]
    again = Watch(folder, Scorer({"tiny": load(model())}, store, 4), 100_000)  # after a restart
    for _ in range(3):
        again.turn()
    assert names(store) == ["a.png"]
    picture(folder / "a.png", 200)
    os.utime(folder / "a.png", ns=(1, 1))
    for _ in range(3):
        again.turn()
    assert names(store) == ["a.png", "a.png"]  # another image of the same name


def test_a_file_that_may_not_be_read_is_tried_again_and_holds_up_no_other(watched, store, monkeypatch) -> None:
    folder, watch = watched
    picture(folder / "a.png", 40)
    picture(folder / "b.png", 40)
    read = Path.read_bytes

    def refused(path: Path) -> bytes:
        if path.name == "a.png":
            raise PermissionError(13, "Permission denied", str(path))
        return read(path)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", refused)
        for _ in range(3):
            watch.turn()
    assert names(store) == ["b.png"]
    assert ["tried again" in alarm["message"] for alarm in store.last_alarms(9)] == [True]
    watch.turn()
    assert names(store) == ["b.png", "a.png"]


def test_a_broken_image_is_said_once_and_a_folder_may_go_and_come(watched, store, caplog) -> None:
    folder, watch = watched
    (folder / "broken.png").write_bytes(b"none")
    (folder / "large.png").write_bytes(b"x" * 100_001)
    for _ in range(4):
        watch.turn()
    said = [alarm["message"] for alarm in store.last_alarms(9)]
    assert sorted(message.partition(":")[0] for message in said) == ["broken.png", "large.png"]
    folder.rename(folder.with_name("away"))
    watch.turn()
    watch.turn()
    assert caplog.text.count("is gone") == 1
    folder.with_name("away").rename(folder)
    picture(folder / "b.png", 100)
    for _ in range(3):
        watch.turn()
    assert "watched again" in store.last_alarms(1)[0]["message"]
    assert names(store) == ["b.png"]


def age(store: Store, number: int, days: float) -> None:
    created = (datetime.now(UTC) - timedelta(days=days)).isoformat(timespec="milliseconds")
    with sqlite3.connect(store.folder / "station.db") as database:
        database.execute("UPDATE results SET created = ? WHERE id = ?", (created, number))


def kept(store: Store) -> list[int]:
    numbers = [row["id"] for row in store.after(0, 1000)]
    assert len(list((store.folder / "images").iterdir())) == len(numbers)  # files go with their results
    return numbers


def test_retention_by_days_keeps_what_was_reviewed_unless_told(store) -> None:
    numbers = [add(store) for _ in range(4)]
    for number, days in zip(numbers, (3, 2.1, 1.9, 0), strict=True):
        age(store, number, days)
    store.review(numbers[0], "good")
    Retention(store, days=2).turn()
    assert kept(store) == [numbers[0], *numbers[2:]]
    Retention(store, days=2, reviewed=True).turn()
    assert kept(store) == numbers[2:]
    assert store.counts().reviewed == 0


def test_retention_by_gigabytes_deletes_the_oldest_and_says_what_a_sink_lacks(store, tmp_path, caplog) -> None:
    open_sink(str(tmp_path / "events.jsonl"), store)
    numbers = [add(store, size=1000) for _ in range(10)]
    store.review(numbers[0], "bad")
    Retention(store, gigabytes=5.5e-6).turn()
    assert kept(store) == [numbers[0], *numbers[6:]]
    assert "5 events of them had not reached all sinks" in caplog.text
    for number in numbers[6:]:
        store.review(number, "good")
    retention = Retention(store, gigabytes=1e-6)
    retention.turn()
    retention.turn()
    assert len(kept(store)) == 5
    assert caplog.text.count("all of them reviewed") == 1


def test_files_that_a_kill_left_are_removed_once_they_are_old(store) -> None:
    add(store)
    old, new = store.keep_image(b"old"), store.keep_image(b"new")
    os.utime(old, (time.time() - 7200,) * 2)
    Retention(store, days=1).remove_orphans()
    assert new.exists()
    assert not old.exists()
    assert len(list((store.folder / "images").iterdir())) == 2


def test_repeated_work_goes_on_after_an_error(caplog) -> None:
    turns, third = [], threading.Event()

    def work() -> float:
        turns.append(1)
        if len(turns) < 3:
            raise OSError("the disk is full")
        third.set()
        return 60.0

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("adcore_runtime.station.repeated.RETRY_SECONDS", 0.0)
        repeated = Repeated("work", work)
        assert third.wait(5)
    repeated.close()
    assert caplog.text.count("the disk is full") == 1
