"""Real models over simulated health maps: killed at random moments, a session ends as if nothing had happened."""

from __future__ import annotations

import csv
import json
import os
import random
import signal
import subprocess
import sys
import time
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

TOOL = Path(__file__).parent.parent / "tools" / "make_hdmap.py"
NEEDED = [name for name in ("adm_memory", "adm_recon") if find_spec(name) is None]
CONDITIONS = {
    "base": {"dataset_root": "hdmap", "target_domains": "auto", "image_size": [32, 64], "batch_size": 2},
    "padim": {"model_type": "padim_efficientnet_lite0", "source_domain": "domain_A", "weights": "random"},
    "patchcore": {"model_type": "patchcore_efficientnet_lite0", "source_domain": "domain_B", "weights": "random"},
    "draem": {
        "model_type": "draem",
        "source_domain": "domain_A",
        "max_epochs": 6,
        "early_stopping_patience": 20,
        "reconstructive_width": 8,
        "discriminative_width": 8,
        "checkpoint_seconds": 0,
    },
}


def start(folder: Path, *arguments: object) -> subprocess.Popen:
    command = [sys.executable, "-c", "from adcore.cli import main; main()", "run", *map(str, arguments)]
    return subprocess.Popen(
        [*command, "--gpus", "none"], cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )


def make_folder(folder: Path) -> Path:
    spec = spec_from_file_location("make_hdmap", TOOL)
    tool = module_from_spec(spec)
    spec.loader.exec_module(tool)
    tool.write(folder / "hdmap", train=6, test=4, seed=0)
    (folder / "conditions.json").write_text(json.dumps(CONDITIONS))
    return folder


def lasting(session: Path) -> tuple[str, dict[str, str]]:
    """summary.csv, and the predictions and numbers of each run."""
    texts = {}
    for run in json.loads((session / "session.json").read_text())["runs"]:
        folder = session / run["folder"]
        result = json.loads((folder / "result.json").read_text())
        numbers = [result[key] for key in ("source_results", "target_results", "losses", "history")]
        with open(folder / "predictions.csv", newline="") as file:
            rows = [{**row, "path": Path(row["path"]).parts[-4:]} for row in csv.DictReader(file)]
        texts[f"{run['name']} {run['seed']}"] = str((rows, numbers))
    return (session / "summary.csv").read_text(), texts


def wait_for_a_child(runner: subprocess.Popen) -> int:
    while True:
        assert runner.poll() is None, "the session was over before it could be killed"
        for file in Path(f"/proc/{runner.pid}/task").glob("*/children"):
            if pids := file.read_text().split():
                return int(pids[0])
        time.sleep(0.01)


@pytest.mark.slow
@pytest.mark.skipif(bool(NEEDED), reason=f"not installed: {', '.join(NEEDED)}")
@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="finds the processes to kill in /proc")
def test_five_kills_at_random_moments_change_nothing(tmp_path, monkeypatch) -> None:
    """Some two minutes of a processor: `hatch run test -m slow tests/test_experiments.py`."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    calm, killed = (make_folder(tmp_path / name) for name in ("calm", "killed"))
    began = time.monotonic()
    undisturbed = start(calm, "conditions.json", "--seeds", "1,2")
    _, err = undisturbed.communicate(timeout=1800)
    assert undisturbed.returncode == 0, err
    a_run = (time.monotonic() - began) / 7  # the runner's own start is about as long as one of the six
    (reference,) = (calm / "results").iterdir()

    moments = random.Random(5)
    for kill in range(5):
        session = [file.parent for file in killed.glob("results/*/session.json")]
        runner = start(killed, *(["--resume", session[0]] if session else ["conditions.json", "--seeds", "1,2"]))
        wait_for_a_child(runner)
        time.sleep(moments.uniform(0.1, 0.8) * a_run)
        if kill % 2:  # a child, and then its runner, which is at another one
            os.kill(wait_for_a_child(runner), signal.SIGKILL)
            time.sleep(moments.uniform(0.0, 0.4) * a_run)
        assert runner.poll() is None, "the session was over before it could be killed"
        os.kill(runner.pid, signal.SIGKILL)
        runner.communicate()
    last = start(killed, "--resume", session[0])
    _, err = last.communicate(timeout=1800)
    assert last.returncode == 0, err
    assert lasting(session[0]) == lasting(reference)
    assert not list(session[0].rglob(".*.tmp*"))
