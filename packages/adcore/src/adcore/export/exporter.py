"""What an exporter is given, and what it does: write files that hold a checked graph."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adcore_runtime.backends import Run

from adcore.export.gate import Difference


@dataclass(frozen=True)
class Export:
    """A graph that gives the model's results, for an exporter `write(export, folder) -> path of the main file`.

    An exporter writes below `folder`, which is empty; what it has written gets its place when it returns. `record` is the
    metadata, JSON. What a backend reads other than `graph`, it has to compare with `check`, which raises ExportError.
    """

    graph: Path  # ONNX without metadata; weights of 2 GB and more beside it
    name: str  # of the model, for files and servers
    record: Mapping[str, Any]
    check: Callable[[str, Run], Difference]  # (name of the form, a function that runs it)
