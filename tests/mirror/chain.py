"""A publisher of chains: real databases, each with the delta from the one before, in a bucket in memory."""

from __future__ import annotations

import shutil
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

from contracts.digests import digest_bytes
from contracts.keyframe import encode_segment
from contracts.layout import POINTER_KEY, blob_key
from contracts.manifest import Blob, Database, Delta, Keyframe, Manifest, format_manifest
from contracts.page_delta_encoder import changed_pages, encode_delta
from mirror import Mirror
from music_cloud.sample import create_catalogue, evolve
from publisher.export import build_database
from publisher.refresh import refresh_database
from stores import MemoryStore

NOW = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)
SEGMENT_BYTES = 16 << 10
PUBLISHES = 100  # how many deltas the chain of the tests has


class Chain:
    """The databases of a catalogue, oldest first, and a bucket for them; `point` moves its pointer."""

    def __init__(self, folder: Path, songs: int = 100) -> None:
        self.store = MemoryStore()
        self.files: list[Path] = []
        self.deltas: list[Delta] = []
        self._folder = folder
        self._catalogue = folder / "catalogsync.db"
        self.sequence = 0
        self.pointed = folder / "0000.db"  # what was published last
        create_catalogue(self._catalogue, songs=songs)
        first = folder / "0000.db"
        build_database(self._catalogue, first, now=NOW)
        self.files.append(first)

    def copy(self) -> Chain:
        """The same chain in a bucket of its own."""
        other = object.__new__(Chain)
        other.__dict__.update(self.__dict__)
        other.store = MemoryStore()
        other.store.objects.update(self.store.objects)
        other.files, other.deltas = [*self.files], [*self.deltas]
        return other

    def grow(self, publishes: int = 1) -> None:
        """Change the catalogue and append what it is then."""
        for _ in range(publishes):
            number = len(self.files)
            evolve(self._catalogue, churn="hour", seed=number)
            path = Path(shutil.copy(self.files[-1], self._folder / f"{number:04d}.db"))
            refresh_database(self._catalogue, path)
            self.append(path)

    def append(self, path: Path) -> None:
        """Append a database, also one that is on the chain already."""
        self.deltas.append(self.make_delta(self.files[-1], path))
        self.files.append(path)

    def make_delta(self, base: Path, target: Path) -> Delta:
        """The delta between two databases, its blobs in the bucket."""
        with base.open("rb") as old, target.open("rb") as new:
            blobs = [self.put(stored) for stored in encode_delta(old, new, changed_pages(old, new))]
        return Delta(database_of(base), database_of(target), tuple(blobs))

    def make_keyframe(self, node: int) -> Keyframe:
        """The keyframe of a database on the chain, its blobs in the bucket."""
        content = self.files[node].read_bytes()
        segments = [content[at : at + SEGMENT_BYTES] for at in range(0, len(content), SEGMENT_BYTES)]
        blobs = [self.put(encode_segment(segment)) for segment in segments]
        return Keyframe(database_of(self.files[node]), SEGMENT_BYTES, tuple(blobs))

    def put(self, stored: bytes) -> Blob:
        """Put a blob in the bucket."""
        blob = Blob(digest_bytes(stored), len(stored))
        self.store.objects[blob_key(blob.digest)] = stored
        return blob

    def point(self, last: int = -1, *, first: int = 0, keyframe: int = 0, now: datetime = NOW) -> Manifest:
        """Publish the database `last`, with the chain from `first` on and the keyframe of another node."""
        last %= len(self.files)
        self.sequence += 1
        manifest = Manifest(
            snapshot_id="snap-playlists-1-tracks-100-000000000000",
            generated_at="2026-11-22T12:00:00Z",
            schema_version=1,
            playlist_count=1,
            track_count=100,
            file_count=100,
            cover_count=0,
            repository="a" * 32,
            sequence=self.sequence,
            publish_id=f"{self.sequence:032x}",
            previous=None if self.sequence == 1 else "b" * 64,
            oldest_kept=1,
            published_at=now,
            expires_at=now + timedelta(days=14),
            database=database_of(self.files[last]),
            keyframe=self.make_keyframe(keyframe % len(self.files)),
            deltas=tuple(self.deltas[first:last]),
        )
        self.serve(manifest)
        self.pointed = self.files[last]
        return manifest

    def serve(self, manifest: Manifest) -> None:
        """Move the pointer to this manifest, whatever it says."""
        self.store.objects[POINTER_KEY] = format_manifest(manifest)


def database_of(path: Path) -> Database:
    """The digest and the size of a file."""
    content = path.read_bytes()
    return Database(digest_bytes(content), len(content))


def served_file(mirror: Mirror) -> Path:
    """The file that a query reads."""
    with closing(mirror.connect()) as connection:
        (_, _, path) = connection.execute("PRAGMA database_list").fetchone()
    return Path(path)


def serves(mirror: Mirror, path: Path) -> bool:
    """Whether a query reads the same bytes as are in this file."""
    return served_file(mirror).read_bytes() == path.read_bytes()
