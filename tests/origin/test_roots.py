"""Nothing but regular files beneath the root, whatever the path says."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path

import pytest

from origin import openat2, roots
from origin.roots import LocatorRefused, OutOfDescriptors, open_beneath, split_path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    music = tmp_path / "music"
    (music / "artist").mkdir(parents=True)
    (music / "artist" / "a.mp3").write_bytes(b"inside")
    (tmp_path / "outside.mp3").write_bytes(b"outside")
    return music


@pytest.fixture(params=["by the kernel", "by name", "by the real path"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each way of opening a path, whatever this machine would choose."""
    if request.param == "by the real path":
        monkeypatch.setattr(roots, "_open", roots._open_real)
    elif request.param == "by name":
        monkeypatch.setattr(openat2, "is_available", lambda: False)
    elif not openat2.is_available():
        pytest.skip("this kernel has no openat2, or a filter refuses it")
    return str(request.param)


def read(root: Path, path: str) -> bytes:
    descriptor = open_beneath(root, path)
    try:
        return os.read(descriptor, 100)
    finally:
        os.close(descriptor)


def test_file_is_opened(root: Path, way: str) -> None:
    assert read(root, "artist/a.mp3") == b"inside"


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/",
        ".",
        "..",
        "../outside.mp3",
        "artist/../artist/a.mp3",
        "artist/../../outside.mp3",
        "./artist/a.mp3",
        "artist//a.mp3",
        "/artist/a.mp3",
        "artist/a.mp3/",
        "artist/a.mp3\0",
        "artist/a.mp3\0.flac",
        "artist",
        "artist/a.mp3/x",
        "missing.mp3",
        "\ud800",
        "x" * 300,
        "x/" * 3000 + "x",
    ],
)
def test_path_is_refused(root: Path, way: str, path: str) -> None:
    with pytest.raises(LocatorRefused) as refusal:
        open_beneath(root, path)
    assert str(root) not in str(refusal.value)
    assert refusal.value.__cause__ is None


@pytest.mark.skipif(sys.platform == "win32", reason="links need a right on Windows")
def test_links_are_refused(root: Path, way: str) -> None:
    """Out of the root, back into it, of a file and of a folder."""
    (root / "out.mp3").symlink_to(root.parent / "outside.mp3")
    (root / "up").symlink_to(root.parent)
    (root / "back.mp3").symlink_to("artist/a.mp3")
    (root / "alias").symlink_to("artist")
    (root / "loop").symlink_to("loop")
    for path in ("out.mp3", "up/outside.mp3", "back.mp3", "alias/a.mp3", "loop"):
        with pytest.raises(LocatorRefused):
            open_beneath(root, path)
    assert read(root, "artist/a.mp3") == b"inside"


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX")
def test_root_may_be_a_link(root: Path, way: str) -> None:
    """Which folder the root is, the operator says."""
    (root.parent / "mounted").symlink_to(root)
    assert read(root.parent / "mounted", "artist/a.mp3") == b"inside"


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX")
def test_fifo_and_device_are_refused_without_waiting(root: Path, way: str) -> None:
    os.mkfifo(root / "fifo.mp3")
    for place, path in ((root, "fifo.mp3"), (Path("/dev"), "zero")):
        with pytest.raises(LocatorRefused):
            open_beneath(place, path)


def test_unmounted_root_is_refused(root: Path, way: str) -> None:
    root.rename(root.parent / "away")
    with pytest.raises(LocatorRefused):
        open_beneath(root, "artist/a.mp3")


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (errno.EACCES, LocatorRefused),
        (errno.EIO, LocatorRefused),
        (errno.ESTALE, LocatorRefused),
        (errno.EMFILE, OutOfDescriptors),
        (errno.ENFILE, OutOfDescriptors),
        (errno.ENOMEM, OutOfDescriptors),
    ],
)
def test_what_the_system_says(
    root: Path, monkeypatch: pytest.MonkeyPatch, number: int, expected: type[Exception]
) -> None:
    """Root may read everything, so the refusal is the system call's."""

    def refuse(*_: object, **__: object) -> int:
        raise OSError(number, os.strerror(number), "/a/path/that/must/not/show")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(expected) as refusal:
        open_beneath(root, "artist/a.mp3")
    assert "must" not in str(refusal.value)


@pytest.mark.parametrize(
    "component",
    [
        "a\\b", "..\\x", "C:", "a.mp3:stream", "a.mp3::$DATA", "CON", "con.mp3", "NUL", "Com1.flac",
        "LPT\u00b9", "CONIN$", "aux .mp3", "a.mp3.", "a.mp3 ", "a*", "a?", "a<b", "a|b", "\x01",
    ],
)  # fmt: skip
def test_windows_names_are_refused(component: str) -> None:
    """ "Naming Files, Paths, and Namespaces" (Microsoft)."""
    with pytest.raises(LocatorRefused):
        split_path(f"artist/{component}", windows=True)


def test_elsewhere_those_are_names() -> None:
    assert split_path("Vol. 1: a?/con.mp3", windows=False) == ["Vol. 1: a?", "con.mp3"]
    assert split_path("Concert/common.mp3", windows=True) == ["Concert", "common.mp3"]
