"""The pointer: read it, and move it by compare-and-swap.

Invariant: the pointer moves only from the manifest that the new one names as its predecessor. After any
answer that leaves it open, the pointer is read back and recognised by its `publish_id`: a refusal of one's
own write that did land is the most reported bug of this kind (apache/hudi#14373).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from contracts.digests import digest_bytes
from contracts.errors import ConflictError, ObjectMissing, PreconditionFailed, StoreUnavailable
from contracts.layout import POINTER_KEY, manifest_key
from contracts.manifest import MANIFEST_MAX_BYTES, Manifest, format_manifest, parse_manifest
from stores.base import Create, ReadableStore, Store, Update, read_whole

_SWAPS = 4  # tries before a store that refuses without a reason is given up
_READS = 4  # tries before a line that damages what it carries is given up


class Pointer(NamedTuple):
    """The pointer as it was read: its manifest, the digest of its bytes, its entity tag."""

    manifest: Manifest
    digest: str
    etag: str


def fetch_pointer(store: ReadableStore) -> Pointer | None:
    """The pointer, or None when nothing was ever published.

    Its bytes are believed when they are those of a manifest in the store, as they should be, or come twice.
    Raises: MalformedError, UnsupportedError, AccessDenied, StoreUnavailable.
    """
    for _ in range(_READS):
        found = _read_pointer(store)
        if found is None:
            return None
        stored, etag = found
        # A bit that flipped on a line without TLS would become the `previous` of everything that follows.
        if _is_copied(store, stored) or _read_pointer(store) == found:
            return Pointer(parse_manifest(stored), digest_bytes(stored), etag)
    raise StoreUnavailable(f"{POINTER_KEY} comes as other bytes each time that it is read")


def _read_pointer(store: ReadableStore) -> tuple[bytes, str] | None:
    """The pointer's bytes, as they came, and its entity tag."""
    try:
        reading = store.get(POINTER_KEY)
    except ObjectMissing:
        return None
    return read_whole(reading, MANIFEST_MAX_BYTES), reading.info.etag


def _is_copied(store: ReadableStore, stored: bytes) -> bool:
    """Whether there is a manifest of these very bytes: it is put before the pointer is."""
    try:
        return store.head(manifest_key(digest_bytes(stored))).size_bytes == len(stored)
    except ObjectMissing:
        return False


def swap_pointer(
    store: Store, base: Pointer | None, manifest: Manifest, pause: Callable[[int], None]
) -> Pointer:
    """Move the pointer from `base` to `manifest`; `pause` is called with the number of each failed try.

    Raises:
        ConflictError: when another publisher moved it first.
        StoreUnavailable: when the store does not say; the next publish finds out.
    """
    stored = format_manifest(manifest)
    mode = Create() if base is None else Update(base.etag)
    for attempt in range(1, _SWAPS + 1):
        failure: Exception
        try:
            etag = store.put(POINTER_KEY, stored, mode)
        except (PreconditionFailed, StoreUnavailable) as error:
            failure = error
        else:
            return Pointer(manifest, digest_bytes(stored), etag)
        found = fetch_pointer(store)
        if found is not None and found.manifest.publish_id == manifest.publish_id:
            # What it says is what we have written: of an answer that was damaged, only the tag is taken.
            return Pointer(manifest, digest_bytes(stored), found.etag)
        if _is_moved(found, base):
            raise ConflictError(
                "another publisher published first"
                + (f" (sequence {found.manifest.sequence})" if found else "")
                + "; nothing was overwritten, run publish again"
            ) from failure
        if attempt < _SWAPS:
            pause(attempt)
    raise StoreUnavailable(f"the pointer could not be moved: {failure}") from failure


def _is_moved(found: Pointer | None, base: Pointer | None) -> bool:
    """Whether somebody moved the pointer from `base`; an older one comes from a cache, and says nothing."""
    if found is None or base is None:
        return found is not base  # one of the two is not there
    is_older = found.manifest.sequence < base.manifest.sequence
    if is_older and found.manifest.repository == base.manifest.repository:
        return False
    return found.digest != base.digest
