"""The publisher, killed with SIGKILL after every single store operation in turn.

After each death a mirror must be able to sync, to the old snapshot or the new one and to nothing else, and
the next publish must succeed.
"""

from __future__ import annotations

import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from contracts.errors import ObjectMissing
from contracts.manifest import Manifest
from localstack import Bucket
from mirror import Mirror
from music_cloud.sample import evolve
from publisher import publish
from publisher.pointer import fetch_pointer
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


def _published(plan: Plan) -> Manifest:
    pointer = fetch_pointer(plan.open_store())
    assert pointer is not None
    return pointer.manifest


def _rename_all_songs(catalogue: Path) -> None:
    """A change of a third of a keyframe: it is worth a delta, and another keyframe is due after it."""
    with closing(sqlite3.connect(catalogue)) as connection:
        connection.execute("UPDATE songs SET name = hex(randomblob(55))")
        connection.commit()


def _survive_every_death(plan: Plan, folder: Path) -> None:
    """Kill three publishes at their nth operation: of a keyframe, of a delta, of a delta and a keyframe."""
    catalogue = plan.catalogue
    for die_at in range(1, _MOST_OPERATIONS):
        plan.die_at, plan.prefix = die_at, f"store-{die_at}"
        plan.state = str(folder / f"state-{die_at}")
        plan.catalogue = str(shutil.copy(catalogue, folder / "changed.db"))
        mirror = Mirror(folder / f"mirror-{die_at}", plan.open_store(), unsigned=True)
        killed = _survive(plan, mirror, folder)
        evolve(Path(plan.catalogue), churn="hour", seed=die_at)
        killed |= _survive(plan, mirror, folder)
        assert len(_published(plan).deltas) == 1
        _rename_all_songs(Path(plan.catalogue))
        killed |= _survive(plan, mirror, folder)
        manifest = _published(plan)
        assert len(manifest.deltas) == 2
        assert manifest.keyframe.database == manifest.database
        if not killed:
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
