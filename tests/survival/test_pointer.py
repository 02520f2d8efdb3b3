"""A pointer that comes damaged, or from a cache, while a publisher reads it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from contracts.digests import digest_bytes
from contracts.errors import StoreUnavailable
from contracts.layout import POINTER_KEY
from contracts.manifest import format_manifest
from publisher import EXPIRY, PublishOptions, publish
from publisher.plan import plan_renewal
from publisher.pointer import fetch_pointer, swap_pointer
from stores import MemoryStore
from tests.faults import FaultyStore
from tests.survival.witness import Witness, change_catalogue

_OPTIONS = PublishOptions(level=1)


@pytest.fixture
def published(tiny_catalogue: Path, tmp_path: Path) -> MemoryStore:
    """A store with two snapshots."""
    store, catalogue = MemoryStore(), Path(shutil.copy(tiny_catalogue, tmp_path / "catalogsync.db"))
    for number in range(2):
        change_catalogue(catalogue, f"{number} ")
        publish(catalogue, store, tmp_path / "state", _OPTIONS)
    return store


def _watch(store: MemoryStore, comes: list[bytes]) -> FaultyStore:
    """The store, whose pointer comes as these bytes first, and then as it is."""
    true = store.objects[POINTER_KEY]

    def serve(operation: str, key: str) -> None:
        if (operation, key) == ("get", POINTER_KEY):
            store.objects[POINTER_KEY] = comes.pop(0) if comes else true

    return FaultyStore(store, before=serve)


def test_pointer_in_which_a_bit_flipped_is_read_again(published: MemoryStore) -> None:
    """Its digest would be the `previous` of the next manifest, of which there is none."""
    true = fetch_pointer(published)
    stored = published.objects[POINTER_KEY]
    flipped = stored.replace(b'"sequence":2', b'"sequence":3')
    assert flipped != stored
    assert fetch_pointer(_watch(published, [flipped])) == true


def test_pointer_that_is_never_the_same_twice_is_no_pointer(published: MemoryStore) -> None:
    stored = published.objects[POINTER_KEY]
    damaged = [stored.replace(b'"sequence":2', b'"sequence":%d' % number) for number in range(3, 20)]
    with pytest.raises(StoreUnavailable, match="other bytes each time"):
        fetch_pointer(_watch(published, damaged))


def test_older_pointer_from_a_cache_is_not_another_publishers(
    published: MemoryStore, tiny_catalogue: Path, tmp_path: Path
) -> None:
    """The swap landed, its answer was lost, and what is read back is of before the base."""
    witness = Witness(published.objects.get)
    witness.verify()
    older, base = witness.history
    before = fetch_pointer(published)
    assert before is not None
    assert before.digest == base[0]
    now = before.manifest.published_at
    manifest = plan_renewal(before, now=now, expiry=EXPIRY, random_id="1" * 32)
    put = 0

    def lose(operation: str, key: str) -> None:
        nonlocal put
        if (operation, key) == ("put", POINTER_KEY):
            put += 1
            if put == 1:
                raise StoreUnavailable("no answer")

    comes = [format_manifest(older[1])]
    landed = format_manifest(manifest)

    def serve(operation: str, key: str) -> None:
        if (operation, key) == ("get", POINTER_KEY):
            published.objects[POINTER_KEY] = comes.pop(0) if comes else landed

    paused: list[int] = []
    store = FaultyStore(published, before=serve, after=lose)
    assert swap_pointer(store, before, manifest, paused.append).manifest == manifest
    assert paused == [1]


def test_own_pointer_that_comes_back_damaged_is_still_what_was_written(published: MemoryStore) -> None:
    """The answer to the swap was lost (seed 10195); the next manifest would name what nobody has."""
    base = fetch_pointer(published)
    assert base is not None
    manifest = plan_renewal(base, now=base.manifest.published_at, expiry=EXPIRY, random_id="c" * 32)
    stored = format_manifest(manifest)

    def lose(operation: str, key: str) -> None:
        if (operation, key) == ("put", POINTER_KEY):
            published.objects[POINTER_KEY] = stored.replace(b'"track_count":1', b'"track_count":2')
            raise StoreUnavailable("the answer was lost")

    pointer = swap_pointer(FaultyStore(published, after=lose), base, manifest, lambda attempt: None)
    assert (pointer.manifest, pointer.digest) == (manifest, digest_bytes(stored))
    assert published.objects[POINTER_KEY] != stored
