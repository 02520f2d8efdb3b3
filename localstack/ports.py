"""Free TCP ports on the loopback interface, for programs that must be told their ports.

A port is found by binding it and letting go of it, so another program can take it before ours does: whoever
uses these must be ready to try again with others.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Sequence

LOOPBACK = "127.0.0.1"


def find_free_ports(count: int, preferred: Sequence[int] = ()) -> list[int]:
    """Return `count` different free ports: the preferred ones when all of them are free, else any."""
    if len(preferred) == count:
        with contextlib.suppress(OSError):
            return _bind_and_release(preferred)
    return _bind_and_release([0] * count)


def _bind_and_release(ports: Sequence[int]) -> list[int]:
    with contextlib.ExitStack() as stack:
        # All are held until the last is found, or the kernel could hand out one of them twice.
        held = [stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM)) for _ in ports]
        for listener, port in zip(held, ports, strict=True):
            # As servers do: connections of the last run that linger in TIME_WAIT are no obstacle.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((LOOPBACK, port))
        return [int(listener.getsockname()[1]) for listener in held]
