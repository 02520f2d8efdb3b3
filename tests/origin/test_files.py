"""What is remembered between two requests, and that nobody notices but by the time that it takes."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine, Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import pytest

from contracts.handles import Handle
from origin import openat2, roots
from origin.catalogue_version import CatalogueVersion, Version
from origin.files import Files, Track
from origin.locators import Location
from origin.lookup import Catalogue
from origin.open_file import OpenFile
from origin.roots import LocatorRefused
from tests.origin.conftest import Nas

remembers = pytest.mark.skipif(not openat2.can_ask_cache(), reason="needs Linux 5.12 and no seccomp filter")


@pytest.fixture
def files(nas: Nas) -> Iterator[Files]:
    made = Files(nas.db_path, {})
    yield made
    made.close()


@pytest.fixture
def lookups(monkeypatch: pytest.MonkeyPatch) -> list[Handle]:
    """Each lookup in the catalogue."""
    real, asked = Catalogue.find_location, []

    def counted(self: Catalogue, handle: Handle) -> Location:
        asked.append(handle)
        return real(self, handle)

    monkeypatch.setattr(Catalogue, "find_location", counted)
    return asked


@pytest.fixture
def openings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Each opening by a thread."""
    real, opened = roots.open_beneath, []

    def counted(root: Path, path: str, **settings: bool) -> int:
        opened.append(path)
        return real(root, path, **settings)

    monkeypatch.setattr("origin.files.open_beneath", counted)
    return opened


def run(work: Callable[[], Coroutine[None, None, None]]) -> None:
    asyncio.run(work())


async def open_next(files: Files, locator: str) -> Track:
    """As a request does that came after whatever was done before: in another turn of the event loop."""
    await asyncio.sleep(0)
    return await files.open(locator)


async def read(files: Files, locator: str) -> bytes:
    track = await open_next(files, locator)
    try:
        return os.pread(track.file.fileno(), 100, 0)
    finally:
        track.file.close()


@remembers
def test_burst_of_requests_needs_no_thread_but_at_first(
    nas: Nas, files: Files, lookups: list[Handle], openings: list[str]
) -> None:
    """Before the first lookup nobody knows the version; a slow machine may take longer than a second."""
    handle = nas.add("a/b.mp3", b"x")

    async def work() -> None:
        for _ in range(20):
            assert await read(files, handle) == b"x"

    run(work)
    assert len(lookups) < 20
    assert len(openings) < 20


@pytest.mark.parametrize("journal", ["WAL", "DELETE"])
def test_deactivated_location_is_refused_at_the_next_request(nas: Nas, files: Files, journal: str) -> None:
    """After each of many commits, whatever was remembered and however short ago."""
    nas.execute(f"PRAGMA journal_mode={journal}")
    handle = nas.add("a.mp3", b"x")

    async def work() -> None:
        with closing(nas.connect()) as writer:
            for n in range(60):
                for _ in range(3):
                    assert await read(files, handle) == b"x"
                writer.execute("UPDATE file_locations SET status = 'missing'")
                if n % 7 == 0:
                    writer.execute("PRAGMA wal_checkpoint(RESTART)")
                with pytest.raises(LocatorRefused):
                    await open_next(files, handle)
                writer.execute("UPDATE file_locations SET status = 'active'")

    run(work)


def test_version_is_asked_for_once_in_a_turn(nas: Nas, files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    """All requests that are read in one turn came before it, so one answer holds for all of them."""
    asked: list[int] = []
    real = CatalogueVersion.now

    def now(self: CatalogueVersion) -> Version | None:
        asked.append(1)
        return real(self)

    monkeypatch.setattr(CatalogueVersion, "now", now)
    handle = nas.add("a.mp3", b"x")

    async def work() -> None:
        await read(files, handle)
        for turns in range(1, 4):
            asked.clear()
            await asyncio.gather(*(read(files, handle) for _ in range(10)))
            assert len(asked) <= 2, turns  # The opening of a file may take another turn.
        asked.clear()
        for _ in range(3):
            await read(files, handle)
        assert len(asked) == 3

    run(work)


def test_location_that_moves_is_followed_at_the_next_request(nas: Nas, files: Files) -> None:
    handle = nas.add("a.mp3", b"old")
    nas.add("b.mp3", b"new", status="missing")

    async def work() -> None:
        for _ in range(3):
            assert await read(files, handle) == b"old"
        nas.execute("UPDATE file_locations SET locator = 'b.mp3' WHERE id = 1")
        assert await read(files, handle) == b"new"

    run(work)


def test_answer_is_remembered_for_a_second_and_no_longer(
    nas: Nas, files: Files, lookups: list[Handle], openings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the version says: that bounds what a file system without SQLite's locks could do."""
    handle = nas.add("a.mp3", b"x")
    now = 100.0
    monkeypatch.setattr("origin.files.time", SimpleNamespace(monotonic=lambda: now))

    async def work() -> None:
        nonlocal now
        for _ in range(3):
            await read(files, handle)
        known = len(lookups), len(openings)
        now = 100.99
        await read(files, handle)
        assert known == (len(lookups), len(openings)) or not openat2.can_ask_cache()
        now = 101.0
        await read(files, handle)
        assert len(lookups) > known[0]
        assert len(openings) > known[1]

    run(work)


@pytest.mark.parametrize("fate", ["replaced", "gone", "link", "root is away"])
def test_file_is_what_it_is_at_each_request(nas: Nas, files: Files, fate: str) -> None:
    """Also within the second: the way to it is walked anew."""
    handle = nas.add("a.mp3", b"old")
    (nas.folder / "outside").write_bytes(b"outside")

    async def work() -> None:
        for _ in range(3):
            assert await read(files, handle) == b"old"
        if fate == "replaced":
            (nas.folder / "outside").replace(nas.music / "a.mp3")
            assert await read(files, handle) == b"outside"
            return
        if fate == "root is away":
            nas.music.rename(nas.folder / "unmounted")
        else:
            (nas.music / "a.mp3").unlink()
        if fate == "link":
            (nas.music / "a.mp3").symlink_to(nas.folder / "outside")
        with pytest.raises(LocatorRefused):
            await open_next(files, handle)

    run(work)


def test_file_on_a_network_is_opened_by_a_thread_each_time(
    nas: Nas, files: Files, openings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its file system would ask the server, and the event loop would wait for the answer."""
    monkeypatch.setattr(OpenFile, "is_local", lambda self: False)
    handle = nas.add("a.mp3", b"x")

    async def work() -> None:
        for _ in range(5):
            await read(files, handle)

    run(work)
    assert len(openings) == 5


def test_other_handles_for_the_same_id_are_not_taken_for_it(nas: Nas, files: Files) -> None:
    handle = nas.add("a.mp3", b"x")
    forged = handle[:-1] + ("0" if handle[-1] != "0" else "1")

    async def work() -> None:
        for _ in range(3):
            await read(files, handle)
            with pytest.raises(LocatorRefused):
                await open_next(files, forged)

    run(work)
