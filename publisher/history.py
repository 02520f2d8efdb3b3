"""The history of a store: every manifest from the pointer back to the oldest that is kept.

Invariant: a link that is given has the digest that the one after it names, belongs to the same repository and
is numbered one less; nothing is written. A chain that breaks is an error after its last good link, never an
end. Who has signed a manifest is asked of each by itself: the chain proves only what followed what, and
whoever could once write to the store may have put a link of his own into it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import NamedTuple

from contracts.digests import digest_bytes
from contracts.errors import (
    AccessDenied,
    HistoryError,
    MalformedError,
    ObjectMissing,
    SignatureError,
    SnapshotError,
    StoreError,
    UnsupportedError,
)
from contracts.layout import Kind, format_key, manifest_key
from contracts.manifest import MANIFEST_MAX_BYTES, Manifest, parse_manifest
from contracts.minisign import SIGNATURE_MAX_BYTES, PublicKey, parse_signature, verify_signature
from publisher.pointer import Pointer
from stores.base import ReadableStore, read_whole

_SHORTEST_PREFIX = 8  # of a digest that stands for the whole: as git's, and more than any sequence has


class UnknownSigner(SignatureError):
    """A manifest that is not signed, or not by a key that is known: nothing is wrong with the signature."""


class Link(NamedTuple):
    """A manifest of the chain, the digest that names it, and its bytes as they are stored."""

    digest: str
    manifest: Manifest
    stored: bytes

    @property
    def size_bytes(self) -> int:
        """The stored size of the manifest."""
        return len(self.stored)


class Snapshot(NamedTuple):
    """A published state and how long it lasted: manifests of one database, one after the other.

    `first` published it and `last` renewed it most recently; the two are one where nothing renewed it.
    """

    first: Link
    last: Link

    @property
    def delta_bytes(self) -> int | None:
        """The stored size of the delta that led to it; None when none did."""
        deltas = self.first.manifest.deltas
        return deltas[-1].stored_bytes if deltas else None

    @property
    def has_keyframe(self) -> bool:
        """Whether it has a keyframe of its own, published with it or after it."""
        return self.last.manifest.keyframe.database == self.last.manifest.database

    @property
    def renewals(self) -> int:
        """How many manifests have renewed it."""
        return self.last.manifest.sequence - self.first.manifest.sequence

    @property
    def is_rollback(self) -> bool:
        """Whether it was published by a rollback."""
        return self.first.manifest.held

    @property
    def published_at(self) -> datetime:
        """When it was published first."""
        return self.first.manifest.published_at


def walk_history(store: ReadableStore, pointer: Pointer) -> Iterator[Link]:
    """Every manifest from the pointer's to the one that its `oldest_kept` names, newest first.

    Each is read when it is asked for. Whoever keeps them keeps their bytes as well: some 10 KiB to 200.
    Raises:
        HistoryError: after the last good link, when the next is missing, damaged or none of this chain.
        AccessDenied, StoreUnavailable, StoreError: as the store does.
    """
    oldest = pointer.manifest.oldest_kept
    digest: str | None = pointer.digest
    after: Manifest | None = None
    while digest is not None and (after is None or after.sequence > oldest):
        link = _fetch_link(store, digest, after, pointer.manifest)
        yield link
        after, digest = link.manifest, link.manifest.previous


def fold_renewals(links: Iterable[Link]) -> Iterator[Snapshot]:
    """The snapshots of these links, newest first: a renewal is no snapshot of its own.

    What raises while they are read is raised after the snapshots that came before.
    """
    group: Snapshot | None = None
    try:
        for link in links:
            if group is not None and _is_renewal(group.first.manifest, link.manifest):
                group = Snapshot(link, group.last)
                continue
            if group is not None:
                done, group = group, Snapshot(link, link)
                yield done
            else:
                group = Snapshot(link, link)
    except HistoryError:
        if group is not None:
            yield group
        raise
    if group is not None:
        yield group


def find_link(links: Iterable[Link], name: str) -> Link:
    """The newest of these links that has this sequence, snapshot id, or digest (or the beginning of it).

    Raises:
        SnapshotError: when there is none, saying which there are.
        HistoryError: when it may be beyond a link that is broken.
    """
    newest = oldest = None
    for link in links:
        newest, oldest = newest or link, link
        if _is_named(link, name):
            return link
    if newest is None or oldest is None:
        raise SnapshotError("the store has no snapshots")
    raise SnapshotError(
        f"there is no snapshot {name[:100]!r}; the store has {oldest.manifest.sequence} to "
        f"{newest.manifest.sequence}, and `music-cloud history` lists them"
    )


def find_held_since(store: ReadableStore, pointer: Pointer) -> datetime:
    """When a rollback began to hold what is published: as far back as the history can be read."""
    since = pointer.manifest.published_at
    try:
        for link in walk_history(store, pointer):
            if not link.manifest.held:
                break
            since = link.manifest.published_at
    except (HistoryError, StoreError):  # it only tells: what was published is published
        pass
    return since


def find_behind_since(store: ReadableStore, pointer: Pointer, sequence: int, limit: datetime) -> datetime:
    """When the first manifest after the one of this sequence was published.

    It is not looked for beyond `limit`, nor beyond a link that is broken: what is found then is later.
    Raises:
        AccessDenied, StoreUnavailable, StoreError: as the store does.
    """
    since = pointer.manifest.published_at
    try:
        for link in walk_history(store, pointer):
            if link.manifest.sequence <= sequence or since < limit:
                break
            since = link.manifest.published_at
    except HistoryError:
        pass
    return since


def find_signer(store: ReadableStore, link: Link, keys: Sequence[PublicKey]) -> PublicKey:
    """Which of these keys has signed a manifest.

    Raises:
        UnknownSigner: when it is not signed, or by another key.
        SignatureError: when its signature is damaged, or forged.
        AccessDenied, StoreUnavailable, StoreError: as the store does.
    """
    name = format_key(Kind.SIGNATURE, link.digest)
    try:
        signature = parse_signature(read_whole(store.get(name), SIGNATURE_MAX_BYTES))
    except (ObjectMissing, AccessDenied) as error:  # S3 calls what is missing forbidden to who may not list
        raise UnknownSigner(f"snapshot {link.manifest.sequence} is not signed") from error
    except MalformedError as error:
        raise SignatureError(f"{name} is no signature: {error}") from error
    for key in keys:
        if key.number == signature.number:
            verify_signature(link.stored, signature, key)
            return key
    known = " or ".join(key.key_id for key in keys) or "any that is known"
    raise UnknownSigner(
        f"snapshot {link.manifest.sequence} is signed by key {signature.key_id}, not by {known}"
    )


def _fetch_link(store: ReadableStore, digest: str, after: Manifest | None, newest: Manifest) -> Link:
    key = manifest_key(digest)
    place = "the pointer's own copy" if after is None else f"what came before sequence {after.sequence}"
    try:
        stored = read_whole(store.get(key), MANIFEST_MAX_BYTES)
        found = digest_bytes(stored)
        if found != digest:
            raise HistoryError(f"the history is broken: {place}, {key}, has the digest {found}")
        manifest = parse_manifest(stored)
    except ObjectMissing as error:
        raise HistoryError(f"the history is broken: {place}, {key}, is missing") from error
    except (MalformedError, UnsupportedError) as error:
        raise HistoryError(f"the history is broken: {place}, {key}: {error}") from error
    if manifest.repository != newest.repository:
        raise HistoryError(
            f"the history is broken: {place}, {key}, is of repository {manifest.repository}, "
            f"not {newest.repository}"
        )
    if after is not None and manifest.sequence != after.sequence - 1:
        raise HistoryError(f"the history is broken: {place}, {key}, is numbered {manifest.sequence}")
    return Link(digest, manifest, stored)


def _is_renewal(later: Manifest, earlier: Manifest) -> bool:
    """Whether the later of two neighbours only renews the earlier: a rollback to the same would too."""
    return later.database == earlier.database


def _is_named(link: Link, name: str) -> bool:
    manifest = link.manifest
    is_digest = len(name) >= _SHORTEST_PREFIX and link.digest.startswith(name)
    return name in (str(manifest.sequence), manifest.snapshot_id) or is_digest
