"""A prune: what goes, what stays, in which order, and what publishers do about what is condemned."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from contracts.condemned import format_condemned, parse_condemned
from contracts.digests import digest_bytes
from contracts.errors import (
    ClockError,
    ConflictError,
    ExpiredError,
    ObjectMissing,
    SignatureError,
    SnapshotError,
    StoreUnavailable,
)
from contracts.keyframe import EMPTY_SKIPPABLE_FRAME
from contracts.layout import POINTER_KEY, Kind, blob_key, format_key, manifest_key
from contracts.manifest import Manifest, format_manifest, parse_manifest
from contracts.minisign import SecretKey
from contracts.route import plan_route
from publisher import Environment, PublishResult
from publisher.condemned import Condemned
from publisher.history import walk_history
from publisher.pointer import fetch_pointer
from publisher.probe import suit_store
from publisher.prune import PruneOptions, PruneResult, prune
from publisher.retention import GRACE, Policy, required_keys
from publisher.signing import is_signed, sign_manifest
from stores import MemoryStore
from stores.base import Create, Reading, Store
from stores.restore import restore_database
from tests.faults import FaultyStore
from tests.publisher.made_up import START, MadeUpCandidates, MadeUpPublish, content, prepared, segments

DAY = timedelta(days=1)
LAST = Policy(keep_last=1)
KEY = SecretKey(b"numberxx", b"s" * 32)
OTHER_KEY = SecretKey(b"otherxxx", b"t" * 32)
A, B, C = (0, 0, 0, 0), (1, 1, 1, 1), (2, 2, 2, 2)


class Site:
    """A store with a clock, and a publisher and a prune on two machines."""

    def __init__(self, folder: Path) -> None:
        self.now = START
        self.store = MemoryStore(lambda: self.now)
        self.folder = folder
        self.candidates = MadeUpCandidates(prepared(folder / "publisher"), {})
        prepared(folder / "pruner")

    @property
    def environment(self) -> Environment:
        return Environment(now=lambda: self.now)

    @property
    def manifest(self) -> Manifest:
        return parse_manifest(self.store.objects[POINTER_KEY])

    def publish(self, variants: tuple[int, ...], store: Store | None = None) -> PublishResult:
        self.candidates.wanted = variants
        return MadeUpPublish(store or self.store, self.candidates, self.environment).run()

    def publish_daily(self, *snapshots: tuple[int, ...]) -> None:
        for variants in snapshots:
            self.publish(variants)
            self.now += DAY

    def prune(
        self,
        policy: Policy = LAST,
        store: Store | None = None,
        clock_s: Callable[[], float] | None = None,
        machine: str = "pruner",
        **options: object,
    ) -> PruneResult:
        return prune(
            store or self.store,
            self.folder / machine,
            PruneOptions(policy, **options),  # type: ignore[arg-type]
            environment=self.environment,
            clock_s=clock_s or (lambda: (self.now - START).total_seconds()),
            deletes_at_once=1,
        )

    def publish_until_keyframe(self, variants: tuple[int, ...]) -> None:
        """Publish it in turn with another, until a keyframe of it is due."""
        for _ in range(50):
            if self.manifest.keyframe.database == content(variants)[0]:
                return
            self.publish(B if self.manifest.database == content(variants)[0] else variants)
        pytest.fail("no keyframe was due")

    def change_pointer(self, **changes: object) -> None:
        stored = format_manifest(replace(self.manifest, **changes))
        self.store.objects[POINTER_KEY] = stored
        self.store.objects[manifest_key(digest_bytes(stored))] = stored

    def restore(self, manifest: Manifest, folder: Path) -> bytes:
        target = folder / "restored.db"
        target.unlink(missing_ok=True)
        restore_database(self.store, plan_route(manifest, None), target)
        return target.read_bytes()

    def is_whole(self) -> bool:
        pointer = fetch_pointer(self.store)
        assert pointer is not None
        links = [*walk_history(self.store, pointer)]
        return all(
            {*required_keys(link.digest, link.manifest)} <= self.store.objects.keys() for link in links
        )

    def condemned(self) -> set[str]:
        digest = self.manifest.condemned
        return set() if digest is None else {*parse_condemned(self.store.objects[blob_key(digest)])}


@pytest.fixture(autouse=True)
def _no_power_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever dies here leaves the kernel alive, so nothing has to be on disk."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


@pytest.fixture
def old_site(site: Site) -> Site:
    """Three snapshots, the last of them long ago: of the first two, only the grace might keep something."""
    site.publish_daily(A, B, C)
    site.now += 30 * DAY
    return site


def test_what_no_kept_snapshot_needs_is_gone_and_the_rest_is_whole(old_site: Site, tmp_path: Path) -> None:
    before = set(old_site.store.objects)
    result = old_site.prune()
    assert result.outcome == "pruned"
    assert {found.key for found in result.deleted} == before - old_site.store.objects.keys()
    assert result.deleted == result.plan.candidates
    assert blob_key(digest_bytes(segments(A)[0])) in before - old_site.store.objects.keys()
    assert result.remaining == ()
    assert old_site.is_whole()
    assert old_site.restore(old_site.manifest, tmp_path) == content(C)[1]
    assert old_site.manifest.oldest_kept == result.plan.oldest_kept > 1


def test_a_prune_says_nothing_of_the_catalogue(old_site: Site) -> None:
    """Nobody has compared it: the snapshot lives no longer than it did, and is what it was."""
    before = old_site.manifest
    old_site.prune()
    after = old_site.manifest
    assert (after.sequence, after.expires_at) == (before.sequence + 1, before.expires_at)
    assert (after.database, after.keyframe, after.deltas) == (
        before.database,
        before.keyframe,
        before.deltas,
    )


def test_daily_prunes_do_not_delay_a_weekly_publisher(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Design, section 5: 14 days until the expiry, and a renewal when half of them are gone. A publisher that
    comes every week renews each time, in the presence of prunes as without them."""
    monkeypatch.setattr("tests.publisher.made_up.EXPIRY", timedelta(days=14))
    for week in range(5):
        assert site.publish(A).outcome == ("renewed" if week else "published")
        for day in range(7):
            orphan = blob_key(f"{week * 7 + day:064x}")
            site.store.objects[orphan] = b"?"
            site.store._modified[orphan] = START - 30 * DAY
            site.now += DAY - timedelta(seconds=1)
            assert site.prune(Policy(keep_last=99)).outcome == "pruned"
            site.now += timedelta(seconds=1)


