"""What an interrupted run left ready is finished when the pointer was only renewed since, else given up."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from msgspec.structs import replace

from contracts.digests import digest_bytes
from contracts.layout import POINTER_KEY, blob_key
from contracts.manifest import Manifest, format_manifest
from publisher.history import Link
from publisher.prune import PruneOptions, prune
from publisher.retention import Policy
from publisher.waiting import only_renews
from tests.faults import FaultyStore
from tests.publisher.past import Past
from tests.publisher.test_retention import NOW, manifest

DAY = timedelta(days=1)


class Died(Exception):
    """The process is gone."""


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> Past:
    """Snapshots 1 to 4."""
    past = Past(tmp_path_factory.mktemp("lived"))
    past.publish()
    past.live(3)
    return past


@pytest.fixture
def past(lived: Past, tmp_path: Path) -> Past:
    copied = lived.copy(tmp_path / "past")
    copied.memory._clock = lambda: copied.now
    return copied


def interrupt(past: Past, *, rollback: bool) -> None:
    """A rollback to 2, or a publish, that dies when all is sent, before the pointer moves."""

    def die(operation: str, key: str) -> None:
        if (operation, key) == ("put", POINTER_KEY):
            raise Died

    store = FaultyStore(past.memory, before=die)
    with pytest.raises(Died):
        past.roll_back(2, store) if rollback else past.live(store=store)


def prune_elsewhere(past: Past) -> None:
    """A prune on another machine: it moves the pointer, and keeps every snapshot."""
    before = past.published()
    past.objects[blob_key("f" * 64)] = b"an orphan"
    past.now += timedelta(hours=1)
    policy = Policy(keep_last=9, grace=timedelta(0))
    options = PruneOptions(policy)
    # What is sent and not named is young, by the grace that people have.
    young = {key: past.now + DAY for key in past.objects if key != blob_key("f" * 64)}
    past.memory._modified.update(young)
    prune(past.store, past.folder / "elsewhere", options, environment=past.environment())
    assert (past.published().sequence, past.published().database) == (before.sequence + 1, before.database)


def change_pointer(past: Past, **changes: object) -> None:
    """Publish a manifest that follows and has these changes, as another publisher would."""
    before = past.pointer()
    after = replace(
        before.manifest,
        sequence=before.manifest.sequence + 1,
        publish_id="e" * 32,
        previous=before.digest,
        **changes,
    )
    past.replace_pointer(format_manifest(after))


@pytest.mark.parametrize("command", ["publish", "rollback"])
def test_a_rollback_that_was_ready_is_finished_although_a_prune_came_between(
    past: Past, command: str
) -> None:
    """docs/history.md, rollback: whoever runs next finishes what its operator wanted."""
    interrupt(past, rollback=True)
    prune_elsewhere(past)
    result = past.publish() if command == "publish" else past.roll_back(2)
    assert (result.outcome, result.resumed) == ("published", True)
    assert (past.published().database, past.published().held) == (past.databases[1], True)


def test_an_upload_goes_on_where_it_was_although_prunes_come_between(past: Past) -> None:
    interrupt(past, rollback=False)
    sent = {key for key in past.objects if key.startswith("blobs/")}
    for _ in range(3):
        prune_elsewhere(past)
    store = FaultyStore(past.memory)
    result = past.publish(store)
    assert (result.outcome, result.resumed, past.published().sequence) == ("published", True, 8)
    assert not {key for key in store.puts() if key.startswith("blobs/")} - {*past.objects}
    assert {blob_key(blob.digest) for blob in past.published().deltas[-1].blobs} <= sent
    assert sent.isdisjoint(store.puts())


def test_a_rollback_is_given_up_when_something_else_was_published(past: Past) -> None:
    """Also when what was there came back: nobody knows any more whether it is wanted."""
    interrupt(past, rollback=True)
    published = past.published()
    link = past.links()[1].manifest
    change_pointer(past, database=link.database, keyframe=link.keyframe, deltas=link.deltas)
    change_pointer(past, database=published.database, keyframe=published.keyframe, deltas=published.deltas)
    assert past.publish().outcome == "unchanged"
    assert not past.published().held


def test_a_rollback_is_given_up_when_a_hold_ended_in_between(past: Past) -> None:
    """`publish --resume` on another machine, whose catalogue is what was held, is the later decision."""
    past.roll_back(3)
    interrupt(past, rollback=True)
    change_pointer(past, held=False)
    past.publish()
    assert past.published().database != past.databases[1]
    assert not past.published().held


def test_an_upload_waits_for_nobody_while_a_rollback_holds(past: Past) -> None:
    interrupt(past, rollback=False)
    other = past.copy(past.folder.parent / "other")
    other.memory = other.store = past.memory
    other.roll_back(2)
    assert past.publish().outcome == "unchanged"
    assert past.published().database == past.databases[1]


def link(number: int, database: str, *, held: bool = False) -> Link:
    made: Manifest = replace(manifest(number, NOW, database, None), held=held)
    stored = format_manifest(made)
    return Link(digest_bytes(stored), made, stored)


@pytest.mark.parametrize(
    ("databases", "holds", "expected"),
    [
        ("a", "-", True),
        ("aaa", "---", True),
        ("aaa", "hhh", True),
        ("aab", "---", False),
        ("aba", "---", False),
        ("abb", "---", False),
        ("aaa", "h--", False),
        ("aaa", "-h-", False),
        ("aaa", "--h", False),
    ],
)
def test_only_what_has_one_database_and_one_hold_all_the_way_is_a_renewal(
    databases: str, holds: str, expected: bool
) -> None:
    """Newest last; before the first was something else, which is not asked."""
    links = [
        link(number, database, held=hold == "h")
        for number, (database, hold) in enumerate(zip(databases, holds, strict=True), 2)
    ]
    history = [*reversed(links), link(1, "another")]
    assert only_renews(history, links[0].digest) is expected


def test_a_manifest_that_is_nowhere_in_the_history_is_not_renewed() -> None:
    assert not only_renews([link(2, "a"), link(1, "a")], "0" * 64)
