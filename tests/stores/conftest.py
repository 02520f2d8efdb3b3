"""Every store that writes, empty, alone and wrapped; the same tests run over all of them.

Where the environment names an S3 bucket (docs/providers.md), that is one of them: "given".
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from localstack import Bucket, SeaweedFS
from stores import Backoff, FolderStore, MemoryStore, RetryingStore, Store
from stores.s3 import S3Settings, S3Store
from stores.single_publisher import SinglePublisherStore
from stores.unquoted import UnquotedStore
from tests.stores.servers import serve_moto, serve_rclone

_GIVEN = "MUSIC_CLOUD_TEST_S3_"
HAS_GIVEN = f"{_GIVEN}ENDPOINT" in os.environ
BACKENDS = ("memory", "folder", "s3", *(("given",) if HAS_GIVEN else ()))


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
def rclone_bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bucket]:
    """A bucket on a server that ignores conditions."""
    with serve_rclone(tmp_path_factory.mktemp("rclone")) as made:
        yield made


@pytest.fixture(scope="session")
def moto_bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bucket]:
    """A bucket on moto."""
    with serve_moto(tmp_path_factory.mktemp("moto")) as made:
        yield made


@pytest.fixture(scope="session")
def session_s3(test_bucket: Bucket) -> S3Store:
    """One store, for the same reason; so are the next three."""
    return S3Store(test_bucket.bucket, "prefix", s3_settings(test_bucket))


@pytest.fixture(scope="session")
def session_rclone(rclone_bucket: Bucket) -> S3Store:
    return S3Store(rclone_bucket.bucket, "prefix", s3_settings(rclone_bucket))


@pytest.fixture(scope="session")
def session_moto(moto_bucket: Bucket) -> S3Store:
    return S3Store(moto_bucket.bucket, "prefix", s3_settings(moto_bucket))


@pytest.fixture(scope="session")
def session_given() -> Iterator[S3Store]:
    """A prefix of its own in the bucket that the environment names, empty again after the tests."""
    settings = S3Settings(
        endpoint_url=os.environ[f"{_GIVEN}ENDPOINT"] or None,
        region=os.environ.get(f"{_GIVEN}REGION", "us-east-1"),
        access_key_id=os.environ[f"{_GIVEN}ACCESS_KEY_ID"],
        secret_access_key=os.environ[f"{_GIVEN}SECRET_ACCESS_KEY"],
        addressing_style=os.environ.get(f"{_GIVEN}ADDRESSING_STYLE", "auto"),
    )
    prefix = f"music-cloud-test-{uuid.uuid4().hex}"
    store = S3Store(os.environ[f"{_GIVEN}BUCKET"], prefix, settings)
    yield store
    store._prefix = prefix
    for found in store.list_objects():
        store.delete(found.key)


def empty_s3(store: S3Store) -> S3Store:
    """The store beneath a prefix of its own: deleting a thousand objects takes longer than a test."""
    store._prefix = f"{store._prefix.partition('/')[0]}/{uuid.uuid4().hex}"
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
            # Which starts the server only if it is needed.
            store = empty_s3(request.getfixturevalue(f"session_{backend}"))
        if wrapper == "retrying":
            return RetryingStore(store, Backoff(sleep=no_sleep))
        if wrapper == "unquoted":
            return UnquotedStore(store)
        return SinglePublisherStore(store) if wrapper else store

    return make


@pytest.fixture(params=BACKENDS)
def plain_store(request: pytest.FixtureRequest, make_store: Callable[[str], Store]) -> Store:
    """Each store by itself."""
    return make_store(request.param)


@pytest.fixture(params=[*BACKENDS, "moto", "retrying memory", "retrying folder"])
def shared_store(request: pytest.FixtureRequest, make_store: Callable[[str], Store]) -> Store:
    """Stores that several publishers may share; one on the server, whose own lock makes a race slow."""
    return make_store(request.param)


@pytest.fixture(
    params=[
        *(f"{wrapper}{backend}" for wrapper in ("", "retrying ", "single ") for backend in BACKENDS),
        "moto",  # in the dialect of AWS, and not the real thing: some of it is enough
        "unquoted moto",
        "single rclone",
    ]
)
def store(request: pytest.FixtureRequest, make_store: Callable[[str], Store]) -> Store:
    """Each store, alone and in each wrapper."""
    return make_store(request.param)
