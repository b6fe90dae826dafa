"""Exports PaDiM or PatchCore from both sides, with one bank, and compares what the exports say with the trained models.

hatch run parity:python tools/parity/exports.py padim --data ROOT --dataset mvtec:hazelnut --out DIR  (first)
hatch run python tools/parity/exports.py padim --data ROOT --dataset mvtec:hazelnut --out DIR

Needs onnx, onnxscript, onnxruntime and openvino in both environments. Writes DIR/exports_MODEL_SIDE.json.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
from datasets import link_tree, read_dataset
from run_peer import build_data, peak_mb

SIZE, ROUNDS = 256, 3


def best_ms(call, inputs: list) -> float:
    """Milliseconds a call, the best of some rounds over all inputs, one at a time."""
    times = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        for one in inputs:
            call(one)
        times.append((time.perf_counter() - started) / len(inputs))
    return round(1000 * min(times), 2)


def largest(scores: list[float], reference: list[float]) -> float:
    """Largest relative difference of scores."""
    return max(abs(a - b) / max(abs(b), 1e-12) for a, b in zip(scores, reference, strict=True))


def megabytes(folder: Path) -> float:
    """Size of all files in a folder."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return round(sum(path.stat().st_size for path in files) / 1e6, 1)


def small(file: str) -> np.ndarray:
    """An image file at the model's size, float32 (H, W, 3) in [0, 1]."""
    from PIL import Image

    return np.asarray(Image.open(file).convert("RGB").resize((SIZE, SIZE), Image.Resampling.BILINEAR), np.float32) / 255


def peer(arguments: argparse.Namespace) -> dict:
    """anomalib: its own engine's exports, run by ONNX Runtime and by its OpenVINO inferencer."""
    import lite0
    import timm  # noqa: F401

    lite0.install()
    import onnxruntime
    import peer_models
    import torch
    from anomalib.deploy import ExportType, OpenVINOInferencer
    from anomalib.engine import Engine
    from lightning.pytorch import seed_everything
    from safetensors.torch import save_file

    train, test = read_dataset(arguments.data, arguments.dataset)
    seed_everything(42, workers=True)
    module = peer_models.build(arguments.model, SIZE, [])
    peer_models.quicken_coreset()  # the same picks; its own search sometimes took 20 GB here
    out = arguments.out / f"{arguments.model}_peer"
    link_tree(train, test, out / "data")
    data = build_data(out / "data", 8, 1, 0)
    data.setup()
    engine = Engine(default_root_dir=out / "results", accelerator="cpu", devices=1, logger=False, max_epochs=1)
    engine.fit(model=module, train_dataloaders=data.train_dataloader())
    module.eval()
    gaussian = getattr(module.model, "gaussian", None)
    bank = {"memory_bank": module.model.memory_bank} if gaussian is None else {
        "mean": gaussian.mean, "inv_covariance": gaussian.inv_covariance, "idx": module.model.idx
    }  # fmt: skip
    save_file(
        {key: value.contiguous() for key, value in bank.items()}, arguments.out / f"{arguments.model}.safetensors"
    )
    images = [batch.image for batch in data.test_dataloader()]
    small = [torch.nn.functional.interpolate(image, (SIZE, SIZE), mode="bilinear", antialias=True) for image in images]
    with torch.inference_mode():
        trained = [float(module(image).pred_score) for image in small]
    report = {"side": "anomalib", "score": trained[:3]}
    started = time.perf_counter()
    path = engine.export(module, ExportType.ONNX, export_root=out / "onnx", input_size=(SIZE, SIZE))
    report |= {"onnx_seconds": round(time.perf_counter() - started, 1), "onnx_mb": megabytes(Path(path).parent)}
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    place = [output.name for output in session.get_outputs()].index("pred_score")

    count = session.get_inputs()[0].shape[0]  # of images: a name where any number is taken
    report["onnx_batch"] = count

    def run(image: np.ndarray) -> float:
        images = np.repeat(image, count, axis=0) if isinstance(count, int) else image
        return float(np.ravel(session.run(None, {name: images})[place])[0])

    arrays = [image.numpy() for image in small]
    report |= {"onnx_difference": largest([run(a) for a in arrays], trained), "onnx_ms": best_ms(run, arrays)}
    started = time.perf_counter()
    path = engine.export(module, ExportType.OPENVINO, export_root=out / "openvino", input_size=(SIZE, SIZE))
    folder = Path(path).parent
    report |= {"openvino_seconds": round(time.perf_counter() - started, 1), "openvino_mb": megabytes(folder)}
    inferencer = OpenVINOInferencer(path, device="CPU")
    pictures = [array[0].transpose(1, 2, 0) for array in arrays]  # it takes images of the model's own size alone
    try:
        found = [float(np.ravel(inferencer.predict(picture).pred_score)[0]) for picture in pictures]
        report |= {"openvino_difference": largest(found, trained), "openvino_ms": best_ms(inferencer.predict, pictures)}
    except RuntimeError as error:
        report["openvino_fails"] = str(error).splitlines()[-1]
    return report | {"peak_mb": peak_mb(), "versions": peer_models.versions()}


