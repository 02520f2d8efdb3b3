"""openat2(2): a path beneath a folder opened by one system call, which can also refuse to touch the disk.

Invariant: what is opened lies beneath the folder, and no symbolic link or magic link was passed on the way;
the kernel sees to it. Python has no function for the call, so the C library's `syscall` makes it. Where it
is not there (other systems, Linux before 5.6, a container's seccomp filter) `is_available` says so, and
`origin.roots` opens one component after the other.
"""

from __future__ import annotations

import ctypes
import errno
import os
import sys
from functools import cache

# The same for every architecture that is younger than it, and unknown (ENOSYS) where it is not:
# include/uapi/asm-generic/unistd.h.
_OPENAT2 = 437
AT_FDCWD = -100  # include/uapi/linux/fcntl.h
# include/uapi/linux/openat2.h
_NO_XDEV = 0x01
_NO_MAGICLINKS = 0x02
_NO_SYMLINKS = 0x04
_BENEATH = 0x08
_CACHED = 0x20


# As os.open does: PEP 446, and files beyond 2 GiB where that is not a matter of course.
_ALWAYS = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_LARGEFILE", 0)


class _OpenHow(ctypes.Structure):
    """struct open_how."""

    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


_HOW_BYTES = ctypes.sizeof(_OpenHow)


class How:
    """How to open: the flags of open(2) and the kernel's RESOLVE_ ones. Made once, used for every call."""

    def __init__(self, flags: int, resolve: int) -> None:
        self._struct = _OpenHow(flags | _ALWAYS, 0, resolve)
        self.pointer = ctypes.byref(self._struct)


def beneath(flags: int, *, follow_mounts: bool) -> How:
    """Open beneath the folder, without links; EXDEV where a mount begins, if those are not followed."""
    return How(flags, _BENEATH | _NO_SYMLINKS | _NO_MAGICLINKS | (0 if follow_mounts else _NO_XDEV))


def beneath_if_cached(flags: int) -> How:
    """The same, on the folder's own file system only, and EAGAIN instead of a disk that is asked."""
    return How(flags, _BENEATH | _NO_SYMLINKS | _NO_MAGICLINKS | _NO_XDEV | _CACHED)


def without_links_if_cached(flags: int) -> How:
    """Open any path on which no link lies, and EAGAIN instead of a disk that is asked."""
    return How(flags, _NO_SYMLINKS | _NO_MAGICLINKS | _CACHED)


def anywhere_if_cached(flags: int) -> How:
    """Open any path, through links too, and EAGAIN instead of a disk that is asked."""
    return How(flags, _CACHED)


def openat2(folder: int, path: bytes, how: How) -> int:
    """The descriptor of a path that begins at the folder with that descriptor.

    Raises:
        OSError: as open(2), and EAGAIN, ELOOP, EXDEV as openat2(2) says; without the path.
        ValueError: the path holds a NUL, which the kernel would take for its end.
    """
    if b"\0" in path:
        raise ValueError("a path holds no NUL")
    descriptor: int = _syscall()(_OPENAT2, folder, path, how.pointer, _HOW_BYTES)
    if descriptor < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return descriptor


@cache
def is_available() -> bool:
    """Whether the kernel opens beneath a folder; asked once."""
    return sys.platform == "linux" and _can(beneath(os.O_PATH, follow_mounts=False))


@cache
def can_ask_cache() -> bool:
    """Whether it can refuse to touch the disk, too (Linux 5.12); asked once."""
    return is_available() and _can(beneath_if_cached(os.O_PATH))


def _can(how: How) -> bool:
    try:
        os.close(openat2(AT_FDCWD, b".", how))
    except OSError as error:
        # It was understood, only the folder that we were started in is gone, or not ours to pass through.
        return error.errno in (errno.EAGAIN, errno.ENOENT, errno.EACCES)
    return True


@cache
def _syscall() -> ctypes._CFuncPtr:  # type: ignore[name-defined]
    function = ctypes.CDLL(None, use_errno=True).syscall
    function.restype = ctypes.c_long
    function.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_char_p, ctypes.c_void_p, ctypes.c_size_t)
    return function
