"""`adcore-serve MODEL... [--port]`: starts the station."""

from __future__ import annotations

import argparse
import os
import socket
import sys
from contextlib import ExitStack
from dataclasses import dataclass, fields
from pathlib import Path

from adcore_runtime.errors import AdcoreError, ConfigError

TOKEN = "ADCORE_TOKEN"  # environment variable: the station's API token


@dataclass
class Station:
    """How to run a station."""

    models: tuple[str, ...]  # paths, or NAME=PATH
    data: Path = Path("station")
    host: str = "127.0.0.1"
    port: int = 8000
    queue: int = 32  # images that may wait
    max_mb: float = 32.0  # of an image file
    backend: str = "onnxruntime"
    threads: int | None = None
    threshold: float | None = None
    watch: Path | None = None  # folder
    sinks: tuple[str, ...] = ()  # addresses
    keep_days: float | None = None
    keep_gb: float | None = None
    drop_reviewed: bool = False  # retention may delete reviewed results


HELP = {
    "models": "ONNX files that adcore export wrote, or NAME=FILE; the first scores what names no model",
    "data": "folder for images and results (./station)",
    "host": "address to listen on (127.0.0.1: this computer alone)",
    "port": "port (8000)",
    "queue": "images that may wait; more are answered 503 (32)",
    "max_mb": "largest image file in MB; more is answered 413 (32)",
    "backend": "onnxruntime (default) or openvino",
    "threads": "cores to use; all by default",
    "threshold": "instead of the stored one",
    "watch": "score images that appear in this folder, each once",
    "sinks": "send events to FILE.jsonl, http(s)://HOST/PATH or mqtt://HOST/TOPIC; may be given several times",
    "keep_days": "delete results and images that are older, except reviewed ones",
    "keep_gb": "delete the oldest results when images take more, except reviewed ones",
    "drop_reviewed": "--keep-days and --keep-gb delete reviewed ones, too",
}


def main() -> None:
    """Entry point: an error that a user can cause is one line on stderr and exit code 2."""
    parser = argparse.ArgumentParser(
        prog="adcore-serve", description="Serve exported models, with a page for operators."
    )
    parser.add_argument("models", nargs="+", metavar="MODEL", help=HELP["models"])
    parser.add_argument("--data", type=Path, help=HELP["data"])
    parser.add_argument("--host", help=HELP["host"])
    parser.add_argument("--port", type=int, help=HELP["port"])
    parser.add_argument("--queue", type=int, help=HELP["queue"])
    parser.add_argument("--max-mb", type=float, help=HELP["max_mb"])
    parser.add_argument("--backend", help=HELP["backend"])
    parser.add_argument("--threads", type=int, help=HELP["threads"])
    parser.add_argument("--threshold", type=float, help=HELP["threshold"])
    parser.add_argument("--watch", type=Path, metavar="FOLDER", help=HELP["watch"])
    parser.add_argument("--sink", dest="sinks", action="append", metavar="ADDRESS", help=HELP["sinks"])
    parser.add_argument("--keep-days", type=float, help=HELP["keep_days"])
    parser.add_argument("--keep-gb", type=float, help=HELP["keep_gb"])
    parser.add_argument("--drop-reviewed", action="store_true", help=HELP["drop_reviewed"])
    parser.set_defaults(**{one.name: one.default for one in fields(Station) if one.name not in ("models", "sinks")})
    given = vars(parser.parse_args())
    try:
        serve(Station(**given | {key: tuple(given[key] or ()) for key in ("models", "sinks")}))
    except (AdcoreError, OSError) as error:
        print(f"adcore-serve: {error}", file=sys.stderr)
        sys.exit(2)


def named_models(texts: tuple[str, ...]) -> dict[str, Path]:
    """Models by name: NAME=PATH, or a path whose name without suffix it is. ConfigError for one name twice, or none."""
    found: dict[str, Path] = {}
    for text in texts:
        name, sign, path = text.partition("=")
        if not sign or Path(text).exists():
            name, path = Path(text).stem, text
        if not name or "/" in name:
            raise ConfigError(f"{text}: give NAME=FILE, with a name without '/'")
        if name in found:
            raise ConfigError(f"two models are called {name}; give them names: one={found[name]} other={path}")
        found[name] = Path(path)
    return found


def serve(station: Station) -> None:
    """Serve until the process is told to stop. Raises ConfigError where FastAPI is absent, or the port is in use."""
    from adcore_runtime.predictor import load
    from adcore_runtime.station.app import build_app
    from adcore_runtime.station.repeated import Repeated
    from adcore_runtime.station.retention import Retention
    from adcore_runtime.station.scoring import Scorer
    from adcore_runtime.station.sinks import open_sink
    from adcore_runtime.station.store import Store
    from adcore_runtime.station.watch import Watch

    _check(station)
    import uvicorn

    paths, max_bytes = named_models(station.models), int(station.max_mb * 1e6)
    models = {name: load(path, station.backend, station.threads, station.threshold) for name, path in paths.items()}
    with ExitStack() as stack:
        listener = stack.enter_context(_listener(station.host, station.port))
        store = Store(station.data)
        stack.callback(store.close)
        scorer = Scorer(models, store, station.queue)
        stack.callback(scorer.close)
        sinks = [open_sink(address, store) for address in station.sinks]
        store.use_sinks(sink.name for sink in sinks)
        tasks = [(sink.name, sink.turn) for sink in sinks]
        if station.watch:
            tasks.append(("--watch", Watch(station.watch, scorer, max_bytes).turn))
        if station.keep_days is not None or station.keep_gb is not None:
            retention = Retention(store, station.keep_days, station.keep_gb, station.drop_reviewed)
            retention.remove_orphans()
            tasks.append(("retention", retention.turn))
        for sink in sinks:
            stack.callback(sink.close)
        app = build_app(scorer, max_bytes, os.environ.get(TOKEN), sinks)
        for name, task in tasks:
            stack.callback(Repeated(name, task).close)
        host, port = listener.getsockname()[:2]
        shown = ", ".join(map(str, paths.values()))
        print(f"http://{host}:{port} serves {shown}, results in {station.data}", flush=True)
        config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=3)
        uvicorn.Server(config).run(sockets=[listener])


def _check(station: Station) -> None:
    if station.queue < 1 or not 0 < station.max_mb <= 4096 or not 0 <= station.port <= 65535:
        raise ConfigError("--queue starts at 1, --max-mb lies above 0 and up to 4096, --port within 0 and 65535")
    if not all(limit is None or 0 < limit < 1e6 for limit in (station.keep_days, station.keep_gb)):
        raise ConfigError("--keep-days and --keep-gb lie above 0, and below 1000000")
    if station.watch:
        if not station.watch.is_dir():
            raise ConfigError(f"--watch {station.watch} is no folder; create it first")
        if station.data.resolve().is_relative_to(station.watch.resolve()):
            raise ConfigError(f"--data {station.data} lies in --watch {station.watch}; choose another --data")


def _listener(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port))
    except OSError as error:
        reason = error.strerror or str(error)
        raise ConfigError(f"cannot listen on {host}:{port}: {reason}; choose another --port") from None


if __name__ == "__main__":
    main()
