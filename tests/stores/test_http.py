"""Reading over plain HTTP: from a real server, and from one that does everything wrong."""

from __future__ import annotations

import os
import random
import socket
import threading
import uuid
from collections.abc import Iterator
from contextlib import closing
from typing import Self

import pytest

from contracts.errors import AccessDenied, ObjectMissing, StoreError, StoreUnavailable
from contracts.layout import POINTER_KEY, blob_key
from localstack import Bucket, SeaweedFS
from stores import Backoff, Create, HttpStore, ObjectInfo, Overwrite, RetryingReader
from stores.s3 import S3Store
from tests.stores.conftest import no_sleep, s3_settings
from tests.stores.scripted_server import Answer, Reset, ScriptedServer, http, http_range

BLOB = blob_key("0" * 64)
CONTENT = random.Random(3).randbytes(200_000)
OK = http("200 OK", CONTENT, ETag='"1"')
DEADLINE_S = 20.0


@pytest.fixture
def served(test_bucket: Bucket) -> Iterator[tuple[S3Store, HttpStore]]:
    """A place in the real bucket, to write and to read by plain HTTP."""
    prefix = uuid.uuid4().hex
    reader = HttpStore(f"{test_bucket.public_url}/{prefix}/")
    yield S3Store(test_bucket.bucket, prefix, s3_settings(test_bucket)), reader
    reader.close()


class Seconds:
    """A clock by which so many seconds pass whenever it is looked at."""

    def __init__(self, step_s: float) -> None:
        self._step_s = step_s
        self._now_s = 0.0
        self.looks = threading.Semaphore(0)

    def __call__(self) -> float:
        self._now_s += self._step_s
        self.looks.release()
        return self._now_s


class DrippingServer:
    """Answers one request; the next byte comes when the client has looked at its clock."""

    def __init__(self, answer: bytes, clock: Seconds) -> None:
        self._answer = answer
        self._clock = clock
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._socket.settimeout(DEADLINE_S)
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._answer = b""
        self._clock.looks.release()
        self._thread.join()
        self._socket.close()

    def _serve(self) -> None:
        connection, _ = self._socket.accept()
        with connection:
            connection.settimeout(DEADLINE_S)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.recv(65536)
            try:
                while self._answer and self._clock.looks.acquire(timeout=DEADLINE_S):
                    connection.sendall(self._answer[:1])
                    self._answer = self._answer[1:]
            except OSError:
                pass  # the client has left


def read(server: ScriptedServer, start: int = 0) -> bytes:
    return b"".join(HttpStore(server.url).get(BLOB, start))


def test_public_bucket_reads_like_the_store_behind_it(served: tuple[S3Store, HttpStore]) -> None:
    """Sizes, entity tags, ranges, 304 and 404 of the real server."""
    writer, reader = served
    with pytest.raises(ObjectMissing):
        reader.get_if_changed(POINTER_KEY, "")
    with pytest.raises(ObjectMissing):
        reader.head(BLOB)
    writer.put(BLOB, CONTENT, Create())
    assert writer.head(BLOB) == reader.head(BLOB)
    for start in (0, 1, 65_536, 199_999):
        reading = reader.get(BLOB, start)
        assert writer.head(BLOB) == reading.info
        assert CONTENT[start:] == b"".join(reading)
    first = writer.put(POINTER_KEY, b"first", Create())
    assert reader.get_if_changed(POINTER_KEY, first) is None
    writer.put(POINTER_KEY, b"second", Overwrite())
    changed = reader.get_if_changed(POINTER_KEY, first)
    assert changed is not None
    assert b"".join(changed) == b"second"
    writer.put(POINTER_KEY, b"", Overwrite())
    assert b"".join(reader.get(POINTER_KEY)) == b""


def test_private_bucket_is_access_denied(seaweed: SeaweedFS) -> None:
    private = seaweed.create_bucket("test-private-http", public_read=False)
    try:
        with pytest.raises(AccessDenied):
            HttpStore(private.public_url).get(BLOB)
    finally:
        seaweed.delete_bucket(private.bucket)


