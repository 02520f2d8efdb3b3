"""Several ranges over a real connection: heads that are written, and parts that the kernel sends."""

from __future__ import annotations

import os
import sys
from contextlib import closing
from typing import Any

import pytest

from origin.sender import ZERO_COPY_FROM_BYTES
from tests.origin.conftest import FOREVER, Nas, content_of, link
from tests.origin.file_server import connect, read_exactly

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="zero-copy send is for Linux")

CONTENT = content_of(1 << 20) * 8
SMALL_BUFFER = 64 << 10


@pytest.fixture
def copies(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The result of every call of sendfile."""
    real, results = os.sendfile, []

    def counted(*arguments: Any) -> int:
        results.append(real(*arguments))
        return results[-1]

    monkeypatch.setattr(os, "sendfile", counted)
    return results


@pytest.mark.parametrize("receive_bytes", [0, SMALL_BUFFER])
def test_parts_are_sent_by_the_kernel_between_their_heads(
    nas: Nas, base_url: str, copies: list[int], receive_bytes: int
) -> None:
    """In the order that was asked for, small ones as bytes, twice over one connection, and then another."""
    path = link(nas.add("a.flac", CONTENT), FOREVER)
    ranges = [(5_000_000, 8_000_000), (0, 9), (100_000, 100_000 + ZERO_COPY_FROM_BYTES - 1)]
    header = "bytes=" + ",".join(f"{first}-{last}" for first, last in ranges)
    with closing(connect(base_url, receive_bytes)) as client:
        for _ in range(2):
            copies.clear()
            head, body = ask(client, path, header)
            assert head["status"] == "206"
            boundary = head["content-type"].partition("boundary=")[2].strip('"').encode()
            assert body == expected(boundary, ranges)
            assert sum(copies) == sum(last + 1 - first for first, last in ranges if last - first > 1000)
        head, body = ask(client, path, "bytes=-4")
        assert (head["content-range"], body) == (
            f"bytes {(8 << 20) - 4}-{(8 << 20) - 1}/{8 << 20}",
            CONTENT[-4:],
        )


def expected(boundary: bytes, ranges: list[tuple[int, int]]) -> bytes:
    """RFC 9110, section 14.6."""
    parts = [
        b"--%b\r\nContent-Type: audio/flac\r\nContent-Range: bytes %d-%d/%d\r\n\r\n%b\r\n"
        % (boundary, first, last, len(CONTENT), CONTENT[first : last + 1])
        for first, last in ranges
    ]
    return b"".join(parts) + b"--%b--\r\n" % boundary


def ask(client: Any, path: str, ranges: str) -> tuple[dict[str, str], bytes]:
    client.sendall(f"GET {path} HTTP/1.1\r\nHost: test\r\nRange: {ranges}\r\n\r\n".encode())
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += read_exactly(client, 1)
    first, *rest = head.decode("latin-1").rstrip().split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in rest)}
    headers["status"] = first.split()[1]
    return headers, read_exactly(client, int(headers["content-length"]))
