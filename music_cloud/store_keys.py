"""Which keys a store's signatures are held to: those that are named, and those that they handed over to.

Invariant: a key counts only when it was named, or when a key that counts has signed that it follows. That is
the mirror's own judgement (mirror/keys.py), so that operators see what mirrors see.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from contracts.digests import digest_bytes
from contracts.errors import (
    AccessDenied,
    ContractError,
    MalformedError,
    ObjectMissing,
    SignatureError,
)
from contracts.layout import Kind, format_key
from contracts.minisign import SIGNATURE_MAX_BYTES, PublicKey, parse_public_key, parse_signature
from mirror.keys import Keys
from mirror.signatures import fetch_proof
from music_cloud.settings import Settings
from music_cloud.status import Signature
from stores.base import ReadableStore, read_whole


class KnownKeys(NamedTuple):
    """Whether the pointer is signed as it should be, and all keys that may have signed what came before."""

    signature: Signature
    keys: tuple[PublicKey, ...]


def named_keys(settings: Settings) -> tuple[PublicKey, ...]:
    """The public keys that the settings name; none where nothing is asked.

    Raises:
        SettingsError: when one is no key.
    """
    return settings.pinned_keys() if settings.public_keys else ()


def judge_signature(store: ReadableStore, stored: bytes, named: Sequence[PublicKey]) -> KnownKeys:
    """Who has signed the bytes of a pointer, as a mirror that pins these keys would see it.

    Raises:
        AccessDenied, StoreUnavailable, StoreError: as the store does.
    """
    if not named:
        return KnownKeys(_look_at_signature(store, stored), ())
    try:
        proof = fetch_proof(store, stored, Keys(named), is_last_try=True)
    except ContractError as error:
        return KnownKeys(Signature("bad", None, str(error)), tuple(named))
    signer = proof.signed_by
    assert signer is not None  # keys were named
    followed = [parse_public_key(line) for step in proof.followed for line in (step.old, step.new)]
    keys = tuple(dict.fromkeys((*named, *followed)))
    if proof.is_retired:
        problem = f"what is published is signed by key {signer.key_id}, which has handed over to another"
        return KnownKeys(Signature("bad", signer.key_id, problem), keys)
    return KnownKeys(Signature("good", signer.key_id), keys)


def _look_at_signature(store: ReadableStore, stored: bytes) -> Signature:
    """Which key a signature claims to be by, when nobody says which to believe."""
    try:
        content = read_whole(store.get(format_key(Kind.SIGNATURE, digest_bytes(stored))), SIGNATURE_MAX_BYTES)
        return Signature("unchecked", parse_signature(content).key_id)
    except (ObjectMissing, AccessDenied):
        # Where nobody may list a bucket, S3 calls what is missing forbidden.
        return Signature("none")
    except (MalformedError, SignatureError) as error:
        return Signature("bad", None, f"the signature of what is published cannot be read: {error}")
