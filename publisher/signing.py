"""The publisher's key: read it, sign manifests with it, hand over from it to the next.

Invariant: what is signed twice has the same bytes, so that a signature is an object like any other, created
once and found there by a repetition. A key that others may read is not used.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from contracts.digests import digest_bytes
from contracts.errors import (
    MalformedError,
    ObjectMissing,
    PreconditionFailed,
    SignatureError,
    UnsupportedError,
)
from contracts.layout import Kind, format_key
from contracts.manifest import Manifest, format_manifest
from contracts.minisign import KEY_FILE_MAX_BYTES, SIGNATURE_MAX_BYTES, PublicKey, SecretKey, parse_secret_key
from contracts.succession import (
    SUCCESSION_MAX_BYTES,
    SignedSuccession,
    sign_succession,
    succession_keys,
    verify_succession,
)
from publisher.pointer import Pointer
from stores.base import Create, Store, read_whole


def load_signing_key(path: Path) -> SecretKey:
    """The secret key in a file.

    Raises:
        SignatureError: when others than its owner may read or write the file, as ssh refuses such keys.
        MalformedError: when it is no secret key, or a damaged one.
        UnsupportedError: when it is encrypted.
        OSError: when it cannot be read.
    """
    with path.open("rb") as stream:
        mode = stat.S_IMODE(os.fstat(stream.fileno()).st_mode)
        if os.name == "posix" and mode & 0o077:
            raise SignatureError(
                f"others than its owner may use the secret key {path} (mode {mode:04o}); run `chmod 600` on "
                "it, and make a new key if anybody could have read this one"
            )
        stored = stream.read(KEY_FILE_MAX_BYTES + 1)
    if len(stored) > KEY_FILE_MAX_BYTES:
        raise MalformedError(f"{path} is too large for a secret key")
    try:
        return parse_secret_key(stored)
    except (MalformedError, UnsupportedError) as error:
        raise type(error)(f"{path}: {error}") from error


def sign_manifest(key: SecretKey, manifest: Manifest) -> bytes:
    """The signature of a manifest.

    Its trusted comment is as minisign itself would write it, for whoever verifies by hand. The time is the
    manifest's own, so that the same manifest always has the same signature.
    """
    stored = format_manifest(manifest)
    timestamp = int(manifest.published_at.timestamp())
    return key.sign(stored, f"timestamp:{timestamp}\tfile:{digest_bytes(stored)}.json\thashed")


def is_signed(store: Store, base: Pointer, key: SecretKey | None) -> bool:
    """Whether what is published has the signature that this key gives it, to the letter; without one, not.

    Signing is cheaper than finding out what is wrong with a signature: one that is missing, by another key,
    of another date or damaged is not this one.
    Raises: AccessDenied, StoreUnavailable.
    """
    if key is None:
        return False
    found = _fetch(store, format_key(Kind.SIGNATURE, base.digest), SIGNATURE_MAX_BYTES)
    return found == sign_manifest(key, base.manifest)


def verify_not_retired(store: Store, key: SecretKey) -> None:
    """Check that a key has not handed over in this store: mirrors would refuse what it signs.

    Raises:
        SignatureError: when it has, naming its successor.
        AccessDenied, StoreUnavailable: as the store does.
    """
    name, signature_name = succession_keys(key.public.key_id)
    stored = _fetch(store, name, SUCCESSION_MAX_BYTES)
    signature = None if stored is None else _fetch(store, signature_name, SIGNATURE_MAX_BYTES)
    if stored is None or signature is None:
        return
    try:
        new = verify_succession(SignedSuccession(stored, signature), key.public)
    except (SignatureError, MalformedError):  # not by this key: no mirror follows it either
        return
    raise SignatureError(f"key {key.public.key_id} has handed over to {new.key_id}; sign with that one")


def publish_succession(store: Store, old: SecretKey, new: PublicKey) -> bool:
    """Let a key name its successor in a store, once and for all; False when it has done so before.

    Raises:
        SignatureError: when it has named another one, or the new key has itself handed over already.
        MalformedError: when both are one key.
        PreconditionFailed, AccessDenied, StoreUnavailable: as the store does.
    """
    succession = sign_succession(old, new)
    name, signature_name = succession_keys(old.public.key_id)
    further, _ = succession_keys(new.key_id)
    if _fetch(store, further, SUCCESSION_MAX_BYTES) is not None:
        raise SignatureError(f"key {new.key_id} has handed over itself; make a new one")
    # Whoever finds the first object looks for its signature: so that comes before it.
    is_new = _create(store, signature_name, succession.signature)
    return _create(store, name, succession.stored) or is_new


def _create(store: Store, key: str, content: bytes) -> bool:
    """Put an object that is not there yet; False when it is there already, with these bytes."""
    found = _fetch(store, key, SIGNATURE_MAX_BYTES)
    if found is None:
        try:
            store.put(key, content, Create())
            return True
        except PreconditionFailed:  # an answer was lost, or somebody else did the same
            found = _fetch(store, key, SIGNATURE_MAX_BYTES)
    if found != content:
        raise SignatureError(
            f"{store.address} has another {key}: this key has named its successor before, and mirrors hold "
            "it to that"
        )
    return False


def _fetch(store: Store, key: str, max_bytes: int) -> bytes | None:
    """A small object; None when there is none, and nothing that could be ours when it is larger."""
    try:
        return read_whole(store.get(key), max_bytes)
    except ObjectMissing:
        return None
    except MalformedError:
        return b""
