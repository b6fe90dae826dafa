"""Everything that needs a GPU, measured by one command; parts whose results are in --out already are skipped.

    python tools/gpu_figures.py --data ROOT --out DIR --peer .venv-parity/bin/python

ROOT holds `hazelnut` in MVTec's layout. --peer is the Python of an environment with anomalib (`hatch env create parity`);
without it only our side runs. Parts (--only NAME ...):

conformance  the tests that are marked gpu
steps        seconds of a training step beside the peer's own engine, random weights, same batch
settings     the same of ours with mixed precision, channels last and torch.compile
predict      seconds of a prediction beside the peer, on hazelnut
patchcore    fits of 200 and 3,200 images, and the search beside brute force
hardware     the table of tools/hardware_table.py, on the GPU
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

from adcore.errors import ConfigError

TOOLS = Path(__file__).parent
BATCH = 16
# Cards whose training step the peer's engine can be timed on, with the image side.
SIDE_256 = """stfpm stfpm-resnet18 fre reverse-distillation reverse-distillation-resnet18 efficientad-small efficientad-medium
fastflow fastflow-resnet18 cflow-resnet18 csflow uflow uflow-resnet18 cfa cfa-resnet18 draem draem-sspcab ganomaly dsr
supersimplenet uninet""".split()  # noqa: SIM905
STEPS = dict.fromkeys(SIDE_256, 256) | {"dinomaly-small-224": 224, "dinomaly-base-224": 224}
ONE_IMAGE = {"efficientad-small", "efficientad-medium"}  # trained image by image
# The peer's models on the backbone of our cards of the same name.
PREDICT = """patchcore padim dfkde dfm cfa csflow cflow fastflow uflow reverse-distillation uninet stfpm fre supersimplenet
draem ganomaly""".split()  # noqa: SIM905
WITHOUT_BACKBONE = ("draem", "ganomaly")
SETTINGS = {
    "as it is": [],
    "mixed": ["precision=mixed"],
    "channels last": ["channels_last=true"],
    "mixed, channels last": ["precision=mixed", "channels_last=true"],
    "compiled": ["compile=true"],
    "all three": ["precision=mixed", "channels_last=true", "compile=true"],
}
TRIED = ("stfpm", "fastflow", "draem", "reverse-distillation", "supersimplenet", "dinomaly-small-224")


def asked(python: str, *words: object) -> dict:
    """The JSON that a tool prints; {"error": its last line} where it fails."""
    done = subprocess.run([python, *map(str, words)], capture_output=True, text=True, check=False)
    if done.returncode:
        return {"error": (done.stderr.strip().splitlines() or ["no message"])[-1]}
    return json.loads(done.stdout[done.stdout.index("{\n") :])


def timed_steps(python: str, script: str, name: str, options: argparse.Namespace, settings: list[str]) -> dict:
    batch = 1 if name in ONE_IMAGE else BATCH
    words = [TOOLS / "parity" / script, "steps", name, "--device", options.device, "--size", STEPS[name]]
    words += ["--batch", batch, "--steps", options.steps, "--warm-up", 5]
    return asked(python, *words, *(word for setting in settings for word in ("--set", setting)))


def steps(options: argparse.Namespace) -> dict:
    """{card: {"ours", "peer": seconds, "ratio"}}."""
    found = {}
    for name in options.models or STEPS:
        ours = timed_steps(sys.executable, "run_ours.py", name, options, [])
        peer = timed_steps(options.peer, "run_peer.py", name, options, []) if options.peer else {}
        found[name] = compared(ours, peer, "step_seconds")
        print(name, found[name], flush=True)
    return found | summary(found)


def settings(options: argparse.Namespace) -> dict:
    """{card: {setting: seconds of a step}}."""
    found: dict[str, dict] = {}
    for name in options.models or TRIED:
        found[name] = {}
        for label, chosen in SETTINGS.items():
            report = timed_steps(sys.executable, "run_ours.py", name, options, chosen)
            found[name][label] = report.get("step_seconds", report.get("error"))
        print(name, found[name], flush=True)
    return found


def predict(options: argparse.Namespace) -> dict:
    """{model: {"ours", "peer": seconds of an image, "ratio"}}."""
    found = {}
    for name in options.models or PREDICT:
        words = ["run", "--data", options.data, "--dataset", "mvtec:hazelnut", "--batch", 8, "--device", options.device]
        words += ["--out", options.out / "runs", "--random"]
        card = name if name in WITHOUT_BACKBONE else f"{name}-efficientnet-lite0"
        ours = asked(sys.executable, TOOLS / "parity" / "run_ours.py", *words, "--model", card)
        words += ["--name", f"peer-{name}", "--model", name]
        peer = asked(options.peer, TOOLS / "parity" / "run_peer.py", *words) if options.peer else {}
        found[name] = compared(ours, peer, "predict_seconds_per_image")
        print(name, found[name], flush=True)
    return found | summary(found)


def compared(ours: dict, peer: dict, key: str) -> dict:
    found = {side: report[key] for side, report in (("ours", ours), ("peer", peer)) if key in report}
    found |= {
        f"{side} failed": report["error"] for side, report in (("ours", ours), ("peer", peer)) if "error" in report
    }
    return found | ({"ratio": found["ours"] / found["peer"]} if {"ours", "peer"} <= found.keys() else {})


def summary(found: dict) -> dict:
    ratios = [each["ratio"] for each in found.values() if "ratio" in each]
    return {"median": statistics.median(ratios), "largest": max(ratios)} if ratios else {}


def patchcore(options: argparse.Namespace) -> dict:
    """The rows of two fits, and seconds of the search of a bank and of brute force, as printed by their tools."""
    table = options.out / "fit_time.md"
    fits = [sys.executable, TOOLS / "fit_time.py", "--counts", 200, 3200, "--device", options.device, "--out", table]
    subprocess.run(list(map(str, fits)), check=True)
    return {"fits": table.read_text(encoding="utf-8"), "search": search(options.device)}


def search(device: str, bank: int = 100_000, width: int = 152, queries: int = 1024, rounds: int = 20) -> dict:
    """Seconds for the nearest entry of each query, and the largest difference of a distance from brute force."""
    import torch
    from adm_memory.neighbours import search_structure

    generator = torch.Generator().manual_seed(0)
    entries = torch.randn(bank, width, generator=generator).to(device)
    patches = torch.randn(queries, width, generator=generator).to(device)
    structure = search_structure(entries)

    def brute() -> torch.Tensor:
        return torch.cdist(patches, entries, compute_mode="donot_use_mm_for_euclid_dist").amin(1)

    def ours() -> torch.Tensor:
        return structure.query(patches)[0][:, 0]

    seconds = {}
    for name, action in {"brute": brute, "ours": ours}.items():
        result = action()
        began = time.perf_counter()
        for _ in range(rounds):
            result = action()
        result.sum().item()  # the work is done
        seconds[name] = (time.perf_counter() - began) / rounds
    difference = (ours() - brute()).abs().max().item()
    return {**seconds, "ratio": seconds["ours"] / seconds["brute"], "largest difference": difference}


def conformance(options: argparse.Namespace) -> dict:
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "-n", "0", "-q", str(TOOLS.parent)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=TOOLS.parent)
    return {"exit code": done.returncode, "last lines": done.stdout.splitlines()[-15:]}


def hardware(options: argparse.Namespace) -> dict:
    command = [sys.executable, TOOLS / "hardware_table.py", "--all", "--device", options.device]
    return {"exit code": subprocess.run(list(map(str, command)), check=False).returncode, "see": "docs/12-scale.md"}


PARTS = {part.__name__: part for part in (conformance, steps, settings, predict, patchcore, hardware)}


def device_facts(name: str) -> dict:
    """What the results say of the device; ConfigError where there is none of that name."""
    import torch
    from adcore.training.device import device_record, pick_device

    return {**device_record(pick_device(name)), "torch": torch.__version__}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="for predict")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--peer", help="the Python of an environment with anomalib")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda", help="cpu tries the command itself")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--models", nargs="+", help="instead of all")
    parser.add_argument("--steps", type=int, default=50)
    options = parser.parse_args()
    if "predict" in options.only and options.data is None:
        parser.error("predict needs --data; or name other parts with --only")
    try:
        facts = device_facts(options.device)
    except ConfigError as error:
        parser.error(str(error))
    options.out.mkdir(parents=True, exist_ok=True)
    for name in options.only:
        path = options.out / f"{name}.json"
        if not path.is_file():
            report = {"device": facts, "results": PARTS[name](options)}
            path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
        print(path.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
