"""What the next manifest says; decides and touches nothing.

Invariant: a manifest made here follows its predecessor in the hash chain by exactly one, and its times are
those of this machine's clock only when that clock can be believed.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from msgspec.structs import asdict, replace

from contracts.errors import ClockError, SignatureError, UnsupportedError
from contracts.manifest import MANIFEST_MAX_BYTES, Delta, Digest, Keyframe, Manifest, format_manifest
from publisher.chain import trim_chain
from publisher.pointer import Pointer
from publisher.state import Candidate

# A mirror does not adopt an expired manifest, so this is how long a publisher may be away unnoticed.
EXPIRY = timedelta(days=14)
# What S3 itself allows between a client's clock and its own (error RequestTimeTooSkewed: 15 minutes),
# less a margin: a manifest from the future would be trusted longer than it should be.
_CLOCK_TOLERANCE = timedelta(minutes=5)


def verify_clock(now: datetime, store_now: datetime | None, published_at: datetime | None) -> None:
    """Check this machine's clock against the store's and against what was published before.

    Raises:
        ClockError: when it is more than 5 minutes off the store's, or earlier than the last publish.
    """
    if store_now is not None and abs(now - store_now) > _CLOCK_TOLERANCE:
        raise ClockError(
            f"this machine's clock says {now:%Y-%m-%d %H:%M:%S} UTC and the store's "
            f"{store_now:%Y-%m-%d %H:%M:%S}; set the clock before publishing"
        )
    if published_at is not None and now < published_at:
        raise ClockError(
            f"this machine's clock says {now:%Y-%m-%d %H:%M:%S} UTC, which is before the last publish "
            f"({published_at:%Y-%m-%d %H:%M:%S}); set the clock, or use --accept-clock once "
            "when it was that publish whose clock was wrong"
        )


def plan_snapshot(
    base: Pointer | None, candidate: Candidate, *, now: datetime, expiry: timedelta, random_id: str
) -> Manifest:
    """The manifest of a candidate; `random_id` is its publish id, and names a new repository.

    Raises:
        UnsupportedError: when it would be larger than mirrors take.
    """
    keyframe = candidate.keyframe or (base and base.manifest.keyframe)
    assert keyframe is not None  # a first snapshot has its own
    # A snapshot that no delta leads to begins a chain.
    deltas = (*base.manifest.deltas, candidate.delta) if base and candidate.delta else ()
    manifest = Manifest(
        **asdict(candidate.snapshot),
        repository=base.manifest.repository if base else random_id,
        sequence=base.manifest.sequence + 1 if base else 1,
        publish_id=random_id,
        previous=base.digest if base else None,
        oldest_kept=base.manifest.oldest_kept if base else 1,
        published_at=now,
        expires_at=now + expiry,
        database=candidate.database,
        keyframe=keyframe,
        deltas=trim_chain(deltas, keyframe),
        held=candidate.held,
        condemned=base.manifest.condemned if base else None,
    )
    _verify_size(manifest)
    return manifest


def is_renewal_due(manifest: Manifest, now: datetime, expiry: timedelta, *, is_signed: bool = True) -> bool:
    """Whether half of a manifest's life, which is `expiry`, is gone, or it is not signed as it should be.

    Its own dates do not tell how long that is: a prune copies its end alone.
    Raises:
        SignatureError: when it is held and not signed. What is renewed was compared with the catalogue, but
            what is held was not: signing that would vouch for whatever somebody has put into the store.
    """
    if manifest.held and not is_signed:
        raise SignatureError(
            f"snapshot {manifest.sequence} is held by a rollback, but not signed by the key of this "
            "publisher; it is not renewed, because nobody knows who has written it; publish with --resume "
            "and the key, or roll back to a signed snapshot"
        )
    return not is_signed or now >= manifest.expires_at - expiry / 2


def plan_renewal(
    base: Pointer,
    *,
    now: datetime,
    expiry: timedelta,
    random_id: str,
    keyframe: Keyframe | None = None,
    deltas: tuple[Delta, ...] | None = None,
    resume: bool = False,
    condemned: Digest | None = None,
    oldest_kept: int | None = None,
) -> Manifest:
    """The manifest of the same snapshot with a new expiry, and with a new keyframe when one is given.

    `deltas` are the chain from now on, where that of `base` has to be cut; `resume` ends a hold. `condemned`
    and `oldest_kept` are what a prune says; None copies them.
    Raises:
        UnsupportedError: when it would be larger than mirrors take.
    """
    keyframe = keyframe or base.manifest.keyframe
    manifest = replace(
        base.manifest,
        sequence=base.manifest.sequence + 1,
        publish_id=random_id,
        previous=base.digest,
        published_at=now,
        expires_at=now + expiry,
        keyframe=keyframe,
        deltas=trim_chain(base.manifest.deltas if deltas is None else deltas, keyframe),
        held=base.manifest.held and not resume,
        condemned=condemned or base.manifest.condemned,
        oldest_kept=oldest_kept or base.manifest.oldest_kept,
    )
    _verify_size(manifest)
    return manifest


def _verify_size(manifest: Manifest) -> None:
    size_bytes = len(format_manifest(manifest))
    if size_bytes > MANIFEST_MAX_BYTES:
        raise UnsupportedError(
            f"the manifest would have {size_bytes} bytes, mirrors take {MANIFEST_MAX_BYTES}: the keyframe "
            f"has {len(manifest.keyframe.blobs)} segments; make MUSIC_CLOUD_SEGMENT_BYTES larger"
        )
