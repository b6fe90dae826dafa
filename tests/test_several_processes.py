"""One training in two processes: what it learns is what one process learns from the same batches, image by image."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import disturbed
import pair
import pytest
import warm
from adcore.errors import ConfigError, TrainingError
from adcore.prepared import prepare_run
from adcore.request import DataChoice, choose_model
from adcore.several import check_several
from adcore.testing import write_tiny_mvtec
from adcore.training.processes import Processes

RANDOM = {"weights": "random", "image_size": 32, "batch_size": 4}
ONE_PASS: pair.Cases = {
    "padim": ("padim-resnet18", RANDOM),
    "padim sums": ("padim-resnet18", {**RANDOM, "n_features": 12}),  # more images than wait
    "dfm": ("dfm", {**RANDOM, "backbone": "resnet18"}),
    "patchcore": ("patchcore-resnet18", RANDOM),
}
FEW_STEPS: pair.Cases = {"stfpm": ("stfpm-resnet18", {**RANDOM, "max_steps": 3, "layers": ["layer1", "layer2"]})}
MANY_STEPS: pair.Cases = {
    "stfpm": ("stfpm-resnet18", {**RANDOM, "max_steps": 20}),
    "fastflow": ("fastflow-resnet18", {**RANDOM, "max_steps": 20}),
    "supersimplenet": ("supersimplenet", {**RANDOM, "backbone": "resnet18", "max_steps": 20}),
}


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_tiny_mvtec(tmp_path_factory.mktemp("data"), train=35)  # the last batch is smaller than the others


def compare(data: Path, cases: pair.Cases, folder: Path) -> dict[str, float]:
    """The largest relative difference of a tensor between one process and two, for each case."""
    two, found = pair.states_of_two(data, cases, folder), {}
    for name, (model, values) in cases.items():
        one = pair.fit(data, model, values, Processes()).state_dict()
        assert one.keys() == two[name].keys()
        pairs = [(one[key].double(), two[name][key].double()) for key in one]
        found[name] = max(float((a - b).norm() / a.norm().clamp(min=1e-9)) for a, b in pairs if a.numel())
    return found


def test_two_processes_learn_what_one_learns(data, tmp_path) -> None:
    found = compare(data, {**ONE_PASS, **FEW_STEPS}, tmp_path)
    assert found["padim"] == found["dfm"] == found["patchcore"] == 0  # the same features, in the same order
    assert found["padim sums"] < 1e-9
    assert found["stfpm"] < 1e-6


@pytest.mark.slow
def test_twenty_steps_in_two_processes(data, tmp_path) -> None:
    """A minute; batch norm, random numbers for each image, and a loss that counts pixels of the whole batch."""
    assert max(compare(data, MANY_STEPS, tmp_path).values()) < 1e-4


@pytest.mark.parametrize(
    ("model", "settings", "images", "message"),
    [
        ("efficientad-s", {}, {}, "needs all images of a batch in one process"),
        ("musc", {}, {}, "learns nothing"),
        ("stfpm-resnet18", {"batch_size": 1}, {}, "1 images of a batch are too few for 2 processes"),
        ("stfpm-resnet18", {"compile": True}, {}, "compile=true works in one process only"),
        ("padim-resnet18", {}, {"skip_bad": True}, "skip_bad"),
        ("padim-resnet18", {}, {"shots": 1}, "1 training images are too few"),
    ],
)
def test_what_two_processes_cannot_train_is_refused_before_anything_starts(
    data, model, settings, images, message
) -> None:
    run = prepare_run(choose_model(model, settings), DataChoice("mvtec", data, "part", **images))
    with pytest.raises(ConfigError, match=message):
        check_several(run, 2)
    check_several(run, 1)


def test_every_image_is_in_one_part_of_a_batch() -> None:
    for count in range(1, 6):
        for total in range(1, 12):
            images = list(range(total))
            parts = [images[Processes(rank, count).part_of_batch(total)] for rank in range(count)]
            together = [image for part in parts for image in part]
            assert together == images if total >= count else all(part == images for part in parts)
            weights = [each.weight(each.share(total)) for each in (Processes(rank, count) for rank in range(count))]
            assert sum(weights) == pytest.approx(1)


COMMAND = ("--set", "weights=random", "--set", "image_size=32", "--devices", "2", "--device", "cpu")


def test_two_processes_train_from_the_command_line(data, tmp_path, run_cli) -> None:
    options = ("--data", f"mvtec:{data}", *COMMAND, "--out", tmp_path / "out")
    code, _, err = run_cli("train", "padim-resnet18", *options)
    assert (code, err.strip()) == (0, "")
    assert json.loads((tmp_path / "out" / "result.json").read_text())["processes"] == 2


@pytest.mark.slow
def test_an_error_in_the_second_process_is_one_line_and_leaves_nothing(data, tmp_path, run_cli) -> None:
    (bad := data / "part" / "train" / "good" / "bad.png").write_bytes(b"broken")
    try:
        options = ("--data", f"mvtec:{data}", *COMMAND, "--out", tmp_path / "out")
        for seed in range(2):  # the image is in the one's part, or in the other's
            code, _, err = run_cli("train", "padim-resnet18", *options, "--seed", seed)
            assert (code, len(err.strip().splitlines())) == (2, 1)
            assert "bad.png" in err
            assert not (tmp_path / "out").exists()
    finally:
        bad.unlink()


@pytest.fixture
def quick(monkeypatch) -> None:
    """The other processes are forks of one that has imported torch."""
    monkeypatch.setattr("adcore.several.CONTEXT", warm.processes)


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def left(folder: Path) -> list[str]:
    """What a user sees in the run's folder."""
    return sorted(path.name for path in (folder / "run").glob("[!.]*"))


