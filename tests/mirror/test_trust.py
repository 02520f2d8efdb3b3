"""What a mirror believes: bytes, memory and a moment in; a verdict out."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from contracts.digests import digest_bytes
from contracts.errors import (
    EquivocationError,
    ExpiredError,
    MalformedError,
    RollbackError,
    UnsupportedError,
)
from contracts.manifest import Blob, Database, Delta, Keyframe, Manifest, format_manifest
from mirror.trust import Seen, verify_pointer

NOW = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)
DATABASE = Database("d" * 64, 100_000)


def manifest(**changes: Any) -> Manifest:
    fields: dict[str, Any] = {
        "snapshot_id": "snap-playlists-1-tracks-2-dddddddddddd",
        "generated_at": "2026-11-22T12:00:00Z",
        "schema_version": 1,
        "playlist_count": 1,
        "track_count": 2,
        "file_count": 3,
        "cover_count": 0,
        "repository": "a" * 32,
        "sequence": 5,
        "publish_id": "b" * 32,
        "previous": "c" * 64,
        "oldest_kept": 1,
        "published_at": NOW,
        "expires_at": NOW + timedelta(days=14),
        "database": DATABASE,
        "keyframe": Keyframe(DATABASE, 16 << 20, (Blob("e" * 64, 40_000),)),
    }
    return Manifest(**(fields | changes))


def seen(of: Manifest, confirmed_at: datetime = NOW) -> Seen:
    return Seen(of.repository, of.sequence, digest_bytes(format_manifest(of)), confirmed_at)


def test_a_fresh_mirror_believes_a_whole_manifest() -> None:
    trusted = verify_pointer(format_manifest(manifest()), None, NOW)
    assert trusted is not None
    assert trusted.manifest == manifest()
    assert trusted.seen == seen(manifest())


def test_a_newer_sequence_is_believed() -> None:
    trusted = verify_pointer(format_manifest(manifest(sequence=6)), seen(manifest()), NOW)
    assert trusted is not None
    assert trusted.seen.sequence == 6


def test_an_older_sequence_is_stale_and_no_attack_for_as_long_as_caches_may_serve_it() -> None:
    """RFC 5861: max-age 15 + stale-while-revalidate 60 + stale-if-error 86400 = 86475 s."""
    old = format_manifest(manifest(sequence=4))
    assert verify_pointer(old, seen(manifest()), NOW + timedelta(seconds=86_475)) is None


def test_an_older_sequence_is_a_rollback_when_nothing_newer_came_for_longer() -> None:
    old = format_manifest(manifest(sequence=4))
    with pytest.raises(RollbackError):
        verify_pointer(old, seen(manifest()), NOW + timedelta(seconds=86_476))


def test_another_repository_is_refused() -> None:
    with pytest.raises(EquivocationError, match="repository"):
        verify_pointer(format_manifest(manifest(repository="f" * 32, sequence=9)), seen(manifest()), NOW)


def test_the_same_sequence_with_other_content_is_refused() -> None:
    with pytest.raises(EquivocationError, match="another manifest"):
        verify_pointer(format_manifest(manifest(publish_id="f" * 32)), seen(manifest()), NOW)


@pytest.mark.parametrize(("seconds", "expired"), [(-1, False), (0, True), (1, True)])
def test_a_manifest_is_believed_until_it_expires(seconds: int, expired: bool) -> None:
    now = manifest().expires_at + timedelta(seconds=seconds)
    if expired:
        with pytest.raises(ExpiredError, match="has not renewed"):
            verify_pointer(format_manifest(manifest()), None, now)
    else:
        assert verify_pointer(format_manifest(manifest()), None, now) is not None


def test_a_database_larger_than_allowed_is_refused_before_any_download() -> None:
    with pytest.raises(MalformedError, match="takes 99999"):
        verify_pointer(format_manifest(manifest()), None, NOW, database_max_bytes=99_999)


def test_a_blob_larger_than_its_segment_could_be_is_refused() -> None:
    huge = Keyframe(DATABASE, 16 << 20, (Blob("e" * 64, 1 << 40),))
    with pytest.raises(MalformedError, match="blob"):
        verify_pointer(format_manifest(manifest(keyframe=huge)), None, NOW)


PAGES = Database("1" * 64, 20 * 4096)
MORE_PAGES = Database("2" * 64, 25 * 4096)


def chained(*sizes: int, base: Database = PAGES, target: Database = MORE_PAGES) -> Manifest:
    """A manifest with one delta, whose blobs have these sizes."""
    blobs = tuple(Blob("3" * 64, size) for size in sizes)
    keyframe = Keyframe(target, 16 << 20, (Blob("e" * 64, 40_000),))
    return manifest(database=target, keyframe=keyframe, deltas=(Delta(base, target, blobs),))


def test_a_chain_is_believed() -> None:
    assert verify_pointer(format_manifest(chained(25 * 4096, 65_536)), None, NOW) is not None


def test_a_delta_larger_than_what_it_makes_is_refused() -> None:
    with pytest.raises(MalformedError, match="a delta of 167937 bytes to a database of 102400"):
        verify_pointer(format_manifest(chained(25 * 4096, 65_537)), None, NOW)


@pytest.mark.parametrize("node", ["base", "target"])
def test_a_larger_database_anywhere_on_the_chain_is_refused(node: str) -> None:
    larger = Database("4" * 64, 26 * 4096)
    with pytest.raises(MalformedError, match="takes 102400"):
        verify_pointer(format_manifest(chained(1, **{node: larger})), None, NOW, MORE_PAGES.size_bytes)


@pytest.mark.parametrize("node", ["base", "target"])
def test_a_delta_of_broken_pages_is_refused(node: str) -> None:
    with pytest.raises(MalformedError, match="100000 bytes: no whole pages"):
        verify_pointer(format_manifest(chained(1, **{node: DATABASE})), None, NOW)


def test_a_newer_schema_is_refused_and_said_to_be_newer() -> None:
    fields = msgspec.json.decode(format_manifest(manifest()))
    fields["schema_version"] = 2
    fields["keyframe"] = "something else entirely"
    with pytest.raises(UnsupportedError, match="schema version 2"):
        verify_pointer(msgspec.json.encode(fields), None, NOW)


def test_unknown_fields_are_ignored() -> None:
    fields = msgspec.json.decode(format_manifest(manifest())) | {"later": {"than": "us"}}
    assert verify_pointer(msgspec.json.encode(fields), None, NOW) is not None
