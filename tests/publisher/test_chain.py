"""The policy of keyframes and chains, on made-up sizes: docs/format.md, "The chain"."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import count, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.manifest import (
    MAX_DELTAS,
    Blob,
    Database,
    Delta,
    Keyframe,
    Manifest,
    SnapshotManifest,
    format_manifest,
)
from contracts.route import plan_route
from publisher.chain import is_keyframe_due, is_newer_keyframe, max_deltas, needs_keyframe, trim_chain
from publisher.plan import plan_renewal, plan_snapshot
from publisher.pointer import Pointer
from publisher.state import Candidate

_NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
_SNAPSHOT = SnapshotManifest("snap", "2026-11-22T12:00:00Z", 1, 0, 0, 0, 0)
_ID = "0" * 32
_DATABASE_BYTES = 16 << 20  # one segment, so that a keyframe is one blob


def _digest(number: int) -> str:
    return f"{number:064x}"


def _database(number: int) -> Database:
    return Database(_digest(number), _DATABASE_BYTES)


def _keyframe(number: int, stored_bytes: int) -> Keyframe:
    return Keyframe(_database(number), _DATABASE_BYTES, (Blob(_digest(number), stored_bytes),))


def _delta(number: int, stored_bytes: int) -> Delta:
    return Delta(_database(number - 1), _database(number), (Blob(_digest(number), stored_bytes),))


def _snapshot(base: Pointer | None, number: int, delta: Delta | None, keyframe: Keyframe | None) -> Pointer:
    candidate = Candidate("store", base and base.digest, _SNAPSHOT, _database(number), delta, keyframe)
    manifest = plan_snapshot(base, candidate, now=_NOW, expiry=timedelta(days=14), random_id=_ID)
    return Pointer(manifest, _digest(number), "etag")


def _publish_all(sizes: list[int], keyframe_bytes: int) -> Iterator[tuple[Manifest, Manifest]]:
    """Publish deltas of these sizes as a publisher does; each manifest with the one before it."""
    base = _snapshot(None, 0, None, _keyframe(0, keyframe_bytes))
    for number, size_bytes in zip(count(1), sizes, strict=False):
        delta = _delta(number, size_bytes)
        keyframe = _keyframe(number, keyframe_bytes) if needs_keyframe(base.manifest, delta) else None
        before, base = base, _snapshot(base, number, delta, keyframe)
        yield before.manifest, base.manifest
        if is_keyframe_due(base.manifest):
            newer = _keyframe(number, keyframe_bytes)
            assert is_newer_keyframe(base.manifest, newer)
            renewal = plan_renewal(base, now=_NOW, expiry=timedelta(days=14), random_id=_ID, keyframe=newer)
            before, base = base, Pointer(renewal, _digest(number), "etag")
            yield before.manifest, base.manifest


_SIZES = st.lists(
    st.one_of(st.integers(1, 40_000), st.integers(1, 400_000), st.integers(400_000, 1_000_000)),
    min_size=1,
    max_size=60,
)


@given(_SIZES)
def test_a_fresh_mirror_never_fetches_more_than_one_and_a_half_keyframes(sizes: list[int]) -> None:
    for _, manifest in _publish_all(sizes, 1_000_000):
        manifest.verify()
        assert plan_route(manifest, None).stored_bytes <= 1.5 * manifest.keyframe.stored_bytes


@given(_SIZES)
def test_no_mirror_on_the_chain_is_stranded_by_a_keyframe(sizes: list[int]) -> None:
    """It may be far behind: then a keyframe is what it would fetch anyway."""
    for before, manifest in _publish_all(sizes, 1_000_000):
        for node in before.nodes:
            route = plan_route(manifest, node)
            if node in manifest.nodes:
                assert route.stored_bytes <= plan_route(manifest, None).stored_bytes
            else:
                missed = before.deltas[before.nodes.index(node) :]
                added = manifest.deltas[-1:] if before.database != manifest.database else ()
                far_behind = sum(delta.stored_bytes for delta in (*missed, *added)) > 1_000_000
                assert far_behind or len(missed) + len(added) > max_deltas(manifest.keyframe)


@given(st.lists(st.integers(1, 240_000), min_size=1, max_size=60))
def test_a_keyframe_never_delays_a_delta_that_keeps_the_bound(sizes: list[int]) -> None:
    """Deltas that grow by leaps apart, a keyframe comes in a manifest of its own, for the same database."""
    for before, manifest in _publish_all(sizes, 1_000_000):
        if manifest.keyframe != before.keyframe and manifest.database != before.database:
            since = [delta.stored_bytes for delta in plan_route(before, None).deltas]
            assert manifest.deltas[-1].stored_bytes > max(since)
            assert sum(since) + manifest.deltas[-1].stored_bytes > 500_000


def test_a_keyframe_is_due_before_many_small_deltas_fill_the_chain() -> None:
    made = [manifest for before, manifest in _publish_all([1] * 600, 1 << 30)]
    assert max(len(manifest.deltas) for manifest in made) == MAX_DELTAS
    keyframes = [after for before, after in pairwise(made) if before.keyframe != after.keyframe]
    assert [manifest.database for manifest in keyframes] == [_database(224), _database(448)]


def test_without_a_keyframe_for_long_the_last_delta_brings_one() -> None:
    """The uplink never got a keyframe through: the chain must not pass 256 deltas."""
    deltas = tuple(_delta(number, 1) for number in range(1, MAX_DELTAS + 1))
    base = _snapshot(None, 0, None, _keyframe(0, 1 << 30))
    for number, delta in enumerate(deltas[:-1], 1):
        assert not needs_keyframe(base.manifest, delta)
        base = _snapshot(base, number, delta, None)
    assert not needs_keyframe(base.manifest, deltas[-1])
    base = _snapshot(base, MAX_DELTAS, deltas[-1], None)
    assert needs_keyframe(base.manifest, _delta(MAX_DELTAS + 1, 1))


@pytest.mark.parametrize(
    ("keyframe_bytes", "wanted"),
    [(1, 16), (200_000, 17), (1_000_000, 38), (12_000_000, 134), (105_000_000, 256)],
)
def test_a_small_keyframe_has_a_short_chain(keyframe_bytes: int, wanted: int) -> None:
    """Otherwise a manifest would cost more than all that it describes."""
    assert max_deltas(_keyframe(0, keyframe_bytes)) == wanted


def test_a_delta_takes_330_bytes_in_a_manifest() -> None:
    """The figure in docs/format.md, from which follows how long a chain should be."""
    base = _snapshot(None, 0, None, _keyframe(0, 105_000_000))
    lengths = []
    for number in (1, 2):
        base = _snapshot(base, number, _delta(number, 175_070), None)
        lengths.append(len(format_manifest(base.manifest)))
    assert lengths[1] - lengths[0] == pytest.approx(330, rel=0.05)


def test_the_head_is_dropped_beyond_one_keyframe_of_bytes() -> None:
    deltas = tuple(_delta(number, 300) for number in range(1, 8))
    assert trim_chain(deltas, _keyframe(7, 1000)) == deltas[-3:]


def test_the_head_is_never_dropped_past_the_keyframe() -> None:
    deltas = tuple(_delta(number, 300) for number in range(1, 8))
    assert trim_chain(deltas, _keyframe(1, 1000)) == deltas[1:]


def test_a_keyframe_too_small_for_what_came_since_is_not_taken() -> None:
    """After a purge: it waited for its upload, and a fresh mirror would fetch two and a half of it."""
    base = _snapshot(None, 0, None, _keyframe(0, 100_000_000))
    base = _snapshot(base, 1, _delta(1, 30_000_000), None)
    small = _keyframe(1, 10_000_000)
    assert is_newer_keyframe(base.manifest, small)
    base = _snapshot(base, 2, _delta(2, 5_000_000), None)
    assert is_newer_keyframe(base.manifest, small)
    base = _snapshot(base, 3, _delta(3, 1), None)
    assert not is_newer_keyframe(base.manifest, small)


def test_a_keyframe_of_another_database_is_not_newer() -> None:
    base = _snapshot(_snapshot(None, 0, None, _keyframe(0, 1000)), 1, _delta(1, 10), None)
    assert not is_newer_keyframe(base.manifest, _keyframe(0, 1000))
    assert not is_newer_keyframe(base.manifest, _keyframe(9, 1000))
    assert is_newer_keyframe(base.manifest, _keyframe(1, 1000))
