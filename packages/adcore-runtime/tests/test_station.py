"""The station: answers, limits, what is stored, reviews and exports."""

from __future__ import annotations

import base64
import csv
import io
import json
import os
import socket
import sqlite3
import subprocess
import sys
import urllib.request
import zipfile
from collections.abc import Callable, Iterator

import pytest

pytest.importorskip("fastapi", reason="pip install 'adcore-runtime[serve]'")
pytest.importorskip("uvicorn", reason="pip install 'adcore-runtime[serve]'")

from adcore_runtime import load
from adcore_runtime.errors import ConfigError
from adcore_runtime.station.app import build_app
from adcore_runtime.station.command import Station, serve
from adcore_runtime.station.scoring import Scorer
from adcore_runtime.station.store import Store
from fastapi.testclient import TestClient


@pytest.fixture
def station(model, tmp_path) -> Iterator[Callable]:
    """station(token=..., queue=..., max_bytes=...): a client of a new station in tmp_path / "data"."""
    stores = []

    def start(token: str | None = None, queue: int = 4, max_bytes: int = 100_000):
        stores.append(Store(tmp_path / "data"))
        return TestClient(build_app(Scorer(load(model()), stores[-1], "tiny", queue), max_bytes, token))

    yield start
    for store in stores:
        store.close()


def test_an_image_is_scored_as_by_the_predictor_and_stored(station, model, images, tmp_path) -> None:
    client = station()
    for name, predicted in (("a.png", 0), ("b.png", 1)):
        answer = client.post(f"/predict?name={name}", content=(images / name).read_bytes())
        assert answer.status_code == 200
        assert answer.json()["score"] == load(model()).predict(images / name).score
        assert answer.json()["predicted"] == predicted
        with sqlite3.connect(tmp_path / "data" / "station.db") as database:
            assert database.execute("SELECT name FROM results ORDER BY id DESC").fetchone() == (name,)
        assert client.get(f"/images/{answer.json()['id']}").content == (images / name).read_bytes()
    assert client.get("/state").json()["counts"] == {"total": 2, "anomalous": 1, "reviewed": 0}


def test_the_open_inference_protocol(station, images) -> None:
    client = station()
    assert client.get("/v2/health/ready").status_code == 200
    assert client.get("/v2/models/tiny").json()["inputs"][0]["datatype"] == "BYTES"
    assert client.get("/v2/models/other").status_code == 404
    one = {"name": "image", "datatype": "BYTES", "shape": [1]}
    data = [base64.b64encode((images / "b.png").read_bytes()).decode()]
    answer = client.post("/v2/models/tiny/infer", json={"id": "7", "inputs": [one | {"data": data}]}).json()
    assert answer["id"] == "7"
    assert {output["name"]: output["data"][0] for output in answer["outputs"]}["anomalous"] is True
    for wrong in (b"", b"[]", b"[" * 5000, b'{"inputs": []}', json.dumps({"inputs": [one | {"data": ["?"]}]}).encode()):
        assert client.post("/v2/models/tiny/infer", content=wrong).status_code == 422


def test_what_is_no_image_or_too_large_is_refused_and_not_kept(station, images, tmp_path) -> None:
    client = station(max_bytes=10_000)
    whole = (images / "a.png").read_bytes()
    for data in (b"", b"broken", whole[:40]):
        answer = client.post("/predict", content=data)
        assert answer.status_code == 415
        assert str(tmp_path) not in answer.text
    assert client.post("/predict", content=b"x" * 10_001).status_code == 413
    assert client.post("/predict", content=(b"x" * 6000 for _ in range(2))).status_code == 413  # no length announced
    assert list((tmp_path / "data" / "images").iterdir()) == []
    assert client.post("/predict", content=whole).status_code == 200


def test_a_full_queue_answers_503(station, images) -> None:
    client = station(queue=0)
    answer = client.post("/predict", content=(images / "a.png").read_bytes())
    assert answer.status_code == 503
    assert answer.headers["retry-after"]


def test_a_token_and_pages_of_other_sites(station, images) -> None:
    client, data = station(token="secret"), (images / "a.png").read_bytes()
    assert client.post("/predict", content=data).status_code == 401
    assert client.get("/").status_code == 401
    assert client.get("/", auth=("", "secret")).status_code == 200  # a browser asks for it
    assert client.get("/v2/health/ready").status_code == 200
    bearer = {"Authorization": "Bearer secret"}
    assert client.post("/predict", content=data, headers=bearer).status_code == 200
    assert client.post("/reviews/1/good", headers=bearer | {"Origin": "http://elsewhere"}).status_code == 403


def test_reviews_can_be_undone_and_are_exported(station, images) -> None:
    client = station()
    for name in ("a.png", "b.png"):
        client.post("/predict", params={"name": "=cmd()"}, content=(images / name).read_bytes())
    assert [row["id"] for row in client.get("/state").json()["queue"]] == [2]
    assert client.post("/reviews/2/good").json()["review"] == "good"
    assert client.get("/state").json()["queue"] == []
    assert client.post("/reviews/2/bad").json()["review"] == "bad"
    assert client.delete("/reviews/2").json()["review"] == "good"
    assert client.post("/reviews/1/maybe").status_code == 422
    assert client.post("/reviews/9/good").status_code == 404
    rows = list(csv.DictReader(io.StringIO(client.get("/results.csv").text)))
    assert [(row["name"], row["review"]) for row in rows] == [("'=cmd()", ""), ("'=cmd()", "good")]
    with zipfile.ZipFile(io.BytesIO(client.get("/reviewed.zip").content)) as archive:
        assert archive.namelist() == ["good/00000002.png"]
        assert archive.read("good/00000002.png") == (images / "b.png").read_bytes()


def test_a_database_of_a_newer_version_or_none_is_one_line(tmp_path) -> None:
    with sqlite3.connect(tmp_path / "station.db") as database:
        database.execute("PRAGMA user_version = 9")
    with pytest.raises(ConfigError, match="newer"):
        Store(tmp_path)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "station.db").write_bytes(b"no database" * 100)
    with pytest.raises(ConfigError, match="choose another"):
        Store(tmp_path / "other")


def test_a_port_in_use_is_one_line(model, tmp_path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(ConfigError, match="another --port"):
        serve(Station(model(), tmp_path / "data", port=taken.getsockname()[1]))


def test_every_answered_result_outlasts_a_kill(model, images, tmp_path) -> None:
    arguments = [
        sys.executable,
        "-m",
        "adcore_runtime.station.command",
        model(),
        "--port",
        "0",
        "--data",
        tmp_path / "d",
    ]
    data, answered = (images / "a.png").read_bytes(), []
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, env=os.environ) as process:
        url = process.stdout.readline().split()[0]
        for _ in range(3):
            with urllib.request.urlopen(urllib.request.Request(f"{url}/predict", data)) as answer:
                answered.append(json.load(answer)["id"])
        process.kill()
    store = Store(tmp_path / "d")
    assert [row["id"] for row in store.after(0, 10)] == answered
    store.close()
