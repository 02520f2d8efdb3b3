"""The way to the newest database: where it starts, and that it downloads the least."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.manifest import Blob, Database, Delta, Keyframe, Manifest
from contracts.route import Route, plan_route

NOW = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)


def node(name: str) -> Database:
    return Database(name * 64, 4096 * (1 + int(name, 16)))


def chain(names: str, keyframe: str, keyframe_bytes: int = 1000, delta_bytes: int = 10) -> Manifest:
    """A manifest of a chain with one database for each letter, an equal letter for an equal database."""
    nodes = [node(name) for name in names]
    blobs = (Blob("0" * 64, delta_bytes),)
    manifest = Manifest(
        snapshot_id="snap-playlists-0-tracks-0-000000000000",
        generated_at="2026-11-22T12:00:00Z",
        schema_version=1,
        playlist_count=0,
        track_count=0,
        file_count=0,
        cover_count=0,
        repository="a" * 32,
        sequence=1,
        publish_id="b" * 32,
        previous=None,
        oldest_kept=1,
        published_at=NOW,
        expires_at=NOW + timedelta(days=14),
        database=nodes[-1],
        keyframe=Keyframe(node(keyframe), 16 << 20, (Blob("f" * 64, keyframe_bytes),)),
        deltas=tuple(Delta(base, target, blobs) for base, target in pairwise(nodes)),
    )
    manifest.verify()
    return manifest


def names_of(route: Route) -> str:
    """The databases that a route passes, by their letters."""
    return "".join(
        database.digest[0] for database in (route.start, *(delta.target for delta in route.deltas))
    )


@pytest.mark.parametrize(
    ("names", "keyframe", "held", "way"),
    [
        ("abcd", "a", "c", "cd"),
        ("abcd", "c", "a", "abcd"),
        ("abcd", "d", "d", "d"),
        ("abcbd", "a", "b", "bd"),
        ("abab", "b", "a", "ab"),
        ("a", "a", "a", "a"),
    ],
)
def test_route_starts_at_the_last_occurrence_of_what_is_held(
    names: str, keyframe: str, held: str, way: str
) -> None:
    route = plan_route(chain(names, keyframe), node(held))
    assert route.keyframe is None
    assert way == names_of(route)


@pytest.mark.parametrize(
    "held", [None, node("e"), Database("c" * 64, 4096)], ids=["nothing", "unknown", "another size"]
)
@pytest.mark.parametrize(
    ("names", "keyframe", "way"),
    [("abcd", "b", "bcd"), ("abcd", "d", "d"), ("abcbd", "b", "bd"), ("a", "a", "a")],
)
def test_route_of_whoever_is_not_on_the_chain_starts_at_the_last_keyframe(
    names: str, keyframe: str, way: str, held: Database | None
) -> None:
    manifest = chain(names, keyframe)
    route = plan_route(manifest, held)
    assert manifest.keyframe == route.keyframe
    assert way == names_of(route)
    assert 1000 + 10 * (len(way) - 1) == route.stored_bytes


@pytest.mark.parametrize(
    ("keyframe_bytes", "starts_at_keyframe"), [(29, True), (30, False), (31, False)], ids=str
)
def test_fewer_bytes_decide_and_equal_ones_are_for_the_deltas(
    keyframe_bytes: int, starts_at_keyframe: bool
) -> None:
    """Three deltas of ten bytes, against a keyframe at their end."""
    route = plan_route(chain("abcd", "d", keyframe_bytes), node("a"))
    assert starts_at_keyframe == (route.keyframe is not None)
    assert min(keyframe_bytes, 30) == route.stored_bytes


@given(
    names=st.text("abcdef", min_size=1, max_size=20),
    held=st.sampled_from("abcdef"),
    keyframe_bytes=st.integers(1, 300),
    keyframe_at=st.integers(0, 19),
)
def test_route_is_whole_and_never_longer_than_from_the_keyframe(
    names: str, held: str, keyframe_bytes: int, keyframe_at: int
) -> None:
    manifest = chain(names, names[keyframe_at % len(names)], keyframe_bytes)
    route = plan_route(manifest, node(held))
    assert route.stored_bytes <= plan_route(manifest, None).stored_bytes
    assert route.start == (route.keyframe.database if route.keyframe else node(held))
    assert all(before.target == after.base for before, after in pairwise(route.deltas))
    assert manifest.database == (route.deltas[-1].target if route.deltas else route.start) == route.database
