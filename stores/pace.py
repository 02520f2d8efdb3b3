"""How slowly an object may come.

Invariant: no reading takes for ever: whoever sends a byte now and then is given up after a minute.
"""

from __future__ import annotations

# Slow retrieval (TUF specification, section 1.5.2): slower than a modem is no line but an attack or a fault.
_SLOWEST_BYTES_PER_S = 1024
PATIENCE_S = 60.0


def is_too_slow(received_bytes: int, seconds: float, patience_s: float = PATIENCE_S) -> bool:
    """Whether so few bytes in so many seconds are to be given up."""
    return seconds > patience_s and received_bytes < seconds * _SLOWEST_BYTES_PER_S