def test_pointer_is_asked_for_past_caches_and_without_codings() -> None:
    with ScriptedServer(http("304 Not Modified", length=-1)) as server:
        assert HttpStore(server.url + "/music/").get_if_changed(POINTER_KEY, 'W/"1"') is None
    (request,) = server.requests
    assert (request.method, request.path) == ("GET", "/music/manifest.json")
    assert request.headers["cache-control"] == "no-cache"
    assert request.headers["accept-encoding"] == "identity"
    assert request.headers["if-none-match"] == 'W/"1"'
    assert "range" not in request.headers


def test_server_that_ignores_ranges_is_read_from_the_start_asked_for() -> None:
    """A 200 to a range request is the whole (RFC 9110, section 14.2)."""
    for start in (1, 65_536, 199_999):
        with ScriptedServer(OK) as server:
            assert CONTENT[start:] == read(server, start)
        assert f"bytes={start}-" == server.requests[0].headers["range"]


@pytest.mark.parametrize("size_bytes", [0, 1, 65_536, 65_537])
def test_partial_answer_to_a_plain_request_is_taken_when_it_is_the_whole(size_bytes: int) -> None:
    """Odd, and not wrong; an empty object cannot be said in a range."""
    content = CONTENT[:size_bytes]
    last = max(size_bytes - 1, 0)
    with ScriptedServer(http("206 X", content, Content_Range=f"bytes 0-{last}/{size_bytes}")) as server:
        if size_bytes:
            assert content == read(server)
        else:
            with pytest.raises(StoreUnavailable):
                read(server)


@pytest.mark.parametrize(
    "said",
    [
        "",
        "bytes 5-9",
        "bytes 5-9/*",
        "bytes 4-9/10",
        "bytes 5-8/10",
        "bytes */10",
        "x 5-9/10",
    ],
)
def test_other_range_than_the_one_asked_for_is_unavailable(said: str) -> None:
    """Else a file would be put together of the wrong pieces, or end too early without an error."""
    answer = http("206 Partial Content", b"56789", Content_Range=said)
    with ScriptedServer(answer) as server, pytest.raises(StoreUnavailable):
        read(server, 5)


@pytest.mark.parametrize(
    ("status", "error"),
    [
        ("400 Bad Request", StoreError),
        ("401 Unauthorized", AccessDenied),
        ("403 Forbidden", AccessDenied),
        ("404 Not Found", ObjectMissing),
        ("410 Gone", ObjectMissing),
        ("416 Range Not Satisfiable", StoreError),
        ("429 Too Many Requests", StoreUnavailable),
        ("500 Internal Server Error", StoreUnavailable),
        ("503 Service Unavailable", StoreUnavailable),
        ("204 No Content", StoreError),
        ("304 Not Modified", StoreUnavailable),
        ("301 Moved Permanently", StoreError),
        ("302 Found", StoreError),
        ("308 Permanent Redirect", StoreError),
    ],
)
def test_status_that_is_not_the_object_is_its_error(status: str, error: type[StoreError]) -> None:
    """404 and 410 alone mean missing; a 304 that nobody asked for means nothing."""
    body = b"" if status[:3] in ("204", "304") else b"an explanation"
    with ScriptedServer(http(status, body, Location="http://127.0.0.1:1/elsewhere")) as server:
        store = HttpStore(server.url)
        for call in (store.head, store.get, lambda key: store.get_if_changed(key, "")):
            with pytest.raises(StoreError) as caught:
                call(BLOB)
            assert error is type(caught.value)
    assert len(server.requests) == 3
    if "302" in status:
        assert "http://127.0.0.1:1/elsewhere" in str(caught.value)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("7", 7.0),
        ("0", 0.0),
        ("Fri, 31 Dec 1999 23:59:59 GMT", None),
        ("-1", None),
        ("1.5", None),
        ("٣", None),
        ("", None),
    ],
)
def test_retry_after_in_seconds_is_passed_on(said: str, expected: float | None) -> None:
    """RFC 9110, section 10.2.3; a date is not worth a parser here: the caller's own back-off holds then."""
    answer = http("503 Slow Down", b"", Retry_After=said)
    with ScriptedServer(answer) as server, pytest.raises(StoreUnavailable) as caught:
        read(server)
    assert expected == caught.value.retry_after_s


@pytest.mark.parametrize("coding", ["gzip", "br", "aws-chunked, gzip", "deflate", "x"])
def test_content_coding_is_refused(coding: str) -> None:
    """Nothing is undone that was not agreed on: the digest is that of the stored bytes."""
    with ScriptedServer(http("200 OK", b"\x1f\x8b", Content_Encoding=coding)) as server:
        with pytest.raises(StoreUnavailable, match="content coding"):
            read(server)
        with pytest.raises(StoreUnavailable, match="content coding"):
            HttpStore(server.url).head(BLOB)


