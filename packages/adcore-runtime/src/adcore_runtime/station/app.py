"""The station's HTTP interface: POST /predict, reviews, exports, events and the page."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
import io
import json
import sqlite3
import tempfile
import zipfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from adcore_runtime import __version__
from adcore_runtime.csv_cells import Writer
from adcore_runtime.errors import AdcoreError, ConfigError, DataError
from adcore_runtime.station.scoring import Full, Scorer
from adcore_runtime.station.store import LABELS, MEDIA_TYPES

try:
    from fastapi import FastAPI, HTTPException, Request, Response
    from fastapi.responses import FileResponse, HTMLResponse, JSONResponse, StreamingResponse
except ImportError:
    raise ConfigError("the station needs FastAPI and uvicorn: pip install 'adcore-runtime[serve]'") from None

PAGE = Path(__file__).with_name("page.html")
COLUMNS = ["id", "created", "name", "image", "model", "score", "threshold", "normalized_score", "predicted"]
COLUMNS += ["verdict", "review"]
POLL = 0.3  # seconds between two looks for new results
Handler = Callable[[Request], Awaitable[Response]]


def build_app(scorer: Scorer, max_bytes: int, token: str | None = None) -> FastAPI:
    """The application around a scorer; bodies have at most `max_bytes`, and requests the `token`, if there is one."""
    app = FastAPI(title="adcore station", version=__version__, docs_url=None, redoc_url=None)
    store = scorer.store

    @app.middleware("http")
    async def guard(request: Request, call_next: Handler) -> Response:
        open_path = request.url.path.startswith("/v2/health/")
        if token and not open_path and not _allowed(request.headers.get("authorization", ""), token):
            return JSONResponse(
                {"error": "a token is needed"}, 401, {"WWW-Authenticate": 'Basic realm="adcore station"'}
            )
        origin = request.headers.get("origin")
        if request.method != "GET" and origin and origin.partition("://")[2] != request.headers.get("host"):
            return JSONResponse({"error": "a page of another site may not use this station"}, 403)
        try:
            answer = await call_next(request)
        except Full:
            reason = f"{scorer.limit} images wait already; try again"
            return JSONResponse({"error": reason}, 503, {"Retry-After": "1"})
        except AdcoreError as error:
            return JSONResponse({"error": str(error)}, 500)
        except (OSError, sqlite3.Error) as error:  # a full disk
            return JSONResponse({"error": f"the result cannot be stored: {error}"}, 507)
        answer.headers["X-Content-Type-Options"] = "nosniff"
        answer.headers["X-Frame-Options"] = "DENY"
        return answer

    @app.exception_handler(HTTPException)
    async def failed(request: Request, error: HTTPException) -> Response:
        return JSONResponse({"error": error.detail}, error.status_code)

    @app.post("/predict")
    async def predict(request: Request, name: str = "") -> dict[str, Any]:
        """The body is an image file; `name` is what to call it."""
        with scorer.place():
            return await _scored(scorer, await _body(request, max_bytes), name)

    @app.get("/v2")
    def server() -> dict[str, Any]:
        return {"name": "adcore-station", "version": __version__, "extensions": []}

    @app.get("/v2/health/live")
    @app.get("/v2/health/ready")
    def ready() -> dict[str, bool]:
        return {"ready": True}

    @app.get("/v2/models/{model}")
    @app.get("/v2/models/{model}/ready")
    def metadata(model: str) -> dict[str, Any]:
        _check_model(scorer, model)
        return {
            "name": model,
            "versions": ["1"],
            "platform": "adcore_onnx",
            "inputs": [{"name": "image", "datatype": "BYTES", "shape": [1]}],
            "outputs": [
                {"name": "score", "datatype": "FP64", "shape": [1]},
                {"name": "anomalous", "datatype": "BOOL", "shape": [1]},
            ],
            "ready": True,
        }

    @app.post("/v2/models/{model}/infer")
    async def infer(request: Request, model: str) -> dict[str, Any]:
        """Open Inference Protocol v2: one input `image` of BYTES, an image file in base64."""
        _check_model(scorer, model)
        with scorer.place():
            wanted, data = _infer_input(await _body(request, max_bytes * 4 // 3 + 4096))
            row = await _scored(scorer, data, wanted)
        outputs = [{"name": "score", "datatype": "FP64", "shape": [1], "data": [row["score"]]}]
        if row["predicted"] is not None:
            outputs.append({"name": "anomalous", "datatype": "BOOL", "shape": [1], "data": [bool(row["predicted"])]})
        return {"model_name": model, "model_version": "1", "id": wanted or str(row["id"]), "outputs": outputs}

    @app.get("/", response_class=HTMLResponse)
    def page() -> str:
        return PAGE.read_text(encoding="utf-8")

    @app.get("/state")
    def state() -> dict[str, Any]:
        """What the page shows: model, counters, the last results and those to look at."""
        shown = {"model": scorer.name, "threshold": scorer.predictor.threshold, "counts": asdict(store.counts())}
        return shown | {"latest": store.latest(24), "queue": store.queue(12)}

    @app.get("/events")
    async def events(request: Request) -> StreamingResponse:
        """Server-sent events: each new result."""
        latest = store.latest(1)
        start = request.headers.get("last-event-id", "")
        number = int(start) if start.isdecimal() and len(start) < 19 else latest[0]["id"] if latest else 0
        return StreamingResponse(_new_results(scorer, number), media_type="text/event-stream")

    @app.get("/images/{number}")
    def image(number: int) -> FileResponse:
        path = store.folder / "images" / _row(scorer, number)["image"]
        if not path.is_file():
            raise HTTPException(404, "the file of this image is gone")
        return FileResponse(path, media_type=MEDIA_TYPES.get(path.suffix, "application/octet-stream"))

    @app.post("/reviews/{number}/{label}")
    def review(number: int, label: str) -> dict[str, Any]:
        """Say that an image is good or bad."""
        _row(scorer, number)
        if label not in LABELS:
            raise HTTPException(422, "a review is good or bad")
        store.review(number, label)
        return _row(scorer, number)

    @app.delete("/reviews/{number}")
    def undo(number: int) -> dict[str, Any]:
        """Take the last review of an image back."""
        _row(scorer, number)
        store.undo(number)
        return _row(scorer, number)

    @app.get("/results.csv")
    def table() -> StreamingResponse:
        return StreamingResponse(_csv_lines(scorer), media_type="text/csv; charset=utf-8")

    @app.get("/reviewed.zip")
    def reviewed() -> StreamingResponse:
        """The images that were looked at, as a dataset of the layout `folder`: good/ and bad/."""
        file = tempfile.TemporaryFile()  # noqa: SIM115 -- open while it is sent, gone when it is closed
        with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
            for row in store.reviewed():
                path = store.folder / "images" / row["image"]
                if path.is_file():
                    archive.write(path, f"{row['review']}/{row['id']:08d}{path.suffix}")
        file.seek(0)
        return StreamingResponse(file, media_type="application/zip")

    return app


def _allowed(header: str, token: str) -> bool:
    """Whether an Authorization header has the token: `Bearer TOKEN`, or as the password of `Basic`, as browsers ask for."""
    kind, _, given = header.partition(" ")
    if kind.lower() == "basic":
        try:
            given = base64.b64decode(given, validate=True).decode().partition(":")[2]
        except ValueError:
            return False
    return hmac.compare_digest(given.encode(), token.encode())


async def _body(request: Request, limit: int) -> bytes:
    """The body; 413 as soon as it is known to be beyond `limit` bytes."""
    announced = request.headers.get("content-length", "0")
    received = bytearray()
    if not announced.isdecimal() or int(announced) <= limit:
        async for part in request.stream():
            received += part
            if len(received) > limit:
                break
        else:
            return bytes(received)
    raise HTTPException(
        413, f"the body has more than {limit} bytes; send a smaller image, or start with a larger --max-mb"
    )


async def _scored(scorer: Scorer, data: bytes, name: str) -> dict[str, Any]:
    try:
        return await scorer.score(data, name)
    except DataError as error:
        raise HTTPException(415, str(error)) from None


def _infer_input(body: bytes) -> tuple[str, bytes]:
    """Id and image of a v2 request; 422 where it has none."""
    try:
        asked = json.loads(body)
        (found,) = asked["inputs"]
        (text,) = found["data"]
        if found["datatype"] != "BYTES":
            raise ValueError
        return str(asked.get("id") or ""), base64.b64decode(text, validate=True)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, binascii.Error):
        reason = "one input is needed: datatype BYTES, shape [1], data with an image file in base64"
        raise HTTPException(422, reason) from None


def _check_model(scorer: Scorer, name: str) -> None:
    if name != scorer.name:
        raise HTTPException(404, f"no model of that name; this station has {scorer.name}")


def _row(scorer: Scorer, number: int) -> dict[str, Any]:
    row = scorer.store.row(number) if abs(number) < 2**63 else None
    if row is None:
        raise HTTPException(404, "no result of that number")
    return row


async def _new_results(scorer: Scorer, number: int) -> AsyncIterator[str]:
    yield "retry: 1000\n\n"
    while True:
        for row in scorer.store.after(number, 100):
            number = row["id"]
            yield f"id: {number}\ndata: {json.dumps(row)}\n\n"
        await asyncio.sleep(POLL)


def _csv_lines(scorer: Scorer) -> Iterator[str]:
    """The table of all results, a thousand at a time."""
    number, header = 0, True
    while (rows := scorer.store.after(number, 1000)) or header:
        text = io.StringIO(newline="")
        writer = Writer(text, COLUMNS, header)
        for row in rows:
            writer.write(row)
            number = row["id"]
        header = False
        yield text.getvalue()
