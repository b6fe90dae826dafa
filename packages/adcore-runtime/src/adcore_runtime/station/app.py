"""The station's HTTP interface: POST /predict, reviews, exports, events and the page."""

from __future__ import annotations

import asyncio
import io
import json
import sqlite3
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from PIL import Image

from adcore_runtime import __version__
from adcore_runtime.errors import AdcoreError, ConfigError, DataError
from adcore_runtime.image import gray_photo, read_image
from adcore_runtime.station.export import csv_lines, write_dataset
from adcore_runtime.station.incoming import Unwanted, allowed, body, drawn_boxes, infer_input
from adcore_runtime.station.scoring import Full, Scorer
from adcore_runtime.station.sinks import Sink
from adcore_runtime.station.store import LABELS, MEDIA_TYPES, Store

try:
    from fastapi import FastAPI, HTTPException, Request, Response
    from fastapi.responses import FileResponse, HTMLResponse, JSONResponse, StreamingResponse
except ImportError:
    raise ConfigError("the station needs FastAPI and uvicorn: pip install 'adcore-runtime[serve]'") from None

PAGE = Path(__file__).with_name("page.html")
POLL = 0.3  # seconds between two looks for new events
CHART = 200  # scores on the page
NOTICES = 10  # alarms and the like
MOST_JSON = 100_000  # bytes of a review
Handler = Callable[[Request], Awaitable[Response]]


