"""The CDN in front of the bucket caches as a CDN does (RFC 9111) and passes on nothing but reads."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import urllib3

from localstack import Bucket, CachingProxy, SeaweedFS, find_nginx

pytestmark = pytest.mark.skipif(find_nginx() is None, reason="there is no nginx")


@pytest.fixture
def proxy(tmp_path: Path, bucket: Bucket) -> Iterator[CachingProxy]:
    with CachingProxy(tmp_path, bucket.public_url) as running:
        yield running


@pytest.fixture
def http() -> Iterator[urllib3.PoolManager]:
    with urllib3.PoolManager(retries=False) as pool:
        yield pool


def put(seaweed: SeaweedFS, bucket: Bucket, body: bytes, cache_control: str) -> None:
    with contextlib.closing(seaweed.client()) as client:
        client.put_object(Bucket=bucket.bucket, Key="k", Body=body, CacheControl=cache_control)


def test_what_is_immutable_is_fetched_once(
    seaweed: SeaweedFS, bucket: Bucket, proxy: CachingProxy, http: urllib3.PoolManager
) -> None:
    """A change that nobody should make shows which answers came from the cache."""
    put(seaweed, bucket, b"first", "public, max-age=31536000, immutable")
    assert http.request("GET", f"{proxy.url}/k").data == b"first"
    put(seaweed, bucket, b"second", "public, max-age=31536000, immutable")
    cached = http.request("GET", f"{proxy.url}/k")
    assert (cached.data, cached.headers["X-Cache-Status"]) == (b"first", "HIT")


def test_what_may_not_be_stored_is_always_fresh(
    seaweed: SeaweedFS, bucket: Bucket, proxy: CachingProxy, http: urllib3.PoolManager
) -> None:
    for body in (b"first", b"second"):
        put(seaweed, bucket, body, "no-store")
        assert http.request("GET", f"{proxy.url}/k").data == body


def test_nobody_writes_through_it(proxy: CachingProxy, http: urllib3.PoolManager) -> None:
    assert http.request("PUT", f"{proxy.url}/k", body=b"mine").status == 403
