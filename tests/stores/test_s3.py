"""What only S3 has: headers, credentials, the server's checks and its clock; against the real server."""

from __future__ import annotations

import os
import socket
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path

import pytest
import urllib3

from contracts.errors import AccessDenied, ObjectMissing, PreconditionFailed, StoreError, StoreUnavailable
from contracts.layout import POINTER_KEY, blob_key
from localstack import Bucket
from stores import Backoff, Create, Overwrite, RetryingStore, Store, Update
from stores.base import PutMode
from stores.s3 import S3Settings, S3Store
from tests.stores.conftest import no_sleep, s3_settings
from tests.stores.scripted_server import Reset, ScriptedServer, http, http_range

BLOB = blob_key("0" * 64)
LAYOUT = [
    (
        POINTER_KEY,
        "application/json",
        "public, max-age=15, stale-while-revalidate=60, stale-if-error=86400",
    ),
    (f"manifests/{'0' * 64}.json", "application/json", "public, max-age=31536000, immutable"),
    (f"manifests/{'0' * 64}.minisig", "text/plain; charset=utf-8", "public, max-age=31536000, immutable"),
    (BLOB, "application/zstd", "public, max-age=31536000, immutable"),
    ("probe-0123", "application/octet-stream", "no-store"),
]


def every_call(store: Store) -> list[Callable[[], object]]:
    return [
        lambda: store.head(BLOB),
        lambda: store.get(BLOB),
        lambda: store.get_if_changed(BLOB, '"0"'),
        lambda: store.put(BLOB, b"x", Create()),
        lambda: store.delete(BLOB),
    ]


def _store_at(endpoint_url: str) -> S3Store:
    settings = S3Settings(endpoint_url, access_key_id="a", secret_access_key="b", addressing_style="path")
    return S3Store("bucket", "", settings)


def test_every_object_is_served_with_the_headers_of_the_layout(test_bucket: Bucket) -> None:
    """As anyone sees it by plain HTTP (design: the bucket)."""
    store = S3Store(test_bucket.bucket, "/a/prefix/", s3_settings(test_bucket))
    assert store.address == f"s3://{test_bucket.bucket}/a/prefix at {test_bucket.endpoint_url}"
    with urllib3.PoolManager(retries=False) as pool:
        for key, content_type, cache_control in LAYOUT:
            store.put(key, BytesIO(b"content"), Create())
            answer = pool.request("GET", f"{test_bucket.public_url}/a/prefix/{key}")
            assert (answer.status, answer.data) == (200, b"content")
            assert content_type == answer.headers["Content-Type"]
            assert cache_control == answer.headers["Cache-Control"]
            assert "Content-Encoding" not in answer.headers


def test_wrong_secret_is_access_denied(test_bucket: Bucket) -> None:
    settings = replace(s3_settings(test_bucket), secret_access_key="wrong")
    for call in every_call(S3Store(test_bucket.bucket, "", settings)):
        with pytest.raises(AccessDenied) as caught:
            call()
        assert "wrong" not in str(caught.value)


def test_anyone_may_read_a_public_bucket_and_not_write(test_bucket: Bucket) -> None:
    """`anonymous` sends no signature, whatever credentials this machine has."""
    prefix = uuid.uuid4().hex
    S3Store(test_bucket.bucket, prefix, s3_settings(test_bucket)).put(BLOB, b"x", Create())
    anonymous = S3Store(
        test_bucket.bucket,
        prefix,
        S3Settings(test_bucket.endpoint_url, addressing_style="path", anonymous=True),
    )
    assert b"".join(anonymous.get(BLOB)) == b"x"
    for write in (lambda: anonymous.put(BLOB, b"y", Overwrite()), lambda: anonymous.delete(BLOB)):
        with pytest.raises(AccessDenied):
            write()


