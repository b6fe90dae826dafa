"""The long forms of two suites: damaged files for ten minutes, and a hundred killed processes.

    hatch run fuzz          ADCORE_FUZZ_SECONDS, ADCORE_FUZZ_SEED
    hatch run kill          ADCORE_KILL_COUNT, ADCORE_KILL_SEED (half as many of the station besides)

`hatch run test` runs the short forms of both.
"""

import os
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent.parent / "tests"
FORMS = {  # folder, variables
    "fuzz": ("fuzz", {"ADCORE_FUZZ_SECONDS": "90"}),
    "kill": ("kill", {"ADCORE_KILL_COUNT": "100"}),
}


def main(name: str, *options: str) -> int:
    """Run the suite `name` in its long form, one test on each core; variables that are set are kept."""
    folder, variables = FORMS[name]
    for key, value in variables.items():
        os.environ.setdefault(key, value)
    return int(pytest.main([str(TESTS / folder), "-m", "", "--dist", "load", "--durations=0", *options]))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
