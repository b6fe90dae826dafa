"""What a station answers under load, beside a bare loop of the same model: requests a second, waits, errors, memory.

    python tools/station_load.py MODEL.onnx IMAGES [--clients 16] [--seconds 60]

The bare loop runs before and after, and CPU seconds an image are said too, which other work on the machine changes less.
"""

from __future__ import annotations

import argparse
import http.client
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count, cycle
from pathlib import Path

import numpy as np
from adcore_runtime.listing import find_images

BARE = """
import sys, time, adcore_runtime
predictor, images, number = adcore_runtime.load(sys.argv[1]), sys.argv[3:], 0
predictor.predict(images[0])
begin, cpu = time.monotonic(), time.process_time()
while time.monotonic() - begin < float(sys.argv[2]):
    predictor.predict(images[number % len(images)])
    number += 1
print(number / (time.monotonic() - begin), (time.process_time() - cpu) / number)
"""
TICKS = os.sysconf("SC_CLK_TCK")


def bare(model: Path, images: list[Path], seconds: float) -> tuple[float, float]:
    """Images a second and CPU seconds an image of a loop without a station, in a process of its own."""
    command = [sys.executable, "-c", BARE, model, str(seconds), *images]
    speed, cpu = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    return float(speed), float(cpu)


@contextmanager
def station(model: Path, queue: int) -> Iterator[tuple[int, int]]:
    """Port and process id of a station in a temporary folder."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "adcore_runtime.station.command", model, "--port", "0", "--queue", str(queue)]
        with subprocess.Popen([*command, "--data", folder], stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            yield int(process.stdout.readline().split()[0].rpartition(":")[2]), process.pid
            process.terminate()


def client(port: int, images: Iterator[bytes], end: float, waits: list[float], answers: Counter) -> None:
    """Send one image after the other until `end`."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    while time.monotonic() < end:
        begin = time.monotonic()
        try:
            connection.request("POST", "/predict", next(images))
            answer = connection.getresponse()
            answer.read()
            answers[answer.status] += 1
        except (OSError, http.client.HTTPException) as error:
            answers[type(error).__name__] += 1
            connection.close()
            continue
        if answer.status == 200:
            waits.append(time.monotonic() - begin)
        else:
            time.sleep(0.05)


def memory_mb(process: int, field: str) -> float:
    """VmRSS or VmHWM of a process."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1e3 for line in lines if line.startswith(field))


def cpu_seconds(process: int) -> float:
    """User and system time of a process so far."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def load(model: Path, images: list[Path], clients: int, seconds: float, queue: int) -> tuple[float, float]:
    """Answers a second and CPU seconds an answer of a station with so many clients; prints the rest."""
    data = [path.read_bytes() for path in images]
    waits: list[float] = []
    answers: Counter = Counter()
    with station(model, queue) as (port, process):
        client(port, cycle(data), time.monotonic() + 2, [], Counter())
        begin, cpu = time.monotonic(), cpu_seconds(process)
        arguments = [(port, cycle(data[one % len(data) :]), begin + seconds, waits, answers) for one in range(clients)]
        threads = [threading.Thread(target=client, args=one) for one in arguments]
        for thread in threads:
            thread.start()
        memory = []
        for turn in count(1):
            time.sleep(max(0.0, begin + turn * seconds / 12 - time.monotonic()))
            memory.append(memory_mb(process, "VmRSS"))
            if turn == 12:
                break
        for thread in threads:
            thread.join()
        took, cpu = time.monotonic() - begin, cpu_seconds(process) - cpu
        peak = memory_mb(process, "VmHWM")
    speed, middle = answers[200] / took, np.percentile(waits, [50, 99]) * 1e3
    print(f"{clients} clients, queue of {queue}, {took:.0f} s: {speed:.2f} answers/s, answers {dict(answers)}")
    print(
        f"  waits in ms: p50 {middle[0]:.0f}, p99 {middle[1]:.0f}; CPU {cpu / max(answers[200], 1) * 1e3:.1f} ms an answer"
    )
    print(f"  memory in MB over time: {', '.join(f'{value:.0f}' for value in memory)}; peak {peak:.0f}", flush=True)
    return speed, cpu / max(answers[200], 1)


def main() -> None:
    parser = argparse.ArgumentParser(description="A station under load, beside a bare loop of the same model.")
    parser.add_argument("model", type=Path)
    parser.add_argument("images", type=Path)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=60)
    options = parser.parse_args()
    images = find_images(options.images)[:32]
    loops = [bare(options.model, images, options.seconds / 4)]
    speed, cpu = load(options.model, images, options.clients, options.seconds, 2 * options.clients)
    loops.append(bare(options.model, images, options.seconds / 4))
    alone, alone_cpu = np.mean(loops, axis=0)
    print(
        f"bare loop: {' and '.join(f'{one[0]:.2f}' for one in loops)} images/s, CPU {alone_cpu * 1e3:.1f} ms an image"
    )
    print(f"station / bare loop: {speed / alone:.2f} in throughput, {alone_cpu / cpu:.2f} in CPU", flush=True)
    load(options.model, images, options.clients, options.seconds / 6, options.clients // 4)


if __name__ == "__main__":
    main()
