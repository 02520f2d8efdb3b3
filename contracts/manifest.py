"""The manifest: the immutable description of a snapshot.

Invariant: a `Manifest` that came out of `parse_manifest` is whole and consistent in itself: every digest is
a digest, every size is bounded, and its deltas are one contiguous chain that passes the keyframe's database
and ends at `database`. Whether to believe it is decided elsewhere (mirror/trust.py).
Unknown fields are ignored, so that old mirrors survive new publishers. `docs/format.md` is normative.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Annotated, Any, Self

import msgspec
from msgspec import Meta, Struct

from contracts.errors import MalformedError, UnsupportedError

SCHEMA_VERSION = 1  # raised only by a change that an old mirror could not survive
# 256 deltas and the 640 blobs of a 10 GiB keyframe come to some 200 KiB.
MANIFEST_MAX_BYTES = 1 << 20
MAX_DELTAS = 256  # docs/format.md, "The chain"
SEGMENT_MIN_BYTES = 4096  # one database page
SEGMENT_MAX_BYTES = 64 << 20
# JSON numbers are exact up to 2^53 everywhere (RFC 8259, section 6).
_MAX_INT = (1 << 53) - 1

Digest = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
RandomId = Annotated[str, Meta(pattern=r"^[0-9a-f]{32}\Z")]
Count = Annotated[int, Meta(ge=0, le=_MAX_INT)]
Size = Annotated[int, Meta(ge=1, le=1 << 44)]
Sequence = Annotated[int, Meta(ge=1, le=_MAX_INT)]
Moment = Annotated[datetime, Meta(tz=True)]


class SnapshotManifest(Struct, frozen=True):
    """What an export counted: the part of a manifest that describes the catalogue.

    `generated_at` is RFC 3339 with an offset; `file_count` counts exported files, `cover_count` playlists
    with a cover.
    """

    snapshot_id: Annotated[str, Meta(min_length=1, max_length=200)]
    generated_at: Annotated[str, Meta(min_length=1, max_length=64)]
    schema_version: Annotated[int, Meta(ge=1, le=_MAX_INT)]
    playlist_count: Count
    track_count: Count
    file_count: Count
    cover_count: Count

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain JSON values."""
        fields: dict[str, Any] = msgspec.to_builtins(self)
        return fields

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Self:
        """The manifest with these fields; unknown ones are ignored, numbers may be strings.

        Raises:
            MalformedError: when a field is missing, of another type, or out of its bounds.
        """
        if not isinstance(fields, Mapping):
            raise MalformedError(f"a manifest is a JSON object, not {type(fields).__name__}")
        try:
            manifest = msgspec.convert({**fields}, cls, strict=False)
        except (msgspec.ValidationError, TypeError, ValueError, RecursionError) as error:
            raise MalformedError(f"malformed manifest: {error}") from error
        manifest.verify()
        return manifest

    def verify(self) -> None:
        """Check what the types of the fields cannot say.

        Raises:
            MalformedError: naming the first field that contradicts the format.
        """
        try:
            self.snapshot_id.encode()
        except UnicodeEncodeError as error:  # half a surrogate pair, from a caller's own text
            raise MalformedError("snapshot_id cannot be written as UTF-8") from error
        try:
            generated_at = datetime.fromisoformat(self.generated_at)
        except ValueError as error:
            raise MalformedError(f"generated_at is not a time: {self.generated_at!r}") from error
        if generated_at.tzinfo is None:
            raise MalformedError(f"generated_at has no offset from UTC: {self.generated_at!r}")


class Blob(Struct, frozen=True):
    """Bytes as stored: the SHA-256 digest that names them and their number."""

    digest: Digest
    size_bytes: Size


class Database(Struct, frozen=True):
    """A database file, by the SHA-256 digest of its bytes and their number."""

    digest: Digest
    size_bytes: Size


