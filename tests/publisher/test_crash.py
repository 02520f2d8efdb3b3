"""The publisher, killed with SIGKILL after every single store operation in turn.

After each death a mirror must be able to sync, to the old snapshot or the new one and to nothing else, and
the next publish must succeed.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from contracts.errors import ObjectMissing
from localstack import Bucket
from mirror import Mirror
from music_cloud.sample import evolve
from publisher import publish
from tests.publisher.killed_publish import OPTIONS, Plan

_MOST_OPERATIONS = 200  # far more than a small catalogue needs; only ends a test that never would


def _publish_until_killed(plan: Plan, folder: Path) -> bool:
    """Run a publish in a process of its own; whether it was killed."""
    path = folder / "plan.json"
    path.write_bytes(msgspec.json.encode(plan))
    process = subprocess.run(
        [sys.executable, "-m", "tests.publisher.killed_publish", str(path)], capture_output=True, text=True
    )
    assert process.returncode in (0, -signal.SIGKILL), process.stderr
    return process.returncode != 0


def _verify_served(mirror: Mirror) -> None:
    with closing(mirror.connect()) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def _survive(plan: Plan, mirror: Mirror, folder: Path) -> bool:
    """Kill one publish as the plan says, look at what a mirror gets, and let the next publish heal."""
    killed = _publish_until_killed(plan, folder)
    before = mirror.current()
    try:
        after = mirror.sync().current
    except ObjectMissing:
        assert before is None, "a snapshot that was published is gone"
    else:
        assert before is None or after.sequence >= before.sequence
        _verify_served(mirror)
    result = publish(plan.catalogue, plan.open_store(), plan.state, OPTIONS)
    assert mirror.sync().current.database == result.manifest.database
    _verify_served(mirror)
    return killed


def _survive_every_death(plan: Plan, folder: Path) -> None:
    """Kill the first publish to a fresh store, and the one after a change, at their nth operation."""
    for die_at in range(1, _MOST_OPERATIONS):
        plan.die_at, plan.prefix = die_at, f"store-{die_at}"
        plan.state = str(folder / f"state-{die_at}")
        mirror = Mirror(folder / f"mirror-{die_at}", plan.open_store())
        killed_first = _survive(plan, mirror, folder)
        evolve(Path(plan.catalogue), churn="hour", seed=die_at)
        killed_second = _survive(plan, mirror, folder)
        if not killed_first and not killed_second:
            assert die_at > 15, "too few operations for a publish"
            return
    pytest.fail("a publish never came to an end")


def test_killed_after_every_operation_on_a_folder(catalogue: Path, tmp_path: Path) -> None:
    _survive_every_death(Plan(str(catalogue), folder=str(tmp_path / "bucket")), tmp_path)


def test_killed_after_every_operation_on_a_real_s3_server(
    catalogue: Path, tmp_path: Path, bucket: Bucket
) -> None:
    plan = Plan(
        str(catalogue),
        bucket=bucket.bucket,
        endpoint_url=bucket.endpoint_url,
        access_key=bucket.access_key,
        secret_key=bucket.secret_key,
    )
    _survive_every_death(plan, tmp_path)
