"""Puts right what no later publish would put again: the pointer's own copy, and blobs that are damaged.

Invariant: nothing is written but bytes whose digest is the name that they are written under, and nothing is
deleted on the way. What was good, but came damaged over the line, stays good whenever the power goes.
What puts right a blob that is missing is a keyframe made anew (`PublishRun`, with the option `repair`).
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from contracts.digests import digest_bytes
from contracts.errors import MalformedError, ObjectMissing
from contracts.layout import POINTER_KEY, blob_key, manifest_key
from contracts.manifest import MANIFEST_MAX_BYTES, Blob
from publisher.pointer import Pointer
from stores.base import Overwrite, Store, read_whole


def mend_copy(store: Store, base: Pointer) -> bool:
    """Put the pointer's copy where it is missing or damaged; whether it was.

    Only while the pointer has these bytes: once it has moved, they are to be had nowhere else.
    Raises:
        AccessDenied, StoreUnavailable, StoreError: as the store does.
    """
    key = manifest_key(base.digest)
    if _fetch(store, key, base.digest) is not None:
        return False
    stored = _fetch(store, POINTER_KEY, base.digest)
    if stored is None:
        return False  # it has moved: this run will lose its swap
    store.put(key, stored, Overwrite())
    return True


def _fetch(store: Store, key: str, digest: str) -> bytes | None:
    """The bytes under a key when they have this digest; read twice, because a bit may flip on the line."""
    for _ in range(2):
        with suppress(ObjectMissing, MalformedError):
            stored = read_whole(store.get(key), MANIFEST_MAX_BYTES)
            if digest_bytes(stored) == digest:
                return stored
    return None


def mend_blob(store: Store, blob: Blob, path: Path) -> None:
    """Put a blob, which lies at `path`, over the one that is damaged.

    Raises:
        AccessDenied, StoreUnavailable, StoreError: as the store does.
        OSError: when it cannot be read.
    """
    with path.open("rb") as stream:
        store.put(blob_key(blob.digest), stream, Overwrite())
