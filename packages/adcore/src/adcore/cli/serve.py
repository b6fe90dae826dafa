"""`adcore serve MODEL.onnx... [--port]`: the station, as `adcore-serve` of adcore-runtime starts it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click


@click.command("serve")
@click.argument("models", nargs=-1, required=True, metavar="MODEL...")
@click.option("--data", type=click.Path(path_type=Path), default="station", help="Folder for images and results.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=8000, show_default=True, help="Port to listen on.")
@click.option("--queue", default=32, show_default=True, help="Images that may wait; more are answered 503.")
@click.option("--max-mb", default=32.0, show_default=True, help="Largest image file; more is answered 413.")
@click.option("--backend", default="onnxruntime", show_default=True, help="Or openvino.")
@click.option("--threads", type=int, help="Cores to use; all by default.")
@click.option("--threshold", type=float, help="Instead of the stored one.")
@click.option("--watch", type=click.Path(path_type=Path), help="Score images that appear in this folder, each once.")
@click.option(
    "--sink", "sinks", multiple=True, help="Send events to FILE.jsonl, http://HOST/PATH or mqtt://HOST/TOPIC."
)
@click.option("--keep-days", type=float, help="Delete results that are older, except reviewed ones.")
@click.option("--keep-gb", type=float, help="Delete the oldest results when images take more, except reviewed ones.")
@click.option("--drop-reviewed", is_flag=True, help="--keep-days and --keep-gb delete reviewed ones, too.")
def command(**options: Any) -> None:
    """Serve exported models (ONNX files, or NAME=FILE), with a page where operators see and review the images."""
    from adcore_runtime.station.command import Station, serve

    serve(Station(**options))
