"""A mirror on a chain that is broken: it falls back to the keyframe, says so, and serves nothing else."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec.structs import replace

from contracts.errors import (
    AccessDenied,
    ContractError,
    DigestMismatchError,
    MalformedError,
    ObjectMissing,
    StoreUnavailable,
)
from contracts.layout import POINTER_KEY, blob_key
from contracts.manifest import Blob, Database, Delta, Manifest
from mirror import Mirror
from stores import restore
from tests.faults import FaultyStore
from tests.mirror.chain import Chain, served_file, serves


def change_delta(manifest: Manifest, change: Callable[[Delta], Delta]) -> Manifest:
    """The manifest with another last delta but one, of a chain of databases that are still the same."""
    deltas = list(manifest.deltas)
    deltas[-2] = change(deltas[-2])
    return replace(manifest, deltas=tuple(deltas))


def flip_a_byte(chain: Chain, manifest: Manifest) -> Manifest:
    key = blob_key(manifest.deltas[-2].blobs[0].digest)
    good = chain.store.objects[key]
    chain.store.objects[key] = good[:50] + bytes([good[50] ^ 1]) + good[51:]
    return manifest


def delete_a_blob(chain: Chain, manifest: Manifest) -> Manifest:
    del chain.store.objects[blob_key(manifest.deltas[-2].blobs[0].digest)]
    return manifest


def cut_a_blob(chain: Chain, manifest: Manifest) -> Manifest:
    key = blob_key(manifest.deltas[-2].blobs[0].digest)
    chain.store.objects[key] = chain.store.objects[key][:-9]
    return manifest


def serve_no_delta(chain: Chain, manifest: Manifest) -> Manifest:
    return change_delta(manifest, lambda delta: replace(delta, blobs=(chain.put(b"not a delta"),)))


def serve_the_delta_of_another_base(chain: Chain, manifest: Manifest) -> Manifest:
    return change_delta(manifest, lambda delta: replace(delta, blobs=chain.deltas[50].blobs))


def serve_a_delta_to_another_target(chain: Chain, manifest: Manifest) -> Manifest:
    other = chain.make_delta(chain.files[len(manifest.deltas) - 2], chain.files[50])
    return change_delta(manifest, lambda delta: replace(delta, blobs=other.blobs))


def promise_a_smaller_blob(chain: Chain, manifest: Manifest) -> Manifest:
    def shrink(delta: Delta) -> Delta:
        (blob,) = delta.blobs
        return replace(delta, blobs=(Blob(blob.digest, blob.size_bytes - 1),))

    return change_delta(manifest, shrink)


def promise_a_huge_database_between(chain: Chain, manifest: Manifest) -> Manifest:
    """As large as a mirror takes, and more than the delta's few pages can fill."""
    huge = Database(manifest.deltas[-2].target.digest, 16 << 30)
    *others, before, last = manifest.deltas
    deltas = (*others, replace(before, target=huge), replace(last, base=huge))
    return replace(manifest, deltas=deltas)


FAULTS = [
    flip_a_byte,
    delete_a_blob,
    cut_a_blob,
    serve_no_delta,
    serve_the_delta_of_another_base,
    serve_a_delta_to_another_target,
    promise_a_smaller_blob,
    promise_a_huge_database_between,
]


@pytest.mark.parametrize("spoil", FAULTS)
def test_broken_delta_falls_back_to_the_keyframe_and_says_so(
    chain: Chain, mirror: Mirror, spoil: Callable[[Chain, Manifest], Manifest]
) -> None:
    chain.point(5)
    mirror.sync()
    manifest = chain.point(9, keyframe=9)
    chain.serve(spoil(chain, manifest))
    result = mirror.sync()
    assert result.outcome == "updated"
    assert result.fallback is not None
    assert "because the deltas could not be used" in result.fallback
    assert result.downloaded_bytes > manifest.keyframe.stored_bytes
    assert serves(mirror, chain.files[9])
    chain.point(10, keyframe=9)
    assert mirror.sync().fallback is None


@pytest.mark.parametrize("spoil", FAULTS)
def test_broken_delta_and_broken_keyframe_keep_the_served_generation(
    chain: Chain, mirror: Mirror, tmp_path: Path, spoil: Callable[[Chain, Manifest], Manifest]
) -> None:
    chain.point(5)
    mirror.sync()
    manifest = chain.point(9, keyframe=9)
    key = blob_key(manifest.keyframe.blobs[0].digest)
    chain.store.objects[key] = chain.store.objects[key][:-1] + b"?"
    chain.serve(spoil(chain, manifest))
    with pytest.raises((DigestMismatchError, MalformedError)):
        mirror.sync()
    assert serves(mirror, chain.files[5])
    assert not (tmp_path / "mirror" / "incoming").exists()


@pytest.mark.parametrize("spoil", [flip_a_byte, delete_a_blob, serve_no_delta])
def test_a_broken_delta_that_the_keyframe_needs_too_costs_no_keyframe(
    chain: Chain, mirror: Mirror, watched: FaultyStore, spoil: Callable[[Chain, Manifest], Manifest]
) -> None:
    """The usual case: the keyframe is older than what is served, and would be fetched at every poll."""
    chain.point(5)
    mirror.sync()
    manifest = chain.point(9, keyframe=3)
    chain.serve(spoil(chain, manifest))
    watched.operations.clear()
    with pytest.raises((DigestMismatchError, MalformedError, ObjectMissing)):
        mirror.sync()
    asked = {key for operation, key in watched.operations if operation == "get"}
    assert asked.isdisjoint(blob_key(blob.digest) for blob in manifest.keyframe.blobs)
    assert serves(mirror, chain.files[5])
    chain.point(10, keyframe=10)
    mirror.sync()
    assert serves(mirror, chain.files[10])


