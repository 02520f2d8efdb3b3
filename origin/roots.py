"""From a relative path beneath a root to an open file, without ever leaving the root.

Invariant: what is opened is a regular file, reached from the root by names alone. On POSIX each component
is opened from the one before it and none may be a symbolic link: a link inside a root is refused even when
it points back inside, because only so is there nothing to race with. Elsewhere the real path is compared.
Which root a locator belongs to is decided in `origin.locators`.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import sys
from pathlib import Path

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


def open_beneath(root: Path, path: str) -> int:
    """Open the regular file at the relative `path` beneath `root`, for reading; returns its descriptor.

    Blocks while a disk spins up: never call it on the event loop. `root` itself may be or contain links.
    Raises:
        LocatorRefused: for a path that `split_path` refuses; for whatever is missing, not a regular file, a
            link, beyond our rights or on a root that is not mounted.
        OutOfDescriptors: when only the machine's limits stand in the way.
    """
    components = split_path(path)
    try:
        descriptor = _open(root, components)
    except UnicodeEncodeError:
        raise LocatorRefused("the path has no form in the file system") from None
    except OSError as error:
        if error.errno in _EXHAUSTED:
            raise OutOfDescriptors(f"no file can be opened: {error.strerror}") from None
        # Without its cause: an OSError holds the path.
        raise LocatorRefused(f"the file cannot be opened: {error.strerror}") from None
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise LocatorRefused("the path names no regular file")
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _open_by_name(root: Path, components: list[str]) -> int:
    folder = os.open(root, _FOLDER_FLAGS)
    try:
        for component in components[:-1]:
            inner = os.open(component, _FOLDER_FLAGS | _NO_FOLLOW, dir_fd=folder)
            os.close(folder)
            folder = inner
        return os.open(components[-1], _FILE_FLAGS, dir_fd=folder)
    finally:
        os.close(folder)


def _open_real(root: Path, components: list[str]) -> int:
    """Where no folder can be opened: whoever may write into the root could still race with this."""
    real_root = os.path.realpath(root, strict=True)
    wanted = str(Path(real_root, *components))
    if os.path.normcase(os.path.realpath(wanted, strict=True)) != os.path.normcase(wanted):
        raise LocatorRefused("the path passes through a link")
    return os.open(wanted, _FILE_FLAGS)


_open = _open_by_name if os.open in os.supports_dir_fd else _open_real
