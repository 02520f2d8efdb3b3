"""What a publish may be told: by its operator, and by its surroundings."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from contracts.keyframe import KEYFRAME_LEVEL, SEGMENT_BYTES
from publisher.plan import EXPIRY
from stores.retrying import Backoff


@dataclass(frozen=True)
class PublishOptions:
    """What an operator may choose.

    `metadata_keys`: the only top-level keys of `metadata_json` that are kept; None keeps all that are public.
    `segment_bytes`: how much of the database goes into one blob of a keyframe. `level`: of zstd, for those.
    `single_publisher`: the store ignores preconditions, and nobody else publishes to it.
    `accept_clock`: the clock is right, although the last publish has a later date.
    `rebuild`: export the catalogue anew, even where a refresh of the last database would do.
    `dry_run`: find out what would be sent, and send nothing.
    """

    metadata_keys: frozenset[str] | None = None
    segment_bytes: int = SEGMENT_BYTES
    level: int = KEYFRAME_LEVEL
    expiry: timedelta = EXPIRY
    single_publisher: bool = False
    accept_clock: bool = False
    rebuild: bool = False
    dry_run: bool = False


@dataclass(frozen=True)
class Environment:
    """The clock, the randomness and the patience of a publish; tests choose others."""

    now: Callable[[], datetime] = lambda: datetime.now(UTC).replace(microsecond=0)
    random_id: Callable[[], str] = lambda: secrets.token_hex(16)
    backoff: Backoff = field(default_factory=Backoff)
