"""Memory comes back to the system, each case in a Python of its own."""

import subprocess
import sys
from pathlib import Path

import pytest

CODE = """
import torch
from adcore.memory import trim
from pathlib import Path

def mb():
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS")]
    return int(line.split()[1]) / 1024

"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="asks Linux for the memory of a process")
@pytest.mark.parametrize(
    "use",
    [
        # many small tensors between which others stay, so that the C library keeps what was freed
        "every = [torch.ones(4000) for _ in range(6000)]; kept = every[::50]; before = mb(); del every; trim()\n"
        "assert before - mb() > 60, (before, mb()); assert all(t.sum() == 4000 for t in kept)",
        "trim(); trim(); assert (torch.ones(300, 300) @ torch.ones(300, 300) == 300).all()",
    ],
)
def test_what_was_freed_is_given_back(use: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", CODE + use], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
