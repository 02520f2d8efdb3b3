"""Asks a store, before the first publish to it, whether it honours preconditions.

Invariant: the only object that is written is a scratch key of our own, which is deleted again. A store that
answers "written" to a write whose condition fails would let two publishers overwrite each other.
"""

from __future__ import annotations

import secrets
from contextlib import suppress

from contracts.errors import ObjectMissing, PreconditionFailed, StoreError, UnsuitableStore
from stores.base import Create, Store, Update

_HINT = "use another store, or --single-publisher when this is the only machine that ever publishes to it"


def verify_preconditions(store: Store) -> None:
    """Check that conditional writes to a store hold.

    Raises:
        UnsuitableStore: naming the condition that the store ignores or refuses.
        AccessDenied, StoreUnavailable: as the store does.
    """
    key = f"probe-{secrets.token_hex(16)}"
    try:
        etag = _create(store, key)
        if not _refuses(store, key, Create()):
            raise UnsuitableStore(
                f"{store.address} overwrites an object that should only be created; {_HINT}"
            )
        if not _refuses(store, key, Update('"00000000000000000000000000000000"')):
            raise UnsuitableStore(f"{store.address} overwrites an object that has changed; {_HINT}")
        try:
            store.put(key, b"second", Update(etag))
        except PreconditionFailed as error:
            raise UnsuitableStore(
                f"{store.address} refuses to update an object that has not changed; {_HINT}"
            ) from error
        store.delete(key)
        if not _refuses(store, key, Update(etag)):
            raise UnsuitableStore(f"{store.address} updates an object that is gone; {_HINT}")
        try:
            store.head(key)
        except ObjectMissing:
            return
        raise UnsuitableStore(f"{store.address} does not delete what it is told to delete")
    finally:
        with suppress(StoreError):  # what the probe found matters more than what it leaves
            store.delete(key)


def _create(store: Store, key: str) -> str:
    try:
        return store.put(key, b"first", Create())
    except PreconditionFailed:  # an answer was lost, and the repetition met our own object
        return store.head(key).etag


def _refuses(store: Store, key: str, mode: Create | Update) -> bool:
    try:
        store.put(key, b"second", mode)
    except PreconditionFailed:
        return True
    return False