@pytest.mark.skipif(os.name == "nt", reason="sends signals")
@pytest.mark.parametrize(
    ("orders", "ends_with"),
    [
        ("killed 1 3", "process 1 of 2 was ended by signal 9, perhaps for want of memory; go on with --resume"),
        ("nan 1 3", "the loss became nan at step 3 on "),
        ("raises 1 3", "process 1 of 2: ValueError: the gear is broken"),
        ("interrupted all 3", None),
        ("raises 0 3", None),
    ],
)
def test_what_ends_one_process_ends_all_and_the_run_goes_on(data, tmp_path, quick, orders, ends_with) -> None:
    (tmp_path / "orders").write_text(orders)
    wanted = TrainingError if ends_with else (KeyboardInterrupt if "interrupted" in orders else ValueError)
    with pytest.raises(wanted) as caught:
        disturbed.train(data, tmp_path, devices=2)
    if ends_with:
        assert str(caught.value).startswith(ends_with)
        assert "\n" not in str(caught.value)
    assert not any(is_alive(int(path.name[4:])) for path in tmp_path.glob("pid-*") if path.name[4:] != str(os.getpid()))
    assert left(tmp_path) == ["checkpoints", "training_detail.log"]
    (tmp_path / "orders").unlink()
    disturbed.train(data, tmp_path, devices=1, resume=True)
    log = (tmp_path / "run" / "training_detail.log").read_text()
    assert "resumed at epoch" in log
    assert "end at step 18: " in log


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="sends signals")
def test_a_killed_first_process_takes_the_others_along(data, tmp_path) -> None:
    (tmp_path / "orders").write_text("killed 0 3")
    first = warm.processes.Process(target=disturbed.train, args=(data, tmp_path), kwargs={"devices": 2})
    first.start()
    first.join()
    assert first.exitcode == -signal.SIGKILL
    pids = [int(path.name[4:]) for path in tmp_path.glob("pid-*")]
    assert len(pids) == 2
    until = time.monotonic() + 10
    while any(map(is_alive, pids)):
        assert time.monotonic() < until, "a process is left"
        time.sleep(0.01)
    assert left(tmp_path) == ["checkpoints", "training_detail.log"]


def test_all_processes_stop_early_together(data, tmp_path, quick) -> None:
    stopping = {"epochs": 9, "patience": 1, "learning_rate": 1e-9, "min_delta": 1.0, "val_split": "from_train"}
    two = disturbed.train(data, tmp_path, devices=2, **stopping)
    one = disturbed.train(data, tmp_path / "one", **stopping)
    assert two.summary["processes"] == 2
    assert "did not improve" in two.summary["stop_reason"]
    assert two.summary["stop_reason"] == one.summary["stop_reason"]
