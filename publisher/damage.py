"""What of the blobs that a manifest names is missing from a store, or not what it should be.

Invariant: a blob counts as good only when every byte of it was read and its digest was right, and as damaged
only when it was wrong twice: a bit may flip on the line. A few are read at a time and none is kept, so that
memory grows neither with their size nor, but for their names, with their number. A store that cannot be
reached is an error, never damage.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

from contracts.errors import DigestMismatchError, ObjectMissing
from contracts.manifest import Blob, Delta, Keyframe, Manifest
from stores.base import ReadableStore
from stores.restore import DELTAS_AT_ONCE, fetch_blob

MISSING = "missing"


def blobs_of(manifest: Manifest) -> dict[Blob, None]:
    """Every blob that a manifest names, each once, in the order in which a fresh mirror wants them."""
    parts: tuple[Keyframe | Delta, ...] = (manifest.keyframe, *manifest.deltas)
    return dict.fromkeys(blob for part in parts for blob in part.blobs)


def find_damaged(
    store: ReadableStore, blobs: Iterable[Blob], report: Callable[[int], None]
) -> dict[Blob, str]:
    """What is wrong with those of these blobs that are not whole, by reading all of them.

    `report` is called from several threads with each number of bytes that arrived.
    Raises:
        AccessDenied, StoreUnavailable, StoreError: as the store does.
    """

    def inspect(blob: Blob) -> str | None:
        wrong = None
        for count in (report, lambda size_bytes: None):  # progress counts each blob once
            try:
                with closing(fetch_blob(store, blob, count)) as pieces:
                    deque(pieces, maxlen=0)
            except ObjectMissing:
                return MISSING
            except DigestMismatchError as error:
                wrong = f"damaged: it has {error.found}"
            else:
                return None
        return wrong

    listed = list(blobs)
    executor = ThreadPoolExecutor(DELTAS_AT_ONCE, "inspect")
    try:
        found = zip(listed, executor.map(inspect, listed), strict=True)
        return {blob: wrong for blob, wrong in found if wrong is not None}
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


def deltas_after_damage(manifest: Manifest, damaged: Iterable[Blob]) -> tuple[Delta, ...]:
    """The end of a manifest's chain that still leads somewhere: what comes after the last broken delta."""
    broken = set(damaged)
    bad = [place for place, delta in enumerate(manifest.deltas) if broken.intersection(delta.blobs)]
    return manifest.deltas[bad[-1] + 1 :] if bad else manifest.deltas
