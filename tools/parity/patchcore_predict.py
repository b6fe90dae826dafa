"""Seconds a prediction of PatchCore takes with one bank on both sides, and the bare backbone for scale (random weights).

hatch run python tools/parity/patchcore_predict.py DIR                (first: also writes the weights and the bank)
hatch run parity:python tools/parity/patchcore_predict.py DIR
"""

import json
import sys
import time
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

BANK, SIZE, IMAGES, ROUNDS = 20_000, 256, 8, 5


def smooth_images(count: int) -> torch.Tensor:
    """(count, 3, SIZE, SIZE), the kind of correlated structure that photographs have."""
    noise = torch.randn(count, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    fine = torch.randn(count, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(2))
    return torch.nn.functional.interpolate(noise, (SIZE, SIZE), mode="bicubic") + 0.2 * fine


def best_ms(call, images: torch.Tensor) -> float:
    """Milliseconds an image, the best of some rounds over single images."""
    times = []
    with torch.inference_mode():
        for _ in range(ROUNDS):
            started = time.perf_counter()
            for image in images:
                call(image[None])
            times.append((time.perf_counter() - started) / len(images))
    return 1000 * min(times)


def ours(folder: Path) -> dict:
    """Our model; its backbone and bank are written for the other side."""
    from adm_memory.patchcore import PatchCore

    model = PatchCore("resnet18", ("layer2", "layer3"), "random").eval()
    with torch.inference_mode():
        patches = torch.cat([model.embed(image[None])[0] for image in smooth_images(40)])
    chosen = torch.randperm(len(patches), generator=torch.Generator().manual_seed(3))[:BANK]
    model.memory_bank, model.fitted = patches[chosen].clone(), True
    state = {f"backbone.{key}": value.contiguous() for key, value in model.extractor.net.state_dict().items()}
    save_file(state | {"bank": model.memory_bank}, folder / "patchcore_predict.safetensors")
    images = smooth_images(40 + IMAGES)[40:]
    with torch.inference_mode():
        scores = torch.cat([model(image[None]).score for image in images])
    return {"ms": best_ms(model, images), "backbone_ms": best_ms(model.extractor, images), "scores": scores.tolist()}


def peer(folder: Path) -> dict:
    """anomalib's model with the same backbone and bank."""
    import random_weights

    random_weights.install()
    from golden_common import peer as build

    model = build("Patchcore", SIZE, backbone="resnet18", layers=["layer2", "layer3"], num_neighbors=9).model.eval()
    state = load_file(folder / "patchcore_predict.safetensors")
    model.memory_bank = state.pop("bank")
    net = model.feature_extractor.feature_extractor
    net.load_state_dict({key.removeprefix("backbone."): value for key, value in state.items()}, strict=False)
    images = smooth_images(40 + IMAGES)[40:]
    with torch.inference_mode():
        scores = torch.cat([model(image[None]).pred_score.reshape(-1) for image in images])
    return {"ms": best_ms(model, images), "scores": scores.tolist()}


if __name__ == "__main__":
    out = Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    try:
        import anomalib  # noqa: F401

        side, result = "peer", peer(out)
    except ImportError:
        side, result = "ours", ours(out)
    (out / f"patchcore_predict_{side}.json").write_text(json.dumps(result, indent=2) + "\n")
    print(side, {key: value for key, value in result.items() if key != "scores"})
    both = [out / f"patchcore_predict_{name}.json" for name in ("ours", "peer")]
    if all(path.is_file() for path in both):
        first, second = (json.loads(path.read_text()) for path in both)
        worst = max(abs(a - b) / b for a, b in zip(first["scores"], second["scores"], strict=True))
        print(f"scores differ by at most {worst:.2g}; {second['ms'] / first['ms']:.2f} times as fast as the peer, "
              f"{first['ms'] / first['backbone_ms']:.2f} times the bare backbone")  # fmt: skip
