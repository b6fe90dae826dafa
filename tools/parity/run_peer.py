"""Runs anomalib under its own engine, as a black box: fit, predict, seconds, memory and raw maps.

    hatch run parity:python tools/parity/run_peer.py run --model patchcore --data ROOT --dataset mvtec:hazelnut --out DIR
    hatch run parity:python tools/parity/run_peer.py steps stfpm-resnet18 --batch 16 --size 256 --out DIR

Writes DIR/<name>.json (settings, times, memory, metrics) and DIR/<name>.npz (raw scores and maps, in the order of
`datasets.read_dataset`).
"""

import argparse
import json
import platform
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np


def peak_mb() -> float:
    """Largest resident size of this process so far, in MB (Linux counts ru_maxrss in KB)."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)


def build_data(tree: Path, batch: int, eval_batch: int, workers: int):
    """The peer's data module over a tree made by `datasets.link_tree`; nothing of the test set is used in fitting."""
    from anomalib.data import Folder

    return Folder(
        name="parity",
        root=tree,
        normal_dir="train/good",
        normal_test_dir="test/good",
        abnormal_dir="test/bad",
        mask_dir="ground_truth/bad",
        train_batch_size=batch,
        eval_batch_size=eval_batch,
        num_workers=workers,
        val_split_mode="none",
    )


def run(arguments: argparse.Namespace) -> dict:
    """One fit and one prediction of the whole test set."""
    import_started = time.perf_counter()
    import timm  # noqa: F401  (imported before the peer, so that the patch below is what it sees)

    if arguments.random:
        import random_weights as weights
    else:
        import lite0 as weights
    weights.install()
    import peer_models
    import torch
    from anomalib.engine import Engine
    from lightning.pytorch import seed_everything

    report = {
        "model": arguments.model,
        "dataset": arguments.dataset,
        "import_seconds": time.perf_counter() - import_started,
    }
    report["peak_mb_after_import"] = peak_mb()
    from datasets import link_tree, read_dataset

    train, test = read_dataset(arguments.data, arguments.dataset)
    seed_everything(arguments.seed, workers=True)
    model = peer_models.build(arguments.model, arguments.size, arguments.set)
    if arguments.quick_coreset:
        peer_models.quicken_coreset()
    timers = peer_models.time_phases()
    name = arguments.name or f"{arguments.model}_{arguments.dataset.replace(':', '_').replace('.', 'root')}"

    with tempfile.TemporaryDirectory() as scratch:
        link_tree(train, test, Path(scratch) / "data")
        data = build_data(
            Path(scratch) / "data", arguments.batch, arguments.eval_batch or arguments.batch, arguments.workers
        )
        data.setup()
        engine = Engine(
            default_root_dir=Path(scratch) / "results", accelerator=arguments.device, devices=1, logger=False,
            max_epochs=arguments.epochs,
        )  # fmt: skip
        started = time.perf_counter()
        if arguments.model in ("dsr", "cfa"):  # they ask the data module for an epoch's length or its images
            data.val_dataloader = lambda: []  # noqa: PIE807  (`list` has no code, which Lightning looks for)
            engine.fit(model=model, datamodule=data)
        else:
            engine.fit(model=model, train_dataloaders=data.train_dataloader())
        report["fit_seconds"] = time.perf_counter() - started
        report["phase_seconds"] = dict(timers)
        report["peak_mb_after_fit"] = peak_mb()

        started = time.perf_counter()
        batches = engine.predict(model=model, dataloaders=data.test_dataloader())
        report["predict_seconds"] = time.perf_counter() - started
        report["predict_seconds_per_image"] = report["predict_seconds"] / len(test)
        report["peak_mb_after_predict"] = peak_mb()

    paths = [Path(path) for batch in batches for path in batch.image_path]
    order = np.argsort([int(path.stem) for path in paths])
    scores = np.concatenate([batch.pred_score.reshape(-1).float().cpu().numpy() for batch in batches])[order]
    arrays = {"scores": scores}
    if batches[0].anomaly_map is not None:
        arrays["maps"] = np.concatenate(
            [batch.anomaly_map.reshape(-1, *batch.anomaly_map.shape[-2:]).float().cpu().numpy() for batch in batches]
        )[order]
    arguments.out.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(arguments.out / f"{name}.npz", **arrays)
    from scoring import measure  # after the last look at the memory: it brings scikit-learn

    report |= measure(scores, arrays.get("maps"), test)
    report |= {
        "train_images": len(train),
        "test_images": len(test),
        "settings": arguments.set,
        "size": arguments.size,
        "batch": arguments.batch,
        "eval_batch": arguments.eval_batch or arguments.batch,
        "epochs": arguments.epochs,
        "workers": arguments.workers,
        "seed": arguments.seed,
        "quick_coreset": arguments.quick_coreset,
        "threads": torch.get_num_threads(),
        "machine": platform.machine(),
        "versions": peer_models.versions(),
        "size_of_memory": peer_models.memory_shape(model),
    }
    (arguments.out / f"{name}.json").write_text(json.dumps(report, indent=2) + "\n")
    return report


