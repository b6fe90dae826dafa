"""The process of one condition: `python -m adcore.experiments.child FOLDER DEVICE`, whatever executor starts it."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

FAILED, STOPPED = 1, 75


def main() -> None:
    """Run the condition of FOLDER/condition.json; the last line on stderr is the reason of a failure."""
    threading.Thread(target=_stop_with_the_starter, daemon=True).start()
    from adcore.errors import AdcoreError
    from adcore.experiments.domains import run_condition
    from adcore.experiments.record import read_condition
    from adcore.files import folder_lock

    folder, device = Path(sys.argv[1]), sys.argv[2]
    with folder_lock(folder, wait=-1):  # a job of a killed session may still run: wait for its end
        pass
    if (folder / "result.json").is_file():
        return
    try:
        run_condition(read_condition(folder), folder, device)
    except AdcoreError as error:
        print(error, file=sys.stderr)
        sys.exit(FAILED)


def _stop_with_the_starter() -> None:
    """End this process when the process that started it ends: then stdin is closed."""
    while os.read(0, 1):
        pass
    os._exit(STOPPED)


if __name__ == "__main__":
    main()
