"""What is kept and what may go: rules by example, and what holds whatever the policy is."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.condemned import MAX_CONDEMNED
from contracts.digests import digest_bytes
from contracts.errors import HistoryError
from contracts.layout import POINTER_KEY, Kind, blob_key, format_key, manifest_key
from contracts.manifest import Blob, Database, Delta, Keyframe, Manifest, format_manifest
from publisher.history import Link
from publisher.retention import (
    Policy,
    RetentionPlan,
    optional_keys,
    plan_retention,
    remember,
    required_keys,
)
from stores.base import ListedObject

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
START = NOW
DAY = timedelta(days=1)
REPOSITORY = "5" * 32


def digest(text: str) -> str:
    return digest_bytes(text.encode())


def blob(text: str) -> Blob:
    return Blob(digest(text), 100)


def manifest(
    sequence: int, published_at: datetime, database: str, previous: str | None, condemned: str | None = None
) -> Manifest:
    """A manifest whose keyframe, of a blob of its own and a shared one, is of the database before."""
    base, target = Database(digest("base"), 8192), Database(digest(database), 8192)
    return Manifest(
        snapshot_id=f"snapshot {sequence}",
        generated_at="2026-11-22T12:00:00Z",
        schema_version=1,
        playlist_count=0,
        track_count=0,
        file_count=0,
        cover_count=0,
        repository=REPOSITORY,
        sequence=sequence,
        publish_id=f"{sequence:032x}",
        previous=previous,
        oldest_kept=1,
        published_at=published_at,
        expires_at=published_at + 14 * DAY,
        database=target,
        keyframe=Keyframe(base, 4096, (blob("shared"), blob(f"keyframe {database}"))),
        deltas=(Delta(base, target, (blob(f"delta {database}"),)),),
        condemned=condemned,
    )


def chain(*published: tuple[timedelta, str]) -> list[Link]:
    """The history, newest first, of manifests given oldest first: how long ago, and the database."""
    links: list[Link] = []
    for sequence, (age, database) in enumerate(published, 1):
        made = manifest(sequence, NOW - age, database, links[0].digest if links else None)
        stored = format_manifest(made)
        links.insert(0, Link(digest_bytes(stored), made, stored))
    return links


def listing(links: list[Link], *more: ListedObject) -> list[ListedObject]:
    """All that these manifests name, as old as the first that names it; the pointer as old as the newest."""
    found: dict[str, ListedObject] = {}
    for link in reversed(links):
        for key in (*required_keys(link.digest, link.manifest), format_key(Kind.SIGNATURE, link.digest)):
            found.setdefault(key, ListedObject(key, 100, link.manifest.published_at))
    pointer = ListedObject(POINTER_KEY, 900, links[0].manifest.published_at)
    return [*found.values(), pointer, *more]


def plan(links: list[Link], policy: Policy, *more: ListedObject) -> RetentionPlan:
    return plan_retention(links, policy, listing(links, *more), NOW)


DAILY = chain(*((age * DAY, f"database {age}") for age in range(100, -1, -5)))


def test_keep_last_keeps_so_many_snapshots() -> None:
    kept = plan(DAILY, Policy(keep_last=4))
    assert (kept.snapshots, kept.manifests, kept.oldest_kept) == (4, 4, 18)


def test_a_renewal_counts_as_its_snapshot() -> None:
    """Design, section 5: all manifests of the oldest snapshot that is kept stay, back to its first."""
    days = [(100, "a"), (90, "b"), (80, "b"), (70, "b"), (60, "c"), (50, "c"), (40, "d"), (30, "d")]
    kept = plan(chain(*((age * DAY, database) for age, database in days)), Policy(keep_last=3))
    assert (kept.snapshots, kept.manifests, kept.oldest_kept) == (3, 7, 2)


def test_what_comes_back_is_another_snapshot() -> None:
    days = [(100, "a"), (90, "b"), (80, "a"), (70, "b")]
    kept = plan(chain(*((age * DAY, database) for age, database in days)), Policy(keep_last=3))
    assert (kept.snapshots, kept.oldest_kept) == (3, 2)


def test_keep_within_keeps_what_was_newest_at_any_moment_since() -> None:
    """Published 35 days ago and superseded 30 days ago less a second: it was the newest within 30 days."""
    days = [40 * DAY, 35 * DAY, 30 * DAY - timedelta(seconds=1), 10 * DAY, 9 * DAY]
    kept = plan(chain(*((age, f"{age}") for age in days)), Policy(keep_within=30 * DAY))
    assert (kept.manifests, kept.oldest_kept) == (4, 2)


def test_without_a_rule_only_the_pointer_and_the_grace_stay() -> None:
    """Nobody knows when exactly the pointer moved: one more manifest stays than the dates ask for."""
    days = [(40, "a"), (30, "b"), (20, "c"), (10, "d"), (8, "e")]
    kept = plan(chain(*((age * DAY, database) for age, database in days)), Policy())
    assert (kept.manifests, kept.oldest_kept) == (1, 5)
    days = [(40, "a"), (30, "b"), (20, "c"), (6, "d")]
    kept = plan(chain(*((age * DAY, database) for age, database in days)), Policy())
    assert (kept.manifests, kept.oldest_kept) == (3, 2)


def test_a_publisher_that_slept_before_it_moved_the_pointer_shortens_no_grace() -> None:
    """Its manifest is 20 days old, the pointer moved to it a day ago: mirrors read the old one till then."""
    links = chain((30 * DAY, "a"), (20 * DAY, "b"))
    found = [entry for entry in listing(links) if entry.key != POINTER_KEY]
    found.append(ListedObject(POINTER_KEY, 900, NOW - DAY))
    kept = plan_retention(links, Policy(keep_last=1), found, NOW)
    assert (kept.manifests, kept.oldest_kept) == (2, 1)


def test_a_slow_clock_of_a_publisher_does_not_make_a_manifest_older_than_the_store_says() -> None:
    links = chain((400 * DAY, "a"), (399 * DAY, "b"), (398 * DAY, "c"))
    found = [entry._replace(modified=NOW - DAY) for entry in listing(links)]
    kept = plan_retention(links, Policy(keep_last=1), found, NOW)
    assert kept.manifests == 3


def test_only_what_nobody_names_and_is_older_than_the_grace_goes() -> None:
    old, young = NOW - 8 * DAY, NOW - 6 * DAY
    orphan = ListedObject(blob_key(digest("orphan")), 5, old)
    upload = ListedObject(blob_key(digest("upload")), 5, young)
    lost = ListedObject(manifest_key(digest("a lost race")), 5, old)
    alien = ListedObject("backup.tar", 5, old)
    succession = ListedObject(format_key(Kind.SUCCESSION, "0123456789ABCDEF"), 5, old)
    links = chain((10 * DAY, "a"))
    kept = plan(links, Policy(keep_last=1), orphan, upload, lost, alien, succession)
    assert kept.candidates == (orphan, lost)
    assert kept.young == (upload,)
    assert kept.alien == ("backup.tar",)
    assert succession in kept.kept


def test_what_is_exactly_as_old_as_the_grace_goes() -> None:
    orphan = ListedObject(blob_key(digest("orphan")), 5, NOW - 7 * DAY)
    assert plan(chain((10 * DAY, "a")), Policy(keep_last=1), orphan).candidates == (orphan,)


def test_the_list_that_a_kept_manifest_names_stays() -> None:
    """A publisher that has read this pointer asks for it."""
    made = manifest(1, NOW - 20 * DAY, "a", None, condemned=digest("list"))
    link = Link(digest_bytes(format_manifest(made)), made, format_manifest(made))
    listed = ListedObject(blob_key(digest("list")), 5, NOW - 20 * DAY)
    assert plan([link], Policy(keep_last=1), listed).candidates == ()


def test_a_list_is_as_old_as_the_pointers_move_to_the_first_manifest_that_names_it() -> None:
    """That was before the next manifest was made, which the pointer may have moved to later still."""
    links: list[Link] = []
    for sequence, (age, condemned) in enumerate([(9, "x"), (6, "y"), (4, "y"), (2, "y")], 1):
        previous = links[0].digest if links else None
        made = manifest(sequence, NOW - age * DAY, "a", previous, digest(condemned))
        links.insert(0, Link(digest_bytes(format_manifest(made)), made, format_manifest(made)))
    assert plan(links, Policy(keep_last=9)).condemned_before == NOW - 4 * DAY
    # What is not kept is not looked at: it is older than this all the same.
    assert plan(links[:3], Policy(keep_last=9)).condemned_before == NOW - 4 * DAY
    assert plan(links[:1], Policy(keep_last=9)).condemned_before == NOW - 2 * DAY


def test_what_a_kept_manifest_names_and_the_store_lacks_is_told() -> None:
    links = chain((10 * DAY, "a"))
    lacking = [entry for entry in listing(links) if entry.key != blob_key(digest("shared"))]
    assert plan_retention(links, Policy(keep_last=1), lacking, NOW).missing == (blob_key(digest("shared")),)


def test_no_more_is_condemned_than_a_list_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    """And never more than half of one: what it is for does not age before the next takes its place."""
    monkeypatch.setattr("publisher.retention.MAX_CONDEMNED", 6)
    orphans = [ListedObject(blob_key(digest(f"{number}")), 5, NOW - 8 * DAY) for number in range(9)]
    links = chain((10 * DAY, "a"))
    found = listing(links, *orphans)

    def look(deleted: set[str], before: dict[str, datetime | None]) -> RetentionPlan:
        left = [entry for entry in found if entry.key not in deleted]
        return plan_retention(links, Policy(keep_last=1), left, NOW, before)

    first = look(set(), {})
    assert (len(first.candidates), first.postponed) == (3, 6)
    own = {entry.key: None for entry in first.candidates}
    assert (
        look(set(), {**own}).candidates == first.candidates
    )  # they were not deleted: they come first or next
    second = look({*own}, {**own})
    assert (len(second.candidates), second.postponed) == (3, 3)
    assert second.remembered == dict.fromkeys(own, NOW)
    full: dict[str, datetime | None] = {**second.remembered}
    full |= {entry.key: None for entry in second.candidates}
    third = look({*full}, full)
    assert (third.candidates, third.postponed) == ((), 3)
    assert look({*own}, full).candidates == second.candidates  # what is in the list needs no room
    assert MAX_CONDEMNED == 100_000


def test_what_was_deleted_a_week_ago_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """Although nobody could move the pointer since."""
    monkeypatch.setattr("publisher.retention.MAX_CONDEMNED", 4)
    orphans = [ListedObject(blob_key(digest(f"{number}")), 5, NOW - 8 * DAY) for number in range(3)]
    links = chain((30 * DAY, "a"))
    full: dict[str, datetime | None] = {blob_key(digest(f"own {number}")): None for number in range(2)}
    aged = {blob_key(digest(f"aged {number}")): NOW for number in range(2)}

    def look(now: datetime) -> RetentionPlan:
        return plan_retention(links, Policy(keep_last=1), listing(links, *orphans), now, full | aged)

    assert look(NOW + 7 * DAY - timedelta(seconds=1)).candidates == ()
    later = look(NOW + 7 * DAY)
    assert (len(later.candidates), later.postponed) == (2, 1)
    assert later.remembered.keys() == full.keys()


def test_a_list_counts_from_when_the_pointer_had_moved_to_it() -> None:
    """Its prune slept for six days before it moved the pointer: till then the one before went on deleting."""
    moved_before = START + 6 * DAY
    entries = {"long ago": START + DAY, "before": START + 2 * DAY, "its own": None}
    now = START + 7 * DAY
    assert remember(entries, moved_before, now) == {
        "long ago": START + DAY,
        "before": moved_before,
        "its own": now,
    }
    now = START + 12 * DAY
    assert remember(entries, moved_before, now) == {"before": moved_before, "its own": now}
    now += DAY
    assert remember(entries, moved_before, now) == {"its own": now}


def test_what_a_list_is_for_has_the_latest_time_also_when_two_clocks_differ() -> None:
    """Or the next prune would take another entry for it, and age this one by the wrong clock."""
    entries = {"before": START, "its own": None}
    found = remember(entries, START + timedelta(minutes=4), START + timedelta(minutes=1))
    assert found["its own"] == max(found.values())


def broken(links: list[Link]) -> Iterator[Link]:
    yield from links
    raise HistoryError("the history is broken")


def test_a_break_beyond_what_is_kept_does_not_stop_a_prune() -> None:
    links = DAILY[:6]
    kept = plan_retention(broken(links), Policy(keep_last=6), listing(links), NOW)
    assert kept.manifests == 6


def test_a_break_in_what_is_kept_stops_it() -> None:
    links = DAILY[:6]
    with pytest.raises(HistoryError):
        plan_retention(broken(links), Policy(keep_last=7), listing(links), NOW)
    with pytest.raises(HistoryError):
        plan_retention(broken(links), Policy(keep_within=60 * DAY), listing(links), NOW)


AGES = st.lists(st.tuples(st.integers(0, 60 * 24), st.sampled_from("abcd")), min_size=1, max_size=25).map(
    lambda published: sorted(published, reverse=True)
)
POLICIES = st.builds(
    Policy,
    keep_last=st.none() | st.integers(1, 30),
    keep_within=st.none() | st.timedeltas(timedelta(0), 90 * DAY),
    grace=st.timedeltas(timedelta(seconds=1), 30 * DAY),
)
STRAY = st.lists(
    st.tuples(
        st.sampled_from(["blobs/{}", "manifests/{}.json", "manifests/{}.minisig", "strange/{}", "{}"]),
        st.integers(0, 5),
        st.integers(-10, 60 * 24),
    ),
    max_size=10,
)


@given(AGES, POLICIES, STRAY)
def test_nothing_that_is_kept_or_young_or_not_ours_is_ever_a_candidate(
    ages: list[tuple[int, str]], policy: Policy, strays: list[tuple[str, int, int]]
) -> None:
    links = chain(*((timedelta(hours=age), database) for age, database in ages))
    more = [
        ListedObject(pattern.format(digest(f"{name}")), 1, NOW - timedelta(hours=age))
        for pattern, name, age in strays
    ]
    found = list({entry.key: entry for entry in listing(links, *more)}.values())
    kept = plan_retention(links, policy, found, NOW)

    # What is kept is the newest run of the history, and every rule finds in it what it asks for.
    run = links[: kept.manifests]
    assert kept.oldest_kept == run[-1].manifest.sequence == len(links) - len(run) + 1
    databases = [link.manifest.database for link in run]
    changes = sum(before != after for before, after in pairwise(databases))
    assert kept.snapshots == 1 + changes
    assert kept.snapshots >= (policy.keep_last or 1) or len(run) == len(links)
    for after in links[len(run) - 1 : -1]:
        superseded_for = NOW - after.manifest.published_at
        assert superseded_for >= policy.grace
        assert superseded_for >= (policy.keep_within or timedelta())

    # Whatever the policy, what is kept is whole, and nothing is in two places or nowhere.
    gone = {entry.key for entry in kept.candidates}
    for link in run:
        assert not gone & {*required_keys(link.digest, link.manifest)}
        assert not gone & {*optional_keys(link.digest, link.manifest)}
    assert POINTER_KEY not in gone
    assert all(key.startswith(("blobs/", "manifests/")) for key in gone)
    assert all(NOW - entry.modified >= policy.grace for entry in kept.candidates)
    parts = [*kept.kept, *kept.candidates, *kept.young]
    assert sorted([*(entry.key for entry in parts), *kept.alien]) == sorted(entry.key for entry in found)
