"""The names of everything in the bucket; path algebra with no store in sight.

Invariant: a key made here parses back to what it was made of, and no other spelling parses.
`docs/format.md`, "The bucket", is the normative text.
"""

from __future__ import annotations

import re
from enum import Enum
from typing import NamedTuple

from contracts.errors import MalformedError

POINTER_KEY = "manifest.json"

# RFC 9111 and RFC 5861: edges may serve the pointer 15 s without asking, another minute while they ask,
# and a day while the store is down; a mirror's rollback alarm allows for the sum (mirror/trust.py).
POINTER_CACHE_CONTROL = "public, max-age=15, stale-while-revalidate=60, stale-if-error=86400"
# RFC 8246: what is named by its digest never changes.
IMMUTABLE_CACHE_CONTROL = "public, max-age=31536000, immutable"

_DIGEST = re.compile(r"[0-9a-f]{64}")
_KEY_ID = re.compile(r"[0-9A-F]{16}")


class Kind(Enum):
    """What an object of the bucket is."""

    POINTER = "pointer"
    MANIFEST = "manifest"
    SIGNATURE = "signature"
    BLOB = "blob"
    SUCCESSION = "succession"
    SUCCESSION_SIGNATURE = "succession signature"


class ObjectName(NamedTuple):
    """A parsed key: what the object is, and the digest or key id in its name ("" for the pointer)."""

    kind: Kind
    name: str


_PATTERNS: tuple[tuple[Kind, str, str, re.Pattern[str]], ...] = (
    (Kind.MANIFEST, "manifests/", ".json", _DIGEST),
    (Kind.SIGNATURE, "manifests/", ".minisig", _DIGEST),
    (Kind.BLOB, "blobs/", "", _DIGEST),
    (Kind.SUCCESSION, "keys/", ".json", _KEY_ID),
    (Kind.SUCCESSION_SIGNATURE, "keys/", ".minisig", _KEY_ID),
)
_CONTENT_TYPES = {
    Kind.POINTER: "application/json",
    Kind.MANIFEST: "application/json",
    Kind.SUCCESSION: "application/json",
    Kind.SIGNATURE: "text/plain; charset=utf-8",
    Kind.SUCCESSION_SIGNATURE: "text/plain; charset=utf-8",
    Kind.BLOB: "application/zstd",  # RFC 8878, section 7.1
}


def format_key(kind: Kind, name: str = "") -> str:
    """The key of an object.

    Raises:
        MalformedError: when `name` is not the digest or key id that this kind is named by.
    """
    if kind is Kind.POINTER:
        return POINTER_KEY
    for candidate, prefix, suffix, grammar in _PATTERNS:
        if candidate is kind and grammar.fullmatch(name):
            return f"{prefix}{name}{suffix}"
    raise MalformedError(f"{name!r} cannot name a {kind.value}")


def parse_key(key: str) -> ObjectName:
    """What a key names; the inverse of `format_key`.

    Raises:
        MalformedError: when the layout has no such name.
    """
    if key == POINTER_KEY:
        return ObjectName(Kind.POINTER, "")
    for kind, prefix, suffix, grammar in _PATTERNS:
        if key.startswith(prefix) and key.endswith(suffix):
            name = key.removeprefix(prefix).removesuffix(suffix)
            if grammar.fullmatch(name):
                return ObjectName(kind, name)
    raise MalformedError(f"{key[:200]!r} is not a name of the bucket's layout")


def blob_key(digest: str) -> str:
    """The key of the blob with that digest. Raises MalformedError as `format_key` does."""
    return format_key(Kind.BLOB, digest)


def manifest_key(digest: str) -> str:
    """The key of the immutable manifest with that digest. Raises MalformedError as `format_key` does."""
    return format_key(Kind.MANIFEST, digest)


def cache_control(kind: Kind) -> str:
    """The Cache-Control header that every server of the bucket sends with an object of this kind."""
    return POINTER_CACHE_CONTROL if kind is Kind.POINTER else IMMUTABLE_CACHE_CONTROL


def content_type(kind: Kind) -> str:
    """The media type of an object of this kind."""
    return _CONTENT_TYPES[kind]
