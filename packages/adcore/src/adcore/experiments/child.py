"""The process of one condition: `python -m adcore.experiments.child FOLDER DEVICE`, started by the runner."""

from __future__ import annotations

import json
import os
import sys
import threading
from pathlib import Path

FAILED, STOPPED = 1, 75


def main() -> None:
    """Run the condition of FOLDER/condition.json; the last line on stderr is the reason of a failure."""
    threading.Thread(target=_stop_with_the_runner, daemon=True).start()
    from adcore.errors import AdcoreError
    from adcore.experiments.conditions import check_condition
    from adcore.experiments.domains import run_condition
    from adcore.experiments.reading import RawCondition

    folder, device = Path(sys.argv[1]), sys.argv[2]
    record = json.loads((folder / "condition.json").read_text(encoding="utf-8"))
    condition, mistakes = check_condition(RawCondition(record["name"], record["config"], record["description"]))
    try:
        if condition is None:
            raise AdcoreError("; ".join(mistakes))
        run_condition(condition, folder, device)
    except AdcoreError as error:
        print(error, file=sys.stderr)
        sys.exit(FAILED)


def _stop_with_the_runner() -> None:
    """The runner holds the other end of stdin: when it dies, however, so does this process."""
    while os.read(0, 1):
        pass
    os._exit(STOPPED)


if __name__ == "__main__":
    main()
