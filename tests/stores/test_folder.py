"""What only a folder has: keys that are paths, disks that fill up, processes that race or were killed."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from contracts.errors import AccessDenied, MalformedError, ObjectMissing, StoreError, StoreUnavailable
from contracts.layout import POINTER_KEY, blob_key
from stores import Create, FolderStore, Overwrite, Update
from stores.base import PutMode
from stores.locks import exclusive_lock

ROOT = Path(__file__).parents[2]
BLOB = blob_key("0" * 64)
PROCESSES, INCREMENTS = 4, 20
COUNTER = """
import sys
from pathlib import Path
from contracts.errors import PreconditionFailed
from stores import FolderStore, Update

store = FolderStore(Path(sys.argv[1]))
sys.stdin.read()  # until all are ready
for _ in range(int(sys.argv[2])):
    while True:
        reading = store.get("counter")
        count = int(b"".join(reading))
        try:
            store.put("counter", b"%d" % (count + 1), Update(reading.info.etag))
            break
        except PreconditionFailed:
            pass
"""


def files_in(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def test_objects_are_files_of_the_layout(tmp_path: Path) -> None:
    """A web server in front of the folder serves the bucket; nothing but the lock is left beside it."""
    store = FolderStore(tmp_path / "new" / "store")
    store.put(BLOB, b"blob", Create())
    store.put(POINTER_KEY, b"pointer", Create())
    assert (store.root / BLOB).read_bytes() == b"blob"
    assert sorted([".lock", BLOB, POINTER_KEY]) == files_in(store.root)


def test_reading_needs_no_folder_and_makes_none(tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "none")
    with pytest.raises(ObjectMissing):
        store.get(POINTER_KEY)
    store.delete(POINTER_KEY)
    assert files_in(tmp_path) == []
    assert not store.root.exists()


@pytest.mark.parametrize(
    "key",
    [
        "",
        ".",
        "..",
        "../x",
        "a/../x",
        "a/..",
        "a/./b",
        "/etc/passwd",
        "//x",
        "a//b",
        "a/",
        ".lock",
        ".incoming/x",
        "a/.hidden",
        "a\\b",
        "..\\x",
        "C:/x",
        "C:x",
        "a:stream",
        "a\0",
        "a\n",
        "a b",
        "é",
        "~/x",
    ],
    ids=ascii,
)
def test_key_that_could_leave_the_folder_is_refused(key: str, tmp_path: Path) -> None:
    """By the shape of the key alone, before the file system is asked anything."""
    store = FolderStore(tmp_path)
    calls: list[Callable[[], object]] = [
        lambda: store.head(key),
        lambda: store.get(key),
        lambda: store.get_if_changed(key, ""),
        lambda: store.put(key, b"x", Overwrite()),
        lambda: store.delete(key),
    ]
    for call in calls:
        with pytest.raises(MalformedError):
            call()
    assert files_in(tmp_path) == []


@pytest.mark.parametrize("key", ["blobs", f"{POINTER_KEY}/x"])
def test_folder_is_no_object(key: str, tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    store.put(BLOB, b"x", Create())
    store.put(POINTER_KEY, b"x", Create())
    with pytest.raises(ObjectMissing):
        store.head(key)


def test_update_counts_exactly_between_processes(tmp_path: Path) -> None:
    """Four processes, each reading and updating until it has counted twenty: none overwrites another."""
    store = FolderStore(tmp_path / "store")
    store.put("counter", b"0", Create())
    command = [sys.executable, "-c", COUNTER, str(store.root), str(INCREMENTS)]
    running = [subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE) for _ in range(PROCESSES)]
    for process in running:
        process.communicate()
    assert [process.returncode for process in running] == [0] * PROCESSES
    assert b"".join(store.get("counter")) == b"%d" % (PROCESSES * INCREMENTS)


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (errno.ENOSPC, StoreError),
        (errno.EDQUOT, StoreError),
        (errno.EROFS, StoreError),
        (errno.EACCES, AccessDenied),
        (errno.EIO, StoreUnavailable),
    ],
    ids=lambda value: errno.errorcode[value] if isinstance(value, int) else "",
)
@pytest.mark.parametrize("mode", [Create(), Overwrite(), Update("")], ids=lambda mode: type(mode).__name__)
def test_disk_that_fails_leaves_the_old_object(
    code: int, error: type[StoreError], mode: PutMode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk is not retried, and leaves no file behind that would keep it full."""
    store = FolderStore(tmp_path)
    etag = store.put(POINTER_KEY, b"old", Create())
    key = BLOB if isinstance(mode, Create) else POINTER_KEY
    mode = Update(etag) if isinstance(mode, Update) else mode
    before = files_in(tmp_path)

    def fail(descriptor: int) -> None:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(StoreError) as caught:
            store.put(key, b"new", mode)
    assert error is type(caught.value)
    assert before == files_in(tmp_path)
    assert b"".join(store.get(POINTER_KEY)) == b"old"
    store.put(key, b"new", mode)


