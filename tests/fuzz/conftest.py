"""What the fuzz tests share: how long they run, from which seed, and what a case may take.

ADCORE_FUZZ_SECONDS gives the seconds of each test (without it 3, and at most 300 cases), ADCORE_FUZZ_SEED the seed (0),
ADCORE_FUZZ_CASE runs one case again.
"""

from __future__ import annotations

import faulthandler
import os
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from itertools import count

import numpy as np
import pytest
from adcore.errors import AdcoreError

QUICK_SECONDS, QUICK_CASES = 3, 300  # of each test in the quick suite; a fast machine meets no cases of its own
SECONDS_OF_A_CASE = 5  # of processor time
SECONDS_OF_A_HANG = 120  # of the clock; then the process ends with a traceback that shows where
MEGABYTES = 1500  # how far the process may grow


class Budget:
    """The cases of one test: `for rng in budget: ...`, each with a generator of its own."""

    def __init__(self, name: str) -> None:
        self.name, self.number, self.done = name, -1, 0

    def __iter__(self) -> Iterator[np.random.Generator]:
        asked, seed = os.environ.get("ADCORE_FUZZ_SECONDS"), int(os.environ.get("ADCORE_FUZZ_SEED", 0))
        seconds, cases = (float(asked), count()) if asked else (QUICK_SECONDS, range(QUICK_CASES))
        single = os.environ.get("ADCORE_FUZZ_CASE")
        end, grown = time.monotonic() + seconds, peak_megabytes() + MEGABYTES
        for self.number in [int(single)] if single else cases:
            if not single and self.done and time.monotonic() > end:
                break
            started = time.process_time()
            faulthandler.dump_traceback_later(SECONDS_OF_A_HANG, exit=True, file=sys.__stderr__)
            try:
                yield np.random.default_rng([seed, zlib.crc32(self.name.encode()), self.number])
            finally:
                faulthandler.cancel_dump_traceback_later()
            taken = time.process_time() - started
            assert taken < SECONDS_OF_A_CASE, f"{self}: {taken:.1f} s"
            assert peak_megabytes() < grown, f"{self}: more than {MEGABYTES} MB"
            self.done += 1

    def __repr__(self) -> str:
        return f"case {self.number} of {self.name} (ADCORE_FUZZ_CASE={self.number} runs it again)"

    def one_clear_line(self, call: Callable[[], object], *names: object) -> object:
        """What `call` returns, or None where it raises an AdcoreError of one line that has one of these names."""
        try:
            return call()
        except AdcoreError as error:
            message = str(error)
            assert len(message.splitlines()) == 1, f"{self}: {message!r}"
            assert any(str(name) in message for name in names), f"{self}: {message!r} does not name {names}"
            return None
        except BaseException as error:
            error.add_note(str(self))
            raise


def peak_megabytes() -> float:
    """The most memory that this process has had; 0 where the system does not say."""
    try:
        import resource
    except ImportError:  # Windows
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


@pytest.fixture
def fuzz_budget(request: pytest.FixtureRequest) -> Budget:
    """The cases of this test."""
    return Budget(request.node.name)
