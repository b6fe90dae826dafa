"""Sessions as a researcher runs them, with toy models that are really installed: what is left behind, killed, failed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import adcore
import numpy as np
import pytest
import tifffile
from adcore import plugins
from adcore.experiments.conditions import load_conditions
from adcore.experiments.domains import run_condition
from adcore.experiments.executors import Start, open_executor
from adcore.experiments.runner import Runner
from adcore.experiments.session import Session, create_session, load_session
from adcore.experiments.slots import CPU, Slot
from adcore.files import folder_lock
from adcore.testing.site import write_distribution

MODELS = '''
import os, signal, time
import torch
from adcore.maps import upsample
from adcore.model import AnomalyModel, Prediction, Update

class Toy(AnomalyModel):
    """The distance to a colour that it learns, with noise from the generator; `fault` breaks it."""
    def __init__(self, fault: str = "none", pause: float = 0.0, size: int = 1) -> None:
        super().__init__()
        self.fault, self.pause = fault, pause
        self.mean = torch.nn.Parameter(torch.rand(3))
        self.register_buffer("ballast", torch.zeros(size))

    def distance(self, images):
        return (images - self.mean[:, None, None]).square().mean(1)

    def training_step(self, batch, step):
        time.sleep(self.pause)
        if self.fault == "raises":
            raise ValueError("the gear is broken")
        if self.fault == "memory":
            torch.empty(1 << 45)
        if self.fault == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        yield Update(self.distance(batch.images + 0.01 * torch.randn_like(batch.images)).mean())

    def configure_optimizers(self, plan):
        return {"main": plan.optimization(self.parameters(), "adam", learning_rate=0.01)}

    def forward(self, images):
        anomaly_map = upsample(self.distance(images), images.shape[-2:])
        return Prediction(anomaly_map.flatten(1).amax(1), anomaly_map)
'''
PLUGIN = """
from adcore.cards import ModelCard
from adcore.hookspecs import hookimpl

@hookimpl
def adcore_register_models():
    facts = {"family": "toy", "title": "T", "paper": "P", "year": 2020, "summary": "S", "normalization": "none"}
    return [ModelCard(name="gear-toy", target="gear_models:Toy", epochs=2, batch_size=2, **facts)]
