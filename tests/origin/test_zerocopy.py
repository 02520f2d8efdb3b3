"""Files that the kernel sends by itself, over real sockets: the right bytes, or an early end."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import ssl
import struct
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from origin import open_file, serving
from origin.open_file import OpenFile
from origin.sender import ZERO_COPY_FROM_BYTES, Outcome
from tests.origin.conftest import content_of
from tests.origin.file_server import (
    FileServer,
    becomes,
    connect,
    file_server,
    read_exactly,
    read_head,
    read_response,
    read_to_end,
    request,
)

serve_module = import_module("origin.serve")  # `origin.serve` is the function.

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="zero-copy send is for Linux")

SIZE = 24 << 20  # More than the kernel's buffers on both sides hold, so that the sender has to wait.
SMALL_BUFFER = 64 << 10


@pytest.fixture(scope="module")
def content() -> bytes:
    return content_of(1 << 20) * (SIZE >> 20)


@pytest.fixture(params=["uvloop", "asyncio"])
def loop(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "asyncio":
        monkeypatch.setattr(serve_module, "find_spec", lambda name: None)
    else:
        pytest.importorskip("uvloop")
    return str(request.param)


@pytest.fixture
def folder(tmp_path: Path, content: bytes) -> Path:
    (tmp_path / "a").write_bytes(content)
    (tmp_path / "b").write_bytes(content_of(300_000, seed=2))
    return tmp_path


@pytest.fixture
def served(folder: Path, loop: str) -> Iterator[tuple[FileServer, str]]:
    with file_server(folder) as server:
        yield server


@pytest.fixture
def copies(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The result of every call of sendfile."""
    real, results = os.sendfile, []

    def counted(*arguments: Any) -> int:
        results.append(real(*arguments))
        return results[-1]

    monkeypatch.setattr(os, "sendfile", counted)
    return results


def test_the_kernel_sends_a_large_file(
    served: tuple[FileServer, str], content: bytes, copies: list[int]
) -> None:
    app, base_url = served
    with closing(connect(base_url)) as client:
        client.sendall(request("/a"))
        assert content == read_response(client)
    assert app.outcomes.get(timeout=20) == (Outcome.COMPLETE, SIZE)
    assert (sum(copies), app.offered) == (SIZE, [True])


def test_a_slow_reader_gets_every_byte(served: tuple[FileServer, str], content: bytes) -> None:
    with closing(connect(served[1], SMALL_BUFFER)) as client:
        client.sendall(request(f"/a?{16 << 20}"))
        assert content[16 << 20 :] == read_response(client)


def test_a_small_file_is_not_worth_it(folder: Path, copies: list[int]) -> None:
    (folder / "small").write_bytes(bytes(ZERO_COPY_FROM_BYTES - 1))
    with file_server(folder) as (_, base_url), closing(connect(base_url)) as client:
        client.sendall(request("/small"))
        assert bytes(ZERO_COPY_FROM_BYTES - 1) == read_response(client)
    assert copies == []


def test_not_used_when_the_server_does_not_offer_it(folder: Path, content: bytes, copies: list[int]) -> None:
    """Any other server, or this one elsewhere than on Linux."""
    with file_server(folder, is_portable=True) as (_, base_url), closing(connect(base_url)) as client:
        client.sendall(request("/a"))
        assert content == read_response(client)
    assert copies == []


