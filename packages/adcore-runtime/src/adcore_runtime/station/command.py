"""`adcore-serve MODEL [--port]`: starts the station."""

from __future__ import annotations

import argparse
import os
import socket
import sys
from dataclasses import dataclass
from pathlib import Path

from adcore_runtime.errors import AdcoreError, ConfigError

TOKEN = "ADCORE_TOKEN"  # environment variable: the station's API token


@dataclass
class Station:
    """How to run a station."""

    model: Path
    data: Path = Path("station")
    host: str = "127.0.0.1"
    port: int = 8000
    queue: int = 32  # images that may wait
    max_mb: float = 32.0  # of an image file
    backend: str = "onnxruntime"
    threads: int | None = None
    threshold: float | None = None


def main() -> None:
    """Entry point: an error that a user can cause is one line on stderr and exit code 2."""
    parser = argparse.ArgumentParser(
        prog="adcore-serve", description="Serve an exported model, with a page for operators."
    )
    parser.add_argument("model", type=Path, help="ONNX file that adcore export wrote")
    parser.add_argument("--data", type=Path, default=Station.data, help="folder for images and results (./station)")
    parser.add_argument("--host", default=Station.host, help="address to listen on (127.0.0.1: this computer alone)")
    parser.add_argument("--port", type=int, default=Station.port, help="port (8000)")
    parser.add_argument("--queue", type=int, default=Station.queue, help="images that may wait; more are answered 503")
    parser.add_argument("--max-mb", type=float, default=Station.max_mb, help="largest image file; more is answered 413")
    parser.add_argument("--backend", default=Station.backend, help="onnxruntime (default) or openvino")
    parser.add_argument("--threads", type=int, help="cores to use; all by default")
    parser.add_argument("--threshold", type=float, help="instead of the stored one")
    try:
        serve(Station(**vars(parser.parse_args())))
    except (AdcoreError, OSError) as error:
        print(f"adcore-serve: {error}", file=sys.stderr)
        sys.exit(2)


def serve(station: Station) -> None:
    """Serve until the process is told to stop. Raises ConfigError where FastAPI is absent, or the port is in use."""
    from adcore_runtime.predictor import load
    from adcore_runtime.station.app import build_app
    from adcore_runtime.station.scoring import Scorer
    from adcore_runtime.station.store import Store

    if station.queue < 1 or not 0 < station.max_mb <= 4096 or not 0 <= station.port <= 65535:
        raise ConfigError("--queue starts at 1, --max-mb lies above 0 and up to 4096, --port within 0 and 65535")
    import uvicorn

    predictor = load(station.model, station.backend, station.threads, station.threshold)
    try:
        listener = socket.create_server((station.host, station.port))
    except OSError as error:
        reason = error.strerror or str(error)
        raise ConfigError(f"cannot listen on {station.host}:{station.port}: {reason}; choose another --port") from None
    with listener:
        store = Store(station.data)
        scorer = Scorer(predictor, store, station.model.stem, station.queue)
        app = build_app(scorer, int(station.max_mb * 1e6), os.environ.get(TOKEN))
        host, port = listener.getsockname()[:2]
        print(f"http://{host}:{port} serves {station.model}, results in {station.data}", flush=True)
        config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=3)
        uvicorn.Server(config).run(sockets=[listener])
        store.close()


if __name__ == "__main__":
    main()
