"""A repair never makes anything worse: what a live pointer names is there at every moment of it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from contracts.errors import SignatureError
from contracts.layout import POINTER_KEY, blob_key, manifest_key
from contracts.manifest import Blob
from contracts.minisign import SecretKey
from publisher.damage import MISSING, blobs_of, find_damaged
from publisher.repair import mend_copy
from publisher.verify import verify_store
from stores.base import Reading
from tests.faults import FaultyStore
from tests.publisher.past import Past


class NoisyStore(FaultyStore):
    """A store whose line flips a bit of an object in the first so many readings of it."""

    def __init__(self, past: Past, key: str, times: int) -> None:
        super().__init__(past.memory)
        self.key, self.times = key, times

    def get(self, key: str, start: int = 0) -> Reading:
        reading = super().get(key, start)
        if key != self.key or not self.times:
            return reading
        self.times -= 1
        content = b"".join(reading)
        return Reading(reading.info, iter([bytes([content[0] ^ 1]) + content[1:]]))


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> Past:
    """Snapshots 1 and 2: a keyframe and a delta."""
    past = Past(tmp_path_factory.mktemp("lived"))
    past.publish()
    past.live()
    return past


@pytest.fixture
def past(lived: Past, tmp_path: Path) -> Past:
    return lived.copy(tmp_path / "past")


def keyframe_blob(past: Past) -> Blob:
    return past.published().keyframe.blobs[0]


@pytest.mark.parametrize("damaged", [None, b"{}"], ids=["gone", "damaged"])
def test_copy_of_the_pointer_is_put_back_before_changes_move_the_pointer(
    past: Past, damaged: bytes | None
) -> None:
    """Afterwards nobody has these bytes any more, and the history would be broken for ever."""
    key, stored = manifest_key(past.pointer().digest), past.objects[POINTER_KEY]
    del past.objects[key]
    if damaged is not None:
        past.objects[key] = damaged
    result = past.live(repair=True)
    assert (result.outcome, result.repaired) == ("published", 1)
    assert past.objects[key] == stored
    assert past.published().sequence == 3
    assert verify_store(past.store, None).findings == ()


def test_bit_that_flips_on_the_line_is_no_damage(past: Past) -> None:
    store = NoisyStore(past, blob_key(keyframe_blob(past).digest), times=1)
    result = past.publish(store, repair=True)
    assert (result.outcome, result.repaired) == ("unchanged", 0)
    assert store.times == 0
    assert not [operation for operation, _ in store.operations if operation in ("put", "delete")]


@pytest.mark.parametrize("is_gone", [True, False])
def test_bit_that_flips_in_the_pointer_or_its_copy_changes_nothing(past: Past, is_gone: bool) -> None:
    """The pointer must not be taken for one that has moved, nor its copy for damaged."""
    key = manifest_key(past.pointer().digest)
    stored = past.objects[key]
    if is_gone:
        del past.objects[key]
    store = NoisyStore(past, POINTER_KEY if is_gone else key, times=1)
    assert mend_copy(store, past.pointer()) is is_gone
    assert (past.objects[key], store.times) == (stored, 0)


def test_damage_is_what_is_wrong_twice_and_progress_counts_it_once(past: Past) -> None:
    blob, other, *_ = blobs_of(past.published())
    arrived: list[int] = []
    store = NoisyStore(past, blob_key(blob.digest), times=2)
    assert list(find_damaged(store, [blob, other], arrived.append)) == [blob]
    assert sum(arrived) == blob.size_bytes + other.size_bytes
    past.objects.pop(blob_key(blob.digest))
    assert find_damaged(past.store, [blob, other], arrived.append) == {blob: MISSING}


@pytest.mark.parametrize("is_good", [True, False], ids=["a good blob", "a damaged blob"])
def test_repair_that_dies_anywhere_has_lost_nothing_that_the_pointer_names(
    tmp_path: Path, is_good: bool
) -> None:
    """A line that flips bits makes a good blob look damaged: it must survive its repair."""

    class Died(Exception):
        pass

    (tmp_path / "first").mkdir()
    past = Past(tmp_path / "first")
    past.publish()  # so that its keyframe, made anew, has the same blobs
    blob = keyframe_blob(past)
    key = blob_key(blob.digest)
    for die_at in range(1, 100):
        again = past.copy(tmp_path / f"{die_at}")
        good = again.objects[key]
        if not is_good:
            again.objects[key] = bytes(len(good))
        store = NoisyStore(again, key, times=2 if is_good else 0)

        def die(operation: str, key: str, store: FaultyStore = store, die_at: int = die_at) -> None:
            if len(store.operations) == die_at:
                raise Died

        store.before = die
        try:
            again.publish(store, repair=True, proof=False)
        except Died:
            left = again.objects[key]
            assert left == good or (not is_good and left == bytes(len(good)))
        else:
            assert again.objects[key] == good
            assert not [operation for operation, _ in store.operations if operation == "delete"]
            assert store.puts().count(key) == 1
            assert die_at > 5, "too few operations for a repair"
            return
    pytest.fail("a repair never came to an end")


def test_dry_run_that_would_end_a_hold_says_so(past: Past) -> None:
    """Also when the catalogue is what is held: the real run moves the pointer."""
    catalogue = past.folder / "earlier.db"
    shutil.copy(past.catalogue, catalogue)
    past.live()
    past.roll_back(2)
    shutil.copy(catalogue, past.catalogue)  # its owner has put it back as well
    before = dict(past.objects)
    planned = past.publish(resume=True, dry_run=True)
    assert past.objects == before
    assert (planned.outcome, planned.manifest.held, planned.sent_objects) == ("planned", False, 2)
    done = past.publish(resume=True)
    assert (done.outcome, done.manifest.sequence) == ("renewed", planned.manifest.sequence)
    assert done.sent_objects == planned.sent_objects
    assert past.publish(dry_run=True).outcome == "unchanged"


def test_hold_that_the_key_has_not_signed_names_a_way_out(past: Past) -> None:
    key = SecretKey(b"A" * 8, b"A" * 32)
    past.roll_back(1)
    with pytest.raises(SignatureError, match=r"held by a rollback.*--resume.*signed snapshot"):
        past.publish(signing_key=key)
    assert past.publish(signing_key=key, resume=True).outcome in ("published", "renewed")
    assert not past.published().held
    assert past.publish(signing_key=key).outcome == "unchanged"
