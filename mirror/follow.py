"""Keeps a mirror in sync until it is told to stop.

Invariant: no failure ends it; it polls at a jittered interval, backs off while syncs fail, and stops at once
when asked.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from threading import Event

from contracts.errors import ContractError, StoreError
from mirror.mirror import Mirror, SyncResult
from stores.retrying import Backoff

_JITTER = 0.2  # of the interval, either way: mirrors started together do not poll together for long
_BACKOFF_MAX_S = 900.0  # a quarter of an hour: an outage ends unnoticed by nobody for longer


def follow(
    mirror: Mirror,
    stop: Event,
    interval_s: float,
    report: Callable[[SyncResult | Exception], None],
    randomness: random.Random | None = None,
    wait: Callable[[float], object] | None = None,
) -> None:
    """Sync about every `interval_s` seconds until `stop` is set; `report` hears of each sync or failure."""
    source = randomness or random.Random()
    pause = wait or stop.wait
    backoff = Backoff(first_s=interval_s, longest_s=max(interval_s, _BACKOFF_MAX_S), random=source)
    failures = 0
    while not stop.is_set():
        try:
            report(mirror.sync())
            failures = 0
            delay_s = interval_s * source.uniform(1 - _JITTER, 1 + _JITTER)
        except (ContractError, StoreError, OSError) as error:
            if stop.is_set():
                break
            report(error)
            failures += 1
            delay_s = backoff.delay_s(failures, getattr(error, "retry_after_s", None))
        pause(delay_s)
