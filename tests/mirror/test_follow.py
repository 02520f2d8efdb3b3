"""Following: the pace of polling, and stopping."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from pathlib import Path
from threading import Event

from contracts.errors import StoreUnavailable
from mirror import Mirror, SyncResult, follow
from publisher import PublishOptions, publish
from stores import FolderStore, MemoryStore
from tests.faults import FaultyStore


def _follow(mirror: Mirror, syncs: int, interval_s: float = 30.0) -> tuple[list[float], list[str]]:
    """The pauses and the outcomes of that many syncs."""
    stop = Event()
    pauses: list[float] = []
    outcomes: list[str] = []

    def report(event: SyncResult | Exception) -> None:
        outcomes.append(event.outcome if isinstance(event, SyncResult) else type(event).__name__)

    def wait(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == syncs:
            stop.set()

    follow(mirror, stop, interval_s, report, random.Random(1), wait)
    return pauses, outcomes


def test_polling_is_jittered_around_the_interval(catalogue: Path, tmp_path: Path) -> None:
    store = MemoryStore()
    publish(catalogue, store, tmp_path / "state", PublishOptions(level=1))
    pauses, outcomes = _follow(Mirror(tmp_path / "mirror", store, unsigned=True), 20)
    assert outcomes == ["updated"] + ["unchanged"] * 19
    assert all(24 <= pause <= 36 for pause in pauses)
    assert len(set(pauses)) == 20


def test_failures_back_off_and_success_ends_the_backing_off(catalogue: Path, tmp_path: Path) -> None:
    store = MemoryStore()
    publish(catalogue, store, tmp_path / "state", PublishOptions(level=1))
    failing = iter([True] * 8)

    def fail(operation: str, key: str) -> None:
        if next(failing, False):
            raise StoreUnavailable("503")

    pauses, outcomes = _follow(
        Mirror(tmp_path / "mirror", FaultyStore(store, before=fail), unsigned=True), 10
    )
    assert outcomes == ["StoreUnavailable"] * 8 + ["updated", "unchanged"]
    assert all(later > earlier for earlier, later in zip(pauses[:5:2], pauses[2:6:2], strict=False))
    assert max(pauses) <= 900
    assert pauses[-1] <= 36


def test_a_store_that_asks_for_patience_gets_it(tmp_path: Path) -> None:
    def fail(operation: str, key: str) -> None:
        raise StoreUnavailable("429", retry_after_s=120)

    pauses, _ = _follow(
        Mirror(tmp_path / "mirror", FaultyStore(MemoryStore(), before=fail), unsigned=True), 1
    )
    assert pauses == [120]


def test_sigterm_ends_following_with_success(catalogue: Path, tmp_path: Path) -> None:
    """What systemd sends; the mirror stops at once, even while it waits."""
    publish(catalogue, FolderStore(tmp_path / "bucket"), tmp_path / "state", PublishOptions(level=1))
    command = [sys.executable, "-m", "music_cloud", "mirror", "--follow", "--interval", "1h"]
    with subprocess.Popen(
        [*command, "--from", str(tmp_path / "bucket"), "--to", str(tmp_path / "mirror"), "--unsigned"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("updated: snapshot 1")
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=10) == 0
