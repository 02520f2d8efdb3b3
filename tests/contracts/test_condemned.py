"""The list of condemned objects: the golden one, `zstd`, and lists that lie."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.condemned import CONDEMNED_MAX_BYTES, format_condemned, parse_condemned
from contracts.errors import MalformedError
from contracts.keyframe import EMPTY_SKIPPABLE_FRAME, encode_segment
from contracts.layout import Kind, format_key

GOLDEN = (Path(__file__).parent.parent / "vectors" / "condemned.zst").read_bytes()
DIGEST = "0123456789abcdef" * 4
NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
FIRST = "condemned 1\n"
LINE = f"blobs/{DIGEST} 2026-11-22T12:00:00Z\n"


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


EXPECTED = {
    f"blobs/{digest('two')}": datetime(2026, 11, 21, 23, 59, 59, tzinfo=UTC),
    f"blobs/{digest('one')}": None,
    f"manifests/{digest('three')}.json": None,
    f"manifests/{digest('three')}.minisig": NOON,
}


def test_golden_list_of_the_zstd_program_is_read() -> None:
    """`zstd -19` made it from a text that was written by hand, as docs/format.md says."""
    assert parse_condemned(GOLDEN) == EXPECTED


@pytest.mark.skipif(shutil.which("zstd") is None, reason="needs the zstd program (Debian package zstd)")
def test_the_zstd_program_unpacks_a_list_to_sorted_lines() -> None:
    text = subprocess.run(["zstd", "-dc"], input=format_condemned(EXPECTED), capture_output=True, check=True)
    first, *lines = text.stdout.decode().splitlines()
    assert first == "condemned 1"
    assert lines == sorted(lines)
    assert f"blobs/{digest('one')}" in lines
    assert f"manifests/{digest('three')}.minisig 2026-11-22T12:00:00Z" in lines
    assert len(lines) == len(EXPECTED)


KEYS = st.builds(
    format_key,
    st.sampled_from([Kind.BLOB, Kind.MANIFEST, Kind.SIGNATURE]),
    st.binary(min_size=32, max_size=32).map(bytes.hex),
)
MOMENTS = st.datetimes(
    datetime(2020, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC), allow_imaginary=False
).map(lambda moment: moment.replace(microsecond=0))


@given(st.dictionaries(KEYS, st.none() | MOMENTS, max_size=20))
def test_what_is_written_is_read(entries: dict[str, datetime | None]) -> None:
    assert entries == parse_condemned(format_condemned(entries))


@given(st.binary(max_size=200))
def test_anything_else_is_refused(stored: bytes) -> None:
    with pytest.raises(MalformedError):
        parse_condemned(stored)


@pytest.mark.parametrize(
    "text",
    [
        "",
        LINE,
        "condemned 2\n" + LINE,
        FIRST + LINE.rstrip("\n"),
        FIRST + LINE + LINE,
        FIRST + f"manifests/{DIGEST}.json 2026-11-22T12:00:00Z\n" + LINE,
        FIRST + "manifest.json 2026-11-22T12:00:00Z\n",
        FIRST + "keys/0123456789ABCDEF.json 2026-11-22T12:00:00Z\n",
        FIRST + f"blobs/{DIGEST} \n",
        FIRST + f"blobs/{DIGEST}\n" + LINE,
        FIRST + f"blobs/{DIGEST} 2026-13-22T12:00:00Z\n",
        FIRST + f"blobs/{DIGEST} 2026-11-22T12:00:00+00:00\n",
        FIRST + f"../blobs/{DIGEST} 2026-11-22T12:00:00Z\n",
        FIRST + LINE.replace("blobs", "bløbs"),
    ],
)
def test_a_list_that_breaks_a_rule_is_refused(text: str) -> None:
    """The pointer and the successions of keys can never be condemned; one list has one text."""
    with pytest.raises(MalformedError):
        parse_condemned(encode_segment(text.encode()))


def test_an_empty_skippable_frame_after_a_list_changes_nothing() -> None:
    """It is a blob like any other, and may be given another name."""
    assert parse_condemned(GOLDEN + EMPTY_SKIPPABLE_FRAME) == EXPECTED


def test_a_bomb_is_not_unpacked() -> None:
    with pytest.raises(MalformedError, match="a list of condemned objects of"):
        parse_condemned(encode_segment(bytes(CONDEMNED_MAX_BYTES + 1), 1))
