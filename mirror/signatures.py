"""Fetches what proves a pointer: its signature, and the successions from a pinned key to its signer.

Invariant: the bytes of the pointer are only passed on, never decoded. Successions are looked for only when
the signer is not known: they cost requests, and a store that hides one gains nothing that it could not have
by hiding what the new key signs.
"""

from __future__ import annotations

from contracts.digests import digest_bytes
from contracts.errors import (
    AccessDenied,
    EquivocationError,
    MalformedError,
    ObjectMissing,
    SignatureError,
)
from contracts.layout import POINTER_KEY, Kind, format_key
from contracts.minisign import SIGNATURE_MAX_BYTES, PublicKey, parse_public_key, parse_signature
from contracts.succession import SUCCESSION_MAX_BYTES, SignedSuccession, succession_keys
from mirror.keys import Keys, Proof
from stores.base import ReadableStore, read_whole


def fetch_proof(store: ReadableStore, stored: bytes, keys: Keys, is_last_try: bool) -> Proof:
    """The proof that the bytes of a pointer were signed by one of these keys, or by one that follows them.

    Raises:
        ObjectMissing: when there is no signature, and this is not the last try: the pointer may have moved.
        SignatureError: when there is none, or it is not by a key that is trusted or was once.
        EquivocationError: when a key that has handed over does so to another one now.
        MalformedError: when a key has signed something that is no succession.
        StoreUnavailable, StoreError: as the store does.
    """
    key = format_key(Kind.SIGNATURE, digest_bytes(stored))
    content = _fetch(store, key, SIGNATURE_MAX_BYTES)
    if content is None and not is_last_try:
        raise ObjectMissing(key)
    if content is None:
        raise SignatureError(f"{POINTER_KEY} is not signed: the store has no {key}")
    try:
        signature = parse_signature(content)
        while keys.find_signer(signature) is None:
            further = _follow_one(store, keys)
            if further is None:
                _verify_unchanged(store, keys)
                break
            keys = further
        return keys.prove(stored, signature)
    except SignatureError as error:
        raise SignatureError(f"{POINTER_KEY} is not believed: {error} ({key})") from error


def _follow_one(store: ReadableStore, keys: Keys) -> Keys | None:
    """The keys after the first of them that has handed over; None when none has."""
    for old in keys.current:
        succession = _fetch_succession(store, old)
        if succession is not None:
            return keys.follow(old, succession)
    return None


def _fetch_succession(store: ReadableStore, old: PublicKey) -> SignedSuccession | None:
    """What a key has signed of its successor; None when it has none, or not yet both of the two objects."""
    name, signature_name = succession_keys(old.key_id)
    stored = _fetch(store, name, SUCCESSION_MAX_BYTES)
    signature = None if stored is None else _fetch(store, signature_name, SIGNATURE_MAX_BYTES)
    return None if stored is None or signature is None else SignedSuccession(stored, signature)


def _verify_unchanged(store: ReadableStore, keys: Keys) -> None:
    """Check that no key that was followed hands over to somebody else now: what names a stranger's key."""
    for step in keys.followed:
        old = parse_public_key(step.old)
        stored = _fetch(store, succession_keys(old.key_id)[0], SUCCESSION_MAX_BYTES)
        if stored is not None and digest_bytes(stored) != step.digest:
            raise EquivocationError(
                f"{succession_keys(old.key_id)[0]} is not what it was when this mirror followed it to key "
                f"{parse_public_key(step.new).key_id}"
            )


def _fetch(store: ReadableStore, key: str, max_bytes: int) -> bytes | None:
    """A small object; None when there is none. Where nobody may list a bucket, S3 calls that forbidden."""
    try:
        return read_whole(store.get(key), max_bytes)
    except (ObjectMissing, AccessDenied):
        return None
    except MalformedError as error:
        raise SignatureError(f"{key}: {error}") from error
