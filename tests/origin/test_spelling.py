"""One file, one name: pure functions, and a folder that is made to look like one that folds names."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from origin import spelling
from origin.roots import LocatorRefused, open_beneath
from origin.spelling import is_misspelled, is_real_path, other_spellings

pytestmark = pytest.mark.skipif(os.open not in os.supports_dir_fd, reason="folders cannot be opened here")

NFC, NFD = "\u00e9", "e\u0301"  # é, in Unicode's two canonical forms (UAX #15).


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.mp3", {"A.MP3"}),
        ("Straße.mp3", {"sTRAßE.MP3"}),  # Not what "SS" does: ASCII is what every file system agrees on.
        ("é", {"É", NFD}),
        ("ÉTÉ", {"ÉtÉ", "E\u0301TE\u0301"}),
        (f"x{NFD}", {"XE\u0301", f"x{NFC}"}),
        ("音楽", set()),
        ("01", set()),
    ],
)
def test_other_spellings(name: str, expected: set[str]) -> None:
    assert expected == set(other_spellings(name))


@pytest.mark.parametrize(
    ("components", "real", "windows", "expected"),
    [
        (["Artist", "a.mp3"], "D:\\Music\\Artist\\a.mp3", True, True),
        (["artist", "a.mp3"], "D:\\Music\\Artist\\a.mp3", True, False),
        (["Artist", "a.MP3"], "D:\\Music\\Artist\\a.mp3", True, False),
        (["ARTIST~1", "a.mp3"], "D:\\Music\\Artist of the year\\a.mp3", True, False),
        (["Artist", "a.mp3"], "C:\\elsewhere\\a.mp3", True, False),
        ([NFC], f"D:\\Music\\{NFD}", True, False),
    ],
)
def test_real_path_spells_every_component(
    components: list[str], real: str, windows: bool, expected: bool
) -> None:
    """What Windows says a file is called (GetFinalPathNameByHandle), short names (8.3) included."""
    assert expected == is_real_path("D:\\Music", components, real, windows=windows)


def test_real_path_elsewhere() -> None:
    assert is_real_path("/music", ["a", "b"], "/music/a/b", windows=False)
    assert not is_real_path("/music", ["a", "b"], "/music/a/B", windows=False)


@pytest.fixture
def folding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which `a.mp3` is found as `A.MP3` too, and another by both Unicode forms, each listed once.

    By hard links that the listing hides.
    """
    (tmp_path / "Artist").mkdir()
    (tmp_path / "Artist" / "a.mp3").write_bytes(b"x")
    (tmp_path / "Artist" / "A.MP3").hardlink_to(tmp_path / "Artist" / "a.mp3")
    (tmp_path / "Artist" / f"{NFC}.mp3").write_bytes(b"x")
    (tmp_path / "Artist" / f"{NFD}.mp3").hardlink_to(tmp_path / "Artist" / f"{NFC}.mp3")
    real = spelling._names

    def listed(root: int, before: Sequence[str], component: str) -> Sequence[str]:
        return [name for name in real(root, before, component) if name not in ("A.MP3", f"{NFD}.mp3")]

    monkeypatch.setattr(spelling, "_names", listed)
    return tmp_path


def test_file_in_another_case_or_form_is_not_there(folding: Path) -> None:
    for path in ("Artist/a.mp3", f"Artist/{NFC}.mp3"):
        os.close(open_beneath(folding, path))
    for path in ("Artist/A.MP3", f"Artist/{NFD}.mp3"):
        with pytest.raises(LocatorRefused) as refusal:
            open_beneath(folding, path)
        assert "a.mp3" not in str(refusal.value).lower()


def test_two_files_that_differ_in_case_are_two_files(tmp_path: Path) -> None:
    """Also when they are one by a hard link, and listed under both names."""
    (tmp_path / "a.mp3").write_bytes(b"x")
    try:
        (tmp_path / "A.MP3").hardlink_to(tmp_path / "a.mp3")
    except FileExistsError:
        pytest.skip("this file system folds names by itself")
    for path in ("a.mp3", "A.MP3"):
        os.close(open_beneath(tmp_path, path))


def test_folder_that_must_not_be_listed_counts_as_well_spelled(unprivileged: Path) -> None:
    """Both names are there, by a hard link; the listing that would say so is refused."""
    (unprivileged / "Artist").mkdir()
    (unprivileged / "Artist" / "a.mp3").write_bytes(b"x")
    (unprivileged / "Artist" / "A.MP3").hardlink_to(unprivileged / "Artist" / "a.mp3")
    (unprivileged / "Artist").chmod(0o300)
    os.close(open_beneath(unprivileged, "Artist/A.MP3"))
    (unprivileged / "Artist").chmod(0o700)


def test_no_component_is_asked_for_outside_of_the_root(tmp_path: Path) -> None:
    root = os.open(tmp_path, os.O_RDONLY)
    try:
        assert not is_misspelled(root, ["missing", "a.mp3"])
        assert not is_misspelled(root, ["\udcff.mp3"])
    finally:
        os.close(root)