def time_steps(arguments: argparse.Namespace) -> dict:
    """Seconds per training step, on random weights and random pictures."""
    import random_weights

    random_weights.install()
    import peer_models
    import peer_steps
    import torch

    torch.manual_seed(arguments.seed)
    report = {"model": arguments.model, "batch": arguments.batch, "size": arguments.size}
    with tempfile.TemporaryDirectory() as scratch:
        report |= peer_steps.measure(
            arguments.model, arguments.size, arguments.batch, arguments.steps, arguments.warm_up, Path(scratch),
            arguments.device,
        )  # fmt: skip
    report |= {"peak_mb": peak_mb(), "threads": torch.get_num_threads(), "versions": peer_models.versions()}
    if arguments.out is not None:
        arguments.out.mkdir(parents=True, exist_ok=True)
        path = arguments.out / f"steps_{arguments.model}_{arguments.size}x{arguments.batch}.json"
        path.write_text(json.dumps(report, indent=2) + "\n")
    return report


def parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("run", help="fit, predict, measure")
    one.add_argument("--model", required=True)
    one.add_argument("--data", type=Path, required=True, help="root of the data set")
    one.add_argument("--dataset", required=True, help="LAYOUT:CATEGORY, as mvtec:hazelnut, visa:macaroni1, mvtec:.")
    one.add_argument("--out", type=Path, required=True)
    one.add_argument("--name", help="base name of the files written")
    one.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="keyword argument of the peer's model"
    )
    one.add_argument("--size", type=int, default=256)
    one.add_argument("--batch", type=int, default=16)
    one.add_argument("--eval-batch", type=int, help="images that the peer scores together (default: as --batch)")
    one.add_argument("--epochs", type=int, default=1)
    one.add_argument("--workers", type=int, default=0)
    one.add_argument("--seed", type=int, default=42)
    one.add_argument("--random", action="store_true", help="a backbone with random weights: for times and memory")
    one.add_argument("--quick-coreset", action="store_true", help="the peer's picks by our search; no times to quote")
    steps = commands.add_parser("steps", help="seconds per training step")
    steps.add_argument("model")
    steps.add_argument("--batch", type=int, required=True)
    steps.add_argument("--size", type=int, default=256)
    steps.add_argument("--steps", type=int, default=7)
    steps.add_argument("--warm-up", type=int, default=2)
    steps.add_argument("--seed", type=int, default=42)
    steps.add_argument("--out", type=Path)
    steps.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting, of ours alone")
    for command in (one, steps):
        command.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    return parser.parse_args(argv)


def main(argv: list[str]) -> None:
    arguments = parse(argv)
    action = {"run": run, "steps": time_steps}[arguments.command]
    print(json.dumps(action(arguments), indent=2))


if __name__ == "__main__":
    main(sys.argv[1:])
