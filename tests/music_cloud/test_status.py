"""What needs attention and what does not; pure, by table."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from msgspec.structs import replace

from contracts.errors import HistoryError
from contracts.manifest import Database, Manifest, parse_manifest
from mirror import Current
from music_cloud.status import (
    MirrorState,
    Signature,
    Status,
    find_extended_at,
    status_fields,
    status_lines,
)
from music_cloud.tables import align, format_age
from publisher.history import Link
from tests.contracts.test_manifest import FIRST

# tests/vectors/manifest-first.json: published 2026-11-22T10:00:01Z, expires 14 days later.
FIRST_MANIFEST = parse_manifest(FIRST)
PUBLISHED = datetime(2026, 11, 22, 10, 0, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)


def newest(sequence: int = 5) -> Manifest:
    return replace(FIRST_MANIFEST, sequence=sequence, previous="a" * 64)


def current(sequence: int, database: Database = FIRST_MANIFEST.database) -> Current:
    return Current("g", database, "snap", sequence, PUBLISHED, PUBLISHED + timedelta(days=14), "etag")


def status(
    *mirrors: MirrorState,
    after: timedelta = HOUR,
    signature: Signature | None = None,
    max_lag: timedelta = HOUR,
) -> Status:
    return Status(newest(), PUBLISHED + after, signature or Signature("good", "0A"), mirrors, max_lag)


@pytest.mark.parametrize(
    ("after", "problem", "remark"),
    [
        (timedelta(0), "", ""),
        (timedelta(days=7, seconds=-1), "", ""),
        (timedelta(days=7), "", "half of the time"),
        (timedelta(days=10.5, seconds=-1), "", "half of the time"),
        (timedelta(days=10.5), "expires in 3 d and was not renewed; is the publisher running?", ""),
        (timedelta(days=14, seconds=-1), "expires in 1 s", ""),
        (timedelta(days=14), "expired 0 s ago", ""),
        (timedelta(days=40), "expired 26 d ago", ""),
    ],
)
def test_expiry(after: timedelta, problem: str, remark: str) -> None:
    """A publisher renews at half of the expiry; one that has not by three quarters is not running."""
    judged = status(after=after)
    assert bool(judged.problems) == bool(problem)
    assert problem in "".join(judged.problems)
    assert bool(judged.remarks) == bool(remark)
    assert remark in "".join(judged.remarks)


def links(*dates: tuple[float, float]) -> list[Link]:
    """A history of manifests that were published and expire so many days after `PUBLISHED`, newest first."""
    return [
        Link(
            "0" * 64,
            replace(
                newest(len(dates) - place),
                published_at=PUBLISHED + timedelta(days=published),
                expires_at=PUBLISHED + timedelta(days=expires),
            ),
            b"",
        )
        for place, (published, expires) in enumerate(dates)
    ]


@pytest.mark.parametrize(
    ("dates", "expected"),
    [
        ([(0, 14)], 0),
        ([(7, 21), (0, 14)], 7),
        ([(3, 14), (2, 14), (1, 14), (0, 14), (-7, 7)], 0),
        ([(8, 21), (7, 21), (3, 14), (0, 14)], 7),
    ],
)
def test_an_expiry_is_as_old_as_the_first_manifest_that_has_it(
    dates: list[tuple[float, float]], expected: float
) -> None:
    assert find_extended_at(links(*dates)) == PUBLISHED + timedelta(days=expected)


def broken(known: list[Link]) -> Iterator[Link]:
    yield from known
    raise HistoryError("the history is broken")


def test_an_expiry_whose_origin_is_pruned_or_broken_is_as_old_as_what_is_left() -> None:
    assert find_extended_at(broken(links((3, 14), (2, 14)))) == PUBLISHED + timedelta(days=2)
    assert find_extended_at(broken([])) is None


def test_daily_prunes_do_not_hide_a_publisher_that_is_dead() -> None:
    """Each publishes a manifest of today and copies the expiry; at three quarters the publisher is missed."""
    for day in range(14):
        history = links(*((prune, 14) for prune in range(day, -1, -1)))
        judged = Status(
            history[0].manifest,
            PUBLISHED + timedelta(days=day, hours=12),
            Signature("none"),
            (),
            HOUR,
            extended_at=find_extended_at(history),
        )
        assert bool(judged.problems) == (day >= 10)
        assert bool(judged.remarks) == (7 <= day < 10)


@pytest.mark.parametrize(
    ("signature", "is_good"),
    [
        (Signature("good", "0A"), True),
        (Signature("unchecked", "0A"), True),
        (Signature("none"), True),
        (Signature("bad", None, "not signed"), False),
    ],
)
def test_a_bad_signature_needs_attention(signature: Signature, is_good: bool) -> None:
    assert (not status(signature=signature).problems) is is_good


OTHER = Database("e" * 64, 4096)


@pytest.mark.parametrize(
    ("mirror", "problem"),
    [
        (MirrorState("m", current(5)), None),
        (MirrorState("m", None), "was never synced"),
        (MirrorState("m", None, "current is damaged"), "current is damaged"),
        (MirrorState("m", current(6)), "newer than what the store serves"),
        (MirrorState("m", current(5, OTHER)), "another database"),
        (MirrorState("m", current(4, OTHER), None, PUBLISHED), None),
        (MirrorState("m", current(4, OTHER), None, PUBLISHED - timedelta(seconds=1)), "lagged for 1 h"),
    ],
)
def test_a_mirror_needs_attention_when_it_has_been_behind_for_too_long(
    mirror: MirrorState, problem: str | None
) -> None:
    """Not how old its snapshot is counts, but how long a newer one has been there."""
    problems = status(mirror).problems
    assert len(problems) == (problem is not None)
    assert (problem or "") in "".join(problems)


def test_the_longest_lag_is_the_operators_choice() -> None:
    mirror = MirrorState("m", current(4, OTHER), None, PUBLISHED - HOUR)
    assert status(mirror, max_lag=2 * HOUR).problems == []
    assert status(mirror, max_lag=2 * HOUR - timedelta(seconds=1)).problems


def test_held_is_a_remark_and_no_problem() -> None:
    judged = status()._replace(held_since=PUBLISHED)
    assert judged.problems == []
    assert "--resume" in judged.remarks[0]


def test_the_first_line_says_it_all() -> None:
    assert next(iter(status_lines(status()))).startswith("OK: snapshot 5")
    bad = status(MirrorState("m", None), after=timedelta(days=20))
    lines = list(status_lines(bad))
    assert lines[0].startswith("ATTENTION: snapshot 5 expired")
    assert len([line for line in lines if line.startswith("  attention")]) == 2


def test_fields_say_how_far_each_mirror_is_behind() -> None:
    states = [
        MirrorState("a", current(5)),
        MirrorState("b", current(3, OTHER), None, PUBLISHED),
        MirrorState("c", None),
    ]
    fields = status_fields(status(*states))["mirrors"]
    assert [each["behind"] for each in fields] == [0, 2, None]
    assert [each["lag_s"] for each in fields] == [0, 3600, None]
    assert [each["is_published_database"] for each in fields] == [True, False, False]


def test_nothing_from_the_store_reaches_the_terminal_unprinted() -> None:
    evil = Status(replace(newest(), snapshot_id="snap\x1b[2J\nOK"), PUBLISHED, Signature("none"), (), HOUR)
    for line in status_lines(evil):
        assert line.isprintable()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (59, "59 s"),
        (60, "1 min"),
        (3599, "59 min"),
        (3600, "1 h"),
        (172_799, "47 h"),
        (172_800, "2 d"),
    ],
)
def test_ages_are_told_in_their_largest_unit(seconds: int, text: str) -> None:
    assert format_age(timedelta(seconds=seconds)) == text


def test_columns_are_aligned() -> None:
    assert list(align([("a", "10", "x"), ("long", "1", "")], (1,))) == ["a     10  x", "long   1"]
