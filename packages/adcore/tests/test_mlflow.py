"""What a run leaves in MLflow: its settings, its values and its files, in one MLflow run however often it was resumed."""

from importlib.util import find_spec
from pathlib import Path

import adcore
import pytest
from adcore.errors import ConfigError
from adcore.testing import write_tiny_mvtec

# looked for and not imported, which takes seconds of every process that collects tests
pytestmark = pytest.mark.skipif(find_spec("mlflow") is None, reason="pip install adcore[mlflow]")
OPTIONS = {"weights": "random", "image_size": 32, "batch_size": 3}


@pytest.fixture
def store(tmp_path, monkeypatch) -> str:
    """A folder as MLflow's store."""
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    return (tmp_path / "mlruns").as_uri()


def train(tmp_path: Path, store: str, **options):
    data = write_tiny_mvtec(tmp_path / "data") if not (tmp_path / "data").exists() else tmp_path / "data"
    out = tmp_path / "run"
    options = {**OPTIONS, "track": f"mlflow:{store}", **options}
    return adcore.train(f"mvtec:{data}", "part", "stfpm-resnet18", out=out, **options)


def test_settings_values_and_files_are_there_and_a_resumed_run_goes_on(tmp_path, store) -> None:
    from mlflow import MlflowClient

    run = train(tmp_path, store, num_epochs=2)
    client = MlflowClient(store)
    (experiment,) = [one for one in client.search_experiments() if one.name == "adcore"]
    (kept,) = client.search_runs([experiment.experiment_id])
    assert kept.info.status == "FINISHED"
    assert kept.data.params["config.weights"] == "random"
    assert kept.data.params["plan.epochs"] == "2"
    assert kept.data.metrics["test/image_auroc"] == run.metrics["image_auroc"]
    losses = client.get_metric_history(kept.info.run_id, "train/loss")
    assert [one.step for one in losses] == [1, 2, 3, 4]
    names = {one.path for one in client.list_artifacts(kept.info.run_id)}
    assert names >= {"result.json", "report.html", "predictions.csv", "model.safetensors"}
    train(tmp_path, store, num_epochs=3, resume=True)
    (again,) = client.search_runs([experiment.experiment_id])
    assert again.info.run_id == kept.info.run_id
    assert [one.step for one in client.get_metric_history(kept.info.run_id, "train/loss")] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(
    ("track", "says"),
    [("wandb", "write mlflow, or mlflow:URI"), ("mlflow:http://127.0.0.1:9", "MLflow cannot be used at http://127")],
)
def test_a_store_that_cannot_be_used_is_one_line_before_the_training(tmp_path, store, track, says) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        train(tmp_path, store, track=track)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_a_server_that_goes_away_ends_no_training(tmp_path, store, monkeypatch, capsys) -> None:
    from mlflow import MlflowClient

    def gone(*_, **__):
        raise ConnectionError("the server is gone\nfor good")

    monkeypatch.setattr(MlflowClient, "log_artifact", gone)
    monkeypatch.setattr(MlflowClient, "set_terminated", gone)
    assert train(tmp_path, store, num_epochs=1).artifact.is_file()
    assert capsys.readouterr().out.count("MLflow: the server is gone; the run goes on without it") == 1