def test_a_second_prune_finds_nothing_and_writes_nothing(old_site: Site) -> None:
    old_site.prune()
    old_site.now += GRACE * 2
    old_site.prune()  # the manifest that the first one superseded
    before = dict(old_site.store.objects)
    assert old_site.prune().outcome == "unchanged"
    assert old_site.store.objects == before


def test_a_dry_run_tells_the_same_and_writes_nothing(old_site: Site) -> None:
    before = dict(old_site.store.objects)
    planned = old_site.prune(dry_run=True)
    assert (planned.outcome, planned.deleted) == ("planned", ())
    assert old_site.store.objects == before
    assert old_site.prune().deleted == planned.plan.candidates


def test_nothing_is_deleted_before_the_pointer_says_so(old_site: Site) -> None:
    store = FaultyStore(old_site.store)
    old_site.prune(store=store)
    condemned = old_site.condemned()
    moved = store.operations.index(("put", POINTER_KEY))
    deleted = [key for operation, key in store.operations[:moved] if operation == "delete"]
    assert not [key for key in deleted if not key.startswith("probe-")]
    assert {key for operation, key in store.operations[moved:] if operation == "delete"} == condemned


class Dead(BaseException):
    pass


def test_killed_after_every_operation_the_next_prune_finishes(tmp_path: Path) -> None:
    """Whatever was done by then: the store is whole, and what one has left another deletes."""
    expected: set[str] | None = None
    for die_at in range(200):
        site = Site(tmp_path / f"{die_at}")
        site.publish_daily(A, B, C)
        site.now += 30 * DAY
        left = [die_at]

        def die(operation: str, key: str, left: list[int] = left) -> None:
            left[0] -= 1
            if left[0] < 0:
                raise Dead

        try:
            site.prune(store=FaultyStore(site.store, after=die))
        except Dead:
            assert site.is_whole()
            assert site.restore(site.manifest, tmp_path) == content(C)[1]
            site.prune()
            assert site.is_whole()
            site.publish(A)
            assert site.restore(site.manifest, tmp_path) == content(A)[1]
            site.publish(C)
            kept = {key for key in site.store.objects if key.startswith("blobs/")}
            expected = expected or kept
            named = {*required_keys("0" * 64, site.manifest)} & kept
            assert named
            assert not kept & {blob_key(digest_bytes(segment)) for segment in segments(B)}
        else:
            assert die_at > 20, "too few operations for a prune"
            return
    pytest.fail("a prune never came to an end")


