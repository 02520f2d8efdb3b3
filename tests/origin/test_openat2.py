"""openat2: what the kernel refuses, what happens without it, and what is opened without the disk."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from origin import openat2
from origin.roots import KnownFile, known_file, open_beneath, open_if_cached

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="openat2 is Linux's")
needs_openat2 = pytest.mark.skipif(
    sys.platform == "linux" and not openat2.can_ask_cache(), reason="needs Linux 5.12 and no seccomp filter"
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    music = tmp_path / "music"
    (music / "artist").mkdir(parents=True)
    (music / "artist" / "a.mp3").write_bytes(b"inside")
    (tmp_path / "outside.mp3").write_bytes(b"outside")
    return music


@pytest.fixture
def known(root: Path) -> KnownFile:
    """`artist/a.mp3`, which has been opened a moment ago."""
    descriptor = open_beneath(root, "artist/a.mp3")
    found = known_file(root, "artist/a.mp3", os.fstat(descriptor))
    os.close(descriptor)
    assert found is not None
    return found


@pytest.fixture
def refusing(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], None]]:
    """A kernel that answers each openat2 with an error."""

    def refuse(number: int) -> None:
        def syscall(*_: object) -> int:
            import ctypes

            ctypes.set_errno(number)
            return -1

        monkeypatch.setattr(openat2, "_syscall", lambda: syscall)
        openat2.is_available.cache_clear()
        openat2.can_ask_cache.cache_clear()

    yield refuse
    monkeypatch.undo()
    openat2.is_available.cache_clear()
    openat2.can_ask_cache.cache_clear()


def contents(opened: tuple[int, os.stat_result] | None) -> bytes | None:
    if opened is None:
        return None
    content = os.read(opened[0], 100)
    os.close(opened[0])
    return content


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EPERM, errno.EINVAL, errno.E2BIG])
def test_without_it_each_component_is_opened_by_itself(
    root: Path, refusing: Callable[[int], None], number: int
) -> None:
    """An old kernel, and a container's filter: the same file, and nothing for the event loop."""
    refusing(number)
    assert not openat2.is_available()
    descriptor = open_beneath(root, "artist/a.mp3")
    try:
        assert os.read(descriptor, 100) == b"inside"
        assert known_file(root, "artist/a.mp3", os.fstat(descriptor)) is None
    finally:
        os.close(descriptor)


@needs_openat2
def test_kernel_refuses_what_leaves_the_folder(root: Path) -> None:
    """Even a path that `split_path` would not let through."""
    (root / "out").symlink_to(root.parent)
    (root / "back").symlink_to("artist")
    folder = os.open(root, os.O_PATH)
    how = openat2.beneath(os.O_RDONLY, follow_mounts=True)
    try:
        for path, number in (
            (b"../outside.mp3", errno.EXDEV),
            (b"artist/../../outside.mp3", errno.EXDEV),
            (os.fsencode(root / "artist/a.mp3"), errno.EXDEV),
            (b"out/outside.mp3", errno.ELOOP),
            (b"back/a.mp3", errno.ELOOP),
        ):
            with pytest.raises(OSError) as refusal:
                openat2.openat2(folder, path, how)
            assert (number, None) == (refusal.value.errno, refusal.value.filename), path
        with pytest.raises(ValueError, match="NUL"):
            openat2.openat2(folder, b"artist/a.mp3\0", how)
    finally:
        os.close(folder)


@needs_openat2
def test_descriptor_is_not_inherited(known: KnownFile) -> None:
    """PEP 446."""
    opened = open_if_cached(known)
    assert opened is not None
    assert not os.get_inheritable(opened[0])
    os.close(opened[0])


@needs_openat2
def test_file_in_the_kernels_caches_is_opened_again(root: Path, known: KnownFile) -> None:
    """What is there now: a file that replaced it, and the folder that replaced the root."""
    assert contents(open_if_cached(known)) == b"inside"
    (root / "new").write_bytes(b"new")
    (root / "new").replace(root / "artist/a.mp3")
    assert contents(open_if_cached(known)) in (b"new", None)  # None: its name is not cached yet.
    root.rename(root.parent / "away")
    assert open_if_cached(known) is None
    (root / "artist").mkdir(parents=True)
    (root / "artist/a.mp3").write_bytes(b"another root")
    (root / "artist/a.mp3").stat()
    assert contents(open_if_cached(known)) == b"another root"


@needs_openat2
@pytest.mark.parametrize("fate", ["gone", "link", "folder is a link", "fifo", "folder"])
def test_what_is_no_file_any_more_is_left_to_a_thread(root: Path, known: KnownFile, fate: str) -> None:
    (root / "artist/a.mp3").unlink()
    if fate == "link":
        (root / "artist/a.mp3").symlink_to(root.parent / "outside.mp3")
    elif fate == "folder is a link":
        (root / "artist").rmdir()
        (root.parent / "a.mp3").write_bytes(b"outside")
        (root / "artist").symlink_to(root.parent)
    elif fate == "fifo":
        os.mkfifo(root / "artist/a.mp3")
    elif fate == "folder":
        (root / "artist/a.mp3").mkdir()
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    assert open_if_cached(known) is None
    assert before == len(os.listdir("/proc/self/fd"))  # noqa: PTH208


@needs_openat2
def test_another_device_is_left_to_a_thread(known: KnownFile) -> None:
    """Something else was mounted there, and nobody knows whether it can be asked without waiting."""
    assert open_if_cached(known._replace(device=known.device + 1)) is None


def test_disk_is_left_to_a_thread(known: KnownFile, refusing: Callable[[int], None]) -> None:
    refusing(errno.EAGAIN)
    assert open_if_cached(known) is None


@needs_openat2
def test_root_that_is_a_link_is_followed_and_nothing_beneath_it(root: Path) -> None:
    (root.parent / "alias").symlink_to(root)
    descriptor = open_beneath(root.parent / "alias", "artist/a.mp3")
    found = known_file(root.parent / "alias", "artist/a.mp3", os.fstat(descriptor))
    os.close(descriptor)
    assert found is not None
    assert contents(open_if_cached(found)) == b"inside"
    (root / "artist").rename(root / "moved")
    (root / "artist").symlink_to("moved")
    assert open_if_cached(found) is None


@needs_openat2
def test_root_that_becomes_a_link_is_left_to_a_thread(root: Path, known: KnownFile) -> None:
    """Nobody knows yet where it leads."""
    root.rename(root.parent / "away")
    root.symlink_to(root.parent / "away")
    assert open_if_cached(known) is None
