"""`adcore serve MODEL.onnx [--port]`: the station, as `adcore-serve` of adcore-runtime starts it."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("serve")
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--data", type=click.Path(path_type=Path), default="station", help="Folder for images and results.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=8000, show_default=True, help="Port to listen on.")
@click.option("--queue", default=32, show_default=True, help="Images that may wait; more are answered 503.")
@click.option("--max-mb", default=32.0, show_default=True, help="Largest image file; more is answered 413.")
@click.option("--backend", default="onnxruntime", show_default=True, help="Or openvino.")
@click.option("--threads", type=int, help="Cores to use; all by default.")
@click.option("--threshold", type=float, help="Instead of the stored one.")
def command(
    model: Path,
    data: Path,
    host: str,
    port: int,
    queue: int,
    max_mb: float,
    backend: str,
    threads: int | None,
    threshold: float | None,
) -> None:
    """Serve an exported model, with a page where operators see and review the images."""
    from adcore_runtime.station.command import Station, serve

    serve(Station(model, data, host, port, queue, max_mb, backend, threads, threshold))
