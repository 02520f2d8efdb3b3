"""Puts objects into a store, each under its digest and only when it is not there yet.

Invariant: an object that is there is left alone, and one of another size is an error, never overwritten.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import BinaryIO

from contracts.errors import DigestMismatchError, ObjectMissing, PreconditionFailed
from contracts.layout import blob_key
from contracts.manifest import Blob, Manifest, format_manifest
from publisher.spool import Plan
from stores.base import Create, Store
from stores.progress import Progress


class Upload:
    """All that one publish puts into a store, counted.

    `sent_bytes` in `sent_objects` were sent; `present_bytes` were there already.
    """

    def __init__(self, store: Store, progress: Progress) -> None:
        self._store = store
        self._progress = progress
        self.sent_bytes = self.sent_objects = self.present_bytes = 0

    def put_blobs(self, plan: Plan, find: Callable[[Blob], Path]) -> None:
        """Put all blobs of a plan; `find` says where one lies.

        Raises: as `put`.
        """
        self._progress.begin("upload", sum(blob.size_bytes for blob in plan.blobs))
        for blob in plan.blobs:
            with find(blob).open("rb") as stream:
                self.put(blob_key(blob.digest), stream, blob.size_bytes)

    def put(self, key: str, body: BinaryIO, size_bytes: int) -> None:
        """Create an object named by its digest, or find it there already.

        It is looked for first: a refused upload has been sent in vain.
        Raises:
            DigestMismatchError: when an object of another size is there.
            PreconditionFailed, AccessDenied, StoreUnavailable, StoreError: as the store does.
        """
        if not self._is_present(key, size_bytes):
            try:
                self._store.put(key, self._progress.watch(body), Create())
            except PreconditionFailed:  # an answer was lost, or another publisher sends the same blob
                if not self._is_present(key, size_bytes):
                    raise
            self.count(size_bytes)
        else:
            self.present_bytes += size_bytes
        self._progress.add(size_bytes)

    def count(self, size_bytes: int) -> None:
        """Count an object that was sent."""
        self.sent_bytes += size_bytes
        self.sent_objects += 1

    def look_for(self, blobs: Iterable[Blob], manifest: Manifest) -> None:
        """Count what these blobs and their manifest would send, and what is there already; nothing is sent.

        Raises: as `put`.
        """
        for _ in ("the manifest", "the pointer"):
            self.count(len(format_manifest(manifest)))
        for blob in blobs:
            if self._is_present(blob_key(blob.digest), blob.size_bytes):
                self.present_bytes += blob.size_bytes
            else:
                self.count(blob.size_bytes)

    def _is_present(self, key: str, size_bytes: int) -> bool:
        try:
            found = self._store.head(key).size_bytes
        except ObjectMissing:
            return False
        if found != size_bytes:
            raise DigestMismatchError(
                f"{key} in {self._store.address}", f"in {size_bytes} bytes", f"{found} bytes; delete it"
            )
        return True
