"""Loads a plugin in a separate process for `adcore doctor`, to find plugins that hang or end the process."""

from __future__ import annotations

import faulthandler
import json
import subprocess
import sys

from adcore.plugins import Origin, Problem, discover, load_cards, problem_of


def probe(origin: Origin, seconds: float) -> Problem | None:
    """Load the plugin in a new Python; what is wrong with it, or None.

    A plugin that has not loaded after `seconds` is reported with the place where it hangs.
    """
    command = [sys.executable, "-P", "-X", "faulthandler", "-m", "adcore.plugin_probe", origin.plugin, str(seconds)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace")
    if done.stdout:
        answer = json.loads(done.stdout)
        return Problem(origin, **answer) if answer else None
    if "Timeout (" in done.stderr:
        remedy = f"set ADCORE_DISABLE_PLUGINS={origin.plugin} to start without it, or uninstall {origin.distribution}"
        return Problem(origin, f"it did not load within {seconds:g} s; {remedy}", done.stderr)
    return Problem(origin, f"it ends the process when it is imported (exit code {done.returncode})", done.stderr)


def main() -> None:
    """In the new Python: load the plugin argv[1], and print what went wrong as JSON ({} for nothing)."""
    name, seconds = sys.argv[1], float(sys.argv[2])
    point, origin = next(found for found in discover() if found[1].plugin == name)
    answer = {}
    faulthandler.dump_traceback_later(seconds, exit=True)
    try:
        load_cards(point, origin)
    except BaseException as error:
        problem = problem_of(origin, error)
        answer = {"error": problem.error, "details": problem.details}
    faulthandler.cancel_dump_traceback_later()
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
