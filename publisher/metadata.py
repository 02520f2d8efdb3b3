"""What of a song's `metadata_json` may become public.

Invariant: no key that names a secret or a place, at any depth, and no string that holds a base path of a
storage backend, leaves this module; text that is not JSON leaves it as NULL.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from typing import Any

import msgspec

# A key is private when its lower-case form without "-", "_" and spaces contains one of these: rather one
# key too many than one secret too few. docs/settings.md lists them for operators.
PRIVATE_KEY_PARTS = (
    "accesskey",
    "apikey",
    "authori",
    "cookie",
    "credential",
    "directory",
    "filename",
    "folder",
    "passwd",
    "password",
    "path",
    "secret",
    "session",
    "signature",
    "token",
)
_MEMORY = 4096  # entries; bounds what an endless variety of keys can hold
_SEPARATORS = str.maketrans("", "", "-_ ")


def is_private_key(key: str) -> bool:
    """Whether a key of `metadata_json` names a secret or a place."""
    plain = key.lower().translate(_SEPARATORS)
    return plain.endswith("auth") or any(part in plain for part in PRIVATE_KEY_PARTS)


def public_metadata(
    base_paths: Collection[str], allowed_keys: Collection[str] | None = None
) -> Callable[[bytes | None], bytes | None]:
    """A function from a `metadata_json` as stored to its public form, both UTF-8.

    Text that needs no change is returned as it stands; anything else is written anew, compactly.
    Args:
        base_paths: folders of the storage backends; a string that contains one is removed with its key.
        allowed_keys: when given, the only keys kept at the top level; what is no object becomes None.
    """
    places = tuple(path for path in base_paths if len(path) > 1)
    # An escape may spell a key or a place in another way, and these bytes begin a place: text with one of
    # them is looked at value by value.
    marks = {ord("\\"), *(place.encode()[0] for place in places)}
    allowed = None if allowed_keys is None else frozenset(allowed_keys)
    decode = msgspec.json.Decoder().decode
    # The same few keys, and the same few sequences of keys, come a million times.
    verdicts: dict[str, bool] = {}
    public_shapes: set[tuple[str, ...]] = set()

    def is_public_key(key: str) -> bool:
        verdict = verdicts.get(key)
        if verdict is None:
            if len(verdicts) > _MEMORY:
                verdicts.clear()
            verdict = verdicts[key] = not (is_private_key(key) or any(place in key for place in places))
        return verdict

    def is_public_item(item: Any) -> bool:
        return type(item) is not str or not any(place in item for place in places)

    def publish(value: Any) -> Any:
        if type(value) is dict:
            return {
                key: publish(item)
                for key, item in value.items()
                if is_public_key(key) and is_public_item(item)
            }
        if type(value) is list:
            return [publish(item) for item in value if is_public_item(item)]
        return value

    def has_public_shape(keys: tuple[str, ...]) -> bool:
        if not all(map(is_public_key, keys)) or (allowed is not None and not allowed.issuperset(keys)):
            return False
        if len(public_shapes) > _MEMORY:
            public_shapes.clear()
        public_shapes.add(keys)
        return True

    def filtered(stored: bytes | None) -> bytes | None:
        if stored is None:
            return None
        try:
            value = decode(stored)
            if type(value) is dict and stored.count(b":") == len(value):
                # One flat object whose keys all show: when no place is in its text, the keys alone decide.
                for mark in marks:
                    if mark in stored:
                        break
                else:
                    keys = tuple(value)
                    if keys in public_shapes or has_public_shape(keys):
                        return stored
            if allowed is not None:
                if type(value) is not dict:
                    return None
                public = publish({key: item for key, item in value.items() if key in allowed})
            elif is_public_item(value):
                public = publish(value)
            else:
                return None
            if public == value and not _repeats_keys(stored):
                return stored
            return msgspec.json.encode(public)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            return None

    return filtered


def _repeats_keys(stored: bytes) -> bool:
    """Whether a key stands twice in one object: a decoder shows only the last, the text holds both."""
    repeated = False

    def look(pairs: list[tuple[str, Any]]) -> None:
        nonlocal repeated
        repeated = repeated or len({key for key, _ in pairs}) < len(pairs)

    json.loads(stored, object_pairs_hook=look)
    return repeated
