"""Looks at a whole store: is everything there that a kept manifest names, and is it what it should be?

Invariant: nothing is written to the store, and what cannot be known is never called good: a store that does
not answer is an error. Memory grows with the number of names alone. What is wrong is told with what to do.
In full, every byte that is named is read and the newest database is rebuilt from its keyframe. A delta before
that keyframe is known by its digest only: it decodes with nothing but the database that it starts from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from contracts.errors import (
    ConflictError,
    DigestMismatchError,
    HistoryError,
    MalformedError,
    ObjectMissing,
    SignatureError,
    SnapshotError,
)
from contracts.layout import POINTER_KEY, Kind, blob_key, format_key, manifest_key, parse_key
from contracts.manifest import Blob, Delta, Keyframe, Manifest
from contracts.minisign import PublicKey
from contracts.route import plan_route
from publisher.condemned import fetch_condemned
from publisher.damage import MISSING, blobs_of, find_damaged
from publisher.history import Link, UnknownSigner, find_signer, walk_history
from publisher.pointer import Pointer, fetch_pointer
from stores.base import ListedObject, ReadableStore, Store
from stores.files import verify_space
from stores.progress import Progress
from stores.restore import restore_database

_REPAIR = "run `music-cloud publish --repair`"
_NEXT_LIST = "the next `music-cloud prune` that deletes something writes a new one"


class Finding(msgspec.Struct, frozen=True):
    """What is wrong with one object, and what to do about it."""

    key: str
    wrong: str
    advice: str


@dataclass(frozen=True)
class VerifyResult:
    """What a store holds, and what is wrong with it.

    `objects` of `size_bytes` are named by the kept manifests, of which there are `manifests`. `is_whole` says
    that each byte of them was read, and the newest database restored; otherwise only sizes were looked at.
    `signed` manifests are signed by a known key; None when no key was given, or but for the newest nobody
    looked. Orphans are named by no kept manifest: they are what an interrupted publish left, or what `prune`
    may delete; None when the history is broken and nobody knows. Aliens are not of the layout.
    """

    newest: int
    oldest: int
    manifests: int
    objects: int
    size_bytes: int
    is_whole: bool
    signed: int | None
    findings: tuple[Finding, ...]
    orphans: int | None
    orphan_bytes: int | None
    aliens: tuple[str, ...]
    alien_bytes: int

    @property
    def is_good(self) -> bool:
        """Whether nothing is missing or damaged."""
        return not self.findings


@dataclass
class _Named:
    """A blob that kept manifests name: the newest and the oldest of them."""

    newest: int
    oldest: int


class _Names:
    """Everything that the walked manifests name."""

    def __init__(self) -> None:
        self.blobs: dict[Blob, _Named] = {}
        self.keys = {POINTER_KEY}
        self.manifest_bytes = self.manifests = 0
        self.oldest = 0

    def add(self, link: Link) -> None:
        sequence = link.manifest.sequence
        self.manifests += 1
        self.manifest_bytes += link.size_bytes
        self.oldest = sequence
        self.keys |= {manifest_key(link.digest), format_key(Kind.SIGNATURE, link.digest)}
        for blob in blobs_of(link.manifest):
            self.blobs.setdefault(blob, _Named(sequence, sequence)).oldest = sequence
            self.keys.add(blob_key(blob.digest))
        if link.manifest.condemned is not None:
            self.keys.add(blob_key(link.manifest.condemned))  # the list of what a prune deletes


def verify_store(
    store: Store,
    scratch: Path | None,
    *,
    public_keys: Sequence[PublicKey] = (),
    progress: Progress | None = None,
) -> VerifyResult:
    """Check every object that a kept manifest names; in full when there is a `scratch` folder to restore in.

    Without `scratch`, sizes are compared with a listing and only manifests are read. `public_keys` are all
    that may have signed, also those that have handed over since.
    Raises:
        SnapshotError: when nothing was ever published.
        MalformedError, UnsupportedError: when the pointer is no manifest.
        ConflictError: when a prune has deleted objects meanwhile, so that it has to be done again.
        AccessDenied, StoreUnavailable, StoreError: as the store does.
        OSError: when the scratch folder cannot be written, or its disk has no room.
    """
    progress = progress or Progress()
    pointer = fetch_pointer(store)
    if pointer is None:
        raise SnapshotError("nothing was ever published to this store")
    names, findings, signed = _Names(), list[Finding](), 0
    is_broken = False
    progress.begin("verify")
    try:
        for link in walk_history(store, pointer):
            names.add(link)
            if public_keys and (scratch is not None or link.digest == pointer.digest):
                is_signed, faults = _check_signature(store, link, public_keys, names.manifests == 1)
                signed += is_signed
                findings += faults
    except HistoryError as error:
        is_broken = True
        findings.append(_describe_break(error, pointer, names))
    if not names.manifests:  # even the pointer's own copy is gone; what it names is known all the same
        names.add(Link(pointer.digest, pointer.manifest, b""))
    listed = {listed.key: listed for listed in store.list_objects()}
    findings += _find_blob_faults(store, names, listed, pointer, progress, is_full=scratch is not None)
    findings += _find_list_fault(store, pointer.manifest)
    if scratch is not None:
        findings += _try_restore(store, pointer.manifest, scratch, findings, progress)
    _verify_not_pruned(store, pointer, findings)
    orphans = [each for key, each in listed.items() if key not in names.keys and _is_orphan_kind(key)]
    aliens = [each for each in listed.values() if _is_alien(each.key)]
    return VerifyResult(
        newest=pointer.manifest.sequence,
        oldest=names.oldest,
        manifests=names.manifests,
        objects=len(names.blobs) + names.manifests + 1,
        size_bytes=sum(blob.size_bytes for blob in names.blobs) + names.manifest_bytes,
        is_whole=scratch is not None,
        signed=signed if public_keys and scratch is not None else None,
        findings=tuple(findings),
        orphans=None if is_broken else len(orphans),
        orphan_bytes=None if is_broken else sum(each.size_bytes for each in orphans),
        aliens=tuple(sorted(each.key for each in aliens)),
        alien_bytes=sum(each.size_bytes for each in aliens),
    )


def _check_signature(
    store: ReadableStore, link: Link, keys: Sequence[PublicKey], is_newest: bool
) -> tuple[bool, list[Finding]]:
    """Whether a known key has signed, and what is wrong. An older one may be from before the keys."""
    key = format_key(Kind.SIGNATURE, link.digest)
    advice = "run `music-cloud publish` with the signing key: it signs anew what it finds right"
    try:
        find_signer(store, link, keys)
    except UnknownSigner as error:
        return False, [Finding(key, str(error), advice)] if is_newest else []
    except SignatureError as error:
        older = "do not roll back to it; `music-cloud prune` drops it in time"
        return False, [Finding(key, str(error), advice if is_newest else older)]
    return True, []


def _describe_break(error: HistoryError, pointer: Pointer, names: _Names) -> Finding:
    if not names.manifests:
        return Finding(manifest_key(pointer.digest), str(error), _REPAIR)
    return Finding(
        f"manifest {names.oldest - 1}",
        str(error),
        "what is published is not affected, but nothing before it can be listed or rolled back to",
    )


def _find_blob_faults(
    store: Store,
    names: _Names,
    listed: dict[str, ListedObject],
    pointer: Pointer,
    progress: Progress,
    *,
    is_full: bool,
) -> list[Finding]:
    wrong: dict[Blob, str] = {}
    for blob in names.blobs:
        found = listed.get(blob_key(blob.digest))
        size_bytes = _find_size(store, blob) if found is None else found.size_bytes
        if size_bytes is None:
            wrong[blob] = MISSING
        elif size_bytes != blob.size_bytes:
            wrong[blob] = f"damaged: it has {size_bytes} bytes instead of {blob.size_bytes}"
    if is_full:
        rest = [blob for blob in names.blobs if blob not in wrong]
        progress.begin("verify", sum(blob.size_bytes for blob in rest))
        wrong |= find_damaged(store, rest, progress.add)
    newest = pointer.manifest.sequence
    return [_describe_blob(blob, what, names.blobs[blob], newest) for blob, what in wrong.items()]


def _find_size(store: Store, blob: Blob) -> int | None:
    """The size of a blob that was not listed; it may have been put since."""
    try:
        return store.head(blob_key(blob.digest)).size_bytes
    except ObjectMissing:
        return None


def _describe_blob(blob: Blob, wrong: str, named: _Named, newest: int) -> Finding:
    if named.newest == newest:
        return Finding(blob_key(blob.digest), wrong, _REPAIR)
    older = f"{named.oldest} to {named.newest}" if named.oldest < named.newest else f"{named.newest}"
    return Finding(
        blob_key(blob.digest),
        wrong,
        f"only snapshot {older} names it, and may not be rolled back to; `music-cloud prune` drops it",
    )


def _find_list_fault(store: ReadableStore, manifest: Manifest) -> list[Finding]:
    """Whether the list of what a prune deletes can be read; no manifest says its size, so it is read."""
    digest = manifest.condemned
    if digest is None or fetch_condemned(store, digest) is not None:
        return []
    wrong = (
        "missing or damaged: it says what a prune deletes, and without it all that is published is sent anew"
    )
    return [Finding(blob_key(digest), wrong, _NEXT_LIST)]


def _try_restore(
    store: Store, manifest: Manifest, scratch: Path, findings: Sequence[Finding], progress: Progress
) -> list[Finding]:
    """Rebuild the newest database as a fresh mirror would, unless it is known already that it cannot be."""
    route = plan_route(manifest, None)
    assert route.keyframe is not None  # the way from nothing
    parts: tuple[Keyframe | Delta, ...] = (route.keyframe, *route.deltas)
    needed = {blob_key(blob.digest) for part in parts for blob in part.blobs}
    if needed.intersection(finding.key for finding in findings):
        return []
    sizes = [route.start.size_bytes, route.database.size_bytes]
    verify_space(scratch, max(sizes), "the newest database, which is restored to prove it,")
    progress.begin("download", route.stored_bytes)
    target = scratch / "restored.db"
    try:
        restore_database(store, route, target, report=progress.add)
    except (DigestMismatchError, MalformedError, ObjectMissing) as error:
        return [Finding(POINTER_KEY, f"its database cannot be restored: {error}", _REPAIR)]
    finally:
        target.unlink(missing_ok=True)
    return []


def _verify_not_pruned(store: Store, pointer: Pointer, findings: Sequence[Finding]) -> None:
    """Check that what is missing was not deleted on purpose since the pointer was read."""
    if not findings:
        return
    now = fetch_pointer(store)
    if now is None or now.manifest.condemned == pointer.manifest.condemned:
        return
    raise ConflictError("a prune has deleted objects while they were looked at; verify again")


def _is_orphan_kind(key: str) -> bool:
    """Whether an object of this key is for nothing where no manifest names it; a succession never is."""
    return not _is_alien(key) and parse_key(key).kind in (Kind.MANIFEST, Kind.SIGNATURE, Kind.BLOB)


def _is_alien(key: str) -> bool:
    try:
        parse_key(key)
    except MalformedError:
        return True
    return False