class Keyframe(Struct, frozen=True):
    """The blobs from which `database` is rebuilt with nothing else: segments of `segment_bytes`, in order."""

    database: Database
    segment_bytes: Annotated[int, Meta(ge=SEGMENT_MIN_BYTES, le=SEGMENT_MAX_BYTES)]
    blobs: tuple[Blob, ...]

    def segment_sizes(self) -> list[int]:
        """The size in bytes that each blob decompresses to."""
        size, segment = self.database.size_bytes, self.segment_bytes
        return [min(segment, size - start) for start in range(0, size, segment)]

    @property
    def segment_count(self) -> int:
        """How many blobs there must be; unlike their sizes, cheap to ask of a manifest that lies."""
        return -(-self.database.size_bytes // self.segment_bytes)

    @property
    def stored_bytes(self) -> int:
        """What a mirror downloads for it."""
        return sum(blob.size_bytes for blob in self.blobs)


class Delta(Struct, frozen=True):
    """The blobs that turn the database `base` into the database `target`."""

    base: Database
    target: Database
    blobs: tuple[Blob, ...]

    @property
    def stored_bytes(self) -> int:
        """What a mirror downloads for it."""
        return sum(blob.size_bytes for blob in self.blobs)


class Manifest(SnapshotManifest, frozen=True, kw_only=True):
    """The description of one snapshot, as every mirror reads it."""

    repository: RandomId
    sequence: Sequence
    publish_id: RandomId
    previous: Digest | None  # the digest of the manifest before; None for the first
    oldest_kept: Sequence  # the walk through `previous` ends at this sequence
    published_at: Moment
    expires_at: Moment
    database: Database
    keyframe: Keyframe
    deltas: Annotated[tuple[Delta, ...], Meta(max_length=MAX_DELTAS)] = ()
    held: bool = False  # after a rollback: later publishes only renew
    condemned: Digest | None = None  # the list of what a prune is about to delete

    @property
    def nodes(self) -> list[Database]:
        """The databases on the chain of deltas, oldest first; without deltas, only `database`."""
        return [delta.base for delta in self.deltas] + [self.database]

    def verify(self) -> None:
        super().verify()
        if (self.sequence == 1) != (self.previous is None):
            raise MalformedError("exactly the first manifest has no previous one")
        if self.oldest_kept > self.sequence:
            raise MalformedError("oldest_kept is younger than the manifest itself")
        if not timedelta() < self.expires_at - self.published_at:
            raise MalformedError("expires_at is not later than published_at")
        if len(self.keyframe.blobs) != self.keyframe.segment_count:
            raise MalformedError("the keyframe's blobs do not match its database's size")
        nodes = self.nodes
        for delta, after in zip(self.deltas, nodes[1:], strict=True):
            if delta.target != after:
                raise MalformedError("the deltas are not one chain that ends at the database")
            if not delta.blobs:
                raise MalformedError("a delta without blobs")
        if self.keyframe.database not in nodes:
            raise MalformedError("the keyframe's database is not on the chain of deltas")


def format_manifest(manifest: Manifest) -> bytes:
    """The bytes of a manifest: compact JSON, fields in the order of their declaration.

    Raises:
        MalformedError: when a field is out of its bounds, so that nobody could read them again.
    """
    stored = msgspec.json.encode(manifest)
    try:
        msgspec.json.decode(stored, type=Manifest)
    except msgspec.MsgspecError as error:
        raise MalformedError(f"a manifest that nobody could read: {error}") from error
    return stored


def parse_manifest(stored: bytes) -> Manifest:
    """The manifest in these bytes.

    Raises:
        MalformedError: when they are not a whole, consistent manifest.
        UnsupportedError: when they are of a schema version this program does not know.
    """
    if len(stored) > MANIFEST_MAX_BYTES:
        raise MalformedError(f"a manifest of {len(stored)} bytes; {MANIFEST_MAX_BYTES} are allowed")
    try:
        version = msgspec.json.decode(stored, type=_Versioned).schema_version
        if version != SCHEMA_VERSION:
            raise UnsupportedError(
                f"the manifest has schema version {version}; this program reads {SCHEMA_VERSION}"
            )
        manifest = msgspec.json.decode(stored, type=Manifest)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedError(f"malformed manifest: {error}") from error
    manifest.verify()
    return manifest


class _Versioned(Struct):
    schema_version: int
