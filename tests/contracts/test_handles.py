"""Handles: golden ones, a check computed independently, one spelling only."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.errors import MalformedError
from contracts.handles import Handle, format_handle, parse_handle

VECTORS = Path(__file__).parent.parent / "vectors"
IDS = st.integers(0, 2**63 - 1)


@pytest.mark.parametrize("vector", json.loads((VECTORS / "handles.json").read_bytes()), ids=str)
def test_golden_handle_is_made_and_read(vector: dict[str, Any]) -> None:
    """The checks in the file are those of `sha256sum`."""
    handle = vector.pop("handle")
    assert handle == format_handle(**vector)
    assert (vector["location_id"], handle[-8:]) == parse_handle(handle)


@given(IDS, IDS, IDS, st.none() | st.integers(0, 2**63 - 1))
def test_check_is_the_digest_of_what_the_location_belongs_to(
    location_id: int, song_id: int, file_asset_id: int, size_bytes: int | None
) -> None:
    """The first 8 hexadecimal digits of the SHA-256 of `<song>:<asset>:<size>`."""
    size = "" if size_bytes is None else str(size_bytes)
    check = hashlib.sha256(f"{song_id}:{file_asset_id}:{size}".encode("ascii")).hexdigest()[:8]
    handle = format_handle(location_id, song_id, file_asset_id, size_bytes)
    assert handle == f"loc:{location_id}.{check}"
    assert Handle(location_id, check) == parse_handle(handle)


def test_id_that_sqlite_gives_again_makes_another_handle() -> None:
    """An old link answers 404, never another song, another quality or another size."""
    old = format_handle(42, 7, 3, 1000)
    assert old not in {
        format_handle(42, 8, 3, 1000),
        format_handle(42, 7, 4, 1000),
        format_handle(42, 7, 3, 1001),
    }


@pytest.mark.parametrize(
    "locator",
    [
        "",
        "loc:",
        "loc:1",
        "loc:1.",
        "loc:1.0123456",
        "loc:1.012345678",
        "loc:1.0123456G",
        "loc:1.ABCDEF01",
        "loc:01.01234567",
        "loc:-1.01234567",
        "loc:+1.01234567",
        "loc: 1.01234567",
        "loc:１.01234567",
        "loc:1.01234567\n",
        " loc:1.01234567",
        "LOC:1.01234567",
        "loc:9223372036854775808.01234567",
        "loc:9999999999999999999.01234567",
        "loc:" + "1" * 5000 + ".01234567",
        "/volume1/music/a.flac",
    ],
    ids=lambda locator: ascii(locator[:40]),
)
def test_other_text_is_no_handle(locator: str) -> None:
    """Also ids beyond 2^63 - 1, which SQLite could not be asked for."""
    with pytest.raises(MalformedError) as caught:
        parse_handle(locator)
    assert not locator or locator not in str(caught.value)


@given(st.text() | st.from_regex(r"loc:[0-9]{1,22}\.[0-9a-f]{8}"))
def test_what_parses_is_spelled_in_one_way(locator: str) -> None:
    try:
        handle = parse_handle(locator)
    except MalformedError:
        return
    assert locator == f"loc:{handle.location_id}.{handle.check}"
    assert 0 <= handle.location_id < 2**63
