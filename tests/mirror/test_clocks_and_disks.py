"""A mirror whose own machine fails it: its clock, its disk. What is served stays, and it heals by itself."""

from __future__ import annotations

import errno
import io
import os
import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from contracts.errors import ExpiredError, RollbackError
from contracts.layout import POINTER_KEY
from tests.mirror.chain import served_file
from tests.mirror.simulator import QUERY, Site, later

SYNCED = 7  # `seen.json`, `current` and the folder after each; the database, its folder, and the one above


@pytest.mark.parametrize("days", [-1, 1])
def test_clock_wrong_by_a_day_stops_nothing(attacked: Site, days: int) -> None:
    """Neither the sync of that day nor the first with the clock put right raises an alarm."""
    attacked.clock.now = later(days=days)
    assert attacked.sync().outcome == "updated"
    attacked.publish(2)
    assert attacked.sync().outcome == "updated"
    attacked.clock.now = later()
    assert attacked.sync().outcome == "unchanged"
    attacked.publish(3)
    assert attacked.sync().outcome == "updated"
    assert attacked.serves(3)


def test_clock_that_was_a_day_behind_silences_no_alarm(attacked: Site) -> None:
    attacked.clock.now = later(days=-1)
    attacked.sync()
    attacked.objects[POINTER_KEY] = attacked.history[0]
    attacked.clock.now = later()
    assert attacked.sync().outcome == "stale"
    attacked.clock.now = later(seconds=86_476)
    with pytest.raises(RollbackError):
        attacked.sync()
    assert attacked.serves(1)


def test_clock_that_was_a_day_ahead_silences_no_alarm(attacked: Site) -> None:
    """What was seen tomorrow counts as seen now, from the first sync with the clock put right."""
    attacked.clock.now = later(days=1)
    attacked.sync()
    attacked.objects[POINTER_KEY] = attacked.history[0]
    attacked.clock.now = later()
    assert attacked.sync().outcome == "stale"
    attacked.clock.now = later(seconds=86_476)
    with pytest.raises(RollbackError, match="--reset-trust"):
        attacked.sync()
    assert attacked.serves(1)


def test_clock_a_day_ahead_at_a_stale_edge_is_an_alarm_that_heals(attacked: Site) -> None:
    """A mirror cannot tell the two apart; it serves on, and complains until its clock is right."""
    attacked.sync()
    newest = attacked.objects[POINTER_KEY]
    attacked.objects[POINTER_KEY] = attacked.history[0]
    attacked.clock.now = later(days=1, minutes=2)
    with pytest.raises(RollbackError):
        attacked.sync()
    assert attacked.serves(1)
    attacked.clock.now = later(minutes=3)
    assert attacked.sync().outcome == "stale"
    attacked.objects[POINTER_KEY] = newest
    assert attacked.sync().outcome == "unchanged"


@pytest.mark.parametrize("years", [-30, 30])
def test_clock_wrong_by_years_keeps_what_is_served_and_heals(attacked: Site, years: int) -> None:
    """A board without a battery starts in 1970 or so."""
    attacked.sync()
    attacked.clock.now = later(days=365 * years)
    if years > 0:
        with pytest.raises(ExpiredError):
            attacked.sync()
    else:
        attacked.sync()
    assert attacked.serves(1)
    attacked.clock.now = later(minutes=1)
    attacked.publish(2)
    assert attacked.sync().outcome == "updated"


def fail_nth(number: int, act: Callable[..., Any], error: OSError) -> Callable[..., Any]:
    """The function, which fails when it is called for the nth time and ever after."""
    calls = 0

    def wrapped(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls >= number:
            raise error
        return act(*arguments, **options)

    return wrapped


def verify_unharmed(site: Site, path: Path, content: bytes) -> None:
    """What was served still is, nothing but it takes room, and the next sync heals."""
    assert served_file(site.mirror) == path
    assert path.read_bytes() == content
    with closing(site.mirror.connect()) as connection:
        assert connection.execute(QUERY).fetchone()
    assert not (site.folder / "incoming").exists()
    assert site.generations() == [path.parent.name]


@pytest.mark.parametrize("number", range(1, SYNCED + 1))
def test_disk_that_fills_up_at_any_moment_keeps_what_is_served(
    attacked: Site, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """Many file systems say that they are full only when they are asked to keep what was written."""
    path = served_file(attacked.mirror)
    content = path.read_bytes()
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(attacked.folder))
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail_nth(number, os.fsync, full))
        with pytest.raises(OSError, match="No space left on device") as caught:
            attacked.sync()
        assert caught.value.errno == errno.ENOSPC
    was_swapped = attacked.serves(1)  # it was `current` that could not be kept for sure
    if not was_swapped:
        verify_unharmed(attacked, path, content)
    assert attacked.sync().outcome == ("unchanged" if was_swapped else "updated")
    assert attacked.serves(1)


