"""Looks at a bucket directly, behind whatever goes wrong, and holds what must always be true of it.

Invariant: nothing here writes, and nothing is believed that a publisher or mirror says of itself. What was
seen once is remembered: a sequence has one manifest for ever, and what was acknowledged stays.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from http.client import HTTPConnection, HTTPResponse, RemoteDisconnected
from pathlib import Path
from urllib.parse import urlsplit

from contracts.digests import digest_bytes
from contracts.layout import POINTER_KEY, Kind, blob_key, format_key, manifest_key
from contracts.manifest import Blob, Manifest, format_manifest, parse_manifest
from contracts.minisign import PublicKey, parse_signature, verify_signature
from mirror import Mirror

Read = Callable[[str], bytes | None]
"""The bytes under a key, None when there is no such object."""


class PlainHttp:
    """Reads objects beneath an address with nothing but the standard library, over one connection."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        assert parts.hostname is not None
        self._connection = HTTPConnection(parts.hostname, parts.port, timeout=30)
        self._path = parts.path

    def read(self, key: str) -> bytes | None:
        """The object, or None."""
        try:
            response = self._get(key)
        except (RemoteDisconnected, ConnectionError):  # a server closes what was idle for minutes
            self._connection.close()
            response = self._get(key)
        body = response.read()
        assert response.status in (200, 404), f"{key}: {response.status} {body[:200]!r}"
        return body if response.status == 200 else None

    def _get(self, key: str) -> HTTPResponse:
        self._connection.request("GET", f"{self._path}/{key}")
        return self._connection.getresponse()

    def close(self) -> None:
        self._connection.close()


def read_folder(folder: Path) -> Read:
    """Reads objects from a folder store as anybody would."""

    def read(key: str) -> bytes | None:
        try:
            return (folder / key).read_bytes()
        except FileNotFoundError:
            return None

    return read


class Witness:
    """What one bucket has ever shown: `history` are its manifests and their digests, by sequence less one."""

    def __init__(
        self,
        read: Read,
        public_key: PublicKey | None = None,
        history: Sequence[tuple[str, Manifest]] = (),
    ) -> None:
        """A witness of a bucket; `history` is what another saw of it."""
        self._read = read
        self._public_key = public_key
        self.history = [*history]

    def verify(self) -> None:
        """The pointer names a complete snapshot, which follows every one that was seen before.

        Raises: AssertionError.
        """
        stored = self._read(POINTER_KEY)
        if stored is None:
            assert not self.history, "a pointer that was there is gone"
            return
        digest, manifest = digest_bytes(stored), parse_manifest(stored)
        if self.history and self.history[-1][0] == digest:
            return  # its blobs were there when it came; `verify_blobs` asks for all of them again
        self._append(digest, manifest)
        self._verify_blobs(manifest)

    def _append(self, digest: str, manifest: Manifest) -> None:
        """Walk from the pointer back to what is known."""
        walked = []
        while True:
            stored = self._read(manifest_key(digest))
            assert stored == format_manifest(manifest), f"manifest {manifest.sequence} is not the pointer's"
            self._verify_signature(digest, stored)
            walked.append((digest, manifest))
            if manifest.sequence == 1:
                assert manifest.previous is None
                break
            if manifest.sequence <= len(self.history) + 1:
                break
            assert manifest.previous is not None
            before = self._read(manifest_key(manifest.previous))
            assert before is not None, f"manifest {manifest.sequence - 1} is gone"
            assert digest_bytes(before) == manifest.previous
            older = parse_manifest(before)
            assert (older.sequence, older.repository) == (manifest.sequence - 1, manifest.repository)
            digest, manifest = manifest.previous, older
        assert manifest.sequence == len(self.history) + 1, (
            f"the pointer went from sequence {len(self.history)} to {manifest.sequence}: a fork, or back"
        )
        assert manifest.previous == (self.history[-1][0] if self.history else None), "a fork"
        self.history += reversed(walked)

    def _verify_signature(self, digest: str, stored: bytes) -> None:
        if self._public_key is not None:
            signature = self._read(format_key(Kind.SIGNATURE, digest))
            assert signature is not None, "a manifest without its signature"
            verify_signature(stored, parse_signature(signature), self._public_key)

    def _verify_blobs(self, manifest: Manifest) -> None:
        named = [*manifest.keyframe.blobs, *(blob for delta in manifest.deltas for blob in delta.blobs)]
        for blob in set(named):
            self._verify_blob(blob)

    def _verify_blob(self, blob: Blob) -> None:
        stored = self._read(blob_key(blob.digest))
        assert stored is not None, f"blob {blob.digest} is missing"
        assert (len(stored), digest_bytes(stored)) == (blob.size_bytes, blob.digest), "a blob is damaged"

    def verify_acknowledged(self, manifest: Manifest) -> None:
        """What a publish says is published is in the history."""
        digest = digest_bytes(format_manifest(manifest))
        assert digest in {seen for seen, _ in self.history}, (
            f"snapshot {manifest.sequence} was acknowledged and is lost"
        )

    def verify_all(self) -> None:
        """Every snapshot that was ever published is still whole: nothing was pruned."""
        self.verify()
        for _, manifest in self.history:
            self._verify_blobs(manifest)

    def verify_served(self, mirror: Mirror, before: int) -> int:
        """What a mirror serves was published, is whole, and not older than `before`; returns its sequence."""
        current = mirror.current()
        if current is None:
            assert before == 0, "a mirror that served serves nothing"
            return 0
        assert current.sequence >= before, f"a mirror went back from {before} to {current.sequence}"
        assert current.sequence <= len(self.history), "a mirror serves what was never published"
        assert self.history[current.sequence - 1][1].database == current.database
        with closing(mirror.connect()) as connection:
            served = Path(str(connection.execute("PRAGMA database_list").fetchone()[2]))
            assert connection.execute("PRAGMA quick_check").fetchall() == [("ok",)]
        assert digest_bytes(served.read_bytes()) == current.database.digest
        return current.sequence


def change_catalogue(path: Path, seed: str, songs: int = 3) -> None:
    """Rename some songs; every seed is another change."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(
            "UPDATE songs SET name = ? || id WHERE id IN (SELECT id FROM songs ORDER BY id LIMIT ?)",
            (seed, songs),
        )
