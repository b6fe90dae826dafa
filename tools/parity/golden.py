"""Runs anomalib as a black box on filled parameters and stores what it returns: the golden files of tests/parity.

    hatch run parity:python tools/parity/golden.py stfpm fastflow        (no name: all of them)

The format is described in tests/parity/README.md.
"""

import json
import random
import sys
import tempfile
import warnings
from importlib.metadata import version
from pathlib import Path

import random_weights

random_weights.install()

import golden_distill  # noqa: E402
import golden_flow  # noqa: E402
import golden_foundation  # noqa: E402
import golden_memory  # noqa: E402
import golden_recon  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
from safetensors.torch import save_file  # noqa: E402

FAMILIES = (golden_memory, golden_flow, golden_distill, golden_recon, golden_foundation)
CASES = {name: case for family in FAMILIES for name, case in family.CASES.items()}
FOLDER = Path(__file__).parents[2] / "tests" / "parity" / "golden"


def store(name: str, tensors: dict[str, torch.Tensor], facts: dict) -> Path:
    """Write FOLDER/<name>.safetensors under a temporary name first; the facts stand in its header as JSON."""
    facts = {"model": name, "peer": {p: version(p) for p in ("anomalib", "torch", "timm", "FrEIA")}, **facts}
    FOLDER.mkdir(parents=True, exist_ok=True)
    path = FOLDER / f"{name}.safetensors"
    with tempfile.NamedTemporaryFile(dir=FOLDER, delete=False) as temporary:
        pass
    tensors = {key: value.detach().contiguous().cpu() for key, value in tensors.items()}
    save_file(tensors, temporary.name, metadata={"facts": json.dumps(facts, sort_keys=True)})
    Path(temporary.name).replace(path)
    path.chmod(0o644)
    return path


def main(names: list[str]) -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)  # one order of summation
    for name in names or CASES:
        random.seed(0)
        np.random.seed(0)
        torch.manual_seed(0)
        tensors, facts = CASES[name]()
        path = store(name, tensors, facts)
        shown = {key: list(value.shape) for key, value in tensors.items()}
        print(f"{name}: {path.stat().st_size / 1e3:.0f} kB {shown}")


if __name__ == "__main__":
    main(sys.argv[1:])
