"""Copies of files: by whatever way, they hold the same and share nothing that one could notice."""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from stores import files
from stores.files import clone_file

CONTENT = random.Random(3).randbytes(3 * 4096 + 17)

Break = Callable[[pytest.MonkeyPatch], None]


def leave_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the kernel and the file system of this machine do."""


def copy_in_small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_COPIED_BYTES", 4096)


def lack_the_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on Windows and macOS."""
    monkeypatch.delattr(os, "copy_file_range", raising=False)


def refuse(monkeypatch: pytest.MonkeyPatch) -> None:
    def give_up(*arguments: int) -> int:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    monkeypatch.setattr(os, "copy_file_range", give_up, raising=False)


def copy_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "copy_file_range", lambda *arguments: 0, raising=False)


def give_up_in_the_middle(monkeypatch: pytest.MonkeyPatch) -> None:
    def copy(source: int, target: int, count: int, source_at: int, target_at: int) -> int:
        if source_at:
            raise OSError(errno.EIO, "the second time")
        os.lseek(source, source_at, os.SEEK_SET)
        written = os.write(target, os.read(source, 4096))
        os.lseek(source, 0, os.SEEK_SET)
        os.lseek(target, 0, os.SEEK_SET)
        return written

    monkeypatch.setattr(os, "copy_file_range", copy, raising=False)


WAYS = [
    leave_alone,
    copy_in_small_steps,
    lack_the_call,
    refuse,
    copy_nothing,
    give_up_in_the_middle,
]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("content", [CONTENT, b""], ids=["some", "empty"])
def test_copy_holds_the_same_whatever_the_file_system_can(
    way: Break, content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    way(monkeypatch)
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(content)
    clone_file(source, target)
    assert content == target.read_bytes()


def test_change_of_the_copy_leaves_the_original(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(CONTENT)
    clone_file(source, target)
    with target.open("r+b") as stream:
        stream.write(b"changed")
    assert source.read_bytes() == CONTENT
    assert b"changed" + CONTENT[7:] == target.read_bytes()


def test_copy_replaces_nothing(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(CONTENT)
    target.write_bytes(b"somebody's")
    with pytest.raises(FileExistsError):
        clone_file(source, target)
    assert target.read_bytes() == b"somebody's"


def test_copy_of_nothing_makes_nothing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        clone_file(tmp_path / "source", tmp_path / "target")
    assert not (tmp_path / "target").exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_full_disk_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The copy by hand says what the kernel's way only hints at."""
    source = tmp_path / "source"
    source.write_bytes(CONTENT)
    opened = Path.open

    def open_full(path: Path, mode: str = "r") -> object:
        return opened(Path("/dev/full"), "wb") if mode == "xb" else opened(path, mode)

    monkeypatch.setattr(Path, "open", open_full)
    with pytest.raises(OSError, match="No space left"):
        clone_file(source, tmp_path / "target")