def test_leftover_of_a_signed_upload_is_no_content_coding() -> None:
    """What SeaweedFS stores of boto3's checksums over HTTPS."""
    with ScriptedServer(http("200 OK", b"content", Content_Encoding="aws-chunked")) as server:
        assert read(server) == b"content"


@pytest.mark.parametrize(
    "answer",
    {
        "no length": http("200 OK", CONTENT, -1),
        "chunked": http("200 OK", b"5\r\nhello\r\n0\r\n\r\n", -1, Transfer_Encoding="chunked"),
        "bad length": http("200 OK", b"x", -1, Content_Length="ten"),
        "absurd length": http("200 OK", b"x", -1, Content_Length="9" * 5000),
        "negative length": http("200 OK", b"x", -1, Content_Length="-5"),
        "no answer": b"",
        "no HTTP": b"220 ready, this is SMTP\r\n",
        "half a header": b"HTTP/1.1 200 OK\r\nContent-Le",
        "endless header": b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000 + b"\r\n\r\n",
        "reset": Reset(b""),
        "no body": http("200 OK", b"", len(CONTENT)),
        "truncated": http("200 OK", CONTENT[:-1], len(CONTENT)),
        "truncated, then reset": Reset(http("200 OK", CONTENT[:100_000], len(CONTENT))),
    }.items(),
    ids=lambda answer: answer[0],
)
def test_broken_answer_is_unavailable(answer: tuple[str, Answer]) -> None:
    """Never an object that is too short, never missing, never an exception of a library."""
    with ScriptedServer(answer[1]) as server, pytest.raises(StoreUnavailable):
        read(server)


@pytest.mark.parametrize("ending", [bytes, Reset])
@pytest.mark.parametrize("honours_ranges", [True, False])
def test_broken_reading_goes_on_where_it_broke(ending: type[bytes], honours_ranges: bool) -> None:
    """Whether the server honours ranges or not; without waiting, because there was progress."""
    broken = ending(http("200 OK", CONTENT[:150_000], len(CONTENT), ETag='"1"'))
    with ScriptedServer(broken, http_range(CONTENT) if honours_ranges else OK) as server:
        reading = RetryingReader(HttpStore(server.url), Backoff(sleep=no_sleep)).get(BLOB)
        assert b"".join(reading) == CONTENT
        assert ObjectInfo(len(CONTENT), '"1"') == reading.info
    first, second = server.requests
    assert "range" not in first.headers
    assert 0 < int(second.headers["range"].removeprefix("bytes=").removesuffix("-")) <= 150_000


def test_reading_of_an_object_that_changed_in_between_ends() -> None:
    """Half of the old and half of the new are neither."""
    broken = http("200 OK", CONTENT[:150_000], len(CONTENT), ETag='"1"')
    with ScriptedServer(broken, http_range(CONTENT, '"2"')) as server:
        reading = RetryingReader(HttpStore(server.url), Backoff(sleep=no_sleep)).get(BLOB)
        with pytest.raises(StoreUnavailable, match="changed while it was read"):
            b"".join(reading)


def test_slow_down_is_obeyed_then_the_object_is_read() -> None:
    slept: list[float] = []
    slow_down = http("429 Too Many Requests", b"", Retry_After="7")
    with ScriptedServer(slow_down, slow_down, OK) as server:
        store = RetryingReader(HttpStore(server.url), Backoff(sleep=slept.append))
        assert b"".join(store.get(BLOB)) == CONTENT
    assert slept == [7.0, 7.0]


@pytest.mark.parametrize(
    "answer",
    [
        OK,
        http("404 Not Found", b"x" * 1_000_000),
        http("500 Oops", b"x"),
        http("200 OK", b"x", Content_Encoding="gzip"),
        http("206 Partial Content", b"x"),
        http("200 OK", b"x" * 100, 200_000),
    ],
    ids=["whole", "missing", "error", "coding", "range", "truncated"],
)
def test_connections_are_given_back_whatever_happens(answer: bytes) -> None:
    """A store of one connection would wait for itself for ever."""
    asked = []

    def ask(store: HttpStore) -> None:
        for number in range(6):
            try:
                reading = store.get(BLOB)
                if number % 2:
                    list(reading)
                reading.close()
                reading.close()
            except StoreError:
                pass
            asked.append(number)

    with ScriptedServer(answer) as server:
        thread = threading.Thread(target=ask, args=[HttpStore(server.url, connections=1)], daemon=True)
        thread.start()
        thread.join(DEADLINE_S)
    assert asked == [0, 1, 2, 3, 4, 5]


