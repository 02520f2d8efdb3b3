"""Succession: a key names, and signs, the key that follows it.

Invariant: a successor that came out of `verify_succession` was named by its predecessor; nothing is decoded
before that is certain. What a key signs here is never a manifest, and no manifest is this: `format` tells.
How far to walk, and what a mirror remembers of it, is mirror/keys.py. docs/format.md, "Succession".
"""

from __future__ import annotations

from typing import Literal

import msgspec

from contracts.errors import MalformedError
from contracts.layout import Kind, format_key
from contracts.minisign import PublicKey, SecretKey, parse_public_key, parse_signature, verify_signature

SUCCESSION_MAX_BYTES = 4096  # ours has 180
_FORMAT: Literal["music-cloud/succession/1"] = "music-cloud/succession/1"


class _Succession(msgspec.Struct, frozen=True):
    format: Literal["music-cloud/succession/1"]
    old_key: str
    new_key: str


class SignedSuccession(msgspec.Struct, frozen=True):
    """The bytes of both objects."""

    stored: bytes
    signature: bytes


def succession_keys(old_key_id: str) -> tuple[str, str]:
    """The keys of both objects in the bucket: what names the successor, and its signature.

    Raises:
        MalformedError: when it is no key id.
    """
    kinds = (Kind.SUCCESSION, Kind.SUCCESSION_SIGNATURE)
    return format_key(kinds[0], old_key_id), format_key(kinds[1], old_key_id)


def sign_succession(old: SecretKey, new: PublicKey) -> SignedSuccession:
    """Hand over from one key to another; the same two always give the same bytes.

    Raises:
        MalformedError: when they are one key, or have one id.
    """
    if old.public.number == new.number:
        raise MalformedError("a key cannot follow itself")
    stored = msgspec.json.encode(_Succession(_FORMAT, old.public.line, new.line))
    return SignedSuccession(stored, old.sign(stored, f"file:{old.public.key_id}.json\thashed"))


def verify_succession(succession: SignedSuccession, old: PublicKey) -> PublicKey:
    """The successor that a key has named.

    Raises:
        SignatureError: when it was not this key that signed.
        MalformedError: when it has signed something else than who follows it.
    """
    verify_signature(succession.stored, parse_signature(succession.signature), old)
    if len(succession.stored) > SUCCESSION_MAX_BYTES:
        raise MalformedError(f"a succession of {len(succession.stored)} bytes")
    try:
        names = msgspec.json.decode(succession.stored, type=_Succession)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedError(f"what follows key {old.key_id} is malformed: {error}") from error
    if parse_public_key(names.old_key) != old:
        raise MalformedError(f"what key {old.key_id} has signed names the successor of another key")
    new = parse_public_key(names.new_key)
    if new.number == old.number:
        raise MalformedError(f"key {old.key_id} names itself as its successor")
    return new
