"""A real server and what goes wrong on a NAS: the right status, no hang, no descriptor left open."""

from __future__ import annotations

import os
import random
import socket
import struct
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from origin import serving
from tests.origin.conftest import FOREVER, Nas, content_of, link, make_nas, origin_app

SIZE = 48 << 20  # More than the kernel's buffers on both sides hold, so that the sender has to wait.
_DESCRIPTORS = Path("/proc/self/fd")


@pytest.fixture(scope="module")
def content() -> bytes:
    return content_of(1 << 20) * (SIZE >> 20)


def connect(base_url: str) -> socket.socket:
    parts = urlsplit(base_url)
    client = socket.create_connection((parts.hostname or "", parts.port or 0), timeout=20)
    return client


def begin(client: socket.socket, path: str, headers: str = "") -> bytes:
    """Send a GET; returns what came with the head of the response, head included."""
    client.sendall(f"GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n{headers}\r\n".encode())
    received = b""
    while b"\r\n\r\n" not in received:
        piece = client.recv(4096)
        assert piece, "the server closed the connection"
        received += piece
    return received


def rest(client: socket.socket) -> bytes:
    """Everything until the server closes; a connection that is reset ends it as well."""
    pieces = []
    try:
        while piece := client.recv(1 << 20):
            pieces.append(piece)
    except ConnectionResetError:
        pass
    return b"".join(pieces)


def body_while(base_url: str, path: str, fault: Callable[[], object]) -> bytes:
    """The body that a client gets when the fault happens after its first bytes."""
    with closing(connect(base_url)) as client:
        received = begin(client, path)
        assert received.startswith(b"HTTP/1.1 200")
        fault()
        return (received + rest(client)).partition(b"\r\n\r\n")[2]


def test_truncated_while_streaming(nas: Nas, base_url: str, content: bytes) -> None:
    """The length was promised: the connection ends early, which every client notices."""
    path = link(nas.add("a.mp3", content), FOREVER)
    body = body_while(base_url, path, lambda: os.truncate(nas.music / "a.mp3", 20 << 20))
    assert len(body) < SIZE
    assert content[: len(body)] == body


def test_deleted_while_streaming(nas: Nas, base_url: str, content: bytes) -> None:
    path = link(nas.add("a.mp3", content), FOREVER)
    assert content == body_while(base_url, path, (nas.music / "a.mp3").unlink)
    with closing(connect(base_url)) as client:
        assert begin(client, path).startswith(b"HTTP/1.1 404")


def test_replaced_while_streaming(nas: Nas, base_url: str, content: bytes) -> None:
    """Whoever began with the old file gets all of the old file."""
    path = link(nas.add("a.mp3", content), FOREVER)
    (nas.music / "new").write_bytes(content[::-1])
    body = body_while(base_url, path, lambda: (nas.music / "new").replace(nas.music / "a.mp3"))
    assert content == body


def test_root_unmounted_and_back(nas: Nas, base_url: str) -> None:
    path = link(nas.add("a.mp3", b"x"), FOREVER)
    for place, status in ((nas.folder / "away", b"404"), (nas.music, b"200")):
        next(each for each in (nas.music, nas.folder / "away") if each.exists()).rename(place)
        with closing(connect(base_url)) as client:
            assert begin(client, path).startswith(b"HTTP/1.1 " + status)


def test_no_permission(unprivileged: Path) -> None:
    """As a service runs: by a user whom the file system may refuse a file."""
    nas = make_nas(unprivileged)
    path = link(nas.add("a.mp3", b"x"), FOREVER)
    with serving(origin_app(nas, time.time)) as base_url:
        for mode, status in ((0o600, b"200"), (0, b"404")):
            (nas.music / "a.mp3").chmod(mode)
            with closing(connect(base_url)) as client:
                assert begin(client, path).startswith(b"HTTP/1.1 " + status)


@pytest.mark.skipif(not _DESCRIPTORS.exists(), reason="descriptors are counted in /proc")
def test_500_broken_clients_leave_no_descriptor(nas: Nas, base_url: str, content: bytes) -> None:
    """They leave after the request, in the middle of the head, of the body, or by a reset."""
    path = link(nas.add("a.mp3", content), FOREVER)
    whims = random.Random(5)

    def opened() -> int:
        return sum(
            1 for each in _DESCRIPTORS.iterdir() if each.is_symlink() and _target(each).endswith("/a.mp3")
        )

    for _ in range(500):
        with closing(connect(base_url)) as client:
            whim = whims.randrange(4)
            if whim == 0:
                client.sendall(f"GET {path} HTTP/1.1\r\nHost:".encode())
            elif whim == 1:
                client.sendall(f"GET {path} HTTP/1.1\r\nHost: test\r\n\r\n".encode())
            else:
                begin(client, path, f"Range: bytes={whims.randrange(SIZE)}-\r\n")
            if whim == 3:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    assert _becomes(lambda: opened() == 0), f"{opened()} descriptors of the file are still open"


@pytest.mark.skipif(not _DESCRIPTORS.exists(), reason="descriptors are seen in /proc")
def test_descriptor_is_closed_when_the_player_leaves(nas: Nas, base_url: str, content: bytes) -> None:
    """Also when the sender is waiting for the player. That the reading stops, `test_sender` holds."""
    path = link(nas.add("a.mp3", content), FOREVER)
    with closing(connect(base_url)) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        begin(client, path)
        mine = next(each for each in _DESCRIPTORS.iterdir() if _target(each).endswith("/a.mp3"))
    assert _becomes(lambda: not _target(mine).endswith("/a.mp3"))


def _target(link: Path) -> str:
    try:
        return str(link.readlink())
    except OSError:  # Closed since it was listed.
        return ""


def _becomes(condition: Callable[[], bool]) -> bool:
    """Whether a condition becomes true within 20 s; the server is another thread."""
    pause = threading.Event()
    for _ in range(2000):
        if condition():
            return True
        pause.wait(0.01)
    return False