def test_no_credentials_at_all_is_access_denied(
    test_bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One sentence that names the settings, not boto3's "Unable to locate credentials"."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    store = S3Store(test_bucket.bucket, "", S3Settings(test_bucket.endpoint_url, addressing_style="path"))
    with pytest.raises(AccessDenied, match="MUSIC_CLOUD_S3_ACCESS_KEY_ID"):
        store.get(BLOB)


def test_missing_bucket_is_not_a_missing_object(test_bucket: Bucket) -> None:
    """Else a publisher would take a typing error for a store that nobody has published to yet."""
    store = S3Store("test-no-such-bucket", "", s3_settings(test_bucket))
    for call in (lambda: store.get(BLOB), lambda: store.put(BLOB, b"x", Create()), store.now):
        with pytest.raises(StoreError, match="no such bucket") as caught:
            call()
        assert not isinstance(caught.value, ObjectMissing)


def test_closed_port_is_unavailable() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: nobody else gets it, and it refuses
        store = _store_at(f"http://127.0.0.1:{taken.getsockname()[1]}")
        for call in (*every_call(store), store.now):
            with pytest.raises(StoreUnavailable):
                call()


def test_name_that_does_not_resolve_is_unavailable() -> None:
    """RFC 6761, section 6.4: `invalid` never resolves."""
    with pytest.raises(StoreUnavailable):
        _store_at("http://store.invalid:8333").head(BLOB)


def test_endpoint_that_is_no_url_is_an_error_of_the_store() -> None:
    with pytest.raises(StoreError):
        _store_at("not a url")


class _ChangesBetweenReadings(BytesIO):
    """A file that somebody writes to after its checksum was taken."""

    def __init__(self) -> None:
        super().__init__(b"as it was")

    def seek(self, offset: int, whence: int = 0) -> int:
        self.getbuffer()[:] = b"different"
        return super().seek(offset, whence)


def test_server_refuses_what_does_not_match_its_checksum(test_bucket: Bucket) -> None:
    """Every write carries its SHA-256: what is damaged on its way is never stored."""
    store = S3Store(test_bucket.bucket, uuid.uuid4().hex, s3_settings(test_bucket))
    with pytest.raises(StoreError, match="400"):
        store.put(BLOB, _ChangesBetweenReadings(), Create())
    with pytest.raises(ObjectMissing):
        store.head(BLOB)


def test_reading_that_breaks_off_is_unavailable() -> None:
    """Not only the beginning of an answer is translated."""
    for broken in (http("200 OK", b"x" * 1000, 200_000), Reset(http("200 OK", b"x" * 1000, 200_000))):
        with ScriptedServer(broken) as server, pytest.raises(StoreUnavailable):
            list(_store_at(server.url).get(BLOB))


def test_slow_down_is_unavailable_for_as_long_as_it_says() -> None:
    """One attempt: boto3 retries nothing behind our back."""
    with ScriptedServer(http("503 Slow Down", b"", Retry_After="7")) as server:
        with pytest.raises(StoreUnavailable) as caught:
            _store_at(server.url).head(BLOB)
        assert caught.value.retry_after_s == 7.0
    assert len(server.requests) == 1


def _error(code: str) -> bytes:
    return f"<Error><Code>{code}</Code><Message>m</Message></Error>".encode()


@pytest.mark.parametrize(
    ("retry_after", "seconds"),
    [
        ("Sun, 06 Nov 1994 08:49:37 GMT", 37.0),
        ("Sunday, 06-Nov-94 08:49:37 GMT", 37.0),  # obsolete, and to be understood (section 5.6.7)
        ("Sun, 06 Nov 1994 08:48:00 GMT", 0.0),
        ("soon", None),
        ("-1", None),
        ("", None),
    ],
)
def test_retry_after_may_be_a_moment_by_the_servers_clock(retry_after: str, seconds: float | None) -> None:
    """RFC 9110, section 10.2.3. Ours may be a day off: a retry in a day, or one at once, helps nobody."""
    answer = http("503 Slow Down", b"", Retry_After=retry_after, Date="Sun, 06 Nov 1994 08:49:00 GMT")
    with ScriptedServer(answer) as server, pytest.raises(StoreUnavailable) as caught:
        _store_at(server.url).head(BLOB)
    assert seconds == caught.value.retry_after_s


def test_retry_after_a_moment_without_a_date_says_nothing() -> None:
    answer = http("503 Slow Down", b"", Retry_After="Sun, 06 Nov 1994 08:49:37 GMT")
    with ScriptedServer(answer) as server, pytest.raises(StoreUnavailable) as caught:
        _store_at(server.url).head(BLOB)
    assert caught.value.retry_after_s is None


@pytest.mark.parametrize(
    ("status", "code"),
    [
        ("409 Conflict", "ConditionalRequestConflict"),
        ("409 Conflict", "OperationAborted"),
        ("400 Bad Request", "RequestTimeout"),
        ("400 Bad Request", "IncompleteBody"),
        ("400 Bad Request", "BadDigest"),
        ("400 Bad Request", "XAmzContentSHA256Mismatch"),
        ("408 Request Timeout", ""),
        ("503 Slow Down", "SlowDown"),
        ("429 Too Many Requests", "TooManyRequests"),
    ],
)
def test_what_asks_for_another_try_gets_one(status: str, code: str) -> None:
    """PutObject, Amazon S3 API Reference: "On a 409 failure you should retry the upload"."""
    waited: list[float] = []
    with ScriptedServer(http(status, _error(code)), http("200 OK", b"", ETag='"1"')) as server:
        store = RetryingStore(_store_at(server.url), Backoff(sleep=waited.append))
        assert store.put(BLOB, b"x", Create()) == '"1"'
    assert len(waited) == 1
    assert [request.headers.get("if-none-match") for request in server.requests] == ["*", "*"]


def test_refusal_for_the_time_names_the_clock() -> None:
    """Amazon S3 API Reference, "Error responses": no right to the bucket mends that."""
    answer = http("403 Forbidden", _error("RequestTimeTooSkewed"))
    with ScriptedServer(answer) as server, pytest.raises(AccessDenied, match="clock is wrong"):
        _store_at(server.url).put(BLOB, b"x", Create())


@pytest.mark.parametrize("mode", [Create(), Update('"1"')])
def test_a_409_of_another_kind_is_a_condition_that_failed(mode: PutMode) -> None:
    """Some servers say so that the object exists."""
    answer = http("409 Conflict", _error("ObjectAlreadyExists"))
    with ScriptedServer(answer) as server, pytest.raises(PreconditionFailed):
        RetryingStore(_store_at(server.url), Backoff(sleep=no_sleep)).put(BLOB, b"x", mode)
    assert len(server.requests) == 1


@contextmanager
def _trickle(first: bytes) -> Iterator[str]:
    """A server that sends these bytes of a large object, and no more while the test runs."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(30)
    is_over = threading.Event()

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            while b"\r\n\r\n" not in connection.recv(65536):
                pass
            connection.sendall(http("200 OK", first, 200_000))
            is_over.wait()  # the client gives up first, after 30 s

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        is_over.set()
        thread.join()
        listener.close()


def test_what_has_come_is_given_at_once() -> None:
    """Else a server that sends a byte every 20 seconds holds a reading for weeks, and no timeout sees it."""
    with _trickle(b"0123456789") as url:
        reading = _store_at(url).get(BLOB)
        assert next(iter(reading)) == b"0123456789"
        reading.close()


@pytest.mark.parametrize(("seconds", "is_slow"), [(59.0, False), (61.0, True)])
def test_download_slower_than_a_modem_is_unavailable(seconds: float, is_slow: bool) -> None:
    """TUF specification, section 1.5.2, slow retrieval: below 1,024 bytes a second, after a minute."""
    times = iter([0.0, seconds])  # of the first wait; later ones take no time
    with _trickle(b"x" * 1000) as url:
        settings = S3Settings(url, access_key_id="a", secret_access_key="b", addressing_style="path")
        store = S3Store("bucket", "", settings, clock=lambda: next(times, seconds))
        if is_slow:
            with pytest.raises(StoreUnavailable, match="too slowly"):
                next(iter(store.get(BLOB)))
            return
        reading = store.get(BLOB)
        assert len(next(iter(reading))) == 1000
        reading.close()


def test_a_fast_download_is_not_slow(test_bucket: Bucket) -> None:
    """However long it takes: no wait of 3 s brings less than a modem does."""
    times = iter(range(0, 10_000, 3))
    prefix, settings = uuid.uuid4().hex, s3_settings(test_bucket)
    S3Store(test_bucket.bucket, prefix, settings).put(BLOB, bytes(200_000), Create())
    store = S3Store(test_bucket.bucket, prefix, settings, clock=lambda: float(next(times)))
    assert len(b"".join(store.get(BLOB))) == 200_000


def test_a_wrong_checksum_is_refused_or_found_out(test_bucket: Bucket, rclone_bucket: Bucket) -> None:
    """Field notes: SeaweedFS compares, rclone stores whatever comes."""
    for made, is_checking in ((test_bucket, True), (rclone_bucket, False)):
        store = S3Store(made.bucket, "sums", s3_settings(made))
        assert store.is_checking_sums("probe-1") is is_checking
        assert bool(store.list_objects()) is not is_checking
        store.delete("probe-1")


def test_urls_are_where_anyone_reads(test_bucket: Bucket) -> None:
    """With nothing of a signature in them, in either style of address."""
    store = S3Store(test_bucket.bucket, "a b", s3_settings(test_bucket))
    assert store.url("c") == f"{test_bucket.public_url}/a%20b/c"
    for url in (store.url("c"), store.listing_url("")):
        assert not any(word in url for word in ("X-Amz", "Signature", "AccessKey", test_bucket.access_key))
    virtual = S3Settings("https://s3.example", access_key_id="a", secret_access_key="b")
    virtual = replace(virtual, addressing_style="virtual")
    assert S3Store("bucket", "", virtual).url("c") == "https://bucket.s3.example/c"


@pytest.mark.parametrize(
    ("status", "error"),
    [
        ("409 Conflict", PreconditionFailed),
        ("412 Precondition Failed", PreconditionFailed),
        ("404 Not Found", PreconditionFailed),
        ("500 Internal Server Error", StoreUnavailable),
        ("501 Not Implemented", StoreError),
        ("301 Moved Permanently", StoreError),
    ],
)
def test_answer_to_a_conditional_write_is_its_error(status: str, error: type[StoreError]) -> None:
    """Providers say "it has changed" in three ways; whoever does not implement conditions is not retried."""
    with ScriptedServer(http(status)) as server, pytest.raises(StoreError) as caught:
        _store_at(server.url).put(POINTER_KEY, b"x", Update('"1"'))
    assert error is type(caught.value)
    assert [request.headers["if-match"] for request in server.requests if request.method == "PUT"] == ['"1"']


def test_server_that_ignores_a_range_is_unavailable() -> None:
    answer = http("200 OK", b"0123456789")
    with ScriptedServer(answer) as server, pytest.raises(StoreUnavailable, match="ignored the range"):
        _store_at(server.url).get(BLOB, 5)


@pytest.mark.parametrize("said", ["bytes 6-9/10", "bytes 5-8/10", "bytes 5-9/*", "bytes 0-9/10", "x", ""])
def test_other_range_than_the_one_asked_for_is_unavailable(said: str) -> None:
    """Else a file would be put together of the wrong pieces, or end too early without an error."""
    answer = http("206 Partial Content", b"56789", Content_Range=said)
    with ScriptedServer(answer) as server, pytest.raises(StoreUnavailable, match=r"range|Range"):
        _store_at(server.url).get(BLOB, 5)


def test_rest_that_is_shorter_than_it_says_broke_off() -> None:
    answer = http("206 Partial Content", b"567", Content_Range="bytes 5-9/10")
    with ScriptedServer(answer) as server:
        reading = _store_at(server.url).get(BLOB, 5)
        with pytest.raises(StoreUnavailable, match="broke off 2 bytes before its end"):
            list(reading)


def test_broken_reading_goes_on_where_it_broke() -> None:
    content = bytes(range(256)) * 40
    broken = http("200 OK", content[:5000], len(content), ETag='"1"')
    with ScriptedServer(broken, http_range(content)) as server:
        store = RetryingStore(_store_at(server.url), Backoff(sleep=no_sleep))
        assert b"".join(store.get(BLOB)) == content
    assert [request.headers.get("range") for request in server.requests] == [None, "bytes=5000-"]


@pytest.mark.parametrize("etag", ["*", '"1", "2"', "", '"' + "x" * 300 + '"'])
def test_entity_tag_that_is_none_is_not_sent_back(etag: str) -> None:
    """RFC 9110, section 13.1.2: "*" in If-None-Match would be "not modified" for ever."""
    with ScriptedServer(http("200 OK", b"x", ETag=etag)) as server:
        reading = _store_at(server.url).get_if_changed(POINTER_KEY, "")
        assert reading is not None
        assert reading.info.etag == ""
        reading.close()


def test_write_that_is_answered_without_an_entity_tag_is_unavailable() -> None:
    """Not known: whoever moves the pointer reads back what was written."""
    with ScriptedServer(http("200 OK")) as server, pytest.raises(StoreUnavailable, match="entity tag"):
        _store_at(server.url).put(POINTER_KEY, b"x", Update('"1"'))


@pytest.mark.parametrize("missing", ["Key", "Size", "LastModified"])
def test_listing_that_lacks_what_it_should_say_is_unavailable(missing: str) -> None:
    said = {"Key": "a", "Size": "1", "LastModified": "2026-11-22T12:00:00.000Z"}
    fields = "".join(f"<{name}>{value}</{name}>" for name, value in said.items() if name != missing)
    listing = f"<ListBucketResult><Contents>{fields}</Contents></ListBucketResult>".encode()
    with ScriptedServer(http("200 OK", listing)) as server, pytest.raises(StoreUnavailable, match=missing):
        _store_at(server.url).list_objects()


def test_date_that_no_clock_can_have_is_no_time() -> None:
    answer = http("200 OK", Date="Fri, 31 Dec 9999 23:59:59 -0100")
    with ScriptedServer(answer) as server:
        assert _store_at(server.url).now() is None


def test_clock_is_the_servers(test_bucket: Bucket) -> None:
    """The Date of its answer, in whole seconds; also for a key that may not ask for the test_bucket."""
    second = timedelta(seconds=1)
    for settings in (s3_settings(test_bucket), replace(s3_settings(test_bucket), secret_access_key="wrong")):
        before = datetime.now(UTC)
        now = S3Store(test_bucket.bucket, "", settings).now()
        assert now is not None
        assert before - second < now <= datetime.now(UTC) + second
        assert now.microsecond == 0
