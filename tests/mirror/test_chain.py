"""A mirror on a chain of deltas: where it starts, and what it downloads."""

from __future__ import annotations

from pathlib import Path

import pytest

from contracts.layout import POINTER_KEY, blob_key
from contracts.manifest import Delta
from localstack import Bucket
from mirror import Mirror
from stores import HttpStore, Overwrite
from stores.s3 import S3Settings, S3Store
from tests.mirror.chain import NOW, PUBLISHES, Chain, serves


def bytes_of(deltas: list[Delta]) -> int:
    return sum(delta.stored_bytes for delta in deltas)


@pytest.mark.parametrize("behind", [1, 5, PUBLISHES])
def test_mirror_that_is_behind_downloads_the_deltas_it_lacks(
    chain: Chain, mirror: Mirror, behind: int
) -> None:
    chain.point(PUBLISHES - behind, keyframe=PUBLISHES - behind)
    mirror.sync()
    chain.point()
    result = mirror.sync()
    assert (result.outcome, result.fallback) == ("updated", None)
    assert bytes_of(chain.deltas[-behind:]) == result.downloaded_bytes
    assert serves(mirror, chain.files[-1])


def test_fresh_mirror_downloads_the_keyframe_and_what_follows(chain: Chain, mirror: Mirror) -> None:
    manifest = chain.point(keyframe=40)
    result = mirror.sync()
    assert manifest.keyframe.stored_bytes + bytes_of(chain.deltas[40:]) == result.downloaded_bytes
    assert serves(mirror, chain.files[-1])


def test_mirror_beyond_the_chain_starts_from_the_keyframe(chain: Chain, mirror: Mirror) -> None:
    chain.point(2)
    mirror.sync()
    manifest = chain.point(20, first=3, keyframe=15)
    result = mirror.sync()
    assert manifest.keyframe.stored_bytes + bytes_of(chain.deltas[15:20]) == result.downloaded_bytes
    assert result.fallback is None
    assert serves(mirror, chain.files[20])


def test_mirror_before_the_keyframe_is_not_stranded(chain: Chain, mirror: Mirror) -> None:
    """The chain passes the keyframe's database; so few deltas are less than a keyframe."""
    chain.point(2)
    mirror.sync()
    chain.point(6, keyframe=4)
    assert bytes_of(chain.deltas[2:6]) == mirror.sync().downloaded_bytes
    assert serves(mirror, chain.files[6])


def test_keyframe_is_taken_where_it_is_less_than_the_deltas(chain: Chain, mirror: Mirror) -> None:
    chain.point(0)
    mirror.sync()
    manifest = chain.point(keyframe=-1)
    result = mirror.sync()
    assert manifest.keyframe.stored_bytes == result.downloaded_bytes < bytes_of(chain.deltas)
    assert result.fallback is None
    assert serves(mirror, chain.files[-1])


def test_mirror_whose_database_comes_twice_starts_at_the_last(chain: Chain, mirror: Mirror) -> None:
    """As after a rollback."""
    chain.point(1)
    mirror.sync()
    del chain.deltas[3:], chain.files[4:]
    chain.append(chain.files[1])
    chain.append(chain.files[2])
    chain.point()
    assert bytes_of(chain.deltas[-1:]) == mirror.sync().downloaded_bytes
    assert serves(mirror, chain.files[2])


def test_rollback_is_followed_by_its_delta(chain: Chain, mirror: Mirror) -> None:
    chain.point(3)
    mirror.sync()
    del chain.deltas[3:], chain.files[4:]
    chain.append(chain.files[0])
    chain.point()
    assert bytes_of(chain.deltas[-1:]) == mirror.sync().downloaded_bytes
    assert serves(mirror, chain.files[0])


def test_chain_is_followed_over_plain_http(chain: Chain, tmp_path: Path, bucket: Bucket) -> None:
    settings = S3Settings(
        endpoint_url=bucket.endpoint_url,
        access_key_id=bucket.access_key,
        secret_access_key=bucket.secret_key,
    )
    s3 = S3Store(bucket.bucket, "music", settings)
    mirror = Mirror(
        tmp_path / "mirror", HttpStore(f"{bucket.public_url}/music"), now=lambda: NOW, unsigned=True
    )
    for last in (0, 30):
        manifest = chain.point(last)
        blobs = [*manifest.keyframe.blobs]
        blobs += [blob for delta in manifest.deltas for blob in delta.blobs]
        for key in [*(blob_key(blob.digest) for blob in blobs), POINTER_KEY]:
            s3.put(key, chain.store.objects[key], Overwrite())
        assert mirror.sync().outcome == "updated"
        assert serves(mirror, chain.files[last])
