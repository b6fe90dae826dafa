"""The same measurements as run_peer.py for our side: fit, predict, seconds, memory and metrics from raw maps.

hatch run python tools/parity/run_ours.py run --model padim-efficientnet-lite0 --data ROOT --dataset mvtec:hazelnut --out DIR
hatch run python tools/parity/run_ours.py steps stfpm-resnet18 --batch 16 --size 256 --out DIR
"""

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np
from run_peer import parse, peak_mb


def implied(model: str, size: int, timing: bool = False) -> dict[str, object]:
    """Settings that the image size asks for, and for timing those that keep a model of several stages in its main one."""
    settings: dict[str, object] = {"levels": size.bit_length() - 4} if model == "ganomaly" else {}  # down to 4 x 4
    return settings | ({"vq_ratio": 0.01, "upsampling_ratio": 0.01} if model == "dsr" and timing else {})


def run(arguments: argparse.Namespace) -> dict:
    """One fit and one prediction of the whole test set, scored by the code that scores the peer."""
    started = time.perf_counter()
    import torch
    from adcore.cli.common import parse_settings
    from adcore.data.samples import Sample, select
    from adcore.evaluation.score import score_samples
    from adcore.prepared import prepare_run
    from adcore.registry import create_model, open_dataset
    from adcore.request import DataChoice, choose_model
    from adcore.training.device import seed_everything
    from adcore.training_run import train_model
    from datasets import read_dataset

    report = {
        "model": arguments.model,
        "dataset": arguments.dataset,
        "import_seconds": time.perf_counter() - started,
        "peak_mb_after_import": peak_mb(),
    }
    layout, category = arguments.dataset.split(":", 1)
    root = arguments.data
    reader = open_dataset(layout, str(root))
    category = reader.categories()[0] if category == "." else category
    overrides = implied(arguments.model, arguments.size) | parse_settings(tuple(arguments.set))
    overrides |= {"image_size": arguments.size, "seed": arguments.seed}
    overrides |= {"weights": "random"} if arguments.random else {}
    overrides |= {"batch_size": arguments.batch} | ({"epochs": arguments.epochs} if arguments.epochs else {})
    choice = choose_model(arguments.model, overrides)
    device = torch.device(arguments.device)
    seed_everything(arguments.seed)
    started = time.perf_counter()
    model = create_model(choice.card.name, **choice.config)
    data = DataChoice(layout, root, category)
    checkpoints = arguments.out / "checkpoints"
    summary, _ = train_model(model, prepare_run(choice, data), device, checkpoints=checkpoints)
    report["fit_seconds"] = summary.seconds
    report["fit_seconds_with_building"] = time.perf_counter() - started
    report["peak_mb_after_fit"] = peak_mb()

    _, test = read_dataset(root, arguments.dataset)
    samples = [Sample(item.image, "test", int(item.anomalous), category) for item in test]
    scoring = score_samples(model, choice.preprocess, reader, samples, device)
    report["predict_seconds"] = scoring.seconds
    report["predict_seconds_per_image"] = scoring.seconds / len(test)
    report["peak_mb_after_predict"] = peak_mb()
    maps = None
    if scoring.images[0].anomaly_map is not None:
        maps = np.stack([image.anomaly_map for image in scoring.images])
    from scoring import measure  # after the last look at the memory: it brings scikit-learn

    report |= measure(scoring.scores, maps, test)
    report |= {
        "train_images": len(select(reader.samples(category), "train", 0)),
        "test_images": len(test),
        "settings": arguments.set,
        "size": arguments.size,
        "batch": arguments.batch,
        "epochs": choice.plan.epochs,
        "seed": arguments.seed,
        "threads": torch.get_num_threads(),
    }
    arguments.out.mkdir(parents=True, exist_ok=True)
    name = arguments.name or f"{arguments.model}_{arguments.dataset.replace(':', '_').replace('.', 'root')}"
    (arguments.out / f"{name}.json").write_text(json.dumps(report, indent=2) + "\n")
    if arguments.model == "dsr":
        store_vq(model, arguments.out / f"{name}_vq.safetensors")
    return report


def store_vq(model, path: Path) -> None:
    """The discrete autoencoder of a trained DSR under its authors' names, for the peer and for another run of ours."""
    from adm_recon.vqvae import authors_name
    from safetensors.torch import save_file

    parameters = dict(model.vq.named_parameters())
    save_file({authors_name(name): value.detach().contiguous() for name, value in parameters.items()}, path)


def time_steps(arguments: argparse.Namespace) -> dict:
    """Median seconds of a training step in our trainer, on random weights and random pictures."""
    import torch
    from adcore.cards import load_target
    from adcore.cli.common import parse_settings
    from adcore.config import config_fields
    from adcore.registry import create_model, model_card
    from adcore.request import choose_model
    from adcore.testing import tiny_batches
    from adcore.training.callbacks import Callback
    from adcore.training.device import seed_everything
    from adcore.training.trainer import Trainer

    class Clock(Callback):
        each_step = True  # a GPU finishes its work before a second counts

        def __init__(self) -> None:
            self.ticks: list[float] = []

        def on_fit_start(self, trainer: Trainer) -> None:
            self.ticks.append(time.perf_counter())

        def on_step_end(self, trainer: Trainer, logs: dict[str, float]) -> None:
            self.ticks.append(time.perf_counter())

    fields = config_fields(load_target(model_card(arguments.model).target))
    overrides = {key: "random" for key in ("weights", "teacher") if key in fields}
    overrides |= implied(arguments.model, arguments.size, timing=True) | parse_settings(tuple(arguments.set))
    overrides |= {"image_size": arguments.size, "batch_size": arguments.batch, "epochs": 1}
    choice = choose_model(arguments.model, overrides)
    seed_everything(arguments.seed)
    model = create_model(choice.card.name, **choice.config)
    steps = arguments.steps + arguments.warm_up
    batches = tiny_batches(arguments.batch * steps, choice.preprocess.output_size, arguments.batch)
    clock = Clock()
    validation = tiny_batches(2, choice.preprocess.output_size, 1, seed=1)
    options = {"device": arguments.device, "val_loader": lambda: validation, "callbacks": [clock]}
    Trainer(model, choice.plan, batches, arguments.batch * steps, **options).run()
    times = np.diff(clock.ticks)[arguments.warm_up :]
    report = {
        "model": arguments.model,
        "batch": arguments.batch,
        "size": arguments.size,
        "device": arguments.device,
        "settings": arguments.set,
        "step_seconds": float(np.median(times)),
        "all_steps": [round(float(t), 5) for t in times],
        "peak_mb": peak_mb(),
        "threads": torch.get_num_threads(),
    }
    if arguments.out is not None:
        arguments.out.mkdir(parents=True, exist_ok=True)
        path = arguments.out / f"steps_{arguments.model}_{arguments.size}x{arguments.batch}.json"
        path.write_text(json.dumps(report, indent=2) + "\n")
    return report


def main(argv: list[str]) -> None:
    arguments = parse(argv)
    action = {"run": run, "steps": time_steps}[arguments.command]
    print(json.dumps(action(arguments), indent=2))


if __name__ == "__main__":
    main(sys.argv[1:])
