"""Writing files so that a crash at any line leaves the old state or the new one.

The pattern: a temporary file beside the target, write, flush, fsync, rename, fsync the folder.
"""

from __future__ import annotations

import errno
import os
import shutil
import time
from pathlib import Path

_SHARING_TIMEOUT_S = 5.0  # a reader holds a small file for microseconds, a virus scanner for seconds
_SHARING_RETRY_S = 0.02
_SPARE_BYTES = 64 << 20  # for logs, and for who else writes there
_COPIED_BYTES = 64 << 20  # asked of the kernel at a time, so that a signal is heard in between
_PIECE_BYTES = 1 << 20


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


def verify_space(folder: Path, size_bytes: int, purpose: str) -> None:
    """Check that the disk of a folder has room for so many bytes, and a little more for its other writers.

    Raises:
        OSError: when it has not; `purpose` is what the error says they are for.
    """
    free_bytes = shutil.disk_usage(folder).free
    if free_bytes < size_bytes + _SPARE_BYTES:
        raise OSError(
            errno.ENOSPC,
            f"{os.strerror(errno.ENOSPC)}: {purpose} needs {-(-size_bytes >> 20)} MiB and "
            f"{_SPARE_BYTES >> 20} MiB to spare, {free_bytes >> 20} MiB are free",
            str(folder),
        )


def clone_file(source: Path, target: Path) -> None:
    """Copy to the new file `target`; it may not be on disk yet, and is worthless after an error.

    Nothing is copied where the file system can share the bytes until one of the two is written.
    Raises:
        FileExistsError: when there is a `target` already.
        OSError: when the source cannot be read or the disk is full.
    """
    with source.open("rb") as old, target.open("xb") as new:
        if not _copy_in_kernel(old.fileno(), new.fileno()):
            shutil.copyfileobj(old, new, _PIECE_BYTES)


def _copy_in_kernel(source: int, target: int) -> bool:
    """Copy by `copy_file_range`, which clones where it can (copy_file_range(2)); whether that was possible.

    Both stay at their beginning: after a failure they are copied by hand, which tells a full disk from a
    file system that cannot.
    """
    if not hasattr(os, "copy_file_range"):  # Windows and macOS
        return False
    size_bytes = os.fstat(source).st_size
    done = 0
    try:
        while done < size_bytes:
            copied = os.copy_file_range(source, target, min(_COPIED_BYTES, size_bytes - done), done, done)
            if copied == 0:  # what some kernels say of a file system that cannot
                return False
            done += copied
    except OSError:
        return False
    return True


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
