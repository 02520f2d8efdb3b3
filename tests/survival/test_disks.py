"""A full disk and a read-only one, on each side of a publisher that is run as people run it.

Each time: exit code 1 and one clear sentence, nothing of what was published is lost, and the next run heals.
"""

from __future__ import annotations

import re
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from music_cloud import addresses
from music_cloud.cli import run
from stores import Backoff, FolderStore, RetryingStore, files
from tests.survival.disks import Disk, open_disk
from tests.survival.witness import Witness, change_catalogue, read_folder

# The kernel's words (errno(3)) and SQLite's (sqlite3_errstr), which it has for both.
_FULL = re.compile(r"No space left on device|File too large|disk is full|disk I/O error")
_READ_ONLY = re.compile(r"Read-only file system|Permission denied")
# From nothing to more than a publish of the tiny catalogue writes, in steps smaller than its parts.
_ROOMS = [*range(0, 96 << 10, 16 << 10), 128 << 10, 512 << 10]


@pytest.fixture(params=["mounted", "limited"])
def disk(request: pytest.FixtureRequest, tiny_catalogue: Path) -> Iterator[Disk]:
    """A disk with a tiny catalogue beside it."""
    content = tiny_catalogue.read_bytes()
    with open_disk(mounted=request.param == "mounted") as made:
        (made.home / "catalogsync.db").write_bytes(content)
        yield made


@pytest.fixture
def no_spare(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody looks how much room there is before he writes."""
    monkeypatch.setattr(files, "_SPARE_BYTES", -(1 << 40))


@pytest.fixture
def publish(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], disk: Disk) -> object:
    """Publishes as the command line does; `catalogue`, `state` and `bucket` are beside the disk or on it."""

    def patient(store: FolderStore, backoff: None) -> RetryingStore:
        return RetryingStore(store, Backoff(sleep=lambda seconds: None))

    monkeypatch.setattr(addresses, "RetryingStore", patient)

    def publish(**on_disk: bool) -> tuple[int, str]:
        catalogue, state, bucket = places(disk, **on_disk)
        monkeypatch.setenv("MUSIC_CLOUD_STATE_DIR", str(state))
        code = run(["publish", "--db", str(catalogue), "--store", str(bucket)])
        complaint = capsys.readouterr().err.splitlines()[-1]
        return code, complaint

    return publish


def places(disk: Disk, *, state: bool = False, bucket: bool = False, source: bool = False) -> list[Path]:
    """Where the catalogue, the state and the bucket are."""
    on_disk = {"catalogsync.db": source, "state": state, "bucket": bucket}
    return [(disk.path if is_on_disk else disk.home) / name for name, is_on_disk in on_disk.items()]


@pytest.mark.usefixtures("no_spare")
@pytest.mark.parametrize("side", ["state", "bucket"])
@pytest.mark.parametrize("first", [True, False], ids=["export", "refresh"])
def test_disk_that_fills_up_at_any_point_loses_nothing(
    disk: Disk, publish: Callable[..., tuple[int, str]], side: str, first: bool
) -> None:
    """The state's loss is part of it: then the catalogue is exported anew, which writes most."""
    catalogue, state, bucket = places(disk, **{side: True})
    witness = Witness(read_folder(bucket))
    assert publish(**{side: True})[0] == 0
    witness.verify()
    codes = []
    for room in _ROOMS:
        change_catalogue(catalogue, f"{room} ", songs=40)
        if first:
            shutil.rmtree(state)
        with disk.room(room):
            code, complaint = publish(**{side: True})
        codes.append(code)
        witness.verify()
        if code:
            assert code == 1
            assert complaint.startswith("music-cloud: ")
            assert _FULL.search(complaint), complaint
        assert publish(**{side: True})[0] == 0
        witness.verify_all()
    assert codes[0] == 1, "there was room enough from the start"
    assert codes[-1] == 0, "there was never room enough"
    assert len(witness.history) > len(_ROOMS)


def test_disk_without_room_to_spare_is_refused_before_anything_is_written(
    disk: Disk, publish: Callable[..., tuple[int, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert publish(state=True)[0] == 0
    change_catalogue(disk.home / "catalogsync.db", "changed ")
    with monkeypatch.context() as patched:
        patched.setattr(files, "_SPARE_BYTES", 1 << 50)
        code, complaint = publish(state=True)
    assert code == 1
    assert re.search(r"No space left on device: a publish needs \d+ MiB and \d+ MiB to spare", complaint)
    assert publish(state=True)[0] == 0


@pytest.mark.parametrize("side", ["state", "bucket"])
def test_disk_that_has_become_read_only_loses_nothing(
    disk: Disk, publish: Callable[..., tuple[int, str]], side: str
) -> None:
    """As ext4 does with a disk that fails (mount(8), errors=remount-ro)."""
    catalogue, _, bucket = places(disk, **{side: True})
    witness = Witness(read_folder(bucket))
    assert publish(**{side: True})[0] == 0
    witness.verify()
    change_catalogue(catalogue, "changed ")
    with disk.read_only():
        code, complaint = publish(**{side: True})
    assert code == 1
    assert complaint.startswith("music-cloud: ")
    assert _READ_ONLY.search(complaint), complaint
    assert publish(**{side: True})[0] == 0
    witness.verify_all()
    assert len(witness.history) == 2


@pytest.mark.parametrize("journal_mode", ["delete", "wal"])
def test_catalogue_on_a_read_only_disk_is_published_or_the_error_says_what_to_do(
    disk: Disk, publish: Callable[..., tuple[int, str]], journal_mode: str
) -> None:
    """A snapshot of the file system, or a mount that only reads. A write-ahead log needs a file beside it."""
    catalogue, _, bucket = places(disk, source=True)
    shutil.copy(disk.home / "catalogsync.db", catalogue)
    with closing(sqlite3.connect(catalogue)) as connection:
        assert connection.execute(f"PRAGMA journal_mode={journal_mode}").fetchone() == (journal_mode,)
    with disk.read_only():
        code, complaint = publish(source=True)
    witness = Witness(read_folder(bucket))
    witness.verify_all()
    assert (code, len(witness.history)) == ((0, 1) if journal_mode == "delete" else (1, 0))
    assert code == 0 or "it is in WAL mode" in complaint, complaint
    assert publish(source=True)[0] == 0
