"""The walk through the hash chain: what it gives, and where it stops."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import pytest
from msgspec.structs import replace

from contracts.errors import AccessDenied, HistoryError, SignatureError, SnapshotError, StoreUnavailable
from contracts.layout import POINTER_KEY, Kind, format_key, manifest_key
from contracts.manifest import Manifest, format_manifest
from contracts.minisign import SecretKey
from publisher.history import (
    Link,
    UnknownSigner,
    find_behind_since,
    find_held_since,
    find_link,
    find_signer,
    fold_renewals,
    walk_history,
)
from tests.faults import FaultyStore
from tests.publisher.past import BEGUN, Past

KEY, OTHER = (SecretKey(letter * 8, letter * 32) for letter in (b"A", b"B"))


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> Past:
    """Snapshots 1, 2, 3 and 5; 4 renews 3."""
    past = Past(tmp_path_factory.mktemp("lived"))
    past.publish()
    past.live(2)
    past.now += timedelta(days=8)
    assert past.publish().outcome == "renewed"
    past.live()
    return past


@pytest.fixture
def past(lived: Past, tmp_path: Path) -> Past:
    return lived.copy(tmp_path / "past")


def sequences(past: Past) -> list[int]:
    return [link.manifest.sequence for link in past.links()]


def change_link(past: Past, sequence: int, change: Callable[[Manifest], Manifest]) -> None:
    """Put another manifest into the chain, and all that follow it anew, as whoever may publish could."""
    links = past.links()
    previous: str | None = None
    for link in reversed(links):
        manifest = link.manifest
        if manifest.sequence > sequence:
            manifest = replace(manifest, previous=previous)
        elif manifest.sequence == sequence:
            manifest = change(manifest)
        stored = format_manifest(manifest)
        previous = hashlib.sha256(stored).hexdigest()
        past.replace_pointer(stored)


def test_walk_gives_every_manifest_from_the_pointer_to_the_first(past: Past) -> None:
    links = past.links()
    assert [link.manifest.sequence for link in links] == [5, 4, 3, 2, 1]
    assert past.objects[POINTER_KEY] == links[0].stored
    for link in links:
        assert hashlib.sha256(past.objects[manifest_key(link.digest)]).hexdigest() == link.digest
        assert link.size_bytes == len(past.objects[manifest_key(link.digest)])
    for later, earlier in pairwise(links):
        assert later.manifest.previous == earlier.digest


def test_walk_ends_at_the_oldest_that_is_kept(past: Past) -> None:
    """What was before may be deleted, and is not asked for."""
    past.replace_pointer(format_manifest(replace(past.published(), oldest_kept=3)))
    for link in past.links()[-1:]:
        assert link.manifest.sequence == 3
        del past.objects[manifest_key(link.manifest.previous or "")]
    assert sequences(past) == [5, 4, 3]


def test_walk_reads_a_manifest_only_when_it_is_asked_for(past: Past) -> None:
    watched = FaultyStore(past.memory)
    walk = walk_history(watched, past.pointer())
    next(walk)
    next(walk)
    assert [key for operation, key in watched.operations if operation == "get"] == [
        manifest_key(link.digest) for link in past.links()[:2]
    ]


def _drop(content: bytes) -> bytes | None:
    return None


def _flip(content: bytes) -> bytes:
    return content[:-2] + b" }"


def _cut(content: bytes) -> bytes:
    return content[:-1]


def _other(content: bytes) -> bytes:
    return json.dumps({"schema_version": 1}).encode()


def _respell(content: bytes) -> bytes:
    """The same manifest in other bytes."""
    return content + b"\n"


@pytest.mark.parametrize("damage", [_drop, _flip, _cut, _other, _respell])
@pytest.mark.parametrize("place", range(5))
def test_a_link_that_is_missing_or_damaged_is_an_error_after_what_was_walked(
    past: Past, place: int, damage: Callable[[bytes], bytes | None]
) -> None:
    key = manifest_key(past.links()[place].digest)
    damaged = damage(past.objects.pop(key))
    if damaged is not None:
        past.objects[key] = damaged
    walked: list[Link] = []
    with pytest.raises(HistoryError, match=key):
        walked.extend(walk_history(past.store, past.pointer()))  # extend keeps what came before the error
    assert [link.manifest.sequence for link in walked] == [5, 4, 3, 2, 1][:place]


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda manifest: replace(manifest, repository="e" * 32), "of repository e"),
        (lambda manifest: replace(manifest, sequence=4), "numbered 4"),
        (lambda manifest: replace(manifest, sequence=2), "numbered 2"),
    ],
    ids=["repository", "sequence again", "sequence left out"],
)
def test_a_link_of_another_chain_is_an_error(
    past: Past, change: Callable[[Manifest], Manifest], complaint: str
) -> None:
    """Digests alone do not tell: whoever can publish can name any manifest as the one before."""
    change_link(past, 3, change)
    with pytest.raises(HistoryError, match=complaint):
        past.links()


def test_a_store_that_does_not_answer_is_no_broken_history(past: Past) -> None:
    def fail(operation: str, key: str) -> None:
        if key.startswith("manifests/"):
            raise StoreUnavailable("no answer")

    with pytest.raises(StoreUnavailable):
        list(walk_history(FaultyStore(past.memory, before=fail), past.pointer()))


def test_renewals_are_folded_into_their_snapshot(past: Past) -> None:
    snapshots = list(fold_renewals(past.links()))
    assert [each.first.manifest.sequence for each in snapshots] == [5, 3, 2, 1]
    assert [each.last.manifest.sequence for each in snapshots] == [5, 4, 2, 1]
    assert [each.renewals for each in snapshots] == [0, 1, 0, 0]
    assert snapshots[1].published_at == BEGUN + timedelta(hours=3)
    assert [each.has_keyframe for each in snapshots] == [False, False, False, True]


def test_the_delta_of_a_snapshot_is_the_one_that_led_to_it(past: Past) -> None:
    snapshots = list(fold_renewals(past.links()))
    assert snapshots[-1].delta_bytes is None
    for later, earlier in pairwise(snapshots):
        delta = later.first.manifest.deltas[-1]
        assert delta.base == earlier.first.manifest.database
        assert delta.target == later.first.manifest.database
        stored = [past.objects[f"blobs/{blob.digest}"] for blob in delta.blobs]
        assert later.delta_bytes == sum(len(content) for content in stored)


def test_snapshots_before_a_broken_link_are_told(past: Past) -> None:
    del past.objects[manifest_key(past.links()[3].digest)]
    told = []
    with pytest.raises(HistoryError):
        for snapshot in fold_renewals(walk_history(past.store, past.pointer())):
            told.append(snapshot.first.manifest.sequence)
    assert told == [5, 3]


@pytest.mark.parametrize("sequence", [1, 3, 4, 5])
def test_a_snapshot_is_found_by_sequence_and_by_digest(past: Past, sequence: int) -> None:
    (link,) = [link for link in past.links() if link.manifest.sequence == sequence]
    for name in (str(sequence), link.digest, link.digest[:8]):
        assert find_link(walk_history(past.store, past.pointer()), name) == link


def test_a_snapshot_id_finds_the_newest_manifest_of_that_snapshot(past: Past) -> None:
    (earlier,) = [link for link in past.links() if link.manifest.sequence == 3]
    assert find_link(past.links(), earlier.manifest.snapshot_id).manifest.sequence == 4


@pytest.mark.parametrize("name", ["6", "0", "-1", "snap-", "", "abcdef", "a" * 64])
def test_what_is_not_there_is_answered_with_what_is(past: Past, name: str) -> None:
    with pytest.raises(SnapshotError, match=r"the store has 1 to 5"):
        find_link(past.links(), name)


def test_signer_is_the_key_that_signed_these_bytes(past: Past) -> None:
    link = past.links()[0]
    name = format_key(Kind.SIGNATURE, link.digest)
    with pytest.raises(UnknownSigner, match="not signed"):
        find_signer(past.store, link, [KEY.public])
    past.objects[name] = OTHER.sign(link.stored, "x")

    def forbid(operation: str, key: str) -> None:
        raise AccessDenied("403, as S3 says of what is missing to who may not list")

    with pytest.raises(UnknownSigner, match="not signed"):
        find_signer(FaultyStore(past.store, before=forbid), link, [KEY.public])
    assert find_signer(past.store, link, [KEY.public, OTHER.public]) == OTHER.public
    with pytest.raises(UnknownSigner, match=OTHER.public.key_id):
        find_signer(past.store, link, [KEY.public])


@pytest.mark.parametrize("signature", [KEY.sign(b"something else", "x"), b"garbage", b""])
def test_a_signature_that_is_forged_or_damaged_is_no_unknown_signer(past: Past, signature: bytes) -> None:
    link = past.links()[0]
    past.objects[format_key(Kind.SIGNATURE, link.digest)] = signature
    with pytest.raises(SignatureError) as refused:
        find_signer(past.store, link, [KEY.public])
    assert not isinstance(refused.value, UnknownSigner)


def test_held_since_is_when_the_rollback_was_published_whatever_renewed_it(past: Past) -> None:
    past.roll_back(2)
    since = past.now
    past.now += timedelta(days=8)
    assert past.publish().outcome == "renewed"
    assert find_held_since(past.store, past.pointer()) == since


@pytest.mark.parametrize(("sequence", "successor"), [(4, 5), (3, 4), (2, 3), (1, 2)])
def test_behind_since_is_when_the_next_manifest_was_published(
    past: Past, sequence: int, successor: int
) -> None:
    (following,) = [link for link in past.links() if link.manifest.sequence == successor]
    found = find_behind_since(past.store, past.pointer(), sequence, BEGUN)
    assert found == following.manifest.published_at


def test_behind_since_is_not_looked_for_beyond_the_limit(past: Past) -> None:
    """A mirror that was away for a year costs no walk through a year."""
    watched = FaultyStore(past.memory)
    limit = past.now + timedelta(seconds=1)
    assert find_behind_since(watched, past.pointer(), 1, limit) < limit
    assert len([each for each in watched.operations if each[0] == "get"]) == 1
