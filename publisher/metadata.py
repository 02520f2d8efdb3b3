"""What of a song's `metadata_json` may become public.

Invariant: no key that names a secret or a place, at any depth, and no spelling of a place on the NAS
(publisher/places.py), leaves this module; text that is not JSON leaves it as NULL.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from typing import Any

import msgspec

from publisher.places import group_alike, holds_place

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
_FLAT_KEYS = 64  # keys of the largest flat object that gets a decoder of its own
_SEPARATORS = str.maketrans("", "", "-_ ")


def is_private_key(key: str) -> bool:
    """Whether a key of `metadata_json` names a secret or a place."""
    plain = key.lower().translate(_SEPARATORS)
    return plain.endswith("auth") or any(part in plain for part in PRIVATE_KEY_PARTS)


def public_metadata(
    places: Collection[bytes], allowed_keys: Collection[str] | None = None
) -> Callable[[bytes | None], bytes | None]:
    """A function from a `metadata_json` as stored to its public form, both UTF-8.

    Text that needs no change is returned as it stands; anything else is written anew, compactly.
    Args:
        places: spellings of places on the NAS; a string that contains one is removed with its key, and what
            contains one all the same, between two strings perhaps, becomes None.
        allowed_keys: when given, the only keys kept at the top level; what is no object becomes None.
    """
    raw_places = group_alike(places)
    # What is not UTF-8 stands in no string.
    text_places = group_alike(place.decode() for place in places if _is_utf8(place))
    # An escape may spell a key or a place in another way, and these bytes begin a place that needs none: text
    # with one of them is looked at value by value.
    marks: dict[int, list[bytes]] = {ord("\\"): [b"\\"]}  # by their first byte, which is found faster
    for begin, _ in group_alike(place for place in places if b"\\" not in place):
        marks.setdefault(begin[0], []).append(begin)
    allowed = None if allowed_keys is None else frozenset(allowed_keys)
    decode = msgspec.json.Decoder().decode
    # The same few keys come a million times, and mostly the same few sets of keys: for each number of keys,
    # the first public set found has a decoder that accepts nothing else.
    verdicts: dict[str, bool] = {}
    flat_decoders: dict[int, Callable[[bytes], object]] = {}

    def is_public_key(key: str) -> bool:
        verdict = verdicts.get(key)
        if verdict is None:
            if len(verdicts) > _MEMORY:
                verdicts.clear()
            verdict = verdicts[key] = not (is_private_key(key) or holds_place(key, text_places))
        return verdict

    def is_public_item(item: Any) -> bool:
        return type(item) is not str or not holds_place(item, text_places)

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

    def is_marked(stored: bytes) -> bool:
        return any(begin in stored for begins in marks.values() for begin in begins)

    def is_public_flat_object(stored: bytes, value: Any) -> bool:
        """Whether the text is one object without inner ones, and nothing in it is private."""
        if type(value) is not dict or stored.count(b":") != len(value):
            return False
        if is_marked(stored) or not all(map(is_public_key, value)):
            return False
        return allowed is None or allowed.issuperset(value)

    def filtered(stored: bytes | None) -> bytes | None:
        if stored is None:
            return None
        decode_flat = flat_decoders.get(stored.count(b":"))
        if decode_flat is None:
            return filtered_by_value(stored)
        for first in marks:
            if first in stored and is_marked(stored):
                return filtered_by_value(stored)
        try:
            decode_flat(stored)
        except ValueError:  # msgspec's own errors are, too
            return filtered_by_value(stored)
        return stored

    def filtered_by_value(stored: bytes) -> bytes | None:
        try:
            value = decode(stored)
            if is_public_flat_object(stored, value):
                if len(value) <= _FLAT_KEYS and len(value) not in flat_decoders:
                    flat_decoders[len(value)] = _flat_decoder(value)
                return stored
            if allowed is not None:
                if type(value) is not dict:
                    return None
                public = publish({key: item for key, item in value.items() if key in allowed})
            elif is_public_item(value):
                public = publish(value)
            else:
                return None
            is_same = public == value and not _repeats_keys(stored)
            written = stored if is_same else msgspec.json.encode(public)
            return None if holds_place(written, raw_places) else written
        except (msgspec.MsgspecError, ValueError, RecursionError):
            return None

    return filtered


def _is_utf8(stored: bytes) -> bool:
    try:
        stored.decode()
    except UnicodeDecodeError:
        return False
    return True


def _flat_decoder(keys: Collection[str]) -> Callable[[bytes], object]:
    """A decoder of objects that have each of these keys, no other key, and only plain values.

    It accepts a repeated key: an object with as many colons as keys has none.
    """
    names = {f"key_{number}": key for number, key in enumerate(keys)}
    fields = [(name, str | int | float | bool | None) for name in names]
    flat = msgspec.defstruct("Flat", fields, rename=names, forbid_unknown_fields=True, gc=False)
    return msgspec.json.Decoder(flat).decode


def _repeats_keys(stored: bytes) -> bool:
    """Whether a key stands twice in one object: a decoder shows only the last, the text holds both."""
    repeated = False

    def look(pairs: list[tuple[str, Any]]) -> None:
        nonlocal repeated
        repeated = repeated or len({key for key, _ in pairs}) < len(pairs)

    json.loads(stored, object_pairs_hook=look)
    return repeated