def test_disk_that_cannot_be_read_is_unavailable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Never missing: a publisher would begin a new history."""
    store = FolderStore(tmp_path)
    store.put(POINTER_KEY, b"x", Create())

    def fail(*arguments: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("stores.folder.digest_stream", fail)
    for call in (store.head, store.get, lambda key: store.get_if_changed(key, "")):
        with pytest.raises(StoreUnavailable):
            call(POINTER_KEY)


def test_folder_without_rights_is_access_denied(unprivileged: Path) -> None:
    unprivileged.chmod(0o500)
    with pytest.raises(AccessDenied):
        FolderStore(unprivileged).put(POINTER_KEY, b"x", Create())
    with pytest.raises(AccessDenied):
        FolderStore(unprivileged / "new").put(POINTER_KEY, b"x", Create())
    unprivileged.chmod(0o700)


def test_upload_that_was_abandoned_is_removed_after_a_day(tmp_path: Path) -> None:
    """And not before: it may be another publisher's, under way."""
    incoming = tmp_path / ".incoming"
    incoming.mkdir()
    for name, age_s in (("old", 90_000), ("fresh", 80_000)):
        (incoming / name).write_bytes(b"half")
        os.utime(incoming / name, (time.time() - age_s,) * 2)
    FolderStore(tmp_path).put(POINTER_KEY, b"x", Create())
    assert sorted([".incoming/fresh", ".lock", POINTER_KEY]) == files_in(tmp_path)


def test_lock_that_is_held_too_long_is_unavailable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stopped process is named as what it is: a store that does not answer."""
    store = FolderStore(tmp_path)
    store.put(POINTER_KEY, b"old", Create())
    monkeypatch.setattr("stores.folder._LOCK_TIMEOUT_S", 0.0)
    with exclusive_lock(tmp_path / ".lock", 0):
        with pytest.raises(StoreUnavailable, match="locked by another process"):
            store.put(POINTER_KEY, b"new", Overwrite())
        assert b"".join(store.get(POINTER_KEY)) == b"old"
    store.put(POINTER_KEY, b"new", Overwrite())


def test_reader_keeps_what_it_opened(tmp_path: Path) -> None:
    """A replaced object goes on being read as it was."""
    store = FolderStore(tmp_path)
    store.put(POINTER_KEY, b"old", Create())
    reading = store.get(POINTER_KEY)
    store.put(POINTER_KEY, b"new", Overwrite())
    assert b"".join(reading) == b"old"


def test_large_object_that_was_replaced_has_another_entity_tag(tmp_path: Path) -> None:
    """Beyond a mebibyte the file system says what is equal."""
    store = FolderStore(tmp_path)
    first = store.put(BLOB, bytes(1_048_577), Create())
    assert first == store.head(BLOB).etag == FolderStore(tmp_path).head(BLOB).etag
    assert first != store.put(BLOB, bytes(1_048_577), Overwrite())
