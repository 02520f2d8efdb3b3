"""Reading back: a delta proves the whole database without a copy of it, a keyframe by a bounded sample."""

from __future__ import annotations

import random
from itertools import zip_longest
from pathlib import Path

import pytest

from contracts.digests import digest_bytes
from contracts.errors import DigestMismatchError, MalformedError
from contracts.layout import blob_key
from contracts.manifest import Blob, Database, Delta, Keyframe
from contracts.read_model import PAGE_BYTES
from publisher.deltas import compare_databases, write_delta
from publisher.keyframes import write_keyframe
from publisher.proof.upload import plan_sample, verify_applied_delta, verify_keyframe_blobs
from stores import MemoryStore
from stores.progress import Progress

MIB = 1 << 20
SEGMENT_BYTES = 256 << 10


def _write(path: Path, pages: list[bytes]) -> Database:
    content = b"".join(pages)
    path.write_bytes(content)
    return Database(digest_bytes(content), len(content))


def _pages(seed: int, count: int) -> list[bytes]:
    chance = random.Random(seed)
    return [chance.randbytes(PAGE_BYTES) for _ in range(count)]


def _upload(folder: Path, store: MemoryStore, blobs: tuple[Blob, ...]) -> None:
    for blob in blobs:
        store.objects[blob_key(blob.digest)] = (folder / blob.digest).read_bytes()


def _delta(folder: Path, store: MemoryStore, old: list[bytes], new: list[bytes]) -> Delta:
    """The delta between two databases, uploaded; the base is in `folder / "base"`."""
    base, target = _write(folder / "base", old), _write(folder / "target", new)
    blobs_dir, scratch = folder / "blobs", folder / "scratch"
    for made in (blobs_dir, scratch):
        made.mkdir()
    changed = compare_databases(folder / "base", folder / "target")
    written = write_delta(
        folder / "base", folder / "target", changed, blobs_dir, batch_pages=64, max_bytes=1 << 40
    )
    assert written is not None
    _upload(blobs_dir, store, written.blobs)
    return Delta(base, target, written.blobs)


OLD = _pages(1, 210)
CHANGES = {
    "one page": [*OLD[:30], *_pages(2, 1), *OLD[31:]],
    "the first and the last": [*_pages(2, 1), *OLD[1:-1], *_pages(3, 1)],
    "runs of pages": [*OLD[:20], *_pages(2, 130), *OLD[150:]],
    "moved pages": [*OLD[100:], *OLD[:100]],
    "growth": [*OLD, *_pages(2, 40)],
    "shrinking": OLD[:150],
    "shrinking and changing": [*_pages(2, 3), *OLD[3:150]],
}


@pytest.mark.parametrize("change", CHANGES)
def test_delta_is_proven_without_touching_its_base(tmp_path: Path, change: str) -> None:
    store = MemoryStore()
    delta = _delta(tmp_path, store, OLD, CHANGES[change])
    arrived: list[int] = []
    verify_applied_delta(store, delta, tmp_path / "base", tmp_path / "scratch", arrived.append)
    assert sum(arrived) == delta.stored_bytes
    assert (tmp_path / "base").read_bytes() == b"".join(OLD)
    pairs = zip_longest(OLD[: len(CHANGES[change])], CHANGES[change])
    most_pages = max(1, sum(before != after for before, after in pairs))
    assert sum(path.stat().st_size for path in (tmp_path / "scratch").iterdir()) <= most_pages * PAGE_BYTES


@pytest.mark.parametrize("change", CHANGES)
def test_delta_that_leads_elsewhere_is_refused(tmp_path: Path, change: str) -> None:
    """Whole blobs of the right digests, but the target differs in a page that they do not hold."""
    store = MemoryStore()
    delta = _delta(tmp_path, store, OLD, CHANGES[change])
    wrong = [*CHANGES[change][:-1], *_pages(9, 1)]
    target = _write(tmp_path / "elsewhere", wrong)
    elsewhere = Delta(delta.base, target, delta.blobs)
    with pytest.raises(MalformedError, match=target.digest):
        verify_applied_delta(store, elsewhere, tmp_path / "base", tmp_path / "scratch", lambda size: None)


@pytest.mark.parametrize("offset", [0, 20, -1])
def test_corrupt_blob_is_blamed_by_its_digest_whatever_the_decoder_says(tmp_path: Path, offset: int) -> None:
    """A decoder trips over a damaged frame before the digest is known; the sentence must name the object."""
    store = MemoryStore()
    delta = _delta(tmp_path, store, OLD, CHANGES["runs of pages"])
    key = blob_key(delta.blobs[0].digest)
    content = bytearray(store.objects[key])
    content[offset] ^= 0xFF
    store.objects[key] = bytes(content)
    with pytest.raises(DigestMismatchError, match=rf"{key} in .*delete that object"):
        verify_applied_delta(store, delta, tmp_path / "base", tmp_path / "scratch", lambda size: None)


def test_keyframe_of_another_database_is_refused(tmp_path: Path) -> None:
    """Each blob is what its digest says and of the right size: only the comparison can tell."""
    store = MemoryStore()
    database = _write(tmp_path / "database", OLD)
    (tmp_path / "blobs").mkdir()
    keyframe = write_keyframe(
        tmp_path / "database", database, tmp_path / "blobs", SEGMENT_BYTES, 1, Progress()
    )
    _upload(tmp_path / "blobs", store, keyframe.blobs)
    sample = range(len(keyframe.blobs))
    verify_keyframe_blobs(store, keyframe, sample, tmp_path / "database", lambda size: None)
    swapped = Keyframe(database, SEGMENT_BYTES, (keyframe.blobs[1], keyframe.blobs[0], *keyframe.blobs[2:]))
    with pytest.raises(MalformedError, match="segment 1 of the keyframe"):
        verify_keyframe_blobs(store, swapped, sample, tmp_path / "database", lambda size: None)
    verify_keyframe_blobs(
        store, swapped, sample, None, lambda size: None
    )  # as much as can be known without it


@pytest.mark.parametrize("count", [1, 2, 3, 40, 300])
def test_sample_holds_the_first_and_the_last_and_keeps_its_bounds(count: int) -> None:
    chance = random.Random(count)
    sizes = [chance.randrange(3 * MIB, 6 * MIB) for _ in range(count)]
    sample = plan_sample(sizes, random.Random(7))
    assert sample == sorted(set(sample))
    assert {0, count - 1} <= set(sample)
    assert sum(sizes[index] for index in sample) <= max(32 * MIB, 0.05 * sum(sizes))
    if sum(sizes) <= 32 * MIB:
        assert len(sample) == count


def test_every_blob_of_a_large_keyframe_is_read_sooner_or_later() -> None:
    sizes = [5 * MIB] * 30
    chance = random.Random(3)
    seen = {index for _ in range(60) for index in plan_sample(sizes, chance)}
    assert seen == set(range(30))
