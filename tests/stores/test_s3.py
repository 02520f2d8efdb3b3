"""What only S3 has: headers, credentials, the server's checks and its clock; against the real server."""

from __future__ import annotations

import os
import socket
import uuid
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path

import pytest
import urllib3

from contracts.errors import AccessDenied, ObjectMissing, PreconditionFailed, StoreError, StoreUnavailable
from contracts.layout import POINTER_KEY, blob_key
from localstack import Bucket
from stores import Create, Overwrite, Store, Update
from stores.s3 import S3Settings, S3Store
from tests.stores.conftest import s3_settings
from tests.stores.scripted_server import Reset, ScriptedServer, http

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


def test_clock_is_the_servers(test_bucket: Bucket) -> None:
    """The Date of its answer, in whole seconds; also for a key that may not ask for the test_bucket."""
    second = timedelta(seconds=1)
    for settings in (s3_settings(test_bucket), replace(s3_settings(test_bucket), secret_access_key="wrong")):
        before = datetime.now(UTC)
        now = S3Store(test_bucket.bucket, "", settings).now()
        assert now is not None
        assert before - second < now <= datetime.now(UTC) + second
        assert now.microsecond == 0
