"""What each model learns on real images with real weights, beside the peer where it has the model: one table.

    hatch env create parity
    hatch run python tools/parity/learning.py --data ROOT --out DIR [MODEL ...]

ROOT holds `mvtec/hazelnut`, `magtile` (MVTec layouts) and `dtd`. Short trainings of small images, the same on both sides; none
was tuned. A run whose JSON is in DIR already is not run again; the table has the mean of all seeds that are there.
"""

import argparse
import json
import subprocess
import sys
from itertools import product
from pathlib import Path
from statistics import mean, stdev

HERE = Path(__file__).parent
PEER_PYTHON = HERE.parents[1] / ".venv-parity" / "bin" / "python"
DATASETS = {"hazelnut": ("mvtec", "mvtec:hazelnut"), "magtile": ("magtile", "mvtec:.")}
BATCH, SEED = 8, 42
# A quarter of DRAEM's channels, so that hours become minutes, and ten times its rate, with which the training loss falls
# three times as fast, in half precision; textures from DTD, as in the paper.
NARROW = "reconstructive_width=32 discriminative_width=16 learning_rate=0.001 precision=mixed"
DSR = "dsr vq_ratio=0.7 precision=mixed"  # most of its time goes to the discrete autoencoder

# card and settings: (the peer's name in peer_models.py, or None, epochs on hazelnut, on magtile, image size)
RUNS = {
    "padim-efficientnet-lite0": ("padim", 1, 1, 256),
    "patchcore-efficientnet-lite0": ("patchcore", 1, 1, 128),
    "dfkde-efficientnet-lite0": ("dfkde", 1, 1, 256),
    "dfm-efficientnet-lite0": ("dfm", 1, 1, 256),
    "cfa-efficientnet-lite0": ("cfa", 5, 2, 128),
    "stfpm-efficientnet-lite0": ("stfpm", 30, 6, 128),
    # The peer sums STFPM's loss over the batch, the paper averages: the same training has 8 times its rate here, and an
    # eighth of its weight decay, which is part of the gradient.
    f"stfpm-efficientnet-lite0 learning_rate={0.4 * BATCH} weight_decay={1e-3 / BATCH}": ("stfpm", 30, 6, 128),
    "fre-efficientnet-lite0": ("fre", 30, 6, 128),
    "reverse-distillation-efficientnet-lite0": ("reverse-distillation", 15, 3, 128),
    "fastflow-efficientnet-lite0": ("fastflow", 30, 6, 128),
    "cflow-efficientnet-lite0": ("cflow", 4, 1, 128),
    # its scores depend on the images that are scored together
    "cflow-efficientnet-lite0 peer:eval-batch=1": ("cflow", 4, 1, 128),
    "csflow-efficientnet-lite0": ("csflow", 15, 3, 128),
    "uflow-efficientnet-lite0": ("uflow", 15, 3, 128),
    # The likelihood of the papers, where the cards and the peer weigh energies and log-determinants of a batch differently.
    "csflow-efficientnet-lite0 log_det_weight=1": ("csflow", 15, 3, 128),
    "uflow-efficientnet-lite0 log_det_weight=1": ("uflow", 15, 3, 128),
    "supersimplenet-efficientnet-lite0": ("supersimplenet", 30, 6, 128),
    "uninet-efficientnet-lite0": ("uninet", 10, 10, 128),
    "autoencoder": (None, 60, 4, 128),
    "ganomaly": ("ganomaly", 20, 20, 64),
    f"draem {NARROW}": (None, 60, 150, 128),
    f"draem-sevnet {NARROW}": (None, 60, 10, 128),
    DSR: (None, 250, 32, 64),
    "dsr vq_weights=dsr": ("dsr", 225, 9, 64),  # both with the discrete autoencoder that the run before trained
}


def name(model: str, dataset: str, side: str, seed: int = SEED) -> str:
    return f"{model.replace(' ', '_')}_{dataset}_{side}" + (f"_seed{seed}" if seed != SEED else "")


def command(model: str, dataset: str, side: str, data: Path, out: Path, seed: int = SEED) -> list[str] | None:
    """What to run for one cell of the table; None where the peer does not have it."""
    peer, *epochs, size = RUNS[model]
    if side == "peer" and peer is None:
        return None
    folder, spec = DATASETS[dataset]
    python, script = (PEER_PYTHON, "run_peer.py") if side == "peer" else (sys.executable, "run_ours.py")
    card, *settings = model.split()
    settings += [f"textures={data / 'dtd'}"] if card == "draem" else []
    if settings == ["vq_weights=dsr"]:
        settings = [f"vq_weights={out / name(DSR, dataset, 'ours')}_vq.safetensors"]
    theirs = [setting for setting in settings if setting.startswith("peer:")]
    if side == "peer":  # the others make up for what it does in another way
        settings = [setting for setting in settings if setting.startswith("vq_weights=")]
    given = [part for setting in settings if setting not in theirs for part in ("--set", setting)]
    given += [setting.replace("peer:", "--") for setting in theirs if side == "peer"]
    return [
        str(python), "-W", "ignore", str(HERE / script), "run", "--model", card if side == "ours" else peer,
        "--data", str(data / folder), "--dataset", spec, "--out", str(out), "--name", name(model, dataset, side, seed),
        "--seed", str(seed), "--size", str(size), "--batch", str(BATCH), "--epochs", str(epochs[dataset == "magtile"]), *given,
    ]  # fmt: skip


def cell(results: list[dict]) -> str:
    """Mean of each AUROC over the seeds, and its standard deviation where there are several."""
    texts = []
    for key in ("image_auroc", "pixel_auroc"):
        values = [result[key] for result in results if result[key] is not None]
        texts.append(f"{mean(values):.3f}" + (f" ± {stdev(values):.3f}" if len(values) > 1 else "") if values else "-")
    return " | ".join(texts)


def table(out: Path) -> str:
    """Markdown of all that was measured."""
    lines = [
        "| model | data | px, epochs | seeds | image AUROC | pixel AUROC | anomalib: image | pixel |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for model, (_, *epochs, size) in RUNS.items():
        for dataset, count in zip(DATASETS, epochs, strict=True):
            paths = {side: sorted(out.glob(f"{name(model, dataset, side)}*.json")) for side in ("ours", "peer")}
            ours, peer = ([json.loads(path.read_text()) for path in paths[side]] for side in ("ours", "peer"))
            if ours:
                lines.append(f"| {model} | {dataset} | {size}, {count} | {len(ours)} | {cell(ours)} | {cell(peer)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", metavar="MODEL", help="cards (default: all)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[SEED])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    for model in arguments.models or RUNS:
        for dataset in DATASETS:
            for seed, side in product(arguments.seeds, ("ours", "peer")):
                line = command(model, dataset, side, arguments.data, arguments.out, seed)
                if line is None or (arguments.out / f"{name(model, dataset, side, seed)}.json").exists():
                    continue
                done = subprocess.run(line, capture_output=True, text=True)
                if done.returncode:
                    print(f"{model}, {dataset}, {side}: {(done.stderr.strip().splitlines() or ['failed'])[-1]}")
    print(table(arguments.out))


if __name__ == "__main__":
    main()
