"""What a publish may be told: by its operator, and by its surroundings."""

from __future__ import annotations

import random
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from contracts.keyframe import KEYFRAME_LEVEL, SEGMENT_BYTES
from contracts.minisign import SecretKey
from contracts.page_delta_encoder import BATCH_PAGES
from publisher.plan import EXPIRY
from stores.retrying import Backoff


@dataclass(frozen=True)
class PublishOptions:
    """What an operator may choose.

    `metadata_keys`: the only top-level keys of `metadata_json` that are kept; None keeps all that are public.
    `segment_bytes`: how much of the database goes into one blob of a keyframe. `level`: of zstd, for those.
    `batch_pages`: how many changed pages are compressed together, 1 to 4,096: it decides the memory.
    `single_publisher`: the store ignores preconditions, and nobody else publishes to it.
    `accept_clock`: the clock is right, although the last publish has a later date.
    `rebuild`: export the catalogue anew, even where a refresh of the last database would do.
    `dry_run`: find out what would be sent, and send nothing.
    `resume`: go on with the catalogue, although a rollback holds the store.
    `repair`: look at every blob that the pointer names, and put right what is missing or damaged.
    `proof`: check the database before it is uploaded, and what was uploaded before the pointer moves.
    `signing_key`: signs every manifest; None publishes what only a mirror that asks for no signature takes.
    """

    metadata_keys: frozenset[str] | None = None
    segment_bytes: int = SEGMENT_BYTES
    level: int = KEYFRAME_LEVEL
    batch_pages: int = BATCH_PAGES
    expiry: timedelta = EXPIRY
    single_publisher: bool = False
    accept_clock: bool = False
    rebuild: bool = False
    dry_run: bool = False
    resume: bool = False
    repair: bool = False
    proof: bool = True
    signing_key: SecretKey | None = None


@dataclass(frozen=True)
class Environment:
    """The clock, the randomness and the patience of a publish; tests choose others."""

    now: Callable[[], datetime] = lambda: datetime.now(UTC).replace(microsecond=0)
    random_id: Callable[[], str] = lambda: secrets.token_hex(16)
    backoff: Backoff = field(default_factory=Backoff)
    # Which blobs are read back: no store can tell.
    random: random.Random = field(default_factory=random.SystemRandom)
