"""The station: answers, limits, what is stored, reviews and exports."""

from __future__ import annotations

import base64
import csv
import errno
import io
import json
import os
import random
import socket
import sqlite3
import subprocess
import sys
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("fastapi", reason="pip install 'adcore-runtime[serve]'")
pytest.importorskip("uvicorn", reason="pip install 'adcore-runtime[serve]'")

from adcore_runtime import load
from adcore_runtime.decisions import Result
from adcore_runtime.errors import AdcoreError, ConfigError
from adcore_runtime.rows import RowOptions
from adcore_runtime.station.app import build_app
from adcore_runtime.station.command import Station, named_models, serve
from adcore_runtime.station.schema import STEPS
from adcore_runtime.station.scoring import Scorer
from adcore_runtime.station.store import Counts, Store
from fastapi.testclient import TestClient


@pytest.fixture
def station(model, tmp_path) -> Iterator[Callable]:
    """station(token=..., queue=..., max_bytes=...): a client of a new station in tmp_path / "data"."""
    stores = []

    def start(token: str | None = None, queue: int = 4, max_bytes: int = 100_000):
        stores.append(Store(tmp_path / "data"))
        return TestClient(build_app(Scorer({"tiny": load(model())}, stores[-1], queue), max_bytes, token))

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


def test_regions_of_the_answer_are_those_of_predict_files_and_the_map_is_raw(station, model, images) -> None:
    answer = station().post("/predict?map=1", content=(images / "b.png").read_bytes()).json()
    calibration = load(model()).calibration
    options = RowOptions.chosen(True, None, None, None, False, calibration)
    (row,) = load(model()).predict_files(images / "b.png", options=options)
    assert answer["regions"] == json.loads(json.dumps(row["regions"]))
    assert answer["regions"]
    values = np.frombuffer(base64.b64decode(answer["map"]["data"]), "<f4").reshape(answer["map"]["shape"])
    assert (values == load(model()).predict(images / "b.png").anomaly_map).all()


def test_several_models_by_name(model, images, tmp_path) -> None:
    other = load(model(), threshold=0.0)
    store = Store(tmp_path / "data")
    client = TestClient(build_app(Scorer({"tiny": load(model()), "strict": other}, store, 4), 100_000))
    data = (images / "a.png").read_bytes()
    found = [client.post("/predict", params={"model": name}, content=data).json() for name in ("", "strict")]
    assert [(row["model"], row["predicted"]) for row in found] == [("tiny", 0), ("strict", 1)]
    assert client.post("/predict?model=none", content=data).status_code == 404
    assert client.get("/v2/models").json() == {"models": ["tiny", "strict"]}
    assert client.get("/v2/models/strict/ready").json()["name"] == "strict"
    one = {"name": "image", "datatype": "BYTES", "shape": [1], "data": [base64.b64encode(data).decode()]}
    outputs = client.post("/v2/models/strict/infer", json={"inputs": [one]}).json()["outputs"]
    assert outputs[1]["data"] == [True]
    store.close()


def test_names_of_models() -> None:
    assert named_models(("runs/a.onnx", "b=runs/a.onnx")) == {"a": Path("runs/a.onnx"), "b": Path("runs/a.onnx")}
    with pytest.raises(ConfigError, match="two models are called a"):
        named_models(("x/a.onnx", "y/a.onnx"))
    with pytest.raises(ConfigError, match="without '/'"):
        named_models(("a/b=x.onnx",))


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
        assert archive.namelist() == ["good/00000002.png", "adcore_metadata.csv", "coco.json"]
        assert archive.read("good/00000002.png") == (images / "b.png").read_bytes()


