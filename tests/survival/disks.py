"""Disks that are full or read-only when a test says so: real ones where this process may mount, else limits.

Without the right to mount, the kernel still refuses real writes: a file may not grow beyond a limit
(RLIMIT_FSIZE, getrlimit(2)), and a folder belongs to a user who may not write to it.
"""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_NOBODY = 65534  # the user that owns nothing (Debian Policy, section 9.2.2)
_ROOM_MIB = 256


class Disk:
    """A disk at `path`; what lies in `home` beside it is on another one."""

    def __init__(self, home: Path, *, is_mounted: bool) -> None:
        self.home = home
        self.path = home / "disk"
        self._is_mounted = is_mounted

    @contextmanager
    def room(self, size_bytes: int) -> Iterator[None]:
        """So many bytes are left for now. Not mounted: no file may be larger than that."""
        if not self._is_mounted:
            before = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, before[1]))
            try:
                yield
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, before)
            return
        status = os.statvfs(self.path)
        used_bytes = (status.f_blocks - status.f_bfree) * status.f_frsize
        self._remount(f"size={max(used_bytes + size_bytes, status.f_frsize)}")  # 0 would be no limit
        try:
            yield
        finally:
            self._remount(f"size={_ROOM_MIB}m")

    @contextmanager
    def read_only(self) -> Iterator[None]:
        """Nothing can be written for now."""
        if self._is_mounted:
            self._remount("ro")
        else:
            _chmod_folders(self.path, 0o500)
        try:
            yield
        finally:
            if self._is_mounted:
                self._remount("rw")
            else:
                _chmod_folders(self.path, 0o700)

    def _remount(self, options: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{options}", str(self.path)], check=True)


@contextmanager
def open_disk(*, mounted: bool) -> Iterator[Disk]:
    """A disk for one test; `mounted` where that is possible, and else this process is nobody meanwhile."""
    home = Path(tempfile.mkdtemp(prefix="disk-"))
    (home / "disk").mkdir()
    is_root = os.geteuid() == 0
    is_mounted = mounted and is_root and _mount(home / "disk")
    is_nobody = is_root and not is_mounted  # root may write everywhere
    try:
        if is_nobody:
            for folder in (home, home / "disk"):
                os.chown(folder, _NOBODY, _NOBODY)
            os.seteuid(_NOBODY)
        yield Disk(home, is_mounted=is_mounted)
    finally:
        if is_nobody:
            os.seteuid(0)
        if is_mounted:
            subprocess.run(["umount", "--lazy", str(home / "disk")], check=True)
        shutil.rmtree(home)


def _mount(folder: Path) -> bool:
    command = ["mount", "-t", "tmpfs", "-o", f"size={_ROOM_MIB}m", "tmpfs", str(folder)]
    try:
        return subprocess.run(command, capture_output=True).returncode == 0
    except FileNotFoundError:
        return False


def _chmod_folders(root: Path, mode: int) -> None:
    for folder in [root, *(path for path in root.rglob("*") if path.is_dir())]:
        folder.chmod(mode)
