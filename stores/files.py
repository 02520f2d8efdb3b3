"""Writing files so that a crash at any line leaves the old state or the new one.

The pattern: a temporary file beside the target, write, flush, fsync, rename, fsync the folder.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

_SHARING_TIMEOUT_S = 5.0  # a reader holds a small file for microseconds, a virus scanner for seconds
_SHARING_RETRY_S = 0.02


def sync_file(path: Path) -> None:
    """Return when the content of a file is on disk."""
    with path.open("rb+") as stream:
        os.fsync(stream.fileno())


def sync_folder(folder: Path) -> None:
    """Return when the names in a folder are on disk; Windows keeps them without being asked."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_file(path: Path, content: bytes) -> None:
    """Write a new file and return when its content is on disk; its name may not be yet."""
    with path.open("xb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())


def replace_file(path: Path, content: bytes) -> None:
    """Give a small file new content, all of it or none.

    The temporary name is fixed, so that one left by a crash is overwritten, not collected: callers that may
    run at once hold a lock.
    """
    temporary = path.with_name(f".{path.name}.new")
    temporary.unlink(missing_ok=True)
    write_file(temporary, content)
    _rename(temporary, path)
    sync_folder(path.parent)


def _rename(temporary: Path, path: Path) -> None:
    deadline = time.monotonic() + _SHARING_TIMEOUT_S
    while True:
        try:
            temporary.replace(path)
            return
        except PermissionError:
            # On Windows, somebody may be reading the old one this very moment.
            if os.name != "nt" or time.monotonic() > deadline:
                raise
            time.sleep(_SHARING_RETRY_S)
