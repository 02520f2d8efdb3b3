"""What every test may ask for: one real S3 server for the whole run, and a bucket of one's own on it."""

from __future__ import annotations

import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from localstack import Bucket, SeaweedFS
from music_cloud.sample import create_catalogue

_NOBODY = 65534  # the user that owns nothing (Debian Policy, section 9.2.2)

# How long an example takes says more of the machine than of the code.
settings.register_profile("music-cloud", deadline=None)
settings.load_profile("music-cloud")


@pytest.fixture(scope="session")
def seaweed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeaweedFS]:
    """A running SeaweedFS. Tests that stop it or break it start one of their own."""
    with SeaweedFS(tmp_path_factory.mktemp("seaweed"), buckets=()) as server:
        yield server


@pytest.fixture
def bucket(seaweed: SeaweedFS) -> Iterator[Bucket]:
    """An empty bucket, public to read, that is gone after the test."""
    made = seaweed.create_bucket(f"test-{uuid.uuid4().hex[:12]}")
    yield made
    seaweed.delete_bucket(made.bucket)


@pytest.fixture(scope="session")
def _sample_catalogue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sample") / "catalogsync.db"
    create_catalogue(path, songs=400)
    return path


@pytest.fixture
def catalogue(_sample_catalogue: Path, tmp_path: Path) -> Path:
    """A small authoritative catalogue of one's own."""
    return Path(shutil.copy(_sample_catalogue, tmp_path / "catalogsync.db"))


@pytest.fixture
def unprivileged() -> Iterator[Path]:
    """A folder of one's own while this process is a user whom the file system refuses things, even for root.

    Not beneath `tmp_path`, whose parents only root may pass.
    """
    folder = Path(tempfile.mkdtemp(prefix="unprivileged-"))
    is_root = os.name == "posix" and os.geteuid() == 0
    try:
        if is_root:
            os.chown(folder, _NOBODY, _NOBODY)
            os.seteuid(_NOBODY)
        yield folder
    finally:
        if is_root:
            os.seteuid(0)
        shutil.rmtree(folder)