def build_app(scorer: Scorer, max_bytes: int, token: str | None = None, sinks: Sequence[Sink] = ()) -> FastAPI:
    """The application around a scorer; bodies have at most `max_bytes`, and requests the `token`, if there is one."""
    app = FastAPI(title="adcore station", version=__version__, docs_url=None, redoc_url=None)
    store = scorer.store

    @app.middleware("http")
    async def guard(request: Request, call_next: Handler) -> Response:
        open_path = request.url.path.startswith("/v2/health/")
        if token and not open_path and not allowed(request.headers.get("authorization", ""), token):
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

    @app.exception_handler(Unwanted)
    async def unwanted(request: Request, error: Unwanted) -> Response:
        return JSONResponse({"error": str(error)}, error.status)

    @app.post("/predict")
    async def predict(request: Request, name: str = "", model: str = "", map: bool = False) -> dict[str, Any]:
        """The body is an image file; `name` is what to call it, `model` which one scores it, `map` adds the raw map."""
        if model:
            _check_model(scorer, model)
        with scorer.place():
            return await _scored(scorer, await body(request, max_bytes), name, model, map)

    @app.get("/v2")
    def server() -> dict[str, Any]:
        return {"name": "adcore-station", "version": __version__, "extensions": []}

    @app.get("/v2/health/live")
    @app.get("/v2/health/ready")
    def ready() -> dict[str, bool]:
        return {"ready": True}

    @app.get("/v2/models")
    def models() -> dict[str, Any]:
        """The names of all models."""
        return {"models": list(scorer.models)}

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
            wanted, data = infer_input(await body(request, max_bytes * 4 // 3 + 4096))
            row = await _scored(scorer, data, wanted, model)
        outputs = [{"name": "score", "datatype": "FP64", "shape": [1], "data": [row["score"]]}]
        if row["predicted"] is not None:
            outputs.append({"name": "anomalous", "datatype": "BOOL", "shape": [1], "data": [bool(row["predicted"])]})
        return {"model_name": model, "model_version": "1", "id": wanted or str(row["id"]), "outputs": outputs}

    @app.get("/", response_class=HTMLResponse)
    def page() -> str:
        return PAGE.read_text(encoding="utf-8")

    @app.get("/state")
    def state() -> dict[str, Any]:
        """What the page shows: models, counters, the last results, those to look at, scores, alarms, sinks."""
        thresholds = {name: predictor.threshold for name, predictor in scorer.models.items()}
        shown = {"models": thresholds, "counts": asdict(store.counts()), "scores": store.scores(CHART)}
        shown |= {
            "alarms": store.last_alarms(NOTICES),
            "sinks": [sink.state() for sink in sinks],
            "drift": scorer.drift.state(),
        }
        return shown | {"latest": store.latest(24), "queue": store.queue(12)}

    @app.get("/events")
    async def events(request: Request) -> StreamingResponse:
        """Server-sent events: each new result, review and alarm."""
        start = request.headers.get("last-event-id", "")
        number = int(start) if start.isdecimal() and len(start) < 19 else store.last_event()
        return StreamingResponse(_new_events(store, number), media_type="text/event-stream")

    @app.get("/images/{number}", response_model=None)
    def image(number: int, shown: bool = False) -> Response:
        """The file as it came; `shown` as a gray PNG where it is a TIFF, which browsers do not show."""
        row = _row(scorer, number)
        path = store.folder / "images" / row["image"]
        if not path.is_file():
            raise HTTPException(404, "the file of this image is gone")
        if shown and path.suffix == ".tif" and row["model"] in scorer.models:
            picture = io.BytesIO()
            channels = scorer.models[row["model"]].description.preprocess.channels
            Image.fromarray(gray_photo(read_image(path, channels))).save(picture, "PNG")
            return Response(picture.getvalue(), media_type="image/png")
        return FileResponse(path, media_type=MEDIA_TYPES.get(path.suffix, "application/octet-stream"))

    @app.post("/reviews/{number}/{label}")
    async def review(request: Request, number: int, label: str) -> dict[str, Any]:
        """Say that an image is good or bad; the body of a bad one may have the boxes that were drawn."""
        row = _row(scorer, number)
        if label not in LABELS:
            raise HTTPException(422, "a review is good or bad")
        store.review(number, label, drawn_boxes(await body(request, MOST_JSON), row))
        return _row(scorer, number)

    @app.delete("/reviews/{number}")
    def undo(number: int) -> dict[str, Any]:
        """Take the last review of an image back."""
        _row(scorer, number)
        store.undo(number)
        return _row(scorer, number)

    @app.post("/drift/{model}/reset")
    def reset_drift(model: str) -> dict[str, Any]:
        """Acknowledge the drift alarms of a model, and begin its test anew."""
        _check_model(scorer, model)
        if model not in scorer.drift.models:
            raise HTTPException(409, f"{model} stores no statistics of its calibration images, so it is not watched")
        acknowledged = scorer.drift.reset(model)
        return {"model": model, "acknowledged": acknowledged, "drift": scorer.drift.state()}

    @app.get("/results.csv")
    def table() -> StreamingResponse:
        return StreamingResponse(csv_lines(store), media_type="text/csv; charset=utf-8")

    @app.get("/reviewed.zip")
    def reviewed() -> StreamingResponse:
        """The images that were looked at, as a dataset of the layout `folder` and as COCO JSON."""
        file = tempfile.TemporaryFile()  # noqa: SIM115 -- open while it is sent, gone when it is closed
        write_dataset(store, file)
        file.seek(0)
        return StreamingResponse(file, media_type="application/zip")

    return app


async def _scored(scorer: Scorer, data: bytes, name: str, model: str, with_map: bool = False) -> dict[str, Any]:
    try:
        return await scorer.score(data, name, model, with_map)
    except DataError as error:
        raise HTTPException(415, str(error)) from None


def _check_model(scorer: Scorer, name: str) -> None:
    if name not in scorer.models:
        raise HTTPException(404, f"no model of that name; this station has {', '.join(scorer.models)}")


def _row(scorer: Scorer, number: int) -> dict[str, Any]:
    row = scorer.store.row(number) if abs(number) < 2**63 else None
    if row is None:
        raise HTTPException(404, "no result of that number")
    return row


async def _new_events(store: Store, number: int) -> AsyncIterator[str]:
    yield "retry: 1000\n\n"
    while True:
        for event in await asyncio.to_thread(store.events_after, number, 100):
            number = event["number"]
            yield f"id: {number}\ndata: {json.dumps(event)}\n\n"
        await asyncio.sleep(POLL)
