"""Exports models, and writes what was measured into docs/09-deployment.md.

`python tools/export_table.py random` exports every card at a small size with random weights (a quarter of an hour), as the
conformance tests make them. `python tools/export_table.py real DATA` trains on MVTec's hazelnut and VisA's macaroni1 below
DATA, each test image through torch and through every backend (three quarters of an hour on two cores).
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from adcore.api import train
from adcore.artifact import Artifact
from adcore.export.gate import Gate
from adcore.export.graph import write_graph
from adcore.export.pictures import CheckImages, seeded_pictures
from adcore.export.run import export_model
from adcore.registry import list_models, model_card, open_dataset
from adcore.testing import ModelConformance

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "09-deployment.md"
BACKENDS = ("onnxruntime", "openvino")
SHORT = {  # settings of short trainings; the pretrained teacher of EfficientAD is not to be had from a package index
    "efficientad-small": {"max_steps": 10, "teacher": "random"},
    "gradient": {"max_steps": 30},
    "one-pass": {},
}
ON_BOTH = ("patchcore", "padim", "stfpm", "fastflow", "efficientad")  # the others on hazelnut alone


def conformance_classes() -> list[type[ModelConformance]]:
    """The classes that check the cards of the families, with the small settings that they use."""
    found = []
    for file in sorted((ROOT / "packages").glob("adm-*/tests/test_conformance.py")):
        spec = importlib.util.spec_from_file_location(file.parts[-3].replace("-", "_") + "_conformance", file)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        kinds = [kind for name, kind in vars(module).items() if name.startswith("Test") and isinstance(kind, type)]
        found += kinds
    return found


def export_small(kind: type[ModelConformance]) -> dict[str, Any]:
    """What the gate measures of one class's model."""
    test = kind()
    model, _, choice = test.fit()
    model.eval()
    artifact = Artifact(model, choice.preprocess)
    pictures = [(f"picture {i}", picture) for i, picture in enumerate(seeded_pictures(choice.preprocess))]
    gate = Gate(artifact, CheckImages(pictures, "seeded pictures"), None, None)
    with tempfile.TemporaryDirectory() as folder:
        path, started = Path(folder) / "model.onnx", time.perf_counter()
        write_graph(artifact, path, torch.from_numpy(gate.examples()), None, None)
        return {"seconds": time.perf_counter() - started, "backends": gate.check_onnx(path)}


def random_table() -> str:
    """One row a method, over all its cards."""
    rows: dict[str, list[tuple[str, dict[str, Any] | None]]] = {}
    for kind in conformance_classes():
        card = model_card(kind.model)
        try:
            found = export_small(kind)
        except Exception as error:  # it is shown in the table
            print(f"{kind.__name__}: {error}", file=sys.stderr)
            found = None
        print(kind.__name__, json.dumps(found), file=sys.stderr, flush=True)
        rows.setdefault(card.title, []).append((card.name, found))
    head = [f"{backend}: {what}" for backend in BACKENDS for what in ("score", "map")]
    lines = [f"| method | cards exported | {' | '.join(head)} |", "|---|---|" + "---|" * len(head)]
    for title, results in sorted(rows.items()):
        good = [found for _, found in results if found]
        cards = {name for name, _ in results}
        failed = {name for name, found in results if not found}
        cells = [worst(good, backend, what) for backend in BACKENDS for what in ("score", "map")]
        lines.append(f"| {title} | {len(cards - failed)} of {len(cards)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def worst(results: list[dict[str, Any]], backend: str, what: str) -> str:
    """The largest difference of several exports."""
    values = [found["backends"][backend][what] for found in results if found["backends"][backend][what] is not None]
    return f"{max(values):.0e}" if values else "no map"


def real_table(data: Path) -> str:
    """One row a card and dataset: the EfficientNet-Lite0 cards on hazelnut, the five of the issue on macaroni1, too."""
    names = [card.name for card in list_models() if card.name.endswith("-efficientnet-lite0")]
    names.append("efficientad-small")
    head = [f"{backend}: {what}" for backend in BACKENDS for what in ("score", "map", "labels that differ")]
    lines = [f"| card | images | {' | '.join(head)} |", "|---|---|" + "---|" * len(head)]
    for name in sorted(names, key=lambda name: (not name.startswith(ON_BOTH), name)):
        domains = [("mvtec", data / "mvtec", "hazelnut"), ("visa", data / "visa", "macaroni1")]
        for dataset, root, category in domains[: 1 + name.startswith(ON_BOTH)]:
            measured = export_real(name, dataset, root, category)
            print(name, category, json.dumps(measured), file=sys.stderr, flush=True)
            cells = []
            for backend in BACKENDS:
                found = measured["backends"][backend]
                shown = "no map" if found["map"] is None else f"{found['map']:.0e}"
                cells += [f"{found['score']:.0e}", shown, str(found["flips"])]
            lines.append(f"| `{name}` | {category}, {measured['images']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def export_real(name: str, dataset: str, root: Path, category: str) -> dict[str, Any]:
    """Train `name`, export it, and compare on all test images."""
    settings = SHORT.get(name, SHORT[model_card(name).training])
    with tempfile.TemporaryDirectory() as folder:
        run, images = Path(folder) / "run", Path(folder) / "images"
        trained = train(f"{dataset}:{root}", category, name, out=run, **settings)
        images.mkdir()
        for number, sample in enumerate(open_dataset(dataset, str(root)).samples(category)):
            if sample.split == "test":
                path = Path(sample.image_path).resolve()
                os.symlink(path, images / f"{number:04}{path.suffix}")
        return export_model(trained.folder, out=Path(folder) / "out", check=images).record["check"]


def write(name: str, table: str) -> None:
    """Put the table between its marks."""
    begin, end = f"<!-- {name}: begin (tools/export_table.py {name}) -->", f"<!-- {name}: end -->"
    text = PAGE.read_text(encoding="utf-8")
    filled = re.sub(f"{re.escape(begin)}.*?{re.escape(end)}", lambda _: f"{begin}\n{table}\n{end}", text, flags=re.S)
    PAGE.write_text(filled, encoding="utf-8")
    print(table)


if __name__ == "__main__":
    if sys.argv[1:2] == ["random"]:
        write("random", random_table())
    elif sys.argv[1:2] == ["real"] and len(sys.argv) == 3:
        write("real", real_table(Path(sys.argv[2])))
    else:
        sys.exit(__doc__)
