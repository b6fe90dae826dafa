"""The process of the `adcore` command, also as `python -m adcore`: Ctrl-C at any moment is one line and exit code 130.

Nothing heavy is imported before the handlers are set.
"""

from __future__ import annotations

import _thread
import signal
import sys
import threading
from types import FrameType
from typing import NoReturn

received: list[int] = []  # the signals that asked for an end
AGAIN = 0.5  # seconds; by then the deletion is over


def main() -> None:
    """Run the command line; SIGINT and SIGTERM end it with 130 and 143 after everything half-written was removed."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not where the starter has it ignored
        signal.signal(signal.SIGINT, _stop)
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _stop)
    sys.unraisablehook = _unraisable
    try:
        from adcore.cli import main as command

        command()
    except SystemExit as stop:
        _leave()
        sys.exit(128 + received[0] if received and stop.code else stop.code)
    except BaseException:  # an interrupted import raises whatever its library makes of that
        _leave()
        if not received:
            raise
        print("adcore: interrupted; nothing half-written was left", file=sys.stderr)
        sys.exit(128 + received[0])
    _leave()


def _leave() -> None:
    """The command is over: what Python does at its end is not interrupted any more."""
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is _stop:
            signal.signal(number, signal.SIG_IGN)


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    received.append(number)
    raise KeyboardInterrupt


def _unraisable(unraisable: sys.UnraisableHookArgs) -> None:
    """An interrupt that came while an object was being deleted, where Python drops it: ask again a moment later."""
    if not issubclass(unraisable.exc_type, KeyboardInterrupt):
        sys.__unraisablehook__(unraisable)
    elif signal.getsignal(signal.SIGINT) is _stop:
        again = threading.Timer(AGAIN, _interrupt_again)
        again.daemon = True
        again.start()


def _interrupt_again() -> None:
    if hasattr(signal, "pthread_kill"):  # this ends a sleep or a read of the main thread, too
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
    else:
        _thread.interrupt_main()


if __name__ == "__main__":
    main()
