"""Which root a locator belongs to: decided from text alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from origin.locators import Location, Place, catalogue_root, place_of_location, place_of_path
from origin.roots import LocatorRefused

MUSIC, MORE = Path("/volume1/music"), Path("/volume1/music2")


@pytest.mark.parametrize(
    ("locator", "path"),
    [
        ("a/b.mp3", "a/b.mp3"),
        ("/a/b.mp3", "a/b.mp3"),
        ("/volume1/music/a/b.mp3", "a/b.mp3"),
        ("/volume1/music2/b.mp3", "volume1/music2/b.mp3"),
        ("../b.mp3", "../b.mp3"),
    ],
)
def test_location_is_beneath_its_backend(locator: str, path: str) -> None:
    """What would leave the root is left for `origin.roots` to refuse."""
    location = Location("nas-1", "nas", str(MUSIC), locator)
    assert Place(MUSIC, path) == place_of_location(location, {}, windows=False)
    bound = Path("/mnt/x")
    assert Place(bound, path) == place_of_location(location, {"nas-1": bound, "nas-2": MORE}, windows=False)


@pytest.mark.parametrize("base_path", ["", "music", "./music", "/", "//", "/volume1\0"])
def test_base_path_that_is_no_root(base_path: str) -> None:
    assert catalogue_root("nas", base_path, windows=False) is None
    with pytest.raises(LocatorRefused):
        place_of_location(Location("nas-1", "nas", base_path, "a"), {}, windows=False)


def test_object_storage_is_no_folder_unless_bound() -> None:
    location = Location("s3", "object_storage", "/bucket", "a")
    with pytest.raises(LocatorRefused):
        place_of_location(location, {}, windows=False)
    assert Place(MUSIC, "a") == place_of_location(location, {"s3": MUSIC}, windows=False)


def test_path_is_beneath_a_root_or_relative_to_the_only_one() -> None:
    assert Place(MUSIC, "a") == place_of_path("/volume1/music/a", [MUSIC, MORE], windows=False)
    assert Place(MORE, "a") == place_of_path("/volume1/music2/a", [MUSIC, MORE], windows=False)
    assert Place(MUSIC, "a/b") == place_of_path("a/b", [MUSIC, MUSIC], windows=False)
    for locator, roots in (
        ("a", [MUSIC, MORE]),
        ("a", []),
        ("/etc/passwd", [MUSIC]),
        ("/volume1/music", [MUSIC]),
        ("/volume1/musicx/a", [MUSIC]),
    ):
        with pytest.raises(LocatorRefused):
            place_of_path(locator, roots, windows=False)


def test_windows_spelling() -> None:
    """Either slash, any case, and a drive is absolute."""
    location = Location("nas-1", "nas", "D:\\Music", "d:\\music\\Artist\\a.mp3")
    assert place_of_location(location, {}, windows=True).path == "Artist/a.mp3"
    with pytest.raises(LocatorRefused):
        place_of_path("C:a.mp3", [Path("D:/Music")], windows=True)
