"""Several ranges in one response: what is promised beforehand is what is sent, or the connection ends."""

from __future__ import annotations

import asyncio
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from litestar import Litestar

from origin import open_file
from origin.multipart import Multipart, multipart
from origin.ranges import ByteRange
from tests.origin.conftest import FOREVER, Nas, content_of, link, stream
from tests.origin.test_http import Server, parts_of

CONTENT = content_of(300_000)


def written(body: Multipart, content: bytes) -> bytes:
    parts = [part.head + content[part.byte_range.first : part.byte_range.last + 1] for part in body.parts]
    return b"".join(parts) + body.tail


def test_example_of_the_rfc() -> None:
    """RFC 9110, section 14.6, has this body with other line ends and another type; RFC 2046 has the lines."""
    content = bytes(range(256)) * 32
    ranges = [ByteRange(500, 509), ByteRange(7000, 7009)]
    body = multipart(ranges, 8000, b"application/pdf", b"THIS_STRING_SEPARATES")
    assert body.content_type == b"multipart/byteranges; boundary=THIS_STRING_SEPARATES"
    expected = (
        b"--THIS_STRING_SEPARATES\r\n"
        b"Content-Type: application/pdf\r\n"
        b"Content-Range: bytes 500-509/8000\r\n"
        b"\r\n" + content[500:510] + b"\r\n"
        b"--THIS_STRING_SEPARATES\r\n"
        b"Content-Type: application/pdf\r\n"
        b"Content-Range: bytes 7000-7009/8000\r\n"
        b"\r\n" + content[7000:7010] + b"\r\n"
        b"--THIS_STRING_SEPARATES--\r\n"
    )
    assert expected == written(body, content)
    assert len(expected) == body.length_bytes


@given(st.lists(st.tuples(st.integers(0, 999), st.integers(0, 999)).map(sorted), min_size=2, max_size=16))
def test_length_is_that_of_what_is_written(bounds: list[list[int]]) -> None:
    body = multipart([ByteRange(first, last) for first, last in bounds], 1000, b"audio/flac", b"b" * 32)
    assert len(written(body, bytes(1000))) == body.length_bytes
    assert bounds == [list(part.byte_range) for part in body.parts]


def test_large_parts_arrive_as_promised(nas: Nas, app: Litestar) -> None:
    """Larger than one read, so that every part takes several."""
    handle = nas.add("a.flac", CONTENT)
    answer = stream(app, handle, {"Range": "bytes=0-99999,200000-"})
    assert (answer.status, answer.complete) == (206, True)
    assert len(answer.body) == int(answer.headers["content-length"])
    assert CONTENT[:100_000] in answer.body and CONTENT[200_000:] in answer.body


def test_large_parts_of_a_real_server(nas: Nas, base_url: str) -> None:
    """Large enough for every way of sending; the connection is used again, so not a byte is too many."""
    content = content_of(8 << 20)
    (nas.music / "a.flac").write_bytes(content)
    with closing(Server(urlsplit(base_url).netloc, link("a.flac", FOREVER))) as server:
        for _ in range(3):
            answer = server.get({"Range": "bytes=5000000-,0-3999999,4500000-4500000"})
            assert [content[5_000_000:], content[:4_000_000], content[4_500_000:4_500_001]] == [
                part for _, part in parts_of(answer)
            ]


def test_boundary_is_new_every_time(nas: Nas, app: Litestar) -> None:
    """Who could guess it could put a part of their own into a file: nginx 1.22 counts."""
    handle = nas.add("a.flac", CONTENT)
    types = {stream(app, handle, {"Range": "bytes=0-0,-1"}).headers["content-type"] for _ in range(20)}
    assert len(types) == 20
    assert all(len(value.partition("boundary=")[2]) == 32 for value in types)


def test_file_that_becomes_shorter_between_parts_is_not_complete(
    nas: Nas, app: Litestar, monkeypatch: pytest.MonkeyPatch
) -> None:
    handle = nas.add("a.flac", CONTENT)
    read = open_file.OpenFile.read

    async def read_and_truncate(self: open_file.OpenFile, offset: int, length: int) -> bytes | bytearray:
        piece = await read(self, offset, length)
        await asyncio.to_thread(Path(nas.music / "a.flac").write_bytes, b"")
        return piece

    monkeypatch.setattr(open_file.OpenFile, "read", read_and_truncate)
    answer = stream(app, handle, {"Range": "bytes=0-9,1000-1009,-10"})
    assert (answer.status, answer.complete) == (206, False)
    assert len(answer.body) < int(answer.headers["content-length"])
