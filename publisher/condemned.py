"""Keeps a publish from naming what a prune is about to delete.

Invariant: no manifest names a blob that its predecessor's list condemns. Where a publish has made the very
same bytes again, it appends an empty skippable frame to them (RFC 8878, section 3.1.2), which gives them
another digest and changes nothing else. This is the one place for it: whatever waits to be uploaded comes by
here, and so does every manifest before the pointer moves to it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import TypeVar

from msgspec.structs import replace

from contracts.condemned import CONDEMNED_MAX_BYTES, parse_condemned
from contracts.digests import digest_bytes
from contracts.errors import ConflictError, MalformedError, ObjectMissing, StoreUnavailable
from contracts.keyframe import EMPTY_SKIPPABLE_FRAME
from contracts.layout import blob_key
from contracts.manifest import Blob, Delta, Keyframe, Manifest
from publisher.pointer import Pointer
from publisher.retention import required_keys
from publisher.spool import Spool
from publisher.state import Candidate, WaitingKeyframe
from stores.base import ReadableStore, read_whole

P = TypeVar("P", Candidate, WaitingKeyframe)
_Part = TypeVar("_Part", Delta, Keyframe)

_READS = 4  # tries before a line that damages what it carries is given up, as of the pointer


def fetch_condemned(store: ReadableStore, digest: str) -> dict[str, datetime | None] | None:
    """The list that has this digest, as `parse_condemned` gives it; None when it is missing or damaged.

    It counts as damaged when the same wrong bytes come twice: a bit that flips on a line without TLS must not
    give every blob that waits another name.
    Raises: AccessDenied, StoreUnavailable, StoreError.
    """
    wrong: set[str] = set()
    for _ in range(_READS):
        try:
            stored = read_whole(store.get(blob_key(digest)), CONDEMNED_MAX_BYTES)
            found = digest_bytes(stored)
            if found == digest:
                return parse_condemned(stored)
        except (ObjectMissing, MalformedError):
            return None
        if found in wrong:
            return None
        wrong.add(found)
    raise StoreUnavailable(f"{blob_key(digest)} comes as other bytes each time that it is read")


class Condemned:
    """The lists of one store; each is fetched when something new is to be named, and once."""

    def __init__(self, store: ReadableStore) -> None:
        self._store = store
        self._fetched: tuple[str, Mapping[str, datetime | None] | None] | None = None

    def rename(self, base: Pointer | None, plan: P, spool: Spool[P]) -> P:
        """The plan that waits in `spool`, with new names for the blobs that are condemned.

        A list that is lost may have held any name, so then every blob gets one that the store does not have:
        it costs bytes, and nobody has to mend anything before the next publish.
        Raises:
            AccessDenied, StoreUnavailable, StoreError: as the store does.
            OSError: when the spool cannot be read or written.
        """
        condemned = base and base.manifest.condemned
        if condemned is None or plan.renamed_for == condemned:
            return plan
        entries = self._load(condemned)
        renamed: dict[str, Blob] = {}
        for blob in plan.blobs:
            if entries is None or blob_key(blob.digest) in entries:
                is_taken = self._is_stored if entries is None else entries.__contains__
                renamed[blob.digest] = _extend(blob, spool, is_taken)
        if not renamed:
            return plan
        changed = replace(_rename(plan, renamed), renamed_for=condemned)
        spool.replace(changed)
        for digest in renamed:
            spool.blob_path(Blob(digest, 1)).unlink(missing_ok=True)
        return changed

    def verify(self, base: Pointer | None, manifest: Manifest) -> None:
        """Check that a manifest that is to follow names nothing that is condemned.

        What the one before names was looked at then.
        Raises:
            ConflictError: when it does.
            AccessDenied, StoreUnavailable, StoreError: as the store does.
        """
        if base is None or base.manifest.condemned is None:
            return
        new = {*required_keys(base.digest, manifest)} - {*required_keys(base.digest, base.manifest)}
        named = sorted(new & (self._load(base.manifest.condemned) or {}).keys()) if new else ()
        if named:
            raise ConflictError(
                f"{named[0]} is about to be deleted by a prune, and the new snapshot would name it; nothing "
                "was published, run publish again"
            )

    def _load(self, digest: str) -> Mapping[str, datetime | None] | None:
        if self._fetched is None or self._fetched[0] != digest:
            self._fetched = (digest, fetch_condemned(self._store, digest))
        return self._fetched[1]

    def _is_stored(self, key: str) -> bool:
        try:
            self._store.head(key)
        except ObjectMissing:
            return False
        return True


def _extend(blob: Blob, spool: Spool[P], is_taken: Callable[[str], bool]) -> Blob:
    """Another name for the bytes of a blob, on disk; one that is taken as well gets a further frame."""
    content = spool.blob_path(blob).read_bytes()
    while True:
        content += EMPTY_SKIPPABLE_FRAME
        longer = Blob(digest_bytes(content), len(content))
        if not is_taken(blob_key(longer.digest)):
            spool.add_blob(longer, content)
            return longer


def _rename(plan: P, renamed: Mapping[str, Blob]) -> P:
    if isinstance(plan, WaitingKeyframe):
        return replace(plan, keyframe=_rename_part(plan.keyframe, renamed))
    return replace(
        plan,
        delta=plan.delta and _rename_part(plan.delta, renamed),
        keyframe=plan.keyframe and _rename_part(plan.keyframe, renamed),
    )


def _rename_part(part: _Part, renamed: Mapping[str, Blob]) -> _Part:
    return replace(part, blobs=tuple(renamed.get(blob.digest, blob) for blob in part.blobs))
