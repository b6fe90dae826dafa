"""Writes SIMULATED health maps of a planetary gear in the `hdmap` layout: `python tools/make_hdmap.py FOLDER`.

The measured HDMAP data set is not public. These maps are drawn, not measured: results on them say that a program works, and
nothing about a gear. Rows are positions along the tooth, columns positions around the gear; the regular ridges stand for
the mesh of the teeth, a fault is a short horizontal ridge of graded severity.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import tifffile

HEIGHT, WIDTH = 31, 95
# domain: largest value of its normal maps, noise, teeth that pass, slope of the ridges
DOMAINS = {
    "domain_A": (0.32, 0.05, 12, 0.00),
    "domain_B": (1.32, 0.08, 12, 0.15),
    "domain_C": (0.09, 0.12, 9, 0.00),
    "domain_D": (0.42, 0.10, 9, 0.30),
}
SEVERITIES = (0.4, 0.7, 1.0, 1.4)  # height of a fault, as a part of the domain's largest value


def health_map(domain: str, rng: np.random.Generator, severity: float = 0.0) -> np.ndarray:
    """(31, 95) float32, at least 0; `severity` 0 is a healthy gear."""
    top, noise, teeth, slope = DOMAINS[domain]
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    mesh = 0.5 + 0.5 * np.sin(2 * np.pi * teeth * (columns + slope * rows) / WIDTH + rng.uniform(0, 2 * np.pi))
    tooth = np.exp(-(((rows - HEIGHT / 2) / 9) ** 2))  # most load in the middle of the tooth
    field = 0.25 + 0.45 * mesh * tooth + noise * rng.standard_normal((HEIGHT, WIDTH))
    if severity:
        row, column, length = rng.uniform(5, HEIGHT - 5), rng.uniform(15, WIDTH - 15), rng.uniform(6, 14)
        field += severity * np.exp(-(((rows - row) / 1.2) ** 2) - ((columns - column) / length) ** 4)
    return (top * np.maximum(field, 0)).astype(np.float32)


def write(root: Path, train: int, test: int, seed: int) -> None:
    """`train` healthy maps to train on, `test` healthy and `test` faulty ones to test on, for each domain."""
    for number, domain in enumerate(DOMAINS):
        rng = np.random.default_rng([seed, number])
        for folder, count in (("train/good", train), ("test/good", test), ("test/fault", test)):
            (root / domain / folder).mkdir(parents=True, exist_ok=True)
            for i in range(count):
                severity = SEVERITIES[i % len(SEVERITIES)] if folder == "test/fault" else 0.0
                tifffile.imwrite(root / domain / folder / f"{i:06}.tiff", health_map(domain, rng, severity))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--train", type=int, default=100, help="healthy training maps a domain")
    parser.add_argument("--test", type=int, default=40, help="healthy, and as many faulty, test maps a domain")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    if arguments.folder.exists():
        parser.error(f"{arguments.folder} exists already; choose another folder")
    write(arguments.folder, arguments.train, arguments.test, arguments.seed)
    print(f"{arguments.folder}: simulated health maps of {', '.join(DOMAINS)}; drawn, not measured")


if __name__ == "__main__":
    main()
