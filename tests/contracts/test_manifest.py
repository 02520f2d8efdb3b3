"""The manifest: the golden bytes, what makes one consistent, and hostile bytes.

The golden files were written with `json.dumps` from the field list of docs/format.md, not by our encoder.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from contracts.errors import MalformedError, UnsupportedError
from contracts.manifest import (
    MANIFEST_MAX_BYTES,
    Manifest,
    SnapshotManifest,
    format_manifest,
    parse_manifest,
)

VECTORS = Path(__file__).parent.parent / "vectors"
FIRST = (VECTORS / "manifest-first.json").read_bytes()
DELTAS = (VECTORS / "manifest-deltas.json").read_bytes()
SNAPSHOT = {
    "snapshot_id": "snap-playlists-3-tracks-120-0123456789ab",
    "generated_at": "2026-11-22T10:00:00Z",
    "schema_version": 1,
    "playlist_count": 3,
    "track_count": 120,
    "file_count": 118,
    "cover_count": 2,
}
OTHER_DIGEST = "f" * 64

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=20), inner, max_size=3),
    max_leaves=8,
)


def golden() -> Any:
    return json.loads(DELTAS)


def parse(fields: Any) -> Manifest:
    return parse_manifest(json.dumps(fields).encode())


@pytest.mark.parametrize("stored", [FIRST, DELTAS], ids=["first", "deltas"])
def test_golden_manifest_is_read_and_written_byte_for_byte(stored: bytes) -> None:
    """A change of the format breaks this on purpose: fields, their order, the spelling of times."""
    manifest = parse_manifest(stored)
    assert json.loads(stored) == json.loads(json.dumps(manifest.to_dict()))
    assert stored == format_manifest(manifest)


def test_golden_chain_starts_before_the_keyframe_and_ends_at_the_database() -> None:
    """What the full example is an example of."""
    manifest = parse_manifest(DELTAS)
    assert manifest.keyframe.database == manifest.deltas[1].target
    assert manifest.database == manifest.deltas[-1].target
    assert [delta.stored_bytes for delta in manifest.deltas] == [300, 941, 1]
    assert manifest.keyframe.stored_bytes == 5003 + 6001 + 2502
    assert manifest.keyframe.segment_sizes() == [16384, 16384, 12288]


def test_unknown_fields_are_ignored_at_every_depth() -> None:
    """Old mirrors survive new publishers."""
    fields = golden()
    for place in (fields, fields["database"], fields["keyframe"], fields["deltas"][0]):
        place["of a later version"] = {"anything": [1, None]}
    assert parse_manifest(DELTAS) == parse(fields)


@pytest.mark.parametrize("field", ["deltas", "held", "condemned"])
def test_fields_with_a_default_may_be_left_out(field: str) -> None:
    """These three, and no other."""
    fields = json.loads(FIRST)
    del fields[field]
    assert parse_manifest(FIRST) == parse(fields)


@pytest.mark.parametrize("field", sorted(set(json.loads(FIRST)) - {"deltas", "held", "condemned"}))
def test_any_other_missing_field_is_malformed(field: str) -> None:
    fields = json.loads(FIRST)
    del fields[field]
    with pytest.raises(MalformedError):
        parse(fields)


@pytest.mark.parametrize("version", [0, 2, -1, 2**53])
def test_another_schema_version_is_unsupported_whatever_else_it_holds(version: int) -> None:
    """Said before anything else is looked at, because a newer format may look like anything."""
    with pytest.raises(UnsupportedError, match=str(version)):
        parse({"schema_version": version, "database": "what a later version makes of it"})


def _set(*path_and_value: Any) -> Callable[[Any], None]:
    *path, last, value = path_and_value

    def change(fields: Any) -> None:
        for step in path:
            fields = fields[step]
        fields[last] = value

    return change


def _remove(*path: Any) -> Callable[[Any], None]:
    def change(fields: Any) -> None:
        for step in path[:-1]:
            fields = fields[step]
        del fields[path[-1]]

    return change


@pytest.mark.parametrize(
    "change",
    {
        "database that the chain does not end at": _set("database", "digest", OTHER_DIGEST),
        "database of another size than the chain's end": _set("database", "size_bytes", 4096),
        "gap in the chain": _remove("deltas", 1),
        "chain in the wrong order": lambda fields: fields["deltas"].reverse(),
        "delta without blobs": _set("deltas", 0, "blobs", []),
        "keyframe off the chain": _set("keyframe", "database", "digest", OTHER_DIGEST),
        "keyframe without its last blob": _remove("keyframe", "blobs", 2),
        "keyframe with a blob too many": lambda fields: fields["keyframe"]["blobs"].append(
            fields["keyframe"]["blobs"][0]
        ),
        "keyframe of no blobs": _set("keyframe", "blobs", []),
        "segments below a page": _set("keyframe", "segment_bytes", 4095),
        "segments above 64 MiB": _set("keyframe", "segment_bytes", (64 << 20) + 1),
        "more than 256 deltas": lambda fields: fields.update(deltas=fields["deltas"][:1] * 257),
        "later manifest without a predecessor": _set("previous", None),
        "first manifest with a predecessor": _set("sequence", 1),
        "sequence 0": _set("sequence", 0),
        "sequence that is not exact everywhere": _set("sequence", 2**53),
        "oldest_kept in the future": _set("oldest_kept", 5),
        "oldest_kept 0": _set("oldest_kept", 0),
        "expiry at the moment of publishing": _set("expires_at", "2026-11-22T13:00:01Z"),
        "time without an offset": _set("published_at", "2026-11-22T13:00:01"),
        "time that is a number": _set("published_at", 1795352401),
        "generated_at without an offset": _set("generated_at", "2026-11-22T10:00:00"),
        "generated_at that is no time": _set("generated_at", "yesterday"),
        "upper-case digest": _set("database", "digest", OTHER_DIGEST.upper()),
        "digest and a line feed": _set("previous", OTHER_DIGEST + "\n"),
        "short digest": _set("condemned", "f" * 63),
        "repository that is no random id": _set("repository", "../" + "0" * 29),
        "publish_id that is no random id": _set("publish_id", ""),
        "blob of no bytes": _set("keyframe", "blobs", 0, "size_bytes", 0),
        "blob above 16 TiB": _set("keyframe", "blobs", 0, "size_bytes", (1 << 44) + 1),
        "number as text": _set("track_count", "120"),
        "negative count": _set("track_count", -1),
        "flag as a number": _set("held", 1),
        "empty snapshot_id": _set("snapshot_id", ""),
        "snapshot_id of 201 characters": _set("snapshot_id", "x" * 201),
    }.items(),
    ids=lambda change: change[0],
)
def test_inconsistent_manifest_is_malformed(change: tuple[str, Callable[[Any], None]]) -> None:
    fields = golden()
    assert parse(copy.deepcopy(fields)) == parse_manifest(DELTAS)
    change[1](fields)
    with pytest.raises(MalformedError):
        parse(fields)


def test_database_of_16_tib_in_one_page_segments_is_refused_at_once() -> None:
    """A kilobyte of JSON must not make a reader count four thousand million segments."""
    fields = json.loads(FIRST)
    for database in (fields["database"], fields["keyframe"]["database"]):
        database["size_bytes"] = 1 << 44
    fields["keyframe"]["segment_bytes"] = 4096
    with pytest.raises(MalformedError, match="blobs do not match"):
        parse(fields)


def test_manifest_beyond_a_mebibyte_is_refused_unread() -> None:
    spaces = MANIFEST_MAX_BYTES - len(FIRST)
    assert parse_manifest(FIRST) == parse_manifest(FIRST + b" " * spaces)
    with pytest.raises(MalformedError, match="1048576"):
        parse_manifest(FIRST + b" " * (spaces + 1))


@pytest.mark.parametrize(
    "stored",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b"\xff",
        b"\xef\xbb\xbf" + FIRST,
        FIRST[:-1],
        FIRST + b"{}",
        FIRST.replace(b"snap-", b"\xff\xfe"),
        FIRST.replace(b"snap-", b"\\ud800"),
        FIRST.replace(b":120", b":NaN"),
        FIRST[:-1] + b',"a":' + b"[" * 100_000,
    ],
    ids=repr,
)
def test_bytes_that_are_no_manifest_are_malformed(stored: bytes) -> None:
    with pytest.raises(MalformedError):
        parse_manifest(stored)


@given(st.binary(max_size=200))
def test_noise_is_malformed(stored: bytes) -> None:
    with pytest.raises((MalformedError, UnsupportedError)):
        parse_manifest(stored)


@given(st.lists(st.tuples(st.integers(0, len(DELTAS) - 1), st.integers(0, 255)), max_size=4), st.integers(0))
def test_damaged_bytes_raise_nothing_else(edits: list[tuple[int, int]], cut: int) -> None:
    """Flipped or missing bytes are refused, or make another manifest that is consistent in itself."""
    damaged = bytearray(DELTAS)
    for place, value in edits:
        damaged[place] = value
    if cut < len(damaged):
        del damaged[cut:]
    try:
        manifest = parse_manifest(bytes(damaged))
    except (MalformedError, UnsupportedError):
        return
    manifest.verify()
    assert manifest == parse_manifest(format_manifest(manifest))


@given(st.sampled_from(sorted(golden())), JSON_VALUES)
def test_any_value_in_any_field_raises_nothing_else(field: str, value: Any) -> None:
    """The fields are those of a stranger."""
    with suppress(MalformedError, UnsupportedError):
        parse({**golden(), field: value})


@given(
    st.fixed_dictionaries(
        {
            "snapshot_id": st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=200),
            "generated_at": st.datetimes(timezones=st.timezones()).map(lambda moment: moment.isoformat()),
            "schema_version": st.integers(1, 2**53 - 1),
            **{f"{what}_count": st.integers(0, 2**53 - 1) for what in ("playlist", "track", "file", "cover")},
        }
    ),
    st.booleans(),
)
def test_snapshot_survives_the_round_trip_with_numbers_as_text(fields: dict[str, Any], as_text: bool) -> None:
    given_fields = {
        name: str(value) if as_text else value for name, value in {**fields, "unknown": 1}.items()
    }
    snapshot = SnapshotManifest.from_dict(given_fields)
    assert fields == snapshot.to_dict()
    assert snapshot == SnapshotManifest.from_dict(snapshot.to_dict())


@pytest.mark.parametrize("field", sorted(SNAPSHOT))
def test_snapshot_without_a_field_is_malformed(field: str) -> None:
    with pytest.raises(MalformedError):
        SnapshotManifest.from_dict({name: value for name, value in SNAPSHOT.items() if name != field})


@pytest.mark.parametrize(
    ("field", "values"),
    [
        (
            "track_count",
            [-1, "-1", 2**53, str(2**64), 1.5, "1.5", "", " 1", "0x1", "٣", "1_0", True, None, b"1", [], {}],
        ),
        ("schema_version", [0, "0"]),
        ("snapshot_id", ["", "x" * 201, "\ud800", b"x", 1, None]),
        ("generated_at", ["", "now", "2026-11-22", "2026-11-22T10:00:00", "\ud800", "9" * 65, 1, None]),
    ],
)
def test_snapshot_field_outside_its_bounds_is_malformed(field: str, values: list[Any]) -> None:
    for value in values:
        with pytest.raises(MalformedError):
            SnapshotManifest.from_dict({**SNAPSHOT, field: value})


@pytest.mark.parametrize("fields", [None, [], [SNAPSHOT], "{}", 5, {1: 2}, {"\ud800": 1}], ids=ascii)
def test_what_is_no_json_object_is_malformed(fields: Any) -> None:
    with pytest.raises(MalformedError):
        SnapshotManifest.from_dict(fields)


@given(st.sampled_from(sorted(SNAPSHOT)), JSON_VALUES)
@example("track_count", float("nan"))
def test_snapshot_field_of_any_value_is_malformed_or_taken(field: str, value: Any) -> None:
    with suppress(MalformedError):
        SnapshotManifest.from_dict({**SNAPSHOT, field: value})


@given(JSON_VALUES)
def test_anything_as_a_snapshot_is_malformed(fields: Any) -> None:
    with pytest.raises(MalformedError):
        SnapshotManifest.from_dict(fields)
