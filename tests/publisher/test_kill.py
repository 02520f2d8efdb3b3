"""The publisher, killed at random moments: between store operations, in the middle of them, while it exports.

A mirror follows all the while, and a witness looks at the bucket. A seeded few in the suite, 500 on each kind
of store in `make soak`. The mirror and the server, killed: tests/survival.
"""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest
from msgspec import structs

from contracts.errors import ObjectMissing
from localstack import Bucket
from mirror import Mirror
from music_cloud.sample import evolve
from publisher import publish
from tests.publisher.killed_publish import Plan
from tests.survival.killed import OPTIONS, Killer, Task
from tests.survival.witness import PlainHttp, Read, Witness, change_catalogue, read_folder


def _kill_at_random(plan: Plan, read: Read, folder: Path, kills: int, seed: int) -> None:
    """Kill that many publishes of a catalogue that moves on; now and then one gets to the end."""
    witness, store = Witness(read), plan.open_store()
    mirror = Mirror(folder / "mirror", store, unsigned=True)
    trial = structs.replace(plan, state=str(folder / "trial-state"))
    if plan.folder:
        trial.folder = str(folder / "trial")
    else:
        trial.prefix = "trial"
    served = number = 0
    with Killer(Task("publish", plan), seed, trial=Task("publish", trial)) as killer:
        while killer.kills < kills:
            number += 1
            evolve(Path(plan.catalogue), churn="hour", seed=number)
            if number % 20 == 0:  # worth a keyframe
                change_catalogue(Path(plan.catalogue), f"{number} ", songs=200)
            killer.kill()
            witness.verify()
            try:
                mirror.sync()
            except ObjectMissing:
                assert not witness.history, "a snapshot that was published is gone"
            served = witness.verify_served(mirror, served)
            assert served == len(witness.history)
    result = publish(plan.catalogue, store, plan.state, OPTIONS)
    witness.verify_all()
    witness.verify_acknowledged(result.manifest)
    assert mirror.sync().current.database == result.manifest.database


def _kill_on_a_folder(catalogue: Path, tmp_path: Path, kills: int, seed: int) -> None:
    plan = Plan(str(catalogue), str(tmp_path / "state"), folder=str(tmp_path / "bucket"))
    _kill_at_random(plan, read_folder(tmp_path / "bucket"), tmp_path, kills, seed)


def _kill_on_s3(catalogue: Path, tmp_path: Path, bucket: Bucket, kills: int, seed: int) -> None:
    plan = Plan(
        str(catalogue),
        str(tmp_path / "state"),
        bucket=bucket.bucket,
        endpoint_url=bucket.endpoint_url,
        access_key=bucket.access_key,
        secret_key=bucket.secret_key,
    )
    with closing(PlainHttp(bucket.public_url)) as plain:
        _kill_at_random(plan, plain.read, tmp_path, kills, seed)


def test_random_kills_on_a_folder(catalogue: Path, tmp_path: Path) -> None:
    _kill_on_a_folder(catalogue, tmp_path, kills=10, seed=1)


def test_random_kills_on_a_real_s3_server(catalogue: Path, tmp_path: Path, bucket: Bucket) -> None:
    _kill_on_s3(catalogue, tmp_path, bucket, kills=10, seed=2)


@pytest.mark.soak
def test_many_random_kills_on_a_folder(catalogue: Path, tmp_path: Path) -> None:
    _kill_on_a_folder(catalogue, tmp_path, kills=500, seed=3)


@pytest.mark.soak
def test_many_random_kills_on_a_real_s3_server(catalogue: Path, tmp_path: Path, bucket: Bucket) -> None:
    _kill_on_s3(catalogue, tmp_path, bucket, kills=500, seed=4)
