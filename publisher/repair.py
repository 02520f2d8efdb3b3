"""Puts right the pointer's own copy, which no later publish would put again.

Invariant: nothing is written but the bytes that the pointer has, under the digest that they have.
What puts blobs right is a keyframe made anew (`PublishRun`, with the option `repair`).
"""

from __future__ import annotations

from contextlib import suppress

from contracts.digests import digest_bytes
from contracts.errors import MalformedError, ObjectMissing
from contracts.layout import POINTER_KEY, manifest_key
from contracts.manifest import MANIFEST_MAX_BYTES
from publisher.pointer import Pointer
from stores.base import Create, Store, read_whole


def mend_copy(store: Store, base: Pointer) -> bool:
    """Put the pointer's copy where it is missing or damaged; whether it was.

    A power cut between the two steps leaves it missing, as it was or nearly was, for the next repair.
    Raises:
        PreconditionFailed, AccessDenied, StoreUnavailable, StoreError: as the store does.
    """
    key = manifest_key(base.digest)
    with suppress(ObjectMissing, MalformedError):
        if digest_bytes(read_whole(store.get(key), MANIFEST_MAX_BYTES)) == base.digest:
            return False
    stored = read_whole(store.get(POINTER_KEY), MANIFEST_MAX_BYTES)
    if digest_bytes(stored) != base.digest:
        return False  # it has moved: this run will lose its swap
    store.delete(key)
    store.put(key, stored, Create())
    return True