def test_closed_port_is_unavailable() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: nobody else gets it, and it refuses
        store = HttpStore(f"http://127.0.0.1:{taken.getsockname()[1]}")
        for call in (store.head, store.get, lambda key: store.get_if_changed(key, "")):
            with pytest.raises(StoreUnavailable):
                call(BLOB)


@pytest.mark.parametrize("url", ["http://store.invalid", f"http://{'a' * 300}.invalid"])
def test_host_that_cannot_be_is_unavailable(url: str) -> None:
    """RFC 6761, section 6.4: `invalid` never resolves."""
    with pytest.raises(StoreUnavailable):
        HttpStore(url).head(BLOB)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "cdn.example",
        "ftp://cdn.example",
        "file:///etc",
        "http://",
        "http:///path",
        "http://[",
        "http://host:port",
        "http://127.0.0.1:99999",
        "http://user:hunter2@cdn.example",
        "http://cdn.example?token=hunter2",
        "http://cdn.example#hunter2",
    ],
)
def test_address_that_is_no_store_is_refused_at_once(url: str) -> None:
    """And what may be a secret in it is not repeated."""
    with pytest.raises(StoreError) as caught:
        HttpStore(url)
    assert "hunter2" not in str(caught.value)


def test_proxies_of_the_environment_are_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing but the composition root reads the environment."""
    monkeypatch.setitem(os.environ, "http_proxy", "http://127.0.0.1:1")
    with ScriptedServer(OK) as server:
        assert read(server) == CONTENT


@pytest.mark.parametrize("part", ["headers", "body"])
def test_answer_that_drips_is_given_up(part: str) -> None:
    """Slow retrieval (TUF specification, section 1.5.2): less than 1 KiB/s after a minute. Also when it is
    the headers that never end: each byte in time, and none of them the last."""
    answer = http("200 OK", CONTENT)
    if part == "headers":
        answer = b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 90
    clock = Seconds(9.0)
    with (
        DrippingServer(answer, clock) as server,
        closing(HttpStore(server.url, clock=clock)) as store,
        pytest.raises(StoreUnavailable, match=r"came too slowly: [0-9]+ bytes in [67][0-9] s"),
    ):
        b"".join(store.get(BLOB))


@pytest.mark.parametrize("step_s", [0.0, 1.0])
def test_answer_that_comes_at_a_fair_pace_is_read(step_s: float) -> None:
    """200,000 bytes, of which a read brings 8 KiB: a second for each is slow and no attack."""
    with ScriptedServer(OK) as server, closing(HttpStore(server.url, clock=Seconds(step_s))) as store:
        assert b"".join(store.get(BLOB)) == CONTENT


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ('"1"', '"1"'),
        ('W/"1"', 'W/"1"'),
        ('""', '""'),
        ("d41d8cd98f00b204e9800998ecf8427e-2", "d41d8cd98f00b204e9800998ecf8427e-2"),
        ("*", ""),
        ('"1", "2"', ""),
        ('"1", *', ""),
        ('"1', ""),
        ("a b", ""),
        (f'"{"x" * 300}"', ""),
    ],
)
def test_entity_tag_that_is_none_is_not_sent_back(sent: str, kept: str) -> None:
    """RFC 9110, section 8.8.3, and those without quotes. A star would be "not modified" for ever (section
    13.1.2), and a long one refused by the next server for the length of its headers."""
    with ScriptedServer(http("200 OK", b"x", ETag=sent)) as server:
        assert HttpStore(server.url).head(BLOB).etag == kept


def test_what_has_come_is_given_before_the_rest() -> None:
    """So that a mirror which is told to stop hears of it while a server drips."""
    with (
        ScriptedServer(http("200 OK", b"first", 1000)) as server,
        closing(HttpStore(server.url)) as store,
        closing(store.get(BLOB)) as reading,
    ):
        assert next(iter(reading)) == b"first"
