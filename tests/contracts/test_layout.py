"""The names of the bucket: golden keys, one spelling of each, the headers they are served with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TypedDict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.errors import MalformedError
from contracts.layout import (
    Kind,
    ObjectName,
    blob_key,
    cache_control,
    content_type,
    format_key,
    manifest_key,
    parse_key,
)

VECTORS = Path(__file__).parent.parent / "vectors"
DIGEST = "0123456789abcdef" * 4

NAMES = st.one_of(
    st.just((Kind.POINTER, "")),
    st.tuples(
        st.sampled_from([Kind.MANIFEST, Kind.SIGNATURE, Kind.BLOB]),
        st.from_regex("[0-9a-f]{64}", fullmatch=True),
    ),
    st.tuples(
        st.sampled_from([Kind.SUCCESSION, Kind.SUCCESSION_SIGNATURE]),
        st.from_regex("[0-9A-F]{16}", fullmatch=True),
    ),
)


class Entry(TypedDict):
    kind: str
    name: str
    key: str
    content_type: str
    cache_control: str


def vectors() -> list[Entry]:
    entries: list[Entry] = json.loads((VECTORS / "layout.json").read_bytes())
    return entries


@pytest.mark.parametrize("entry", vectors(), ids=lambda entry: entry["kind"])
def test_golden_key_names_its_object_and_its_headers(entry: Entry) -> None:
    """As docs/format.md, "The bucket", has them."""
    kind = Kind(entry["kind"])
    assert entry["key"] == format_key(kind, entry["name"])
    assert ObjectName(kind, entry["name"]) == parse_key(entry["key"])
    assert entry["content_type"] == content_type(kind)
    assert entry["cache_control"] == cache_control(kind)


def test_every_kind_has_a_golden_key() -> None:
    assert {kind.value for kind in Kind} == {entry["kind"] for entry in vectors()}


@given(NAMES)
def test_key_parses_back_to_what_it_was_made_of(name: tuple[Kind, str]) -> None:
    assert name == parse_key(format_key(*name))


@given(st.text())
def test_only_what_format_key_makes_parses(key: str) -> None:
    try:
        kind, name = parse_key(key)
    except MalformedError:
        return
    assert key == format_key(kind, name)


@pytest.mark.parametrize(
    "key",
    [
        "",
        "/",
        "manifest.json/",
        "/manifest.json",
        "Manifest.json",
        "manifest.json\n",
        "manifests/.json",
        f"manifests/{DIGEST}",
        f"manifests/{DIGEST}.JSON",
        f"manifests//{DIGEST}.json",
        f"manifests/../blobs/{DIGEST}",
        f"blobs/{DIGEST}\n",
        f"blobs/{DIGEST.upper()}",
        f"blobs/{DIGEST}0",
        f"blobs/{DIGEST[1:]}",
        f"blobs/{DIGEST}.json",
        f"blobs/{DIGEST[:2]}/{DIGEST}",
        f"prefix/blobs/{DIGEST}",
        "keys/0123456789abcdef.json",
        "keys/0123456789ABCDEF",
        f"keys/{DIGEST}.json",
        "keys/０123456789ABCDE.json",
    ],
)
def test_other_spelling_is_malformed(key: str) -> None:
    with pytest.raises(MalformedError):
        parse_key(key)


@pytest.mark.parametrize(
    "name", ["", "..", DIGEST.upper(), DIGEST + "\n", DIGEST[1:], f"../{DIGEST}"], ids=repr
)
def test_what_is_no_digest_names_nothing(name: str) -> None:
    for refuse in (blob_key, manifest_key):
        with pytest.raises(MalformedError):
            refuse(name)
