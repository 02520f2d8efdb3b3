"""Answers without an end and answers that drip: no adapter reads them for ever, or keeps what it reads."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from contracts.errors import PreconditionFailed, StoreError, StoreUnavailable
from contracts.layout import blob_key
from stores import Create, HttpStore, Overwrite
from stores.patient import HEAD_MAX_BYTES
from stores.s3 import S3Settings, S3Store
from stores.stranger import ask_as_stranger
from tests.stores.scripted_server import ScriptedServer, http
from tests.stores.test_http import DrippingServer, Seconds

BLOB = blob_key("0" * 64)
ENOUGH = HEAD_MAX_BYTES + (64 << 10)
INTERIM = b"HTTP/1.1 100 Continue\r\n\r\n"
Clock = Callable[[], float]


def _s3(url: str, clock: Clock = lambda: 0.0) -> S3Store:
    settings = S3Settings(url, access_key_id="a", secret_access_key="b", addressing_style="path")
    return S3Store("bucket", "", settings, clock)


def _list(url: str, clock: Clock = lambda: 0.0) -> object:
    return _s3(url, clock).list_objects()


def _put(url: str, clock: Clock = lambda: 0.0) -> object:
    return _s3(url, clock).put(BLOB, b"x" * 100, Create())


def _get_s3(url: str, clock: Clock = lambda: 0.0) -> object:
    return b"".join(_s3(url, clock).get(BLOB))


def _get_http(url: str, clock: Clock = lambda: 0.0) -> object:
    return b"".join(HttpStore(url, clock=clock).get(BLOB))


def _stranger(url: str, clock: Clock = lambda: 0.0) -> object:
    return ask_as_stranger(url, clock=clock)


CALLS = {"http": _get_http, "get": _get_s3, "put": _put, "list": _list, "stranger": _stranger}
every_call = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)


@every_call
def test_interim_answers_without_an_end_are_given_up(call: Callable[[str], object]) -> None:
    """http.client reads on for as long as they come (RFC 9110, section 15.2, has no limit). The last is an
    answer, which nobody gets to."""
    answer = INTERIM * (ENOUGH // len(INTERIM)) + http("200 OK", b"x", ETag='"1"')
    with ScriptedServer(answer) as server, pytest.raises(StoreUnavailable):
        call(server.url)


@every_call
def test_some_interim_answers_are_none_too_many(call: Callable[[str], object]) -> None:
    listing = b"<ListBucketResult></ListBucketResult>"
    with ScriptedServer(INTERIM * 3 + http("200 OK", listing, ETag='"1"')) as server:
        call(server.url)


@pytest.mark.parametrize("call", [_get_s3, _put, _list, _get_http])
@pytest.mark.parametrize("size_bytes", [1 << 10, ENOUGH])
def test_refusal_without_an_end_is_not_kept(call: Callable[[str], object], size_bytes: int) -> None:
    """A terabyte of an explanation would fill the memory: botocore reads all of it."""
    answer = http("500 Internal Server Error", b"x" * size_bytes, length=1 << 40)
    with ScriptedServer(answer) as server, pytest.raises(StoreUnavailable):
        call(server.url)


def test_answer_to_a_write_without_an_end_is_not_kept() -> None:
    body = b" " * ENOUGH
    with ScriptedServer(http("200 OK", body, ETag='"1"')) as server, pytest.raises(StoreUnavailable):
        _s3(server.url).put(BLOB, b"x", Overwrite())


@pytest.mark.parametrize(("mebibytes", "is_taken"), [(2, True), (17, False)])
def test_page_of_a_listing_has_its_own_limit(mebibytes: int, is_taken: bool) -> None:
    """1,000 keys of 1,024 bytes ("ListObjectsV2" and "Naming objects", Amazon S3) are more than a head."""
    page = b"<ListBucketResult>" + b" " * (mebibytes << 20) + b"</ListBucketResult>"
    with ScriptedServer(http("200 OK", page)) as server:
        if is_taken:
            assert _list(server.url) == []
        else:
            with pytest.raises(StoreUnavailable):
                _list(server.url)


@pytest.mark.parametrize("call", [_get_s3, _get_http])
def test_object_may_be_longer_than_a_head(call: Callable[[str], bytes]) -> None:
    content = b"x" * (2 * ENOUGH)
    with ScriptedServer(http("200 OK", content, ETag='"1"')) as server:
        assert call(server.url) == content


@every_call
@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * 100_000,
        http("404 Not Found", b"a" * 100_000),
        b"HTTP/1.1 100 Continue\r\nX: " + b"a" * 100_000,
    ],
    ids=["headers", "refusal", "interim"],
)
def test_answer_that_drips_is_given_up(call: Callable[[str, Clock], object], answer: bytes) -> None:
    """A byte now and then is no silence, which a timeout would end: TUF specification, section 1.5.2."""
    clock = Seconds(2.0)
    # 404 may have been understood before its body was given up.
    with DrippingServer(answer, clock) as server, pytest.raises(StoreError):
        call(server.url, clock)
    assert 60 < clock() < 400


def test_interim_answer_that_breaks_off_is_unavailable() -> None:
    """botocore's own reader goes on for ever at the end of the stream."""
    with ScriptedServer(b"HTTP/1.1 100 Continue\r\nX: a\r\n") as server, pytest.raises(StoreUnavailable):
        _put(server.url)


def test_refusal_before_the_body_is_understood_and_the_body_not_sent() -> None:
    """RFC 9110, section 10.1.1: a final answer in the place of 100 (Continue)."""
    with ScriptedServer(http("412 Precondition Failed")) as server, pytest.raises(PreconditionFailed):
        _put(server.url)
    assert server.requests[0].headers["expect"] == "100-continue"
