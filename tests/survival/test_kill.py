"""The mirror and the S3 server, killed at random moments. The publisher: tests/publisher/test_kill.py."""

from __future__ import annotations

import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from contracts.errors import StoreUnavailable
from contracts.manifest import Manifest
from localstack import Bucket, SeaweedFS
from mirror import Mirror
from music_cloud.sample import evolve
from publisher import Environment, PublishResult, publish
from stores import Backoff, FolderStore, RetryingStore
from stores.s3 import S3Settings, S3Store
from tests.publisher.killed_publish import Plan
from tests.survival.killed import LATER, OPTIONS, Killer, Task
from tests.survival.witness import PlainHttp, Witness, change_catalogue, read_folder


def _kill_mirrors(catalogue: Path, folder: Path, kills: int, seed: int) -> None:
    """Kill that many syncs; whatever is served at any time was published, and never goes back."""
    bucket, witness = folder / "bucket", Witness(read_folder(folder / "bucket"))
    store = FolderStore(bucket)
    publish(catalogue, store, folder / "state", OPTIONS)
    plan = Plan(str(catalogue), folder=str(bucket))
    trial = Task("sync", plan, str(folder / "trial"))
    mirror = Mirror(folder / "mirror", store, unsigned=True)
    served = number = 0
    with Killer(Task("sync", plan, str(folder / "mirror")), seed, trial=trial) as killer:
        while killer.kills < kills:
            number += 1
            evolve(catalogue, churn="hour", seed=number)
            if number % 10 == 0:  # worth a keyframe
                change_catalogue(catalogue, f"{number} ", songs=200)
            publish(catalogue, store, folder / "state", OPTIONS)
            witness.verify()
            killer.kill()
            served = witness.verify_served(mirror, served)
    mirror.sync()
    assert witness.verify_served(mirror, served) == len(witness.history)
    # What a killed sync left behind is gone: the one that is served, and the one before it for its readers.
    assert len(list((folder / "mirror" / "generations").iterdir())) <= 2
    assert not (folder / "mirror" / "incoming").exists()


def test_mirror_that_is_killed_serves_what_was_published(catalogue: Path, tmp_path: Path) -> None:
    _kill_mirrors(catalogue, tmp_path, kills=10, seed=1)


@pytest.mark.soak
def test_mirror_that_is_killed_often_serves_what_was_published(catalogue: Path, tmp_path: Path) -> None:
    _kill_mirrors(catalogue, tmp_path, kills=500, seed=2)


def _store(bucket: Bucket) -> RetryingStore:
    settings = S3Settings(
        endpoint_url=bucket.endpoint_url,
        access_key_id=bucket.access_key,
        secret_access_key=bucket.secret_key,
        addressing_style="path",
    )
    return RetryingStore(S3Store(bucket.bucket, "", settings), _impatient())


def _impatient() -> Backoff:
    """A dead server is dead; it comes back when the publish has given up."""
    return Backoff(attempts=2, sleep=lambda seconds: None)


def _kill_servers(catalogue: Path, folder: Path, kills: int, seed: int) -> None:
    """Kill the server in the middle of that many publishes; what it acknowledged is there when it is back."""
    dice = random.Random(seed)
    with SeaweedFS(folder / "seaweed", buckets=("survival",)) as server, ThreadPoolExecutor(1) as thread:
        bucket = server.create_bucket("survival")
        acknowledged: list[PublishResult] = []
        longest_s = 0.0
        for number in range(2):  # the second shows how long one takes when nobody is killed
            evolve(catalogue, churn="hour", seed=number)
            began_s = time.monotonic()
            acknowledged.append(publish(catalogue, _store(bucket), folder / "state", OPTIONS))
            longest_s = time.monotonic() - began_s
        history: list[tuple[str, Manifest]] = []
        killed = 0
        while killed < kills:
            number += 1
            bucket = server.create_bucket("survival")  # it may have come back on other ports
            evolve(catalogue, churn="hour", seed=number)
            publishing = thread.submit(_publish_in_vain, catalogue, bucket, folder / "state")
            threading.Event().wait(dice.uniform(0, longest_s))
            server.kill()
            result = publishing.result()
            acknowledged += [] if result is None else [result]
            killed += result is None
            longest_s *= LATER if result is None else 1 / LATER
            server.start()
            with closing(PlainHttp(server.public_url("survival"))) as plain:
                witness = Witness(plain.read, history=history)
                witness.verify_all()
                for result in acknowledged:
                    witness.verify_acknowledged(result.manifest)
                history = witness.history
        assert len(history) >= len(acknowledged) >= 2
        bucket = server.create_bucket("survival")
        final = publish(catalogue, _store(bucket), folder / "state", OPTIONS)
        mirror = Mirror(folder / "mirror", _store(bucket), unsigned=True)
        assert mirror.sync().current.database == final.manifest.database


def _publish_in_vain(catalogue: Path, bucket: Bucket, state: Path) -> PublishResult | None:
    try:
        return publish(
            catalogue, _store(bucket), state, OPTIONS, environment=Environment(backoff=_impatient())
        )
    except StoreUnavailable:
        return None


def test_server_that_is_killed_keeps_what_it_acknowledged(catalogue: Path, tmp_path: Path) -> None:
    _kill_servers(catalogue, tmp_path, kills=2, seed=1)


@pytest.mark.soak
def test_server_that_is_killed_often_keeps_what_it_acknowledged(catalogue: Path, tmp_path: Path) -> None:
    _kill_servers(catalogue, tmp_path, kills=50, seed=2)
