"""Examines a folder store: its locks, its room, and the file system beneath it.

Invariant: only scratch files of our own are written, and they are deleted again. A folder that is not there
is not made: a disk that is not mounted looks just so.
"""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from contracts.errors import StoreError
from publisher.doctor.checks import (
    Check,
    Diagnosis,
    check_clock,
    check_latency,
    check_preconditions,
)
from publisher.probe import ask_preconditions, judge
from publisher.profile import Profile, program_version
from stores.base import Overwrite
from stores.folder import FolderStore
from stores.locks import exclusive_lock

_FULL_BYTES = 64 << 20  # what writers here leave to others (stores/files.py)
_TIGHT_BYTES = 1 << 30
_WRITES = 5
# File systems whose disk is on another machine (mount(8), and FUSE's usual ones).
_REMOTE = {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "glusterfs", "lustre", "virtiofs"}
_FOLDERS = (".incoming", "blobs", "manifests", "keys")


def examine_folder(
    store: FolderStore,
    now: Callable[[], datetime],
    monotonic: Callable[[], float],
    *,
    single_publisher: bool,
    mounts: str = "",
) -> Diagnosis:
    """All findings about a folder, and its profile; `mounts` is the text of Linux's /proc/self/mountinfo."""
    root = store.root
    if not root.is_dir():
        advice = "mount the disk it is on, or make the folder"
        checks = [Check("the folder", "bad", "there is no such folder", advice)]
        return Diagnosis(store.address, "folder", now(), program_version(), tuple(checks))
    checks, profile = [], None
    try:
        answers = ask_preconditions(store)
        checks += check_preconditions(answers, single_publisher=single_publisher)
        is_honoured = _is_lock_honoured(root)
        profile = Profile(
            store=store.address,
            probed_at=now(),
            program=program_version(),
            preconditions=judge(answers).preconditions,
            deletes=answers.is_gone,
            excludes=is_honoured,
        )
        checks.append(check_locks(is_honoured, single_publisher=single_publisher))
        checks += _examine_files(store, now, monotonic)
        checks.append(check_file_system(find_file_system(mounts, root.resolve())))
        checks.append(check_one_file_system(_devices(root)))
        checks.append(check_space(shutil.disk_usage(root).free))
    except (StoreError, OSError) as error:
        checks.append(Check("write in it", "bad", str(error), "let the user that publishes write there"))
    return Diagnosis(store.address, "folder", now(), program_version(), tuple(checks), profile)


def _examine_files(
    store: FolderStore, now: Callable[[], datetime], monotonic: Callable[[], float]
) -> list[Check]:
    key = f"probe-{secrets.token_hex(16)}"
    path = store.root / key
    try:
        seconds = []
        for _ in range(_WRITES):
            began_s = monotonic()
            store.put(key, b"written by music-cloud doctor", Overwrite())
            seconds.append(monotonic() - began_s)
        modified = datetime.fromtimestamp(path.stat().st_mtime, UTC)
        is_blind = path.with_name(key.upper()).exists()
        return [check_clock(now(), modified, is_asked=False), check_latency(seconds), check_case(is_blind)]
    finally:
        with suppress(StoreError):
            store.delete(key)


def _is_lock_honoured(root: Path) -> bool:
    """Whether who comes second is kept out, as `exclusive_lock` needs it."""
    path = root / f".probe-{secrets.token_hex(8)}.lock"
    try:
        with exclusive_lock(path, 0):
            try:
                with exclusive_lock(path, 0):
                    return False
            except TimeoutError:
                return True
    finally:
        path.unlink(missing_ok=True)


def _devices(root: Path) -> set[int]:
    folders = [root, *(root / name for name in _FOLDERS)]
    return {folder.stat().st_dev for folder in folders if folder.is_dir()}


def check_locks(is_honoured: bool, *, single_publisher: bool) -> Check:
    """Whether a lock keeps out who comes second."""
    if is_honoured:
        return Check("locks", "good", "honoured")
    advice = "publish from one process only, and say so by --single-publisher; or mount it with locks"
    return Check("locks", "warning" if single_publisher else "bad", "ignored", advice)


def check_file_system(name: str | None) -> Check:
    """What kind of file system the folder is on."""
    if name is None:
        return Check("file system", "note", "unknown")
    if name not in _REMOTE and not name.startswith("fuse."):
        return Check("file system", "good", name)
    advice = (
        "on a network drive, publish from one machine only: this probe cannot see locks of other machines"
    )
    return Check("file system", "note", name, advice)


def check_one_file_system(devices: Iterable[int]) -> Check:
    """Whether an object can be renamed to where it belongs."""
    if len(set(devices)) == 1:
        return Check("same file system", "good", "for all of it")
    advice = (
        "mount nothing inside the folder: objects are renamed from .incoming, which must be the same disk"
    )
    return Check("same file system", "bad", "a folder in it is on another disk", advice)


def check_space(free_bytes: int) -> Check:
    """Whether there is room for a publish."""
    found = f"{free_bytes >> 20} MiB free"
    advice = "make room, or run `music-cloud prune`: a keyframe needs a third of the database"
    if free_bytes < _FULL_BYTES:
        return Check("space", "bad", found, advice)
    return (
        Check("space", "warning", found, advice)
        if free_bytes < _TIGHT_BYTES
        else Check("space", "good", found)
    )


def check_case(is_blind: bool) -> Check:
    """Whether the file system takes two spellings for one name; no two of ours differ only in that."""
    return Check("upper and lower case", "good", "the same; no harm done" if is_blind else "different")


def find_file_system(mounts: str, path: Path) -> str | None:
    """The type of the file system that holds an absolute path, by proc_pid_mountinfo(5)."""
    best: tuple[int, str] | None = None
    for line in mounts.splitlines():
        before, separator, after = line.partition(" - ")
        fields = before.split(" ")
        if not separator or len(fields) < 5:
            continue
        point = Path(_unescape(fields[4]))
        # Of several on one point, the last hides the others.
        if path.is_relative_to(point) and (best is None or len(point.parts) >= best[0]):
            best = (len(point.parts), after.split(" ")[0])
    return best[1] if best else None


def _unescape(field: str) -> str:
    """A field of mountinfo: space, tab, line feed and backslash are in octal there."""
    for letter in " \t\n\\":
        field = field.replace(f"\\{ord(letter):03o}", letter)
    return field