def test_disk_that_is_full_is_said_before_anything_is_fetched(
    attacked: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = served_file(attacked.mirror)
    content = path.read_bytes()
    usage = shutil.disk_usage(attacked.folder)
    attacked.watched.operations.clear()
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1 << 20))
        with pytest.raises(OSError, match="No space left on device: the new database needs 1 MiB and 64 MiB"):
            attacked.sync()
    assert not [key for _, key in attacked.watched.operations if key.startswith("blobs/")]
    verify_unharmed(attacked, path, content)
    assert attacked.sync().outcome == "updated"


def test_disk_that_can_only_be_read_keeps_what_is_served(
    attacked: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What ext4 becomes after an error."""
    path = served_file(attacked.mirror)
    content = path.read_bytes()

    def refuse(name: object, *arguments: Any, **options: Any) -> Any:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(name))

    def refuse_writing(act: Callable[..., Any], is_reading: Callable[..., bool]) -> Callable[..., Any]:
        def wrapped(name: Any, *arguments: Any, **options: Any) -> Any:
            if str(name).startswith(str(attacked.folder)) and not is_reading(*arguments, **options):
                refuse(name)
            return act(name, *arguments, **options)

        return wrapped

    def is_reading(mode: str | int = "r", *rest: Any, **options: Any) -> bool:
        return mode in ("r", "rb", os.O_RDONLY)

    with monkeypatch.context() as patch:
        patch.setattr(io, "open", refuse_writing(io.open, is_reading))
        patch.setattr(os, "open", refuse_writing(os.open, is_reading))
        for name in ("mkdir", "replace", "unlink", "rmdir", "rename"):
            patch.setattr(os, name, refuse)
        with pytest.raises(OSError, match=f"Read-only file system: '{attacked.folder}"):
            attacked.sync()
        with closing(attacked.mirror.connect()) as connection:
            assert connection.execute(QUERY).fetchone()
    verify_unharmed(attacked, path, content)
    assert attacked.sync().outcome == "updated"


def test_what_a_power_cut_left_takes_no_room_for_ever(
    attacked: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A whole generation, moved to its place, and the power went before `current` named it: it is deleted
    before the next download, which may need its room."""
    orphan = attacked.folder / "generations" / "00000002-0123456789ab"
    orphan.mkdir()
    (orphan / "catalog_read.db").write_bytes(b"whatever")
    (attacked.folder / "incoming").mkdir()
    found: list[list[str]] = []

    def verify_space(folder: Path, size_bytes: int, purpose: str) -> None:
        found.append(attacked.generations())

    monkeypatch.setattr("mirror.fetch.verify_space", verify_space)
    attacked.sync()
    assert found == [[path for path in attacked.generations() if path.startswith("00000001")]]


def test_repair_gets_a_folder_of_its_own(attacked: Site) -> None:
    """Where somebody reads the damaged file, Windows would not let it be replaced."""
    attacked.sync()
    damaged = served_file(attacked.mirror)
    with closing(attacked.mirror.connect()) as reader:
        (answer,) = reader.execute(QUERY)
        damaged.write_bytes(damaged.read_bytes() + b"longer than it was")
        assert attacked.sync().outcome == "updated"
        assert damaged.exists()
        assert reader.execute(QUERY).fetchone() == answer
    repaired = served_file(attacked.mirror)
    assert repaired.parent.name == f"{damaged.parent.name}-2"
    assert attacked.serves(1)
    attacked.publish(2)
    attacked.sync()
    assert not damaged.exists()
    assert sorted([repaired.parent.name, served_file(attacked.mirror).parent.name]) == attacked.generations()


def test_every_moment_at_which_a_disk_fills_up_is_tried(
    attacked: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the tests above would try less than there is."""
    synced: list[int] = []
    fsync = os.fsync

    def count(descriptor: int) -> None:
        synced.append(descriptor)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", count)
    attacked.sync()
    assert len(synced) == SYNCED
