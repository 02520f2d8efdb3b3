"""How slowly an object may come.

Invariant: no reading takes for ever: whoever sends a byte now and then is given up after a minute.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from contracts.errors import StoreUnavailable

# Slow retrieval (TUF specification, section 1.5.2): slower than a modem is no line but an attack or a fault.
_SLOWEST_BYTES_PER_S = 1024
PATIENCE_S = 60.0


def is_too_slow(received_bytes: int, seconds: float, patience_s: float = PATIENCE_S) -> bool:
    """Whether so few bytes in so many seconds are to be given up."""
    return seconds > patience_s and received_bytes < seconds * _SLOWEST_BYTES_PER_S


class Pace:
    """The bytes of one object that have come, and since when; `clock` never goes back."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._began_s = clock()
        self._received_bytes = 0

    def verify(self, size_bytes: int, name: str) -> None:
        """Count these bytes too, and check that the object still comes fast enough.

        Raises:
            StoreUnavailable: when it does not.
        """
        self._received_bytes += size_bytes
        seconds = self._clock() - self._began_s
        if is_too_slow(self._received_bytes, seconds):
            raise StoreUnavailable(f"{name} came too slowly: {self._received_bytes} bytes in {seconds:.0f} s")
