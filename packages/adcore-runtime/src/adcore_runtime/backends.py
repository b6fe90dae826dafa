"""The two libraries that run a graph: ONNX Runtime and OpenVINO, both on the CPU, both in float32."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from adcore_runtime.errors import ArtifactError, ConfigError

Run = Callable[[np.ndarray], dict[str, np.ndarray]]  # the input `images` -> outputs by name
BACKENDS = ("onnxruntime", "openvino")
INPUT, SCORE, MAP = "images", "score", "anomaly_map"


def open_graph(path: Path, backend: str, threads: int | None) -> Run:
    """A function that runs the graph of `path` on `threads` cores (None: the library's choice).

    Raises ConfigError for an unknown or missing backend, ArtifactError for a graph that it refuses or that is not adcore's.
    """
    if backend not in BACKENDS:
        raise ConfigError(f"unknown backend '{backend}'; valid ones: {', '.join(BACKENDS)}")
    if threads is not None and threads < 1:
        raise ConfigError(f"threads must be at least 1, not {threads}")
    try:
        return (_onnxruntime if backend == "onnxruntime" else _openvino)(path, threads)
    except ImportError:
        extra = "adcore-runtime" if backend == "onnxruntime" else "adcore-runtime[openvino]"
        raise ConfigError(f"backend '{backend}' is not installed; pip install '{extra}'") from None
    except ArtifactError:
        raise
    except Exception as error:  # each library has its own kinds
        raise ArtifactError(
            f"{path}: {backend} refuses its graph: {_reason(error)}; copy or export it again"
        ) from error


def _onnxruntime(path: Path, threads: int | None) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what goes wrong is raised, too
    options.intra_op_num_threads = threads or 0
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    _check(path, [value.name for value in session.get_inputs()], names)
    return lambda images: dict(zip(names, session.run(None, {INPUT: images}), strict=True))


def _openvino(path: Path, threads: int | None) -> Run:
    import openvino

    wanted = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}  # bfloat16 would change scores
    wanted |= {"INFERENCE_NUM_THREADS": threads} if threads else {}
    model = openvino.Core().compile_model(str(path), "CPU", wanted)
    names = [output.get_any_name() for output in model.outputs]
    _check(path, [value.get_any_name() for value in model.inputs], names)
    request = model.create_infer_request()

    def run(images: np.ndarray) -> dict[str, np.ndarray]:
        found = request.infer({INPUT: images}, share_inputs=True)
        return {name: found[index] for index, name in enumerate(names)}

    return run


def _check(path: Path, inputs: list[str], outputs: list[str]) -> None:
    if inputs != [INPUT] or SCORE not in outputs:
        raise ArtifactError(
            f"{path} has inputs {inputs} and outputs {outputs}, where adcore writes '{INPUT}' and '{SCORE}'; export it again"
        )


def _reason(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return lines[-1].strip()[:200]