def test_a_publish_that_makes_condemned_bytes_again_names_them_anew(old_site: Site, tmp_path: Path) -> None:
    """Design, section 5: an empty skippable frame gives a blob a new digest and changes nothing else."""
    old_site.prune()
    condemned = old_site.condemned()
    assert condemned & {blob_key(digest_bytes(segment)) for segment in segments(A)}
    old_site.publish(A)
    manifest = old_site.manifest
    assert not condemned & {*required_keys("0" * 64, manifest)}
    assert old_site.restore(manifest, tmp_path) == content(A)[1]
    old_site.publish_until_keyframe(A)
    blobs = old_site.manifest.keyframe.blobs
    stored = [old_site.store.objects[blob_key(blob.digest)] for blob in blobs]
    assert stored == [segment + EMPTY_SKIPPABLE_FRAME for segment in segments(A)]
    if shutil.which("zstd"):
        unpacked = subprocess.run(["zstd", "-dc"], input=b"".join(stored), capture_output=True, check=True)
        assert unpacked.stdout == content(A)[1]


def test_what_is_condemned_under_both_names_gets_a_second_frame(old_site: Site, tmp_path: Path) -> None:
    names = [segment + EMPTY_SKIPPABLE_FRAME * frames for segment in segments(A) for frames in (0, 1)]
    stored = format_condemned({blob_key(digest_bytes(name)): old_site.now for name in names})
    old_site.store.objects[blob_key(digest_bytes(stored))] = stored
    old_site.change_pointer(condemned=digest_bytes(stored))
    old_site.publish_until_keyframe(A)
    found = [old_site.store.objects[blob_key(blob.digest)] for blob in old_site.manifest.keyframe.blobs]
    assert found == [segment + EMPTY_SKIPPABLE_FRAME * 2 for segment in segments(A)]
    assert old_site.restore(old_site.manifest, tmp_path) == content(A)[1]


def test_a_publish_under_way_loses_and_plans_anew(old_site: Site, tmp_path: Path) -> None:
    """It has found blobs in the store that the prune then condemns: it must not name them."""
    done: list[PruneResult] = []

    def prune_meanwhile(operation: str, key: str) -> None:
        if operation == "put" and key == POINTER_KEY and not done:
            done.append(old_site.prune())

    with pytest.raises(ConflictError):
        old_site.publish(A, FaultyStore(old_site.store, before=prune_meanwhile))
    assert done[0].deleted
    old_site.publish(A)
    assert old_site.is_whole()
    assert old_site.restore(old_site.manifest, tmp_path) == content(A)[1]


def test_a_prune_that_a_publish_overtakes_plans_anew(old_site: Site, tmp_path: Path) -> None:
    done: list[PublishResult] = []

    def publish_meanwhile(operation: str, key: str) -> None:
        if operation == "put" and key == POINTER_KEY and not done:
            done.append(old_site.publish(A))

    result = old_site.prune(store=FaultyStore(old_site.store, before=publish_meanwhile))
    assert result.outcome == "pruned"
    assert old_site.is_whole()
    assert old_site.restore(old_site.manifest, tmp_path) == content(A)[1]


