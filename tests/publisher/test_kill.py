"""The publisher, killed at random moments: between store operations, in the middle of them, while it exports.

A seeded few in the suite, hundreds in `make soak`.
"""

from __future__ import annotations

import random
import subprocess
import sys
from contextlib import closing, suppress
from pathlib import Path

import msgspec
import pytest

from contracts.errors import ObjectMissing
from localstack import Bucket
from mirror import Mirror
from music_cloud.sample import evolve
from publisher import publish
from tests.publisher.killed_publish import OPTIONS, Plan

_LONGEST_S = 1.2  # what a publish of the small catalogue takes with the start of Python, and a little more


def _kill_at_random(plan: Plan, folder: Path, kills: int, seed: int) -> None:
    """Kill that many publishes of a catalogue that moves on; a mirror follows all the while."""
    moments = random.Random(seed)
    path = folder / "plan.json"
    path.write_bytes(msgspec.json.encode(plan))
    store = plan.open_store()
    mirror = Mirror(folder / "mirror", store, unsigned=True)
    for number in range(kills):
        evolve(Path(plan.catalogue), churn="hour", seed=number)
        process = subprocess.Popen([sys.executable, "-m", "tests.publisher.killed_publish", str(path)])
        with suppress(subprocess.TimeoutExpired):
            process.wait(moments.uniform(0, _LONGEST_S))
        process.kill()
        process.wait()
        before = mirror.current()
        try:
            after = mirror.sync().current
        except ObjectMissing:
            assert before is None, "a snapshot that was published is gone"
            continue
        assert before is None or after.sequence >= before.sequence
        with closing(mirror.connect()) as connection:
            assert connection.execute("PRAGMA quick_check").fetchall() == [("ok",)]
    result = publish(plan.catalogue, store, plan.state, OPTIONS)
    assert mirror.sync().current.database == result.manifest.database


def _plan(catalogue: Path, tmp_path: Path, bucket: Bucket | None) -> Plan:
    if bucket is None:
        return Plan(str(catalogue), str(tmp_path / "state"), folder=str(tmp_path / "bucket"))
    return Plan(
        str(catalogue),
        str(tmp_path / "state"),
        bucket=bucket.bucket,
        endpoint_url=bucket.endpoint_url,
        access_key=bucket.access_key,
        secret_key=bucket.secret_key,
    )


def test_random_kills_on_a_folder(catalogue: Path, tmp_path: Path) -> None:
    _kill_at_random(_plan(catalogue, tmp_path, None), tmp_path, kills=6, seed=1)


def test_random_kills_on_a_real_s3_server(catalogue: Path, tmp_path: Path, bucket: Bucket) -> None:
    _kill_at_random(_plan(catalogue, tmp_path, bucket), tmp_path, kills=6, seed=2)


@pytest.mark.soak
def test_many_random_kills_on_a_folder(catalogue: Path, tmp_path: Path) -> None:
    _kill_at_random(_plan(catalogue, tmp_path, None), tmp_path, kills=250, seed=3)


@pytest.mark.soak
def test_many_random_kills_on_a_real_s3_server(catalogue: Path, tmp_path: Path, bucket: Bucket) -> None:
    _kill_at_random(_plan(catalogue, tmp_path, bucket), tmp_path, kills=250, seed=3)