def test_boxes_that_were_drawn_become_masks_and_coco(station, images) -> None:
    client = station()
    for _ in range(3):
        client.post("/predict", content=(images / "a.png").read_bytes())  # 20 x 30 pixels
    drawn = {"regions": [[3.4, 2, 5, 4], [-2, 15, 10, 40]]}
    assert client.post("/reviews/1/bad", json=drawn).json()["marked"] == [[3, 2, 6, 4], [0, 15, 8, 5]]
    for wrong in ({}, {"regions": [[40, 2, 5, 5]]}, {"regions": [[1, 2, 3]]}, {"regions": [[0, 0, "x", 1]]}, [1]):
        assert client.post("/reviews/1/bad", json=wrong).status_code == 422
    client.post("/reviews/2/good")
    client.post("/reviews/3/good")
    with zipfile.ZipFile(io.BytesIO(client.get("/reviewed.zip").content)) as archive:
        mask = np.asarray(Image.open(archive.open("ground_truth/bad/00000001.png")))
        expected = np.zeros((20, 30), np.uint8)
        expected[2:6, 3:9] = expected[15:20, 0:8] = 255
        assert (mask == expected).all()
        coco = json.loads(archive.read("coco.json"))
        assert coco["images"][0]["file_name"] == "bad/00000001.png"
        assert [(one["image_id"], one["bbox"], one["area"]) for one in coco["annotations"]] == [
            (1, [3, 2, 6, 4], 24),
            (1, [0, 15, 8, 5], 40),
        ]
        rows = list(csv.DictReader(io.TextIOWrapper(archive.open("adcore_metadata.csv"), newline="")))
    assert {row["image_path"]: row["label"] for row in rows}["bad/00000001.png"] == "anomalous"
    assert sorted(row["split"] for row in rows) == ["test", "test", "train"]  # one good image is held out for test


@pytest.mark.parametrize("version", [1, 2])
def test_a_database_of_an_older_version_is_brought_up(tmp_path, version) -> None:
    with sqlite3.connect(tmp_path / "station.db") as database:
        database.executescript(f"{''.join(STEPS[:version])} PRAGMA user_version = {version};")
        for name, predicted in (("old", 1), ("seen", 1), ("normal", 0), ("without", None)):
            values = "(created, name, image, model, score, predicted) VALUES ('2026', ?, 'x.png', 'm', 0.5, ?)"
            database.execute(f"INSERT INTO results {values}", (name, predicted))
        for _ in range(2):
            database.execute("INSERT INTO reviews (result, label, created) VALUES (2, 'good', '2026')")
    store = Store(tmp_path)
    assert [(row["name"], row["regions"], row["review"]) for row in store.queue(9)] == [("old", [], None)]
    assert store.counts() == Counts(total=4, anomalous=2, reviewed=1)
    store.review(1, "good")
    assert store.queue(9) == []
    store.close()


def test_counters_and_queue_are_those_of_counting(tmp_path) -> None:
    """Whatever is added, reviewed, undone and deleted, in any order."""
    store, choose = Store(tmp_path), random.Random(0)
    for _ in range(300):
        rows = store.after(0, 1000)
        kind = choose.choice(["add", "add", "review", "review", "undo", "forget"] if rows else ["add"])
        if kind == "add":
            verdict = choose.choice([None, "review", "bad", "good"])
            result = Result(0.5, None, None, choose.choice([None, True, False]), None, verdict)
            store.add("part", store.keep_image(b"x"), "tiny", result)
            continue
        row = choose.choice(rows)
        if kind == "forget":
            store.forget([row])
        elif kind == "undo":
            store.undo(row["id"])
        else:
            store.review(row["id"], choose.choice(["good", "bad"]))
    rows = store.after(0, 1000)
    seen = [row for row in rows if row["review"]]
    flagged = [row for row in rows if row["predicted"] == 1 or row["verdict"] in ("review", "bad")]
    assert store.counts() == Counts(len(rows), sum(row["predicted"] or 0 for row in rows), len(seen))
    assert store.queue(1000) == [row for row in flagged[::-1] if not row["review"]]
    assert 0 < len(seen) < len(rows)
    store.close()


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
        serve(Station((str(model()),), tmp_path / "data", port=taken.getsockname()[1]))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"models": ("none.onnx",)}, "does not exist"),
        ({"watch": Path("none")}, "is no folder"),
        ({"watch": Path()}, "another --data"),
        ({"keep_days": 0.0}, "above 0"),
        ({"keep_gb": float("nan")}, "above 0"),
        ({"sinks": ("ftp://host/x",)}, "give FILE.jsonl"),
        ({"sinks": ("mqtt://user:secret@host",)}, "--sink mqtt://host:"),
        ({"sinks": ("http://host:port/",)}, "give FILE.jsonl"),
    ],
)
def test_what_cannot_be_is_one_line(model, tmp_path, monkeypatch, changes, said) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(AdcoreError, match=said) as error:
        serve(Station(**{"models": (str(model()),), "port": 0} | changes))
    assert "secret" not in str(error.value)


def test_a_full_disk_is_507_and_the_station_stays_up(station, images, monkeypatch, tmp_path) -> None:
    client, data = station(), (images / "a.png").read_bytes()

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        assert client.post("/predict", content=data).status_code == 507
    assert list((tmp_path / "data" / "images").iterdir()) == []
    assert client.post("/predict", content=data).status_code == 200


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