def test_a_prune_that_is_always_overtaken_says_so_and_deletes_nothing(old_site: Site) -> None:
    def publish_meanwhile(operation: str, key: str) -> None:
        if operation == "put" and key == POINTER_KEY:
            old_site.publish(A if old_site.manifest.database == content(C)[0] else C)

    before = set(old_site.store.objects)
    with pytest.raises(ConflictError, match="run prune again"):
        old_site.prune(store=FaultyStore(old_site.store, before=publish_meanwhile))
    assert before <= old_site.store.objects.keys()


def test_a_prune_stops_when_another_has_begun(old_site: Site) -> None:
    """It slept between two deletions. When it wakes it looks again, and what it sees is not its list."""
    deleted: list[str] = []
    others: list[PruneResult] = []

    def sleep(operation: str, key: str) -> None:
        if operation == "delete" and not key.startswith("probe-"):
            deleted.append(key)
            if len(deleted) == 3:
                old_site.now += timedelta(hours=1)
                others.append(old_site.prune(machine="other"))

    prepared(old_site.folder / "other")
    result = old_site.prune(store=FaultyStore(old_site.store, after=sleep))
    assert result.outcome == "stopped"
    assert [found.key for found in result.deleted] == deleted[:3]
    assert len(others[0].deleted) == len(result.plan.candidates) - 3
    assert old_site.is_whole()


@pytest.mark.parametrize("clock", ["wall", "monotonic"])
def test_a_look_at_the_pointer_counts_for_seconds(old_site: Site, clock: str) -> None:
    """By whichever of the two clocks noticed the pause; then the pointer is looked at again."""
    paused_s = [0.0]

    def pause(operation: str, key: str) -> None:
        if operation == "delete" and not key.startswith("probe-"):
            if clock == "wall":
                old_site.now += timedelta(seconds=31)
            else:
                paused_s[0] += 31

    store = FaultyStore(old_site.store, after=pause)
    result = old_site.prune(store=store, clock_s=lambda: paused_s[0])
    assert result.outcome == "pruned"
    moved = store.operations.index(("put", POINTER_KEY))
    looks = store.operations[moved:].count(("get", POINTER_KEY))
    assert looks == len(result.deleted)


def test_a_store_that_takes_minutes_to_answer_is_given_up(old_site: Site) -> None:
    seconds = [0.0]

    def crawl(operation: str, key: str) -> None:
        seconds[0] += 60

    with pytest.raises(StoreUnavailable, match="the next prune goes on"):
        old_site.prune(store=FaultyStore(old_site.store, after=crawl), clock_s=lambda: seconds[0])
    assert old_site.is_whole()


