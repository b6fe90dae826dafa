"""Runs `adcore` commands and Python scripts in forks of one process that has imported torch already.

A command in a Python of its own spends some 2.5 seconds on imports; the pages of the documentation have eighty of them.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import runpy
import sys
from multiprocessing.process import BaseProcess
from pathlib import Path

OUTPUT = ".output"
IMPORTED = ["torch", "torchvision", "timm", "torchmetrics", "sklearn.metrics", "jinja2", "tifffile", "adcore.pipeline"]
IMPORTED += ["adcore.evaluation.plots", "adcore.backbones.transformer"]
IMPORTED += ["torch._dynamo", "onnx", "onnxscript"]  # for exports

processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload([*IMPORTED, "adcore.experiments.conditions", "adcore.inference.predictor"])


def run(arguments: list[str], folder: Path) -> tuple[int, str]:
    """Run `adcore ARGUMENTS`, or the script that `arguments` names, in `folder`: its exit code and what it printed."""
    process = start(arguments, folder)
    process.join()
    return process.exitcode, (folder / OUTPUT).read_text(encoding="utf-8")


def start(arguments: list[str], folder: Path) -> BaseProcess:
    """As `run`, without waiting for the end; the file OUTPUT in `folder` has what is printed."""
    process = processes.Process(target=_run, args=(arguments, folder, dict(os.environ), folder / OUTPUT))
    process.start()
    return process


def _run(arguments: list[str], folder: Path, environment: dict[str, str], output: Path) -> None:
    """In the fork: what the shell and the interpreter do before the first line."""
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(file, 1)
    os.dup2(file, 2)
    site = [path for path in environment.get("PYTHONPATH", "").split(os.pathsep) if path and path not in sys.path]
    sys.path[:0] = [str(folder), *site]
    importlib.invalidate_caches()
    sys.argv = arguments
    if arguments[0] != "adcore":
        runpy.run_path(arguments[0], run_name="__main__")
    else:
        from adcore.cli import main

        main()
