"""A network that fails, and a tiny catalogue to send through it."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from localstack import SeaweedFS
from music_cloud.sample import create_catalogue
from stores import RetryingStore, Store
from stores.s3 import S3Settings, S3Store
from tests.survival.fault_proxy import FaultProxy
from tests.survival.schedules import Net
from tests.survival.witness import PlainHttp


@pytest.fixture(scope="session")
def net(seaweed: SeaweedFS) -> Iterator[Net]:
    """One bucket behind one proxy for all schedules, each of which has its prefix."""
    made = seaweed.create_bucket("test-survival")
    with FaultProxy(made.endpoint_url) as proxy:
        yield Net(proxy, made)
    seaweed.delete_bucket(made.bucket)


@pytest.fixture
def prefix() -> str:
    """A place of one's own in the bucket: to make a bucket takes longer than a test."""
    return f"test-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def s3_store(seaweed: SeaweedFS, net: Net, prefix: str) -> Store:
    """A store on the server itself, which answers."""
    settings = S3Settings(
        endpoint_url=seaweed.endpoint_url,
        access_key_id=net.bucket.access_key,
        secret_access_key=net.bucket.secret_key,
        addressing_style="path",
    )
    return RetryingStore(S3Store(net.bucket.bucket, prefix, settings))


@pytest.fixture
def behind(net: Net, prefix: str) -> Iterator[PlainHttp]:
    """What is in it, read without the proxy and without a store."""
    with closing(PlainHttp(f"{net.bucket.public_url}/{prefix}")) as plain:
        yield plain


@pytest.fixture(scope="session")
def tiny_catalogue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A catalogue whose publish takes 50 ms; not to be written to."""
    path = tmp_path_factory.mktemp("tiny") / "catalogsync.db"
    create_catalogue(path, songs=100)
    return path
