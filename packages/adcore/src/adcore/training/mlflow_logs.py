"""A run's settings, metrics and files in MLflow."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adcore.errors import ConfigError
from adcore.evaluation.report import nested_rows
from adcore.files import write_text
from adcore.training.callbacks import Callback

if TYPE_CHECKING:
    from adcore.training.trainer import Trainer

EXPERIMENT, RUN_ID = "adcore", "mlflow_run_id.txt"
FILES = ("result.json", "report.html", "predictions.csv", "thresholds.txt", "training_detail.log", "model.safetensors")
SENT_AT_ONCE, SECONDS = 200, 10.0  # values are sent when so many have come together, or after so long


def tracking_uri(track: str) -> str | None:
    """The URI of "mlflow:URI"; None for "mlflow", whose own settings then hold (MLFLOW_TRACKING_URI).

    ConfigError for another text.
    """
    name, _, uri = track.partition(":")
    if name != "mlflow":
        raise ConfigError(f"track={track}: write mlflow, or mlflow:URI such as mlflow:http://server:5000")
    return uri or None


class MlflowLogs(Callback):
    """Sends what a fit logs to one MLflow run of the experiment "adcore", and the files of `folder` at the end.

    A fit that goes on from its checkpoint goes on in the same MLflow run. Raises ConfigError where MLflow is not installed or
    its store cannot be used; an error while the fit runs is told once, and the fit goes on.
    """

    def __init__(self, uri: str | None, folder: Path, name: str, settings: Mapping[str, Any]) -> None:
        try:
            from mlflow import MlflowClient
            from mlflow.entities import Metric, Param
        except ImportError:
            raise ConfigError('MLflow is not installed: pip install "adcore[mlflow]"') from None
        self._metric, self._folder, self._waiting, self._step = Metric, folder, [], 0
        self._sent, self._failed = time.monotonic(), False
        kept = folder / "checkpoints" / RUN_ID
        try:
            self._client = MlflowClient(uri)
            if kept.is_file():
                self._run = kept.read_text(encoding="utf-8")
                self._client.update_run(self._run, "RUNNING")
                return
            found = self._client.get_experiment_by_name(EXPERIMENT)
            experiment = found.experiment_id if found else self._client.create_experiment(EXPERIMENT)
            self._run = self._client.create_run(experiment, run_name=name).info.run_id
            parameters = [Param(_key(key), str(value)[:500]) for key, value in nested_rows(settings)]
            self._client.log_batch(self._run, params=parameters)
        except Exception as error:  # of MLflow, of its transport, of the file system
            raise ConfigError(f"MLflow cannot be used at {uri or 'its own URI'}: {_first_line(error)}") from None
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_text(kept, self._run)

    def on_step_end(self, trainer: Trainer, logs: dict[str, float]) -> None:
        """Losses and learning rates."""
        self._step = trainer.fit.step
        for key, value in logs.items():
            self._add(f"train/{key}", value)
        for name, optimization in trainer.optimizations.items():
            self._add(f"lr/{name}", optimization.optimizer.param_groups[0]["lr"])

    def on_validation_end(self, trainer: Trainer, value: float) -> None:
        """The monitored value."""
        self._step = trainer.fit.step
        self._add(f"val/{trainer.plan.monitor}", value)

    def on_log(self, trainer: Trainer, key: str, value: float) -> None:
        """A value that a hook of the model logged."""
        self._add(f"log/{key}", value)

    def on_measured(self, part: str, values: Mapping[str, Any]) -> None:
        """Each metric, `target/domain_B/image_auroc` for example, at the last step."""
        for key, value in values.items():
            if isinstance(value, int | float):
                self._add(f"{part.replace(' ', '/', 1)}/{key}", value)

    def close(self) -> None:
        """Send what is left and the run's files; a run without a result has failed."""
        self._send()
        for name in FILES:
            if (self._folder / name).is_file():
                self._try(lambda name=name: self._client.log_artifact(self._run, str(self._folder / name)))
        complete = (self._folder / FILES[0]).is_file()
        self._try(lambda: self._client.set_terminated(self._run, "FINISHED" if complete else "FAILED"))

    def _add(self, key: str, value: float) -> None:
        self._waiting.append(self._metric(_key(key), float(value), int(1000 * time.time()), self._step))
        if len(self._waiting) >= SENT_AT_ONCE or time.monotonic() - self._sent > SECONDS:
            self._send()

    def _send(self) -> None:
        metrics, self._waiting, self._sent = self._waiting, [], time.monotonic()
        if metrics:
            self._try(lambda: self._client.log_batch(self._run, metrics=metrics))

    def _try(self, call: Callable[[], Any]) -> None:
        try:
            call()
        except Exception as error:  # tracking must not end a training
            if not self._failed:
                print(f"MLflow: {_first_line(error)}; the run goes on without it", flush=True)
            self._failed = True


def _key(text: str) -> str:
    """`text` with the characters that MLflow takes."""
    return re.sub(r"[^\w\-. /:]", "_", text)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300]