def ours(arguments: argparse.Namespace) -> dict:
    """adcore: `adcore export`, with the same bank, run by adcore-runtime."""
    import adcore_runtime
    import torch
    from adcore import artifact as artifacts
    from adcore.artifact import Artifact
    from adcore.export.run import export_model
    from adcore.inference.predictor import Predictor
    from adcore.registry import create_model
    from adcore.request import choose_model
    from safetensors.torch import load_file

    _, test = read_dataset(arguments.data, arguments.dataset)
    choice = choose_model(f"{arguments.model}-efficientnet-lite0", {"image_size": SIZE})
    model = create_model(choice.card.name, **choice.config)
    bank = load_file(arguments.out / f"{arguments.model}.safetensors")
    if arguments.model == "patchcore":
        model.memory_bank = bank["memory_bank"]
    else:
        order = bank["idx"].argsort()  # ours are sorted
        inverse = bank["inv_covariance"][:, order][:, :, order].double()
        model.channels = bank["idx"][order]
        model.mean = bank["mean"].t()[:, order].contiguous()
        model.whitening = torch.linalg.cholesky((inverse + inverse.mT) / 2).mT.float().contiguous()
    model.fitted = True
    artifact = Artifact(model.eval(), choice.preprocess)
    out = arguments.out / f"{arguments.model}_ours"
    out.mkdir(parents=True, exist_ok=True)
    artifacts.save(out / "model.safetensors", artifact)
    files = [str(item.image) for item in test]
    predictor = Predictor(artifact, torch.device("cpu"))
    trained = [predictor.predict(file).score for file in files]
    report = {"side": "adcore", "score": trained[:3]}
    links = out / "images"
    links.mkdir(exist_ok=True)
    for number, item in enumerate(test):
        (links / f"{number:03}{item.image.suffix}").unlink(missing_ok=True)
        (links / f"{number:03}{item.image.suffix}").symlink_to(item.image.resolve())
    for kind in ("onnx", "openvino"):
        started = time.perf_counter()
        written = export_model(out / "model.safetensors", to=kind, out=out / kind, check=links, overwrite=True)
        report |= {f"{kind}_seconds": round(time.perf_counter() - started, 1), f"{kind}_mb": megabytes(out / kind)}
        measured = written.record["check"]["backends"]
        report[f"{kind}_difference"] = max(found["score"] for found in measured.values())
    for backend in ("onnxruntime", "openvino"):
        runtime = adcore_runtime.load(out / "onnx" / "model.onnx", backend=backend)
        found = [runtime.predict(file).score for file in files]
        pictures = [small(file) for file in files]
        report |= {
            f"{backend}_file_difference": largest(found, trained),
            f"{backend}_file_ms": best_ms(runtime.predict, files),
        }
        report[f"{backend}_ms"] = best_ms(runtime.predict, pictures)
    return report | {"peak_mb": peak_mb()}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=["padim", "patchcore"])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    try:
        import anomalib  # noqa: F401

        side, result = "peer", peer(given)
    except ImportError:
        side, result = "ours", ours(given)
    (given.out / f"exports_{given.model}_{side}.json").write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))
