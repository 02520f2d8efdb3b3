"""Handles in the authoritative catalogue: what is found, and what happens while it is busy, gone or new."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from contracts.handles import parse_handle
from origin.files import Files
from origin.lookup import Catalogue, CatalogueUnavailable
from origin.patience import Patience
from origin.roots import LocatorRefused
from tests.origin.conftest import Nas, origin_app, stream


def test_location_is_found(nas: Nas) -> None:
    found = Catalogue(nas.db_path).find_location(parse_handle(nas.add("a/b.mp3", b"x")))
    assert ("nas-1", "nas", str(nas.music), "a/b.mp3") == found


def test_song_is_found(nas: Nas) -> None:
    """As bytes that need be no text, and as nothing where the catalogue has nothing."""
    handle = parse_handle(nas.add("a/b.mp3", b"x"))
    assert Catalogue(nas.db_path).find_song(handle) == ("x", "", "")
    nas.execute("UPDATE songs SET name = ?, singers = CAST(? AS TEXT), metadata_json = 7", "夜", b"a\xff")
    assert Catalogue(nas.db_path).find_song(handle) == ("夜", "a\N{REPLACEMENT CHARACTER}", "7")


@pytest.mark.parametrize("change", ["DELETE FROM songs", "UPDATE file_locations SET status = 'missing'"])
def test_song_of_a_location_that_is_gone_is_none(nas: Nas, change: str) -> None:
    handle = parse_handle(nas.add("a.mp3", b"x"))
    nas.execute(change)
    with pytest.raises(LocatorRefused):
        Catalogue(nas.db_path).find_song(handle)


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE file_locations SET status = 'missing'",
        "UPDATE file_locations SET status = NULL",
        "DELETE FROM file_locations",
        "DELETE FROM storage_backends",
        "DELETE FROM songs",
        "UPDATE file_assets SET file_size_bytes = 2",
        "UPDATE file_assets SET song_id = 2",
        "INSERT INTO file_assets VALUES (9, 1, '', '', 1); UPDATE file_locations SET file_asset_id = 9",
        "DROP TABLE file_locations",
    ],
)
def test_old_handle_names_nothing_after_a_change(nas: Nas, change: str) -> None:
    """At once, also on a connection that was open before; a handle never names another song."""
    catalogue = Catalogue(nas.db_path)
    handle = parse_handle(nas.add("a.mp3", b"x"))
    nas.add("b.mp3", b"x")
    catalogue.find_location(handle)
    with closing(nas.connect()) as connection:
        connection.executescript(change)
    with pytest.raises(LocatorRefused):
        catalogue.find_location(handle)


def test_reused_id_is_not_the_old_location(nas: Nas) -> None:
    """SQLite gives the id of a deleted last row to the next one."""
    old = nas.add("old.mp3", b"x")
    nas.execute("DELETE FROM file_locations")
    new = nas.add("new.mp3", b"x")
    assert parse_handle(old).location_id == parse_handle(new).location_id
    app = origin_app(nas)
    assert (stream(app, old).status, stream(app, new).status) == (404, 200)


def test_unknown_size_and_bytes_that_are_no_text(nas: Nas) -> None:
    """A name on a disk need not be UTF-8; an unknown size is part of the check as the empty string."""
    name = b"\xff\xfe.mp3"
    handle = nas.add("placeholder", b"")
    nas.execute("UPDATE file_locations SET locator = CAST(? AS TEXT)", name)
    try:
        (Path(nas.music) / name.decode("utf-8", "surrogateescape")).write_bytes(b"")
    except OSError:
        pytest.skip("this file system has only names in UTF-8")
    assert stream(origin_app(nas), handle).status == 200


def test_missing_catalogue_is_unavailable(nas: Nas) -> None:
    handle = nas.add("a.mp3", b"x")
    nas.db_path.unlink()
    assert stream(origin_app(nas), handle).status == 503


def test_file_that_is_no_catalogue_is_unavailable(nas: Nas) -> None:
    handle = nas.add("a.mp3", b"x")
    for suffix in ("", "-wal", "-shm"):
        nas.db_path.with_name(nas.db_path.name + suffix).unlink(missing_ok=True)
    nas.db_path.write_bytes(b"no database" * 1000)
    assert stream(origin_app(nas), handle).status == 503


@pytest.mark.parametrize("times", [1, 20])
def test_busy_catalogue_is_unavailable_within_the_limit(nas: Nas, times: int) -> None:
    """A writer that holds the only lock: 503 with Retry-After, for many listeners as fast as for one."""
    handle = nas.add("a.mp3", b"x")
    nas.execute("PRAGMA journal_mode=DELETE")
    app = origin_app(nas)
    assert stream(app, handle).status == 200
    with closing(nas.connect()) as writer:
        writer.execute("BEGIN EXCLUSIVE")

        async def ask_all() -> tuple[list[object], float]:
            files = Files(nas.db_path, {})
            loop = asyncio.get_running_loop()
            started = loop.time()
            found = await asyncio.gather(*[files.open(handle) for _ in range(times)], return_exceptions=True)
            took = loop.time() - started
            files.close()
            return list(found), took

        found, took_s = asyncio.run(ask_all())
        assert {CatalogueUnavailable} == {type(each) for each in found}
        assert took_s < 1
        answer = stream(app, handle)
        assert (answer.status, answer.headers["retry-after"]) == (503, "2")
    assert stream(app, handle).status == 200


def test_replaced_catalogue_is_noticed(nas: Nas) -> None:
    """By another inode under the same name, while a connection to the old one is open."""
    app = origin_app(nas)
    handle = nas.add("a.mp3", b"x")
    assert stream(app, handle).status == 200
    with closing(nas.connect()) as connection, closing(sqlite3.connect(nas.folder / "new.db")) as new:
        connection.backup(new)
        new.execute("UPDATE file_locations SET status = 'missing'")
        new.commit()
    for suffix in ("-wal", "-shm"):
        nas.db_path.with_name(nas.db_path.name + suffix).unlink(missing_ok=True)
    (nas.folder / "new.db").rename(nas.db_path)
    assert stream(app, handle).status == 404


def test_unused_connections_are_closed(nas: Nas) -> None:
    """So that an idle origin keeps no replaced catalogue alive."""
    catalogue = Catalogue(nas.db_path)
    handle = parse_handle(nas.add("a.mp3", b"x"))
    catalogue.find_location(handle)
    assert catalogue.close_unused()
    assert not catalogue.close_unused()
    assert catalogue.find_location(handle).backend_name == "nas-1"
    catalogue.close()


def test_many_threads_at_once(nas: Nas) -> None:
    catalogue = Catalogue(nas.db_path)
    handles = [parse_handle(nas.add(f"{n}.mp3", b"x")) for n in range(8)]
    wrong: list[object] = []

    def look() -> None:
        for n, handle in enumerate(handles * 20):
            if catalogue.find_location(handle).locator != f"{n % 8}.mp3":
                wrong.append(handle)

    threads = [threading.Thread(target=look) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    catalogue.close()


def test_nothing_is_written(nas: Nas) -> None:
    nas.add("a.mp3", b"x")
    before = nas.db_path.read_bytes()
    with pytest.raises(CatalogueUnavailable), Catalogue(nas.db_path)._connection() as connection:
        connection.execute("DELETE FROM songs")
    assert before == nas.db_path.read_bytes()


def test_lookup_that_hangs_is_given_up(nas: Nas, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that does not answer at all: the request is refused, the thread is left behind."""
    handle = nas.add("a.mp3", b"x")
    go_on = threading.Event()
    monkeypatch.setattr(Catalogue, "find_location", lambda *_: go_on.wait(20))
    try:
        assert stream(origin_app(nas), handle).status == 503
    finally:
        go_on.set()


def test_cancelled_request_stays_cancelled() -> None:
    """Being given up and being cancelled look alike to a future, and must not to its caller."""
    go_on = threading.Event()

    async def cancel() -> None:
        patience = Patience(10)
        with ThreadPoolExecutor(1) as threads:
            task = asyncio.create_task(patience.wait(threads.submit(go_on.wait)))
            await asyncio.sleep(0)
            task.cancel()
            go_on.set()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(cancel())
