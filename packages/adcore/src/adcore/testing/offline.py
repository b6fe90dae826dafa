"""A guard that sees every attempt to reach the network, for tests that promise there is none."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock


@contextmanager
def sockets_forbidden() -> Iterator[list[str]]:
    """Inside, connecting, sending and looking up a host raise OSError; the attempts are listed, in case it is swallowed.

    Sockets between processes of this machine (AF_UNIX, which worker processes use) stay allowed.
    """
    attempts: list[str] = []

    def guarded(method: str) -> Any:
        original = getattr(socket.socket, method)

        def call(self: socket.socket, *arguments: Any) -> Any:
            if self.family == getattr(socket, "AF_UNIX", None):
                return original(self, *arguments)
            attempts.append(f"{method}{arguments[-1:]}")
            raise OSError(f"{method} was called where no network is allowed")

        return call

    def lookup(host: Any, *_: Any, **__: Any) -> Any:
        attempts.append(f"lookup of {host}")
        raise OSError(f"{host} was looked up where no network is allowed")

    patches = {name: guarded(name) for name in ("connect", "connect_ex", "sendto")}
    with mock.patch.multiple(socket.socket, **patches), mock.patch.object(socket, "getaddrinfo", lookup):
        yield attempts
