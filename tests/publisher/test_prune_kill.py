"""A prune, killed at random moments: while it lists, between the list and the pointer, between deletions.

A publisher goes on and a mirror follows all the while, and a witness looks at the bucket. A seeded few in the
suite, 200 on each kind of store in `make soak`.
"""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest
from msgspec import structs

from contracts.digests import digest_bytes
from contracts.layout import POINTER_KEY, blob_key
from localstack import Bucket
from mirror import Mirror
from music_cloud.sample import evolve
from publisher import publish
from publisher.history import walk_history
from publisher.pointer import fetch_pointer
from publisher.prune import prune
from publisher.retention import optional_keys, required_keys
from stores.base import Create, Store
from tests.publisher.killed_publish import Plan
from tests.survival.killed import AT_ONCE, OPTIONS, Killer, Task
from tests.survival.witness import PlainHttp, Read, Witness, read_folder

_ORPHANS = 24  # that each prune finds: so most of its work is deleting


def _litter(store: Store, number: int) -> None:
    """What interrupted publishes leave: blobs that nobody names, and some that come again and again."""
    listed = {found.key for found in store.list_objects()}
    for orphan in range(_ORPHANS):
        content = f"{number if orphan % 2 else 0} {orphan}".encode()
        key = blob_key(digest_bytes(content))
        if key not in listed:
            store.put(key, content, Create())


def _unneeded(store: Store) -> set[str]:
    """What the store holds and nothing that is kept names; everything named is there.

    Not the scratch objects that ask a store what time it is: they are not of the layout, and are only told.
    """
    pointer = fetch_pointer(store)
    assert pointer is not None
    listed = {found.key for found in store.list_objects() if not found.key.startswith("probe-")}
    needed, named = {POINTER_KEY}, set[str]()
    for link in walk_history(store, pointer):
        needed |= {*required_keys(link.digest, link.manifest)}
        named |= {*optional_keys(link.digest, link.manifest)}
    assert needed <= listed, "something that is kept is not whole"
    assert pointer.manifest.condemned is None or blob_key(pointer.manifest.condemned) in listed
    return listed - needed - named


def _kill_at_random(plan: Plan, read: Read, folder: Path, kills: int, seed: int) -> None:
    """Kill that many prunes, of a store to which publishes go on; now and then one gets to the end."""
    store, witness = plan.open_store(), Witness(read)
    trial = structs.replace(plan, state=str(folder / "trial-state"))
    if plan.folder:
        trial.folder = str(folder / "trial")
    else:
        trial.prefix = "trial"
    # Both beneath a prefix of their own: neither prune sees what belongs to the other.
    for place in (plan, trial):
        publish(place.catalogue, place.open_store(), place.state, OPTIONS)
        _litter(place.open_store(), 1)
    mirror = Mirror(folder / "mirror", store, unsigned=True)
    served, number, moved, cut_short = 0, 1, 0, 0
    with Killer(Task("prune", plan), seed, trial=Task("prune", trial)) as killer:
        while killer.kills < kills:
            number += 1
            if number % 3 == 0:
                evolve(Path(plan.catalogue), churn="hour", seed=number)
                result = publish(plan.catalogue, store, plan.state, OPTIONS)
                witness.verify()
                witness.verify_acknowledged(result.manifest)
                mirror.sync()
            _litter(store, number)
            litter, before = _unneeded(store), fetch_pointer(store)
            killer.kill()
            witness.verify()
            left, after = _unneeded(store), fetch_pointer(store)
            assert before is not None and after is not None
            assert after.manifest.database == before.manifest.database
            assert after.manifest.expires_at == before.manifest.expires_at
            moved += after.digest != before.digest
            cut_short += 0 < len(left & litter) < len(litter)
            if after.digest == before.digest:
                assert litter <= left, "something was deleted before the pointer said so"
            served = witness.verify_served(mirror, served)
    assert moved, "no prune came as far as the pointer"
    assert cut_short or kills < 100, "none died between two deletions"
    evolve(Path(plan.catalogue), churn="hour", seed=number + 1)
    result = publish(plan.catalogue, store, plan.state, OPTIONS)
    finished = prune(store, plan.state, AT_ONCE)
    assert finished.outcome == "pruned" and not finished.remaining
    assert not _unneeded(store), "what one has left the next deletes"
    witness.verify()
    witness.verify_acknowledged(result.manifest)
    assert mirror.sync().current.database == result.manifest.database


def _kill_on_a_folder(catalogue: Path, tmp_path: Path, kills: int, seed: int) -> None:
    plan = Plan(str(catalogue), str(tmp_path / "state"), folder=str(tmp_path / "bucket"), prefix="site")
    _kill_at_random(plan, read_folder(tmp_path / "bucket" / "site"), tmp_path, kills, seed)


def _kill_on_s3(catalogue: Path, tmp_path: Path, bucket: Bucket, kills: int, seed: int) -> None:
    plan = Plan(
        str(catalogue),
        str(tmp_path / "state"),
        prefix="site",
        bucket=bucket.bucket,
        endpoint_url=bucket.endpoint_url,
        access_key=bucket.access_key,
        secret_key=bucket.secret_key,
    )
    with closing(PlainHttp(f"{bucket.public_url}/site")) as plain:
        _kill_at_random(plan, plain.read, tmp_path, kills, seed)


def test_prunes_killed_at_random_on_a_folder_lose_nothing(catalogue: Path, tmp_path: Path) -> None:
    _kill_on_a_folder(catalogue, tmp_path, kills=5, seed=1)


def test_prunes_killed_at_random_on_a_real_s3_server_lose_nothing(
    catalogue: Path, tmp_path: Path, bucket: Bucket
) -> None:
    _kill_on_s3(catalogue, tmp_path, bucket, kills=5, seed=2)


@pytest.mark.soak
def test_many_prunes_killed_at_random_on_a_folder_lose_nothing(catalogue: Path, tmp_path: Path) -> None:
    _kill_on_a_folder(catalogue, tmp_path, kills=200, seed=3)


@pytest.mark.soak
def test_many_prunes_killed_at_random_on_a_real_s3_server_lose_nothing(
    catalogue: Path, tmp_path: Path, bucket: Bucket
) -> None:
    _kill_on_s3(catalogue, tmp_path, bucket, kills=200, seed=4)