def test_lying_digest_of_the_newest_database_is_never_served(chain: Chain, mirror: Mirror) -> None:
    chain.point(5)
    mirror.sync()
    manifest = chain.point(6, keyframe=5)
    lie = Database("f" * 64, manifest.database.size_bytes)
    deltas = (*manifest.deltas[:-1], replace(manifest.deltas[-1], target=lie))
    chain.serve(replace(manifest, database=lie, deltas=deltas))
    with pytest.raises(DigestMismatchError):
        mirror.sync()
    assert serves(mirror, chain.files[5])


@pytest.mark.parametrize("size_bytes", [4097, (16 << 30) + 4096], ids=["ragged", "too large"])
def test_impossible_database_on_the_chain_is_refused_before_any_download(
    chain: Chain, mirror: Mirror, watched: FaultyStore, size_bytes: int
) -> None:
    chain.point(5)
    mirror.sync()
    manifest = chain.point(6)
    first, *others = manifest.deltas
    base = Database(first.base.digest, size_bytes)
    chain.serve(
        replace(manifest, deltas=(replace(first, base=base), *others), keyframe=chain.make_keyframe(5))
    )
    watched.operations.clear()
    with pytest.raises(MalformedError, match=f"database of {size_bytes} bytes"):
        mirror.sync()
    assert watched.operations == [("get", POINTER_KEY)]


@pytest.mark.parametrize("at", [100, -100], ids=["in the first page", "in the last page"])
def test_damaged_served_file_heals_through_the_keyframe(chain: Chain, mirror: Mirror, at: int) -> None:
    chain.point(5)
    mirror.sync()
    held = served_file(mirror)
    content = bytearray(held.read_bytes())
    content[at] ^= 1
    held.write_bytes(content)
    chain.point(9, keyframe=9)
    fallback = mirror.sync().fallback
    assert fallback is not None
    assert str(held) in fallback
    assert serves(mirror, chain.files[9])


def test_served_file_that_cannot_be_read_heals_through_the_keyframe(
    chain: Chain, mirror: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bad sector."""

    def fail(source: Path, target: Path) -> None:
        raise OSError(errno.EIO, "Input/output error")

    chain.point(5)
    mirror.sync()
    chain.point(9)
    monkeypatch.setattr(restore, "clone_file", fail)
    assert "Input/output error" in str(mirror.sync().fallback)
    assert serves(mirror, chain.files[9])


def test_full_disk_is_no_reason_to_download_more(
    chain: Chain, mirror: Mirror, watched: FaultyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(source: Path, target: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    chain.point(5)
    mirror.sync()
    chain.point(9, keyframe=9)
    monkeypatch.setattr(restore, "clone_file", fail)
    watched.operations.clear()
    with pytest.raises(OSError, match="No space"):
        mirror.sync()
    assert watched.operations == [("get", POINTER_KEY)]


def test_network_that_fails_is_no_reason_to_download_more(
    chain: Chain, mirror: Mirror, watched: FaultyStore
) -> None:
    chain.point(5)
    mirror.sync()
    manifest = chain.point(9, keyframe=9)
    asked = fail_deltas(watched, manifest, StoreUnavailable("the line is dead"))
    with pytest.raises(StoreUnavailable):
        mirror.sync()
    assert not asked & {blob_key(blob.digest) for blob in manifest.keyframe.blobs}
    assert serves(mirror, chain.files[5])


def test_delta_that_may_not_be_read_falls_back(chain: Chain, mirror: Mirror, watched: FaultyStore) -> None:
    """What a bucket answers for a missing object when nobody may list it (field notes)."""
    chain.point(5)
    mirror.sync()
    fail_deltas(watched, chain.point(9, keyframe=9), AccessDenied("status 403"))
    assert "status 403" in str(mirror.sync().fallback)
    assert serves(mirror, chain.files[9])


def test_missing_delta_of_a_stale_pointer_is_no_reason_to_fall_back(
    chain: Chain, mirror: Mirror, watched: FaultyStore
) -> None:
    """The delta was pruned; a cache still serves the pointer that names it."""
    chain.point(5)
    mirror.sync()
    stale = chain.point(9)
    chain.point(10, first=9, keyframe=10)
    newest = chain.store.objects[POINTER_KEY]
    chain.serve(delete_a_blob(chain, stale))

    def refresh_cache(operation: str, key: str) -> None:
        if key != POINTER_KEY:
            chain.store.objects[POINTER_KEY] = newest

    watched.before = refresh_cache
    assert mirror.sync().fallback is None
    assert serves(mirror, chain.files[10])


def test_fresh_mirror_has_nothing_to_fall_back_to(chain: Chain, mirror: Mirror, watched: FaultyStore) -> None:
    chain.serve(flip_a_byte(chain, chain.point(9, keyframe=5)))
    with pytest.raises(ContractError):
        mirror.sync()
    blobs = [key for operation, key in watched.operations if key != POINTER_KEY]
    assert len(blobs) == len(set(blobs))


def fail_deltas(watched: FaultyStore, manifest: Manifest, error: Exception) -> set[str]:
    """Let every blob of a delta fail; returns the keys that are asked for from now on."""
    deltas = {blob_key(blob.digest) for delta in manifest.deltas for blob in delta.blobs}
    asked: set[str] = set()

    def fail(operation: str, key: str) -> None:
        asked.add(key)
        if key in deltas:
            raise error

    watched.before = fail
    return asked