def test_more_than_a_list_holds_is_deleted_in_the_end(
    old_site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full list stops nothing for ever: a daily prune gets to the end, and no list is too long."""
    monkeypatch.setattr("publisher.retention.MAX_CONDEMNED", 4)
    orphans = {blob_key(f"{number:064x}") for number in range(9)}
    for key in orphans:
        old_site.store.objects[key] = b"?"
        old_site.store._modified[key] = START
    for _ in range(60):
        old_site.prune()
        assert len(old_site.condemned()) <= 4
        old_site.now += DAY
    assert not orphans & old_site.store.objects.keys()


def test_what_was_condemned_within_a_week_stays_condemned(old_site: Site) -> None:
    """A request to delete may still be on its way; a publish must not name what it is for."""

    def prune_orphan(number: int) -> dict[str, datetime | None]:
        old_site.store.objects[orphans[number]] = b"?"
        old_site.store._modified[orphans[number]] = START
        old_site.prune()
        digest = old_site.manifest.condemned
        assert digest is not None
        return parse_condemned(old_site.store.objects[blob_key(digest)])

    orphans = [blob_key(f"{number}" * 64) for number in range(4)]
    old_site.prune()
    first = old_site.condemned()
    replaced_at = old_site.now = old_site.now + 3 * DAY
    assert prune_orphan(0) == dict.fromkeys(first, replaced_at) | {orphans[0]: None}
    old_site.now += DAY
    assert prune_orphan(1).items() >= dict.fromkeys(first, replaced_at).items()
    old_site.now = replaced_at + 7 * DAY - timedelta(seconds=1)
    assert prune_orphan(2).keys() == first | {*orphans[:3]}
    old_site.now += timedelta(seconds=1)
    assert prune_orphan(3).keys() & first == set()


@pytest.mark.parametrize("damage", ["missing", "damaged", "too large"])
def test_without_the_list_a_publish_names_nothing_that_is_there(
    old_site: Site, tmp_path: Path, damage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Anything might be condemned; and nobody has to mend anything before the next publish."""
    condemned, before = old_site.manifest, {*old_site.store.objects}
    old_site.prune()
    before = {*old_site.store.objects} - {*required_keys("0" * 64, condemned)}
    key = blob_key(old_site.manifest.condemned or "")
    if damage == "missing":
        del old_site.store.objects[key]
    elif damage == "damaged":
        old_site.store.objects[key] = old_site.store.objects[key][:-1] + b"?"
    else:
        monkeypatch.setattr("publisher.condemned.CONDEMNED_MAX_BYTES", 10)
    named = {*required_keys("0" * 64, old_site.manifest)}
    old_site.publish(A)
    new = {*required_keys("0" * 64, old_site.manifest)} - named
    assert not new & before
    assert all(
        old_site.store.objects[key].endswith(EMPTY_SKIPPABLE_FRAME) for key in new if key.startswith("blobs/")
    )
    assert old_site.restore(old_site.manifest, tmp_path) == content(A)[1]
    old_site.now += 2 * GRACE
    assert old_site.prune().outcome == "pruned"  # and there is a list again
    assert old_site.condemned()


def damage_reads(store: Store, key: str, times: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """So many times, another bit flips on the line."""
    get, left = store.get, [times]

    def read(wanted: str, start: int = 0) -> Reading:
        reading = get(wanted, start)
        if wanted != key or left[0] == 0:
            return reading
        left[0] -= 1
        stored = bytearray(b"".join(reading))
        stored[left[0]] ^= 1
        return Reading(reading.info, iter([bytes(stored)]))

    monkeypatch.setattr(store, "get", read)


def test_a_bit_that_flips_on_the_line_renames_nothing(
    old_site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The list is whole where it lies: what is not condemned keeps its name, and is not sent again."""
    old_site.prune()
    damage_reads(old_site.store, blob_key(old_site.manifest.condemned or ""), 1, monkeypatch)
    old_site.publish((3, 3, 3, 3))
    assert not [
        key for key, stored in old_site.store.objects.items() if stored.endswith(EMPTY_SKIPPABLE_FRAME)
    ]


def test_a_line_that_damages_every_reading_of_the_list_is_not_believed(
    old_site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    old_site.prune()
    before = old_site.store.objects[POINTER_KEY]
    damage_reads(old_site.store, blob_key(old_site.manifest.condemned or ""), 99, monkeypatch)
    with pytest.raises(StoreUnavailable, match="other bytes each time"):
        old_site.publish(A)
    assert old_site.store.objects[POINTER_KEY] == before


def test_an_upload_without_the_list_resumes_all_the_same(old_site: Site) -> None:
    """The names that it has found are kept with what waits."""
    old_site.prune()
    del old_site.store.objects[blob_key(old_site.manifest.condemned or "")]
    sent: list[str] = []

    def break_off(operation: str, key: str) -> None:
        if operation == "put" and key == POINTER_KEY:
            raise Dead
        if operation == "put":
            sent.append(key)

    with pytest.raises(Dead):
        old_site.publish(A, FaultyStore(old_site.store, before=break_off))
    blobs = [key for key in sent if key.startswith("blobs/")]
    assert blobs
    store = FaultyStore(old_site.store)
    result = old_site.publish(A, store)
    assert result.resumed
    first_move = store.puts().index(POINTER_KEY)
    assert not [key for key in store.puts()[:first_move] if key.startswith("blobs/")]


def test_no_manifest_that_names_what_is_condemned_is_ever_pointed_at(
    old_site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever path makes it: the last check is before the pointer moves."""
    old_site.prune()
    before = old_site.manifest
    monkeypatch.setattr(Condemned, "rename", lambda self, base, plan, spool: plan)
    with pytest.raises(ConflictError, match="about to be deleted"):
        for variants in (A, B, A, B):
            old_site.publish(variants)
    assert not old_site.condemned() & {*required_keys("0" * 64, old_site.manifest)}
    assert old_site.manifest.sequence >= before.sequence


def test_a_store_that_only_pretends_to_delete_is_told_on(old_site: Site) -> None:
    class Pretending(FaultyStore):
        def delete(self, key: str) -> None:
            if key.startswith("probe-"):
                super().delete(key)

    result = old_site.prune(store=Pretending(old_site.store))
    assert result.remaining == tuple(found.key for found in result.deleted)
    assert result.remaining


def test_what_a_publisher_has_put_again_is_not_held_against_the_store(old_site: Site) -> None:
    """It had read the pointer before the prune moved it, and will lose its own move."""
    again: list[str] = []

    def put_again(operation: str, key: str) -> None:
        if operation == "delete" and key.startswith("blobs/") and not again:
            again.append(key)
            old_site.store.put(key, b"the same bytes", Create())

    result = old_site.prune(store=FaultyStore(old_site.store, after=put_again))
    assert again and again[0] in old_site.store.objects
    assert result.remaining == ()


def test_a_prune_that_plans_anew_wraps_the_store_that_it_was_given(
    old_site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not what it has wrapped before: each layer would ask the store once more for every write."""
    wrapped: list[Store] = []

    def watch(store: Store, *args: Any, **options: Any) -> Store:
        wrapped.append(store)
        return suit_store(store, *args, **options)

    def publish_meanwhile(operation: str, key: str) -> None:
        if operation == "list" and not key.startswith("probe-") and len(wrapped) == 1:
            old_site.publish(A)

    monkeypatch.setattr("publisher.prune.suit_store", watch)
    store = FaultyStore(old_site.store, before=publish_meanwhile)
    old_site.prune(store=store, single_publisher=True)
    assert wrapped == [store, store]


def test_objects_of_others_are_left_alone_and_named(old_site: Site) -> None:
    old_site.store.objects["backup.tar"] = b"not ours"
    old_site.store._modified["backup.tar"] = START
    assert old_site.prune().plan.alien == ("backup.tar",)
    assert old_site.store.objects["backup.tar"] == b"not ours"


def test_nothing_is_published_then_nothing_is_pruned(site: Site) -> None:
    with pytest.raises(SnapshotError, match="nothing is published"):
        site.prune()
    assert site.store.objects == {}


def test_a_snapshot_that_has_expired_is_not_renewed_by_a_prune(old_site: Site) -> None:
    old_site.now += 400 * DAY
    before = dict(old_site.store.objects)
    with pytest.raises(ExpiredError, match="publish first"):
        old_site.prune()
    assert old_site.store.objects == before


def test_nothing_is_deleted_from_a_damaged_store(old_site: Site) -> None:
    """What is published lacks a blob: an older snapshot may be all that is left."""
    del old_site.store.objects[blob_key(old_site.manifest.keyframe.blobs[1].digest)]
    before = dict(old_site.store.objects)
    with pytest.raises(SnapshotError, match="music-cloud verify"):
        old_site.prune()
    assert old_site.store.objects == before


@pytest.mark.parametrize("hours", [-24, 24])
def test_a_clock_that_is_a_day_off_the_stores_deletes_nothing(old_site: Site, hours: int) -> None:
    """Also of a store that tells no time: what is written now is dated by it."""
    stored_at = old_site.now + timedelta(hours=hours)
    old_site.store._clock = lambda: stored_at
    before = dict(old_site.store.objects)
    with pytest.raises(ClockError):
        old_site.prune()
    assert old_site.store.objects == before


def test_a_clock_before_the_last_publish_deletes_nothing(site: Site) -> None:
    site.publish_daily(A, B, C)
    site.now -= 10 * DAY
    with pytest.raises(ClockError):
        site.prune()


def sign(site: Site, key: SecretKey) -> None:
    pointer = fetch_pointer(site.store)
    assert pointer is not None
    site.store.objects[format_key(Kind.SIGNATURE, pointer.digest)] = sign_manifest(key, pointer.manifest)


def test_what_is_signed_stays_signed(old_site: Site) -> None:
    sign(old_site, KEY)
    old_site.prune(signing_key=KEY)
    pointer = fetch_pointer(old_site.store)
    assert pointer is not None
    assert is_signed(old_site.store, pointer, KEY)


@pytest.mark.parametrize("key", [None, OTHER_KEY])
def test_a_prune_renews_only_what_its_own_key_has_signed(old_site: Site, key: SecretKey | None) -> None:
    sign(old_site, KEY)
    before = dict(old_site.store.objects)
    with pytest.raises(SignatureError):
        old_site.prune(signing_key=key)
    assert old_site.store.objects == before


def test_an_unsigned_store_is_not_signed_by_a_prune(old_site: Site) -> None:
    """It would vouch for whatever somebody has put there."""
    with pytest.raises(SignatureError, match="publish with that key first"):
        old_site.prune(signing_key=KEY)


def test_what_is_held_stays_held(old_site: Site) -> None:
    old_site.change_pointer(held=True)
    old_site.prune()
    assert old_site.manifest.held


def test_one_publisher_at_a_time_with_one_state_folder(old_site: Site) -> None:
    """The lock is let go before the deleting, which may take hours: publishes go on then."""
    results: list[PublishResult] = []

    def publish_at_the_first_deletion(operation: str, key: str) -> None:
        if operation == "delete" and not key.startswith("probe-") and not results:
            results.append(old_site.publish(A))

    store = FaultyStore(old_site.store, before=publish_at_the_first_deletion)
    result = old_site.prune(store=store, machine="publisher")
    assert (result.outcome, results[0].outcome) == ("pruned", "published")
    assert old_site.is_whole()
    with old_site.candidates.state.locked(), pytest.raises(ConflictError):
        old_site.prune(machine="publisher")


def test_a_prune_beside_another_that_has_deleted_what_it_reads_plans_anew(old_site: Site) -> None:
    """It has read the pointer; then the end of the history goes, before which the newer pointer stops."""
    others: list[PruneResult] = []
    prepared(old_site.folder / "other")

    def prune_meanwhile(operation: str, key: str) -> None:
        if operation == "list" and not key.startswith("probe-") and not others:
            others.append(planned)
            others[0] = old_site.prune(machine="other")

    planned = old_site.prune(dry_run=True)
    result = old_site.prune(Policy(keep_last=3), FaultyStore(old_site.store, before=prune_meanwhile))
    assert others[0].outcome == "pruned"
    assert result.outcome in ("unchanged", "pruned")
    assert old_site.is_whole()


def test_a_missing_object_is_no_error_to_delete(old_site: Site) -> None:
    """Another prune, or the same request a second time, was faster."""
    gone: list[str] = []

    def vanish(operation: str, key: str) -> None:
        if operation == "delete" and key.startswith("blobs/"):
            gone.append(key)
            old_site.store.delete(key)

    assert old_site.prune(store=FaultyStore(old_site.store, before=vanish)).outcome == "pruned"
    with pytest.raises(ObjectMissing):
        old_site.store.head(gone[0])
