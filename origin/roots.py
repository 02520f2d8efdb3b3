"""From a relative path beneath a root to an open file, without ever leaving the root.

Invariant: what is opened is a regular file, reached from the root by names alone, as they are spelled. On
POSIX each component is opened from the one before it, by the kernel where it can (`origin.openat2`), and none
may be a symbolic link: a link inside a root is refused even when it points back inside, because only so is
there nothing to race with. Elsewhere the real path is compared. A mount beneath a root is refused as well,
unless the operator says that mounts are followed.
The path is walked anew each time, for 3 µs: a root's descriptor that is kept would keep a disk from being
unmounted, and would go on showing the one that was.
Which root a locator belongs to is decided in `origin.locators`.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from origin import openat2
from origin.spelling import is_misspelled, is_real_path

ON_WINDOWS = sys.platform == "win32"

# A machine's limits, not the file's fault.
_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})

# "Naming Files, Paths, and Namespaces" (Microsoft): reserved with any extension; superscripts count too.
_WINDOWS_DEVICE = re.compile(
    r"(?:CON|PRN|AUX|NUL|CONIN\$|CONOUT\$|CLOCK\$|(?:COM|LPT)[0-9\u00b9\u00b2\u00b3])[ ]*(?:\..*)?",
    re.IGNORECASE,
)
_WINDOWS_FORBIDDEN = re.compile(r'[\x00-\x1f<>:"|?*\\]')

# O_PATH needs no right to list a folder, only to pass through it; O_NONBLOCK lets a FIFO be refused
# instead of waited for.
_FOLDER_FLAGS = getattr(os, "O_PATH", os.O_RDONLY) | getattr(os, "O_DIRECTORY", 0)
_NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0)
_FILE_FLAGS = (
    os.O_RDONLY
    | _NO_FOLLOW
    | getattr(os, "O_NONBLOCK", 0)
    | getattr(os, "O_NOCTTY", 0)
    | getattr(os, "O_BINARY", 0)
)
_HOW = {follow: openat2.beneath(_FILE_FLAGS, follow_mounts=follow) for follow in (False, True)}
_HOW_IF_CACHED = openat2.beneath_if_cached(_FILE_FLAGS)
_WHOLE_IF_CACHED = openat2.without_links_if_cached(_FILE_FLAGS)
_ROOT_IF_CACHED = openat2.anywhere_if_cached(_FOLDER_FLAGS)


class LocatorRefused(Exception):
    """A locator that is refused, unknown or gone: one error, because the world may not tell them apart.

    Its text is a reason for the operator and holds no path.
    """


class OutOfDescriptors(Exception):
    """The process or the machine has no descriptor or memory left; the file may well be there."""


def split_path(path: str, *, windows: bool = ON_WINDOWS) -> list[str]:
    """The components of a relative path, which must be written with `/`.

    Raises:
        LocatorRefused: a component is empty, `.` or `..`, holds NUL, or has no form in the file system; on
            Windows also for backslashes, alternate streams, device names, and the dots and spaces that
            Windows strips from the end of a name.
    """
    components = path.split("/")
    for component in components:
        if component in ("", ".", ".."):
            raise LocatorRefused("a component of the path is empty, . or ..")
        if "\0" in component:
            raise LocatorRefused("the path holds a NUL")
        if windows and (
            _WINDOWS_FORBIDDEN.search(component)
            or _WINDOWS_DEVICE.fullmatch(component)
            or component[-1] in ". "
        ):
            raise LocatorRefused("a component of the path is no plain file name on Windows")
    return components


def open_beneath(root: Path, path: str, *, follow_mounts: bool = False) -> int:
    """Open the regular file at the relative `path` beneath `root`, for reading; returns its descriptor.

    Blocks while a disk spins up: never call it on the event loop. `root` itself may be or contain links, and
    be a mount.
    Raises:
        LocatorRefused: for a path that `split_path` refuses; for whatever is missing, not a regular file, a
            link, beyond our rights or on a root that is not mounted; without `follow_mounts` for what lies on
            another mount than the root. Before Linux 5.6 and on other systems only another device is seen.
        OutOfDescriptors: when only the machine's limits stand in the way.
    """
    components = split_path(path)
    try:
        descriptor = _open(root, components, follow_mounts)
    except UnicodeEncodeError:
        raise LocatorRefused("the path has no form in the file system") from None
    except OSError as error:
        if error.errno in _EXHAUSTED:
            raise OutOfDescriptors(f"no file can be opened: {error.strerror}") from None
        if error.errno == errno.EXDEV:
            raise LocatorRefused(
                "the file is on a mount inside its root (--follow-mounts allows it)"
            ) from None
        # Without its cause: an OSError holds the path.
        raise LocatorRefused(f"the file cannot be opened: {error.strerror}") from None
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise LocatorRefused("the path names no regular file")
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


class KnownFile(NamedTuple):
    """A file that a thread has opened a moment ago, and the device that it was on.

    `root` is empty where no link is on the way to it; then `path` is all of the way, for one system call
    instead of three.
    """

    root: bytes
    path: bytes
    device: int


def known_file(root: Path, path: str, status: os.stat_result) -> KnownFile | None:
    """What `open_if_cached` needs for a file that `open_beneath` has opened; None where it can open none."""
    if not openat2.can_ask_cache():
        return None
    if os.path.realpath(root) == str(root):
        return KnownFile(b"", os.fsencode(root / path), status.st_dev)
    return KnownFile(os.fsencode(root), os.fsencode(path), status.st_dev)


def open_if_cached(known: KnownFile) -> tuple[int, os.stat_result] | None:
    """Open a regular file again, as `open_beneath` would, if that needs no disk; otherwise None.

    For the event loop: the kernel answers from its caches or not at all (RESOLVE_CACHED, openat2(2)). Only
    for files on local file systems: to open one on a network's asks the server. A mount of the same device
    that somebody made since the thread was there may be followed.
    Raises nothing: whatever is wrong, `open_beneath` finds the words for.
    """
    try:
        descriptor = _open_if_cached(known)
    except OSError:
        return None
    status = os.fstat(descriptor)
    # Another device: something else is mounted there now, and nobody knows yet what.
    if status.st_dev != known.device or not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        return None
    return descriptor, status


def _open_if_cached(known: KnownFile) -> int:
    if not known.root:
        return openat2.openat2(openat2.AT_FDCWD, known.path, _WHOLE_IF_CACHED)
    folder = openat2.openat2(openat2.AT_FDCWD, known.root, _ROOT_IF_CACHED)
    try:
        return openat2.openat2(folder, known.path, _HOW_IF_CACHED)
    finally:
        os.close(folder)


def _open_beneath_folder(root: Path, components: list[str], follow_mounts: bool) -> int:
    folder = os.open(root, _FOLDER_FLAGS)
    try:
        descriptor = _descend(folder, components, follow_mounts)
        try:
            if is_misspelled(folder, components):
                raise LocatorRefused("the file is there, but spelled otherwise")
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor
    finally:
        os.close(folder)


def _descend(folder: int, components: list[str], follow_mounts: bool) -> int:
    if openat2.is_available():
        return openat2.openat2(folder, os.fsencode("/".join(components)), _HOW[follow_mounts])
    return _descend_by_name(folder, components, follow_mounts)


def _descend_by_name(folder: int, components: list[str], follow_mounts: bool) -> int:
    device = None if follow_mounts else os.fstat(folder).st_dev
    opened = os.dup(folder)
    flags = [*([_FOLDER_FLAGS | _NO_FOLLOW] * (len(components) - 1)), _FILE_FLAGS]
    for component, how in zip(components, flags, strict=True):
        try:
            inner = os.open(component, how, dir_fd=opened)
        finally:
            os.close(opened)
        opened = inner
        if device is not None and os.fstat(opened).st_dev != device:
            os.close(opened)
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
    return opened


def _open_real(root: Path, components: list[str], _: bool) -> int:
    """Where no folder can be opened: whoever may write into the root could still race with this.

    A mount in a folder of Windows is a junction to its real path: always refused, like a link.
    """
    real_root = os.path.realpath(root, strict=True)
    wanted = str(Path(real_root, *components))
    if not is_real_path(real_root, components, os.path.realpath(wanted, strict=True), windows=ON_WINDOWS):
        raise LocatorRefused("the path passes through a link, or the file is spelled otherwise")
    return os.open(wanted, _FILE_FLAGS)


_open: Callable[[Path, list[str], bool], int] = (
    _open_beneath_folder if os.open in os.supports_dir_fd else _open_real
)
