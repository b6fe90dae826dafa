"""Images a second of `adcore predict --executor ray` on two nodes of one machine, with one worker and with two.

    OMP_NUM_THREADS=1 python tools/ray_throughput.py MODEL IMAGES [--count 2000]

The images of IMAGES are repeated as links until there are `count` of them. `rate` counts from the first rows on: it leaves out
what Ray and the workers take to start; `whole` are the seconds of the command. The rows must be those of one process.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pyarrow.parquet as parquet
from adcore.inference.batch import predict_files
from adcore.inference.cluster import BATCH, TABLE
from adcore.inference.predictor import load
from adcore_runtime.listing import find_images


def link_images(source: Path, folder: Path, count: int) -> None:
    """`count` links in `folder` to the images of `source`, which follow one another."""
    images = find_images(source)
    folder.mkdir()
    for number in range(count):
        image = images[number % len(images)]
        (folder / f"{number:06}{image.suffix}").symlink_to(image.absolute())


def measure(command: list[str], count: int) -> tuple[float, float]:
    """(images a second from the first rows on, seconds of the whole command)."""
    began, first, rows = time.perf_counter(), 0.0, 0
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    for line in process.stdout:
        if "/images/" in line:
            rows, last = rows + 1, time.perf_counter()
            first = first or last
    if process.wait() or rows < count:
        sys.exit(f"{' '.join(command)} ended with exit code {process.returncode} after {rows} of {count} rows")
    return (count - BATCH) / (last - first), time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("images", type=Path)
    parser.add_argument("--count", type=int, default=2000)
    options = parser.parse_args()
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    from ray.cluster_utils import Cluster

    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        link_images(options.images, folder / "images", options.count)
        nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        nodes.add_node(num_cpus=1)
        rates = {}
        for workers in (1, 2):
            command = [sys.executable, "-m", "adcore", "predict", str(options.model), str(folder / "images")]
            command += ["--device", "cpu", "--executor", "ray", "--executor-option", f"address={nodes.address}"]
            rates[workers], whole = measure(
                [*command, "--workers", str(workers), "--out", f"{folder}/{workers}"], options.count
            )
            print(f"{workers} workers: rate {rates[workers]:.1f} images/s, whole {whole:.0f} s", flush=True)
        nodes.shutdown()
        print(f"two workers: {rates[2] / rates[1]:.2f} times the rate of one", flush=True)
        expected = list(predict_files(load(options.model, "cpu"), folder / "images"))
        same = all(parquet.read_table(folder / str(n) / TABLE).to_pylist() == expected for n in rates)
        print(f"the rows of one process, bit for bit: {same}")


if __name__ == "__main__":
    main()