"""
DOMAINS = {"cold": 0.3, "warm": 0.6, "hot": 1.4}  # level of the normal maps
SUMMED = {"image_size": 16, "model_type": "gear-toy", "max_epochs": 4}
CONDITIONS = {  # what most tests run: one model over all, and one to other domains with validations while it trains
    "everything": {"source_domain": "all"},
    "cold_to_others": {
        "source_domain": "cold",
        "target_domains": "auto",
        "early_stopping_patience": 9,
        "pause": 0.05,
        "checkpoint_seconds": 0,
    },
}


@pytest.fixture(scope="module", autouse=True)
def site(tmp_path_factory) -> Path:
    """The toy's distribution, for this process and those that it starts."""
    site = tmp_path_factory.mktemp("site")
    write_distribution(site, "gear-toy", {"gear_models.py": MODELS, "gear_plugin.py": PLUGIN}, "gear_plugin")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(site)
        patch.setenv("PYTHONPATH", f"{site}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
        plugins.load_plugins.cache_clear()
        yield site
    plugins.load_plugins.cache_clear()
    for module in [name for name in sys.modules if name.startswith("gear_")]:
        del sys.modules[module]


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    root, rng = tmp_path_factory.mktemp("data") / "gears", np.random.default_rng(0)
    for domain, level in DOMAINS.items():
        for folder, count in (("train/good", 6), ("test/good", 4), ("test/fault", 4)):
            (root / domain / folder).mkdir(parents=True)
            for i in range(count):
                values = level + 0.05 * rng.standard_normal((16, 16))
                values[4:8, 4:8] += 0.15 * i * ("fault" in folder)
                tifffile.imwrite(root / domain / folder / f"{i}.tiff", values.astype(np.float32))
    return root


def write(folder: Path, data: Path, entries: dict[str, dict[str, object]]) -> Path:
    path = folder / "conditions.json"
    path.write_text(json.dumps({"base": {**SUMMED, "dataset_root": str(data), "source_domain": "cold"}, **entries}))
    return path


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-c", "from adcore.cli import main; main()", "run", *map(str, arguments)]


def only_session(folder: Path) -> Path:
    (session,) = (folder / "results").iterdir()
    return session


def folders(session: Path) -> dict[str, Path]:
    return {run.name: session / run.folder for run in load_session(session).runs}


def lasting(session: Path, *names: str) -> dict[str, str]:
    """What must not depend on how a session came to its end; of the runs called `names`, or all."""
    runs = {name: folder for name, folder in folders(session).items() if name in (names or [name])}
    rows = (session / "summary.csv").read_text().splitlines()
    texts = {"summary": "\n".join(row for row in rows if row.split(",")[0] in runs)}
    for name, folder in runs.items():
        texts[name] = (folder / "predictions.csv").read_text()
        result = json.loads((folder / "result.json").read_text())
        texts[f"{name} numbers"] = str(
            [result[key] for key in ("source_results", "target_results", "losses", "history")]
        )
    return texts


@pytest.fixture(scope="module")
def calm(tmp_path_factory, data) -> Path:
    """An undisturbed session of CONDITIONS."""
    folder = tmp_path_factory.mktemp("calm")
    planned = load_conditions(write(folder, data, CONDITIONS))
    session = create_session(folder, planned, folder / "conditions.json", threads=1)
    assert Runner(session, [Slot(CPU), Slot(CPU)]).run() == []
    session.lock.close()
    return session.folder


def test_a_session_leaves_the_files_that_people_look_for(calm) -> None:
    runs = folders(calm)
    multi, stamp = runs["cold_to_others"], calm.name
    assert multi.name == f"cold_to_others_{stamp}"
    assert {path.name for path in calm.iterdir() if path.name[0] != "."} == {
        "session.json", "session.log", "summary.csv", *(folder.name for folder in runs.values()),
        *(run.log for run in load_session(calm).runs),
    }  # fmt: skip
    assert {path.name for path in multi.iterdir() if path.name[0] != "."} == {
        "condition.json", "training_detail.log", "multi_domain_cold_to_others.log", "result.json", "predictions.csv",
        "report.html", "model.safetensors", "checkpoints", "visualizations", "tensorboard_logs", "thresholds.txt",
        "histogram.png",
    }  # fmt: skip
    assert {path.name for path in (multi / "visualizations").rglob("*") if path.is_dir()} == {
        "source", "targets", "warm", "hot"
    }  # fmt: skip
    assert all(list(folder.glob("*.png")) for folder in (multi / "visualizations" / "targets").iterdir())
    log = (multi / "multi_domain_cold_to_others.log").read_text()
    assert all(f"{part}: Image AUROC " in log for part in ("source cold", "target hot", "mean of targets"))
    result = json.loads((multi / "result.json").read_text())
    assert result["test_image_auroc"] == np.mean([one["image_auroc"] for one in result["target_results"].values()])
    assert result["threshold"]["source"] == "val"
    assert len((multi / "predictions.csv").read_text().splitlines()) == 1 + 3 * 8
    assert all(f'<td class="path">{name}</td>' in (multi / "report.html").read_text() for name in DOMAINS)
    everything = json.loads((runs["everything"] / "result.json").read_text())
    assert set(everything["domain_results"]) == set(DOMAINS)
    assert everything["counts"]["train"]["normal"] == 3 * 6
    pictures = runs["everything"] / "visualizations"
    assert {path.name for path in (pictures / "domains").iterdir()} == set(DOMAINS)
    assert all(list(folder.glob("*.png")) for folder in (pictures / "source", *(pictures / "domains").iterdir()))


def test_each_runs_figure_is_found_by_its_name_in_the_logs(calm) -> None:
    """As `grep "Image AUROC" results/*/*.log` does, and `results/*/multi_domain_*.log`."""
    found = [line for file in calm.glob("*.log") for line in file.read_text().splitlines() if "Image AUROC" in line]
    for run in load_session(calm).runs:
        result = json.loads((calm / run.folder / "result.json").read_text())
        lines = [line for line in found if line.startswith(f"{run.name} (seed {run.seed}), ")]
        assert len(lines) == 1 + len(result["target_results"]) + len(result["domain_results"]) + bool(run.targets)
        assert lines == [line for line in (calm / run.log).read_text().splitlines() if run.name in line]
        figure = f"Image AUROC {result['source_results']['image_auroc']:.6g}"
        assert f"source {run.source}: {figure}" in lines[0]
        for name in (run.log, "training_detail.log"):
            assert figure in (calm / run.folder / name).read_text(), name


def test_value_ranges_of_each_domain_are_logged_and_those_that_do_not_overlap_warned_of(calm) -> None:
    multi = folders(calm)["cold_to_others"]
    text = "".join((multi / name).read_text() for name in ("training_detail.log", "multi_domain_cold_to_others.log"))
    for part in ("train cold", "val cold", "test warm", "test hot"):
        assert f"values {part}: min " in text
    result = json.loads((multi / "result.json").read_text())
    assert len(result["value_ranges"]) == 4
    (note,) = [note for note in result["notes"] if "of hot" in note]
    assert "do not overlap" in note
    assert f"note: {note}" in text


def test_tensorboard_has_the_metrics_of_each_target(calm) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    multi = folders(calm)["cold_to_others"]
    events = EventAccumulator(str(multi / "tensorboard_logs"))
    events.Reload()
    result = json.loads((multi / "result.json").read_text())
    for name, measured in result["target_results"].items():
        (point,) = events.Scalars(f"target/{name}/image_auroc")
        assert point.value == pytest.approx(measured["image_auroc"])
        assert point.step == events.Scalars("train/loss")[-1].step
    assert "device" in result
    assert result["device"]["name"]
    assert result["peak_memory_mb"]["process"] > 10


def test_without_tensorboard_a_run_says_so_and_goes_on(data, tmp_path, run_cli, monkeypatch) -> None:
    monkeypatch.setattr("adcore.experiments.domains.find_spec", lambda name: None)
    code, _, err = run_cli("run", write(tmp_path, data, {"one": {}, "two": {}}), "--dry-run", "--gpus", "none")
    assert code == 0
    assert err.count('pip install "adcore[tensorboard]"') == 1
    (condition, _) = load_conditions(tmp_path / "conditions.json")
    result = run_condition(condition, tmp_path / "run", "cpu")
    assert any("TensorBoard is not installed" in note for note in result.summary["notes"])
    assert not (tmp_path / "run" / "tensorboard_logs").exists()


def test_the_source_is_measured_the_same_to_the_last_bit_on_every_road(calm, data, tmp_path) -> None:
    folder = folders(calm)["cold_to_others"]
    result = json.loads((folder / "result.json").read_text())
    validated = [entry["val_image_auroc"] for entry in result["history"] if "step" in entry]
    assert len(validated) == 4
    assert max(validated) == result["val_image_auroc"] == result["source_results"]["image_auroc"]  # the best is kept
    for domain, measured in (("cold", result["source_results"]), ("hot", result["target_results"]["hot"])):
        again = adcore.evaluate(
            folder / "model.safetensors", f"hdmap:{data}", domain, out=tmp_path / domain, device="cpu"
        )
        assert again.summary["test"]["values"] == {key: measured[key] for key in again.summary["test"]["values"]}
        scores = {row["path"]: row["score"] for row in again.predictions}
        lines = [line.split(",") for line in (folder / "predictions.csv").read_text().splitlines()[1:]]
        assert scores == {line[0]: float(line[4]) for line in lines if line[1] == domain}


def wait_for(condition, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 300
    while not condition():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_killed_runner_takes_its_child_along_and_the_session_ends_as_an_undisturbed_one(
    calm, tmp_path, run_cli
) -> None:
    session = tmp_path / calm.name
    shutil.copytree(calm, session)
    everything, cold = folders(session).values()
    for path in cold.iterdir():  # as if this one had not been started
        if path.name != "condition.json":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    kept = (everything / "result.json").stat().st_mtime_ns
    runner = subprocess.Popen(command("--resume", session), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_for((cold / "checkpoints" / "last.safetensors").is_file, runner)
    os.kill(runner.pid, signal.SIGKILL)
    runner.communicate()
    assert [run.state for run in load_session(session).runs] == ["done", "running"]
    code, _, err = run_cli("run", "--resume", session)  # from another folder, and at once: its child may still be alive
    assert code == 0, err
    assert "resumed at epoch" in (cold / "training_detail.log").read_text()
    assert (everything / "result.json").stat().st_mtime_ns == kept
    assert lasting(session) == lasting(calm)
    assert not list(session.rglob(".*.tmp*"))


@pytest.mark.skipif(os.name == "nt", reason="Windows does not tell that a pipe is closed before something is written")
def test_a_session_whose_output_nobody_reads_any_more_stops_and_can_be_resumed(data, tmp_path) -> None:
    """`adcore run ... | head -1`"""
    path = write(tmp_path, data, {"long": {"pause": 600}, "waiting": {}})
    runner = subprocess.Popen(
        command(path, "--out", tmp_path / "results"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert runner.stdout.readline().startswith("session ")
    session = only_session(tmp_path)
    runner.stdout.close()
    err = runner.stderr.read()
    assert runner.wait() == 141, err
    assert f"go on with: adcore run --resume {session}" in err
    assert [run.state for run in load_session(session).runs] == ["queued", "queued"]
    with folder_lock(folders(session)["long"]):  # its process is gone
        assert not (folders(session)["long"] / "result.json").exists()


@pytest.mark.parametrize("engine", ["submitit", pytest.param("ray", marks=pytest.mark.slow)])
def test_an_engine_gives_the_same_results_as_this_machine(engine, calm, data, tmp_path, run_cli, monkeypatch) -> None:
    """The test of Ray takes half a minute: `hatch run test -m slow packages/adcore/tests/test_experiments.py`."""
    pytest.importorskip(engine, reason=f"pip install adcore[{engine}]")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    entries = {"cold_to_others": CONDITIONS["cold_to_others"]}
    options = ["--executor-option", "num_cpus=2"] if engine == "ray" else ["--jobs", 2]
    code, _, err = run_cli(
        "run", write(tmp_path, data, entries), "--executor", engine, *options, "--out", tmp_path / "results"
    )
    assert code == 0, err
    session = only_session(tmp_path)
    for key, text in lasting(calm, "cold_to_others").items():
        assert lasting(session, "cold_to_others")[key] == text


SLURM = {  # stands in for Slurm's commands: jobs run at once, on this machine
    "sbatch": """
import os, signal, subprocess, sys
from pathlib import Path
folder = Path(os.environ["SLURM_STAND_IN"])
if len(sys.argv) == 2:
    number = str(len(list(folder.glob("job*"))) + 1)
    (folder / f"job{number}").write_text(Path(sys.argv[1]).read_text())
    names = {"JOB_ID": number, "NTASKS": 1, "JOB_NUM_NODES": 1, "NODEID": 0, "PROCID": 0, "LOCALID": 0}
    environment = {**os.environ, **{f"SLURM_{name}": str(value) for name, value in names.items()}}
    again = [sys.executable, *sys.argv, "in the background"]
    subprocess.Popen(again, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    print("Submitted batch job", number)
    sys.exit()
signal.signal(signal.SIGUSR2, signal.SIG_IGN)  # for the script; Slurm sends it to what srun starts
job, starts = None, 0
while True:
    if job is None:
        job, starts = subprocess.Popen(["bash", sys.argv[1]], start_new_session=True), starts + 1
    for file, number in (("node-fails", signal.SIGKILL), ("time-is-up", signal.SIGUSR2)):
        if (folder / file).exists():
            (folder / file).unlink()
            os.killpg(job.pid, number)
            if number == signal.SIGKILL:
                (folder / "requeue").touch()
    try:
        job.wait(0.05)
    except subprocess.TimeoutExpired:
        continue
    if not (folder / "requeue").exists():
        break
    (folder / "requeue").unlink()
    job = None
(folder / "starts").write_text(str(starts))
""",
    "srun": """
import os, sys
words = sys.argv[1:]
while words[0].startswith("--"):
    words = words[2 if words[0] in ("--output", "--error") else 1:]
os.execvp(words[0], words)
""",
    "scontrol": """
import os, sys
from pathlib import Path
assert sys.argv[1] == "requeue"
(Path(os.environ["SLURM_STAND_IN"]) / "requeue").touch()
""",
    "sacct": 'print("JobID|State|NodeList")',
}


@pytest.fixture
def slurm(tmp_path, monkeypatch) -> Path:
    """The folder of a stand-in for Slurm, which is on PATH: `job1` is the script of the first job."""
    folder = tmp_path / "slurm"
    (folder / "bin").mkdir(parents=True)
    for name, text in SLURM.items():
        (folder / "bin" / name).write_text(f"#!{sys.executable}\n{text}")
        (folder / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(folder / "bin"), prepend=os.pathsep)
    monkeypatch.setenv("SLURM_STAND_IN", str(folder))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return folder


PAUSED = {"cold_to_others": {**CONDITIONS["cold_to_others"], "pause": 1.0}}  # time enough to be disturbed


def begun(runner: subprocess.Popen, folder: Path) -> Path:
    """The session of a runner, once its only run has a checkpoint."""
    wait_for(lambda: list(folder.glob("results/*/*/checkpoints/last.safetensors")), runner)
    return only_session(folder)


@pytest.mark.slow
@pytest.mark.parametrize("event", ["node-fails", "time-is-up"])
def test_slurm_queues_a_run_again_and_it_resumes(event, slurm, calm, data, tmp_path) -> None:
    """Half a minute: `hatch run test -m slow packages/adcore/tests/test_experiments.py`."""
    pytest.importorskip("submitit", reason="pip install adcore[submitit]")
    options = ["--executor-option", "cluster=slurm", "--executor-option", "slurm_partition=line", "--gpus", "none"]
    path = write(tmp_path, data, PAUSED)
    runner = subprocess.Popen(
        command(path, "--executor", "submitit", *options, "--out", tmp_path / "results"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    session = begun(runner, tmp_path)
    (slurm / event).touch()
    _, err = runner.communicate()
    assert runner.returncode == 0, err
    assert "resumed at epoch" in (folders(session)["cold_to_others"] / "training_detail.log").read_text()
    assert lasting(session) == lasting(calm, "cold_to_others")
    lines = (slurm / "job1").read_text().splitlines()
    assert {"#SBATCH --partition=line", "#SBATCH --job-name=adcore", "#SBATCH --time=1440"} <= set(lines)
    assert not any("gpu" in line for line in lines if line.startswith("#SBATCH"))


def test_slurm_is_asked_for_gpus(slurm, tmp_path) -> None:
    pytest.importorskip("submitit", reason="pip install adcore[submitit]")
    engine = open_executor("submitit", {"cluster": "slurm"})
    job = engine.start(Start([sys.executable, "-c", "raise SystemExit(3)"], tmp_path / "log", tmp_path, {}, "cuda", 2))
    lines = (slurm / "job1").read_text().splitlines()
    assert {"#SBATCH --gpus-per-node=2", "#SBATCH --cpus-per-task=2"} <= set(lines)
    while job.code() is None:
        time.sleep(0.05)
    assert job.code() == 3


@pytest.mark.slow
def test_a_run_whose_ray_node_is_killed_goes_on_at_another_one(calm, data, tmp_path, monkeypatch) -> None:
    """A minute: `hatch run test -m slow packages/adcore/tests/test_experiments.py`."""
    pytest.importorskip("ray", reason="pip install adcore[ray]")
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        first = nodes.add_node(num_cpus=1)
        options = ["--executor-option", f"address={nodes.address}", "--gpus", "none", "--out", tmp_path / "results"]
        path = write(tmp_path, data, PAUSED)
        runner = subprocess.Popen(
            command(path, "--executor", "ray", *options), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        session = begun(runner, tmp_path)
        nodes.remove_node(first, allow_graceful=False)
        nodes.add_node(num_cpus=1)
        _, err = runner.communicate()
    finally:
        nodes.shutdown()
    assert runner.returncode == 0, err
    assert "resumed at epoch" in (folders(session)["cold_to_others"] / "training_detail.log").read_text()
    assert lasting(session) == lasting(calm, "cold_to_others")


def test_a_condition_that_fails_says_why_and_the_others_finish(data, tmp_path, run_cli) -> None:
    faults = {
        "raises": "ValueError: the gear is broken",
        "memory": "allocate",
        "killed": "killed by SIGKILL, maybe for want of memory",
    }
    entries = {name: {"fault": name} for name in faults}
    path = write(tmp_path, data, {**entries, "good": {}})
    code, out, err = run_cli("run", path, "--jobs", 2, "--out", tmp_path / "results")
    assert code == 1
    assert "1 of 4 done" in out
    session = only_session(tmp_path)
    reasons = {run.name: run.error for run in load_session(session).runs}
    for name, words in faults.items():
        assert words in reasons[name]
        assert f"failed: {name} (seed 42): {reasons[name]}" in err
        assert not (folders(session)[name] / "result.json").exists()
    assert (folders(session)["good"] / "result.json").is_file()
    code, table, _ = run_cli("analyze", session)
    assert code == 0
    assert table.count("not in the tables: ") == 3
    assert "the gear is broken" in table


def can_mount() -> bool:
    try:
        return subprocess.run(["unshare", "-rm", "true"], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


@pytest.mark.slow
@pytest.mark.skipif(not can_mount(), reason="mounts a tiny and a read-only folder, which is not allowed here")
def test_a_full_disk_and_a_folder_that_cannot_be_written_fail_alone(data, tmp_path) -> None:
    entries = {"read_only": {}, "full": {"size": 2**20}}
    session = create_session(tmp_path / "results", load_conditions(write(tmp_path, data, entries)), Path("c.json"))
    session.lock.close()
    read_only, full = (session.path(run) for run in session.runs)
    script = f"""set -e
        cp {full}/condition.json {tmp_path}/kept.json
        mount -t tmpfs -o size=1m none {full} && cp {tmp_path}/kept.json {full}/condition.json
        mount --bind {read_only} {read_only} && mount -o remount,bind,ro {read_only}
        exec "$@" """
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", script, "sh", *command("--resume", session.folder)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    errors = {run.name: run.error for run in load_session(session.folder).runs}
    assert "No space left on device" in errors["full"]
    assert errors["read_only"].startswith("cannot start: Read-only file system")


def test_a_session_is_run_by_one_process_at_a_time(data, tmp_path, run_cli, monkeypatch) -> None:
    session = create_session(tmp_path / "results", load_conditions(write(tmp_path, data, {"one": {}})), Path("c.json"))
    monkeypatch.setattr(Session.take, "__defaults__", (0.2,))
    code, _, err = run_cli("run", "--resume", session.folder)
    assert code == 2
    assert f"{session.folder} is in use by process {os.getpid()} on " in err


def test_dry_run_lists_and_starts_nothing(data, tmp_path, run_cli) -> None:
    path = write(tmp_path, data, {"grid": {"source_domain": ["cold", "warm", "hot"]}})
    code, out, _ = run_cli("run", path, "--ids", "0,2", "--seeds", "1,2", "--dry-run", "--out", tmp_path / "results")
    assert code == 0
    assert [(line[0], line[-1]) for line in out.splitlines()[:4]] == [("0", "1"), ("0", "2"), ("2", "1"), ("2", "2")]
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--resume", "nowhere"], "nowhere"),
        (["conditions.json", "--ids", "9"], "0 to 0"),
        (["conditions.json", "--ids", "x"], "--ids takes numbers"),
        (["conditions.json", "--seeds", "1", "--repeat", "2"], "give --repeat or --seeds, not both"),
        (["conditions.json", "--gpus", "77"], "no GPU '77'"),
        (["conditions.json", "--executor-option", "a=1"], "submitit or ray"),
        (["conditions.json", "--executor", "ray", "--wait-idle"], "queue of its own"),
        ([], "give a file of conditions"),
    ],
)
def test_wrong_options_are_said_in_one_line(data, tmp_path, run_cli, monkeypatch, arguments, message) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, data, {"one": {}})
    code, _, err = run_cli("run", *arguments)
    assert code == 2
    assert message in err
    assert not (tmp_path / "results").exists()
