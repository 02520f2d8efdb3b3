"""Every store that writes, empty, alone and wrapped; the same tests run over all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from localstack import Bucket, SeaweedFS
from stores import Backoff, FolderStore, MemoryStore, RetryingStore, Store
from stores.s3 import S3Settings, S3Store
from stores.single_publisher import SinglePublisherStore

BACKENDS = ("memory", "folder", "s3")


def no_sleep(seconds: float) -> None:
    """A test that needs to wait has found a bug."""
    raise AssertionError(f"a retry after {seconds} s, although nothing failed")


def s3_settings(bucket: Bucket) -> S3Settings:
    return S3Settings(
        endpoint_url=bucket.endpoint_url,
        region=bucket.region,
        access_key_id=bucket.access_key,
        secret_access_key=bucket.secret_key,
        addressing_style="path",
    )


@pytest.fixture(scope="session")
def test_bucket(seaweed: SeaweedFS) -> Iterator[Bucket]:
    """One bucket for all of these tests: making one takes longer than a test."""
    made = seaweed.create_bucket("test-stores")
    yield made
    seaweed.delete_bucket(made.bucket)


@pytest.fixture(scope="session")
def session_s3(seaweed: SeaweedFS, test_bucket: Bucket) -> Iterator[tuple[S3Store, Any]]:
    """One store, and a client to empty it, for the same reason."""
    with closing(seaweed.client()) as client:
        yield S3Store(test_bucket.bucket, "prefix", s3_settings(test_bucket)), client


def empty_s3(store: S3Store, client: Any) -> S3Store:
    """The store without any object."""
    for found in client.list_objects_v2(Bucket="test-stores").get("Contents", []):
        client.delete_object(Bucket="test-stores", Key=found["Key"])
    return store


@pytest.fixture
def make_store(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str], Store]:
    """An empty store by name, such as "folder" or "retrying s3"."""

    def make(name: str) -> Store:
        wrapper, _, backend = name.rpartition(" ")
        store: Store
        if backend == "memory":
            store = MemoryStore()
        elif backend == "folder":
            store = FolderStore(tmp_path / "store")
        else:
            store = empty_s3(*request.getfixturevalue("session_s3"))  # which starts the server only if needed
        if wrapper == "retrying":
            return RetryingStore(store, Backoff(sleep=no_sleep))
        return SinglePublisherStore(store) if wrapper else store

    return make


@pytest.fixture(params=BACKENDS)
def plain_store(request: pytest.FixtureRequest, make_store: Callable[[str], Store]) -> Store:
    """Each store by itself."""
    return make_store(request.param)


@pytest.fixture(params=[*BACKENDS, "retrying memory", "retrying folder"])
def shared_store(request: pytest.FixtureRequest, make_store: Callable[[str], Store]) -> Store:
    """Stores that several publishers may share; one on the server, whose own lock makes a race slow."""
    return make_store(request.param)


@pytest.fixture(
    params=[f"{wrapper}{backend}" for wrapper in ("", "retrying ", "single ") for backend in BACKENDS]
)
def store(request: pytest.FixtureRequest, make_store: Callable[[str], Store]) -> Store:
    """Each store, alone and in each wrapper."""
    return make_store(request.param)
