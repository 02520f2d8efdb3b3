"""Looking at a whole store, and putting right what can be: every fault is found, named and no other."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from msgspec.structs import replace

from contracts.errors import ConflictError, SnapshotError, StoreUnavailable
from contracts.layout import POINTER_KEY, Kind, blob_key, format_key, manifest_key
from contracts.manifest import Blob, format_manifest
from contracts.minisign import SecretKey
from contracts.route import plan_route
from localstack import Bucket
from mirror import Mirror
from publisher.damage import blobs_of, deltas_after_damage
from publisher.prune import PruneOptions, prune
from publisher.retention import Policy
from publisher.verify import Finding, VerifyResult, verify_store
from stores import MemoryStore
from stores.restore import restore_database
from stores.s3 import S3Settings, S3Store
from tests.faults import FaultyStore
from tests.publisher.past import Past

KEY, OTHER = (SecretKey(letter * 8, letter * 32) for letter in (b"A", b"B"))


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> Past:
    """Snapshots 1 to 4: a keyframe, and three deltas."""
    past = Past(tmp_path_factory.mktemp("lived"))
    past.publish()
    past.live(3)
    return past


@pytest.fixture
def past(lived: Past, tmp_path: Path) -> Past:
    return lived.copy(tmp_path / "past")


def look(past: Past, *, quick: bool = False, keys: tuple[SecretKey, ...] = ()) -> VerifyResult:
    scratch = None if quick else past.folder / "scratch"
    if scratch is not None:
        scratch.mkdir(exist_ok=True)
    result = verify_store(past.store, scratch, public_keys=[key.public for key in keys])
    assert scratch is None or not list(scratch.iterdir()), "a verify leaves nothing behind"
    return result


def faults(result: VerifyResult) -> dict[str, str]:
    """What is wrong, by key, without the numbers."""
    return {finding.key: finding.wrong.split(":")[0] for finding in result.findings}


def delta_key(past: Past, place: int) -> str:
    return blob_key(past.published().deltas[place].blobs[0].digest)


def flip(content: bytes) -> bytes:
    return content[:20] + bytes([content[20] ^ 1]) + content[21:]


@pytest.mark.parametrize("quick", [True, False])
def test_a_store_as_publishes_leave_it_is_good(past: Past, quick: bool) -> None:
    result = look(past, quick=quick)
    assert (result.findings, result.orphans, result.aliens) == ((), 0, ())
    assert (result.newest, result.oldest, result.manifests) == (4, 1, 4)
    assert result.is_whole is not quick
    assert result.objects == len([key for key in past.objects if not key.startswith("probe-")])
    assert result.size_bytes == sum(len(stored) for key, stored in past.objects.items() if key != POINTER_KEY)


def test_quick_downloads_nothing_but_manifests(past: Past) -> None:
    watched = FaultyStore(past.memory)
    verify_store(watched, None)
    read = [key for operation, key in watched.operations if operation == "get"]
    assert not [key for key in read if key.startswith("blobs/")]


@pytest.mark.parametrize("quick", [True, False])
def test_every_blob_that_is_missing_is_found(past: Past, quick: bool) -> None:
    """Each one of them, and no other."""
    for blob in blobs_of(past.published()):
        key = blob_key(blob.digest)
        stored = past.objects.pop(key)
        assert faults(look(past, quick=quick)) == {key: "missing"}
        past.objects[key] = stored


@pytest.mark.parametrize("quick", [True, False])
@pytest.mark.parametrize(
    "change", [lambda content: content[:-1], lambda content: content + b"\0"], ids=["shorter", "longer"]
)
def test_a_blob_of_another_size_is_found(past: Past, change: Callable[[bytes], bytes], quick: bool) -> None:
    key = delta_key(past, 1)
    past.objects[key] = change(past.objects[key])
    assert faults(look(past, quick=quick)) == {key: "damaged"}


def test_every_blob_with_a_flipped_bit_is_found_in_full(past: Past) -> None:
    for blob in blobs_of(past.published()):
        key = blob_key(blob.digest)
        stored = past.objects[key]
        past.objects[key] = flip(stored)
        assert faults(look(past)) == {key: "damaged"}
        assert look(past, quick=True).is_good, "sizes tell nothing of bits"
        past.objects[key] = stored


def test_a_blob_of_what_is_published_can_be_repaired_and_an_older_one_not(past: Past) -> None:
    """What to do is said with what is wrong."""
    past.publish(rebuild=True)
    older = past.links()[-1].manifest.keyframe.blobs[0]
    past.replace_pointer(format_manifest(replace(past.published(), **_alone(past))))
    for blob in (older, past.published().keyframe.blobs[0]):
        del past.objects[blob_key(blob.digest)]
    found = {finding.key: finding.advice for finding in look(past).findings}
    assert "--repair" in found[blob_key(past.published().keyframe.blobs[0].digest)]
    assert "snapshot 1 to " in found[blob_key(older.digest)]


def _alone(past: Past) -> dict[str, object]:
    """The fields of a manifest whose keyframe is its own and new, without deltas."""
    newest = past.published()
    path = past.folder / "alone.db"
    restore_database(past.store, plan_route(newest, None), path)
    from publisher.keyframes import write_keyframe
    from stores.progress import Progress

    blobs = past.folder / "alone"
    blobs.mkdir()
    keyframe = write_keyframe(path, newest.database, blobs, 16 << 10, 3, Progress())
    for blob in keyframe.blobs:
        past.objects[blob_key(blob.digest)] = (blobs / blob.digest).read_bytes()
    sequence = newest.sequence + 1
    return {"keyframe": keyframe, "deltas": (), "sequence": sequence, "previous": past.pointer().digest}


def test_a_missing_manifest_is_found_and_what_comes_after_it_is_still_looked_at(past: Past) -> None:
    links = past.links()
    del past.objects[manifest_key(links[2].digest)]
    past.objects.pop(delta_key(past, 2))
    result = look(past)
    assert [finding.key for finding in result.findings] == ["manifest 2", delta_key(past, 2)]
    assert manifest_key(links[2].digest) in result.findings[0].wrong
    assert result.orphans is None, "nobody knows what the manifests before it name"


def test_a_pointer_without_its_copy_is_found(past: Past) -> None:
    key = manifest_key(past.pointer().digest)
    del past.objects[key]
    (finding,) = look(past).findings
    assert finding.key == key
    assert "--repair" in finding.advice


def test_orphans_are_counted_and_no_fault(past: Past) -> None:
    """What an interrupted publish has left: a blob, a manifest that no pointer names, its signature."""
    orphans = {
        blob_key("a" * 64): b"12345",
        manifest_key("b" * 64): b"{}",
        format_key(Kind.SIGNATURE, "b" * 64): b"1",
    }
    past.objects.update(orphans)
    past.objects["keys/0000000000000001.json"] = b"a succession is no orphan"
    result = look(past)
    assert (result.is_good, result.orphans, result.orphan_bytes) == (True, 3, 8)


def test_what_is_not_of_the_layout_is_named(past: Past) -> None:
    past.objects["holiday.jpg"] = b"123"
    past.objects["blobs/ABC"] = b"12"
    result = look(past, quick=True)
    assert (result.is_good, result.aliens, result.alien_bytes) == (True, ("blobs/ABC", "holiday.jpg"), 5)


def test_a_keyframe_that_restores_something_else_is_found(past: Past) -> None:
    """Every blob is what its name says, and yet they do not make the database: only restoring tells."""
    newest = past.published()
    first, second, *rest = newest.keyframe.blobs
    swapped = replace(newest.keyframe, blobs=(second, first, *rest))
    past.replace_pointer(format_manifest(replace(newest, keyframe=swapped)))
    assert look(past, quick=True).is_good
    (finding,) = look(past).findings
    assert finding.key == POINTER_KEY
    assert "cannot be restored" in finding.wrong


def sign(past: Past, place: int, key: SecretKey) -> str:
    link = past.links()[place]
    name = format_key(Kind.SIGNATURE, link.digest)
    past.objects[name] = key.sign(link.stored, "x")
    return name


def test_signatures_by_known_keys_are_counted(past: Past) -> None:
    """A repository may have begun without a key, or with one that nobody names any more."""
    sign(past, 0, KEY)
    sign(past, 1, KEY)
    sign(past, 2, OTHER)
    result = look(past, keys=(KEY,))
    assert (result.is_good, result.signed, result.manifests) == (True, 2, 4)
    assert look(past, keys=(KEY, OTHER)).signed == 3
    assert look(past).signed is None


@pytest.mark.parametrize("quick", [True, False])
def test_what_is_published_must_be_signed_by_a_known_key(past: Past, quick: bool) -> None:
    (finding,) = look(past, quick=quick, keys=(KEY,)).findings
    assert "not signed" in finding.wrong
    name = sign(past, 0, OTHER)
    (finding,) = look(past, quick=quick, keys=(KEY,)).findings
    assert (finding.key, OTHER.public.key_id in finding.wrong) == (name, True)


@pytest.mark.parametrize("place", [0, 2])
def test_a_forged_signature_is_found_wherever_it_is(past: Past, place: int) -> None:
    sign(past, 0, KEY)
    name = sign(past, place, SecretKey(KEY.public.number, b"!" * 32))
    (finding,) = look(past, keys=(KEY,)).findings
    assert finding.key == name


@pytest.mark.parametrize("damage", [None, flip, lambda content: content[:-1]], ids=["gone", "bit", "cut"])
@pytest.mark.parametrize("quick", [True, False])
def test_a_list_of_what_is_condemned_that_cannot_be_read_is_found(
    past: Past, damage: Callable[[bytes], bytes] | None, quick: bool
) -> None:
    """Without it every publish names all of its blobs anew. The advice helps, also when the next list is byte
    for byte the one that is damaged."""

    def prune_orphan() -> str:
        past.objects[blob_key("f" * 64)] = b"something to delete"
        policy = Policy(keep_last=9, grace=timedelta(0))
        prune(past.store, past.state, PruneOptions(policy), environment=past.environment())
        condemned = past.published().condemned
        assert condemned is not None
        return blob_key(condemned)

    past.memory._clock = lambda: past.now
    key = prune_orphan()
    assert look(past, quick=quick).findings == ()
    stored = past.objects.pop(key)
    if damage is not None:
        past.objects[key] = damage(stored)
    (finding,) = look(past, quick=quick).findings
    assert finding.key == key
    assert "music-cloud prune" in finding.advice
    past.now += timedelta(hours=1)
    prune_orphan()
    assert look(past, quick=quick).findings == ()


def test_an_empty_store_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SnapshotError, match="nothing was ever published"):
        look(Past(tmp_path))


def test_a_store_that_does_not_answer_is_never_called_good_or_damaged(past: Past) -> None:
    def fail(operation: str, key: str) -> None:
        if operation == "get" and key.startswith("blobs/"):
            raise StoreUnavailable("no answer")

    with pytest.raises(StoreUnavailable):
        verify_store(FaultyStore(past.memory, before=fail), past.folder)


def test_a_prune_meanwhile_is_no_damage(past: Past) -> None:
    key = delta_key(past, 0)

    def prune(operation: str, _: str) -> None:
        if operation == "list":
            del past.objects[key]
            past.replace_pointer(format_manifest(replace(past.published(), condemned="c" * 64)))

    with pytest.raises(ConflictError, match="verify again"):
        verify_store(FaultyStore(past.memory, before=prune), None)


# Repair.


def verify_repaired(past: Past) -> None:
    """Check that all that the pointer names is whole, that mirrors are served, and publishing goes on."""
    assert not [finding for finding in look(past).findings if "--repair" in finding.advice]
    for name in ("first", "second"):
        mirror = Mirror(past.folder / name, past.store, unsigned=True, now=lambda: past.now)
        assert mirror.sync().current.database == past.published().database
        assert past.live().outcome == "published"


@pytest.mark.parametrize("damage", [None, flip, lambda content: content[:-1]], ids=["gone", "bit", "cut"])
@pytest.mark.parametrize("part", ["keyframe", "first delta", "last delta"])
@pytest.mark.parametrize("is_state_lost", [False, True])
def test_repair_puts_right_what_the_pointer_names(
    past: Past, part: str, damage: Callable[[bytes], bytes] | None, is_state_lost: bool
) -> None:
    """Whatever is broken, and even when this machine has lost its state: the catalogue is still there."""
    manifest = past.published()
    blob: Blob = {
        "keyframe": manifest.keyframe.blobs[0],
        "first delta": manifest.deltas[0].blobs[0],
        "last delta": manifest.deltas[-1].blobs[0],
    }[part]
    stored = past.objects.pop(blob_key(blob.digest))
    if damage is not None:
        past.objects[blob_key(blob.digest)] = damage(stored)
    if is_state_lost:
        shutil.rmtree(past.state)
    result = past.publish(repair=True)
    assert result.outcome == "published"
    assert look(past, quick=True).orphans is not None
    verify_repaired(past)


def test_repair_keeps_mirrors_on_the_chain_after_the_damage(past: Past) -> None:
    """The first delta is cut off; whoever has what it led to goes on by deltas."""
    mirror = Mirror(past.folder / "mirror", past.store, unsigned=True, now=lambda: past.now)
    mirror.sync()
    del past.objects[delta_key(past, 0)]
    result = past.publish(repair=True)
    assert result.repaired == 1
    assert len(past.published().deltas) == 2
    past.live()
    assert mirror.sync().downloaded_bytes == past.published().deltas[-1].stored_bytes


@pytest.mark.parametrize("damage", [None, flip], ids=["gone", "bit"])
@pytest.mark.parametrize("is_state_lost", [False, True])
def test_repair_of_a_first_keyframe_sends_only_what_was_lost(
    tmp_path: Path, damage: Callable[[bytes], bytes] | None, is_state_lost: bool
) -> None:
    """Its segments come out of the same compression as the same bytes."""
    past = Past(tmp_path)
    past.publish()
    blob = past.published().keyframe.blobs[1]
    key = blob_key(blob.digest)
    stored = past.objects.pop(key)
    if damage is not None:
        past.objects[key] = damage(stored)
    if is_state_lost:
        shutil.rmtree(past.state)
    watched = FaultyStore(past.memory)
    past.publish(watched, repair=True)
    assert [written for written in watched.puts() if written.startswith("blobs/")] == [key]
    assert past.objects[key] == stored
    assert look(past).is_good


def test_repair_of_a_good_store_writes_nothing(past: Past) -> None:
    watched = FaultyStore(past.memory)
    result = past.publish(watched, repair=True)
    assert (result.outcome, result.repaired, watched.puts()) == ("unchanged", 0, [])


def test_repair_puts_the_copy_of_the_pointer_back(past: Past) -> None:
    pointer = past.pointer()
    for damaged in (None, flip(past.objects[POINTER_KEY])):
        past.objects.pop(manifest_key(pointer.digest))
        if damaged is not None:
            past.objects[manifest_key(pointer.digest)] = damaged
        assert past.publish(repair=True).repaired == 1
        assert look(past).is_good
    assert past.pointer().digest == pointer.digest


def test_repair_of_what_is_held_keeps_it_held(past: Past) -> None:
    past.roll_back(2)
    del past.objects[delta_key(past, -1)]
    past.live(repair=True)
    assert (past.published().held, past.published().database) == (True, past.databases[1])
    verify_store(past.store, None)
    mirror = Mirror(past.folder / "mirror", past.store, unsigned=True, now=lambda: past.now)
    assert mirror.sync().current.database == past.databases[1]


def test_what_is_held_and_nowhere_to_be_had_is_said(past: Past) -> None:
    past.roll_back(2)
    shutil.rmtree(past.state)
    for blob in blobs_of(past.published()):
        past.objects.pop(blob_key(blob.digest), None)
    with pytest.raises(SnapshotError, match="--resume"):
        past.publish(repair=True)
    assert past.publish(repair=True, resume=True).outcome == "published"
    verify_repaired(past)


def test_a_repair_that_died_at_any_operation_is_done_by_the_next(past: Past, tmp_path: Path) -> None:
    class Died(Exception):
        pass

    for die_at in range(1, 200):
        again = past.copy(tmp_path / f"{die_at}")
        again.objects[delta_key(again, 0)] = b"damaged"
        again.objects.pop(blob_key(again.published().keyframe.blobs[0].digest))
        done = 0

        def count(operation: str, key: str, die_at: int = die_at) -> None:
            nonlocal done
            done += 1
            if done == die_at:
                raise Died

        try:
            again.publish(FaultyStore(again.memory, before=count), repair=True)
        except Died:
            if die_at % 3 == 0:  # an ordinary publish in between does no harm
                again.publish()
            again.publish(repair=True)
            assert not [each for each in look(again).findings if "--repair" in each.advice]
            mirror = Mirror(again.folder / "mirror", again.store, unsigned=True, now=lambda: past.now)
            assert mirror.sync().current.database.size_bytes > 0
        else:
            assert die_at > 10, "too few operations for a repair"
            return
    pytest.fail("a repair never came to an end")


def test_deltas_after_damage_are_those_after_the_last_broken_one(past: Past) -> None:
    manifest = past.published()
    blobs = [delta.blobs[0] for delta in manifest.deltas]
    assert deltas_after_damage(manifest, []) == manifest.deltas
    assert deltas_after_damage(manifest, [blobs[0]]) == manifest.deltas[1:]
    assert deltas_after_damage(manifest, [blobs[0], blobs[2]]) == ()
    assert deltas_after_damage(manifest, [manifest.keyframe.blobs[0]]) == manifest.deltas


def test_a_real_s3_server_is_verified_and_repaired(tmp_path: Path, bucket: Bucket) -> None:
    settings = S3Settings(
        endpoint_url=bucket.endpoint_url,
        access_key_id=bucket.access_key,
        secret_access_key=bucket.secret_key,
    )
    past = Past(tmp_path, S3Store(bucket.bucket, "site", settings))
    past.now, past.step = past.store.now() or past.now, past.step * 0
    past.publish()
    past.live()
    assert look(past) == replace_whole(look(past, quick=True))
    blob = past.published().keyframe.blobs[0]
    past.store.delete(blob_key(blob.digest))
    (finding,) = look(past, quick=True).findings
    assert finding == Finding(blob_key(blob.digest), "missing", finding.advice)
    assert past.publish(repair=True).repaired == 1
    (finding,) = look(past).findings
    assert "only snapshot 1 to 2 names it" in finding.wrong + finding.advice


def replace_whole(result: VerifyResult) -> VerifyResult:
    from dataclasses import replace as replace_field

    return replace_field(result, is_whole=True)


def test_after_a_prune_all_that_is_kept_is_there_and_can_be_gone_back_to(tmp_path: Path) -> None:
    """Also what is held, and what was gone back to: a prune follows the same chain."""
    past = Past(tmp_path)
    past.memory = MemoryStore(clock=lambda: past.now)
    past.store = past.memory
    past.publish()
    past.live(2)
    past.publish(rebuild=True)
    past.live()
    past.roll_back(1)
    past.now += timedelta(days=40)
    assert past.publish().outcome == "renewed"
    policy = Policy(keep_last=2, keep_within=None, grace=timedelta(days=7))
    pruned = prune(past.store, past.state, PruneOptions(policy), environment=past.environment())
    assert pruned.deleted
    result = look(past)
    assert (result.findings, result.aliens) == ((), ())
    assert (past.published().held, past.published().database) == (True, past.databases[0])
    with pytest.raises(SnapshotError, match=f"the store has {result.oldest} to {result.newest}"):
        past.roll_back(1)
    past.roll_back(result.oldest)
    past.live(resume=True)
    assert look(past).is_good
    mirror = Mirror(tmp_path / "mirror", past.store, unsigned=True, now=lambda: past.now)
    assert mirror.sync().current.database == past.published().database