@pytest.mark.parametrize("failing", ["sendfile", "dup"])
@pytest.mark.parametrize("number", [errno.EINVAL, errno.EMFILE])
def test_falls_back_when_the_system_cannot(
    folder: Path, content: bytes, monkeypatch: pytest.MonkeyPatch, failing: str, number: int
) -> None:
    """A file system without splice, or no descriptor left: the same bytes, in the ordinary way."""

    def fail(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    with file_server(folder) as (_, base_url), closing(connect(base_url)) as client:
        monkeypatch.setattr(os, failing, fail)
        client.sendall(request("/a"))
        assert content == read_response(client)


def test_pipelined_requests_are_answered_in_order(served: tuple[FileServer, str], content: bytes) -> None:
    """And the connection is as good as new afterwards."""
    small = content_of(300_000, seed=2)
    with closing(connect(served[1])) as client:
        client.sendall(request("/a") + request("/b") + request("/a?1000000") + request("/b"))
        for expected in (content, small, content[1_000_000:], small):
            assert expected == read_response(client)
        client.sendall(request("/b"))
        assert small == read_response(client)


@pytest.mark.parametrize("is_portable", [False, True])
@pytest.mark.parametrize("before", [b"", request("/b")])
def test_garbage_in_the_middle_of_a_body_adds_nothing_to_it(
    folder: Path, content: bytes, is_portable: bool, before: bytes
) -> None:
    """uvicorn's own protocol writes its 400 into the body, which the client takes for music."""
    server = file_server(folder, is_portable=is_portable)
    with server as (app, base_url), closing(connect(base_url, SMALL_BUFFER)) as client:
        client.sendall(request("/a"))
        read_head(client)
        client.sendall(before + b"\x16\x03\x01 garbage\r\n\r\n")
        body = read_to_end(client)
        assert app.outcomes.get(timeout=20)[0] is Outcome.CLIENT_LEFT
    assert len(body) < SIZE
    assert content[: len(body)] == body


def test_garbage_instead_of_a_request_is_refused(folder: Path) -> None:
    with file_server(folder) as (_, base_url), closing(connect(base_url)) as client:
        client.sendall(b"\x16\x03\x01 garbage\r\n\r\n")
        assert read_to_end(client).startswith(b"HTTP/1.1 400")


def test_truncated_while_sending(served: tuple[FileServer, str], folder: Path, content: bytes) -> None:
    app, base_url = served
    with closing(connect(base_url, SMALL_BUFFER)) as client:
        client.sendall(request("/a"))
        read_head(client)
        os.truncate(folder / "a", 16 << 20)
        body = read_to_end(client)
    assert len(body) <= 16 << 20
    assert content[: len(body)] == body
    assert app.outcomes.get(timeout=20)[0] is Outcome.CUT_SHORT


def test_growing_while_sending(served: tuple[FileServer, str], folder: Path, content: bytes) -> None:
    """What was promised, and then the next response."""
    with closing(connect(served[1], SMALL_BUFFER)) as client:
        client.sendall(request("/a?20000000") + request("/b"))
        _, length = read_head(client)
        with (folder / "a").open("ab") as file:
            file.write(bytes(1 << 20))
        assert content[20_000_000:] == read_exactly(client, length)
        assert content_of(300_000, seed=2) == read_response(client)


@pytest.mark.parametrize("fate", ["deleted", "replaced"])
def test_whoever_began_gets_all_of_the_old_file(
    served: tuple[FileServer, str], folder: Path, content: bytes, fate: str
) -> None:
    with closing(connect(served[1], SMALL_BUFFER)) as client:
        client.sendall(request("/a?16000000"))
        _, length = read_head(client)
        if fate == "deleted":
            (folder / "a").unlink()
        else:
            (folder / "b").replace(folder / "a")
        assert content[16_000_000:] == read_exactly(client, length)


@pytest.mark.parametrize("pipelined", [b"", request("/b")])
@pytest.mark.parametrize("linger", [False, True])
def test_nothing_is_sent_for_a_client_that_left(
    served: tuple[FileServer, str], pipelined: bytes, linger: bool
) -> None:
    """By FIN or by RST; also when the request that is being answered is not the last that arrived."""
    app, base_url = served
    with closing(connect(base_url, SMALL_BUFFER)) as client:
        client.sendall(request("/a") + pipelined)
        read_head(client)
        if linger:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    outcome, sent_bytes = app.outcomes.get(timeout=20)
    assert outcome is Outcome.CLIENT_LEFT
    assert sent_bytes < SIZE


def test_clients_that_leave_take_no_descriptor_with_them(served: tuple[FileServer, str]) -> None:
    """Nor does one that comes at once, whose connection has the same number, get what was another's."""
    app, base_url = served
    with closing(connect(base_url)) as client:
        client.sendall(request("/b"))
        read_response(client)
    app.outcomes.get(timeout=20)
    port = urlsplit(base_url).port
    for _ in range(40):
        with closing(connect(base_url, SMALL_BUFFER)) as client:
            client.sendall(request("/a"))
            read_head(client)
        with closing(connect(base_url)) as client:
            client.sendall(request("/b"))
            assert content_of(300_000, seed=2) == read_response(client)
    for _ in range(80):
        app.outcomes.get(timeout=20)
    assert becomes(lambda: _sockets(port) == 1), f"{_sockets(port)} sockets, and not just the listener"


@pytest.mark.parametrize("is_portable", [False, True])
def test_kernel_holds_little_for_a_client_that_does_not_read(folder: Path, is_portable: bool) -> None:
    """tcp_wmem would let it hold 4 MiB; with 200 clients that is what a small NAS has."""
    server = file_server(folder, is_portable=is_portable)
    with server as (app, base_url), closing(connect(base_url, SMALL_BUFFER)) as client:
        client.sendall(request("/a"))
        read_head(client)
        port = client.getsockname()[1]
        assert becomes(lambda: _held_for(port) > 256 << 10)
        most = max(_held_for(port) for _ in range(50))
        client.close()
        app.outcomes.get(timeout=20)
    assert most < 1 << 20


def test_head_has_no_body_and_the_connection_goes_on(folder: Path) -> None:
    """The extension with HEAD, or without Content-Length, is a mistake of the application's: not one byte."""

    async def application(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            headers = [] if scope["path"] == "/chunked" else [(b"content-length", b"300000")]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            with (folder / "b").open("rb") as file:
                await send({"type": "http.response.zerocopysend", "file": file})

    with serving(application) as base_url:
        for start, expected in ((b"HEAD /", b""), (b"GET /chunked", b"")):
            with closing(connect(base_url)) as client:
                client.sendall(start + b" HTTP/1.1\r\nHost: test\r\n\r\n")
                assert read_to_end(client).partition(b"\r\n\r\n")[2] == expected
        with closing(connect(base_url)) as client:  # A file object, from its position to its end.
            client.sendall(request("/"))
            assert content_of(300_000, seed=2) == read_response(client)


def test_not_offered_over_tls(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel would send the file as it is, past the encryption."""
    certificate, key = _self_signed(tmp_path)
    plain = serve_module._config

    def encrypted(*arguments: Any) -> Any:
        config = plain(*arguments)
        config.ssl_certfile, config.ssl_keyfile = str(certificate), str(key)
        return config

    monkeypatch.setattr(serve_module, "_config", encrypted)
    trusted = ssl.create_default_context(cafile=str(certificate))
    trusted.check_hostname = False
    with file_server(folder) as (app, base_url), closing(connect(base_url)) as client:
        with closing(trusted.wrap_socket(client)) as channel:
            channel.sendall(request("/b"))
            assert content_of(300_000, seed=2) == read_response(channel)
        assert app.offered == [False]


def test_a_sleeping_disk_keeps_nobody_else_waiting(
    folder: Path, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is not in the page cache is brought there by a thread; everybody else is served meanwhile."""
    asleep, awake = threading.Event(), threading.Event()
    real_probe, real_read = OpenFile._is_cached, open_file._read_through

    def probe(file: OpenFile, offset: int, length_bytes: int) -> bool | None:
        return False if file.stat.st_size == SIZE else real_probe(file, offset, length_bytes)

    def read(descriptor: int, length_bytes: int, offset: int) -> None:
        asleep.set()
        assert awake.wait(20)
        real_read(descriptor, length_bytes, offset)

    monkeypatch.setattr(OpenFile, "_is_cached", probe)
    monkeypatch.setattr(open_file, "_read_through", read)
    with file_server(folder) as (_, base_url), closing(connect(base_url)) as sleeper:
        sleeper.sendall(request("/a"))
        assert asleep.wait(20)
        with closing(connect(base_url)) as client:
            for _ in range(5):
                client.sendall(request("/b"))
                assert content_of(300_000, seed=2) == read_response(client)
        awake.set()
        assert content == read_response(sleeper)


def test_what_the_page_cache_lost_is_seen_and_brought_back(folder: Path) -> None:
    """The beginning of a file is what goes first; here nothing is faked."""
    threads = ThreadPoolExecutor(1)
    descriptor = os.open(folder / "a", os.O_RDONLY)
    file = OpenFile(descriptor, threads)
    try:
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        if file._is_cached(0, SIZE) is not False:
            pytest.skip("this file system is in memory, or cannot tell what the page cache holds")
        os.pread(descriptor, SIZE >> 1, SIZE >> 1)
        assert file._is_cached(SIZE >> 1, SIZE >> 1) is True
        assert file._is_cached(0, 1 << 20) is False
        assert file._is_cached(0, SIZE) is False
        assert asyncio.run(file.make_ready(0, SIZE))
        assert file._is_cached(0, SIZE) is True
        with pytest.raises(EOFError):
            file._is_cached(SIZE - 10, 20)
    finally:
        file.close()
        threads.shutdown()


def _sockets(port: int | None) -> int:
    """How many descriptors of this process are sockets at that port of ours; a duplicate is one more."""
    found = 0
    for descriptor in [int(each.name) for each in Path("/proc/self/fd").iterdir()]:
        try:
            # Of a duplicate, because the server may close its own at any moment.
            each = socket.fromfd(descriptor, socket.AF_INET, socket.SOCK_STREAM)
        except OSError:  # Closed since it was listed.
            continue
        with closing(each), suppress(OSError):  # No socket.
            found += each.getsockname()[:2] == ("127.0.0.1", port)
    return found


def _held_for(port: int) -> int:
    """What the kernel holds for the peer at that port, unsent or unacknowledged: proc(5), /proc/net/tcp."""
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if int(fields[2].partition(":")[2], 16) == port:
            return int(fields[4].partition(":")[0], 16)
    return 0


def _self_signed(folder: Path) -> tuple[Path, Path]:
    """A certificate and its key, made by cryptography."""
    import datetime

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    paths = folder / "certificate.pem", folder / "key.pem"
    paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return paths
