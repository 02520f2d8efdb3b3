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
from contracts.layout import POINTER_KEY
from contracts.manifest import MANIFEST_MAX_BYTES, Manifest, format_manifest, parse_manifest
from stores.base import Create, Store, Update, read_whole

_SWAPS = 4  # tries before a store that refuses without a reason is given up


class Pointer(NamedTuple):
    """The pointer as it was read: its manifest, the digest of its bytes, its entity tag."""

    manifest: Manifest
    digest: str
    etag: str


def fetch_pointer(store: Store) -> Pointer | None:
    """The pointer, or None when nothing was ever published.

    Raises: MalformedError, UnsupportedError, AccessDenied, StoreUnavailable.
    """
    try:
        reading = store.get(POINTER_KEY)
    except ObjectMissing:
        return None
    stored = read_whole(reading, MANIFEST_MAX_BYTES)
    return Pointer(parse_manifest(stored), digest_bytes(stored), reading.info.etag)


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
            return found
        if (found and found.digest) != (base and base.digest):
            raise ConflictError(
                "another publisher published first"
                + (f" (sequence {found.manifest.sequence})" if found else "")
                + "; nothing was overwritten, run publish again"
            ) from failure
        if attempt < _SWAPS:
            pause(attempt)
    raise StoreUnavailable(f"the pointer could not be moved: {failure}") from failure
