"""SHA-256 digests as this project writes them: 64 lowercase hexadecimal digits (FIPS 180-4)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from io import BufferedRandom, BufferedReader

from contracts.errors import DigestMismatchError


def digest_bytes(content: bytes) -> str:
    """The digest of these bytes."""
    return hashlib.sha256(content).hexdigest()


def digest_stream(stream: BufferedReader | BufferedRandom) -> str:
    """The digest of what is left to read in an open file."""
    return hashlib.file_digest(stream, "sha256").hexdigest()


def verify_pieces(pieces: Iterable[bytes], name: str, digest: str, size_bytes: int) -> Iterator[bytes]:
    """Pass the pieces on, and check their number and digest while they pass.

    Raises:
        DigestMismatchError: after the last piece, or as soon as there are more than `size_bytes`.
            Pieces already yielded are then worthless.
    """
    found = hashlib.sha256()
    passed = 0
    for piece in pieces:
        passed += len(piece)
        if passed > size_bytes:
            raise DigestMismatchError(name, f"{digest} in {size_bytes} bytes", "more bytes")
        found.update(piece)
        yield piece
    if passed != size_bytes or found.hexdigest() != digest:
        raise DigestMismatchError(
            name, f"{digest} in {size_bytes} bytes", f"{found.hexdigest()} in {passed} bytes"
        )
