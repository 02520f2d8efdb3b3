"""Whether to believe a pointer: bytes, what was seen before and one moment go in; a verdict comes out.

Invariant: what a mirror serves only moves forward, within one repository, to manifests that are whole and
fresh. No I/O happens here; a refusal never changes what is remembered. That the bytes are signed was proven
before (mirror/signatures.py): nothing here looks into bytes that no key of ours has signed.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import NamedTuple

import msgspec

from contracts.digests import digest_bytes
from contracts.errors import (
    EquivocationError,
    ExpiredError,
    MalformedError,
    RollbackError,
    SignatureError,
)
from contracts.manifest import Delta, Digest, Manifest, Moment, RandomId, Sequence, parse_manifest
from contracts.read_model import PAGE_BYTES
from mirror.keys import Followed, Proof

# The longest that honest caches serve an old pointer, as contracts.layout.POINTER_CACHE_CONTROL allows
# them: max-age 15 + stale-while-revalidate 60 + stale-if-error 86,400 (RFC 5861, section 4).
STALE_CACHE = timedelta(seconds=86_475)
DATABASE_MAX_BYTES = 16 << 30  # some forty times a million songs; an operator may choose another limit
# Frames of incompressible data (ZSTD_compressBound, zstd.h), generously, and skippable frames after them.
_FRAME_OVERHEAD_BYTES = 64 << 10


class Seen(msgspec.Struct, frozen=True):
    """What a mirror remembers: the newest manifest it believed, and when it last saw nothing older served.

    `signed_by` is the line of the key that signed it, None when the mirror did not ask; `followed` are the
    keys that have handed over, which sign nothing new any more.
    """

    repository: RandomId
    sequence: Sequence
    digest: Digest
    confirmed_at: Moment
    signed_by: str | None = None
    followed: tuple[Followed, ...] = ()


class Trusted(NamedTuple):
    """A believed manifest, the digest of its bytes, and what to remember from now on."""

    manifest: Manifest
    digest: str
    seen: Seen


UNPROVEN = Proof(None, False, ())


def verify_pointer(
    stored: bytes,
    seen: Seen | None,
    now: datetime,
    database_max_bytes: int = DATABASE_MAX_BYTES,
    proof: Proof = UNPROVEN,
    accept_expired: bool = False,
) -> Trusted | None:
    """The manifest in the bytes of a pointer; None when it is older than one seen before, as caches may be.

    `proof` says who has signed these very bytes. What a key signed before it handed over may still be in a
    cache: it is older, and no reason for an alarm. `accept_expired` is for a mirror that serves nothing yet
    and was told to begin with whatever there is.
    Raises:
        MalformedError, UnsupportedError: it is no manifest that this program can follow, or promises more
            bytes than are allowed.
        EquivocationError: it belongs to another repository, or differs from the manifest seen under its
            sequence.
        RollbackError: nothing newer was served for longer than any honest cache would.
        SignatureError: it is not older, and signed by a key that has handed over.
        ExpiredError: its time is over, unless that is accepted.
    """
    manifest = parse_manifest(stored)
    digest = digest_bytes(stored)
    if seen is not None:
        if manifest.repository != seen.repository:
            raise EquivocationError(
                f"the store serves repository {manifest.repository}; this mirror follows {seen.repository}; "
                "if it was meant to begin anew, run `music-cloud mirror` once with --reset-trust"
            )
        if manifest.sequence == seen.sequence and digest != seen.digest:
            raise EquivocationError(
                f"the store serves another manifest of sequence {seen.sequence} than before"
            )
        if manifest.sequence < seen.sequence:
            if now - seen.confirmed_at > STALE_CACHE:
                raise RollbackError(
                    f"the store has served nothing newer than sequence {manifest.sequence} since "
                    f"{seen.confirmed_at:%Y-%m-%d %H:%M:%S} UTC, although {seen.sequence} was published; "
                    "if it was put back on purpose, run `music-cloud mirror` once with --reset-trust"
                )
            return None
    signer = proof.signed_by
    if signer is not None and proof.is_retired:
        raise SignatureError(
            f"snapshot {manifest.sequence} is signed by key {signer.key_id}, which has handed over to another"
        )
    if not accept_expired:
        verify_fresh(manifest.sequence, manifest.expires_at, now)
    _verify_sizes(manifest, database_max_bytes)
    signed_by = None if signer is None else signer.line
    return Trusted(
        manifest,
        digest,
        Seen(manifest.repository, manifest.sequence, digest, now, signed_by, proof.followed),
    )


def verify_fresh(sequence: int, expires_at: datetime, now: datetime) -> None:
    """Check that a snapshot's time is not over.

    Raises:
        ExpiredError: when it is.
    """
    if now >= expires_at:
        raise ExpiredError(
            f"snapshot {sequence} expired at {expires_at:%Y-%m-%d %H:%M:%S} UTC; "
            "the publisher has not renewed it"
        )


def _verify_sizes(manifest: Manifest, database_max_bytes: int) -> None:
    keyframe = manifest.keyframe
    chain = [database for delta in manifest.deltas for database in (delta.base, delta.target)]
    for database in (manifest.database, keyframe.database, *chain):
        if database.size_bytes > database_max_bytes:
            raise MalformedError(
                f"the manifest promises a database of {database.size_bytes} bytes; "
                f"this mirror takes {database_max_bytes}"
            )
    for blob in keyframe.blobs:
        if blob.size_bytes > keyframe.segment_bytes + _FRAME_OVERHEAD_BYTES:
            raise MalformedError(f"the manifest promises a blob of {blob.size_bytes} bytes for one segment")
    for delta in manifest.deltas:
        _verify_delta(delta)


def _verify_delta(delta: Delta) -> None:
    for database in (delta.base, delta.target):
        if database.size_bytes % PAGE_BYTES:
            raise MalformedError(
                f"the manifest promises a delta of a database of {database.size_bytes} bytes: no whole pages"
            )
    # It holds each page at most once, so one that is larger saves nothing over the database itself.
    if delta.stored_bytes > delta.target.size_bytes + _FRAME_OVERHEAD_BYTES:
        raise MalformedError(
            f"the manifest promises a delta of {delta.stored_bytes} bytes "
            f"to a database of {delta.target.size_bytes}"
        )
