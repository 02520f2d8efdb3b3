"""`/readyz`: whether a link could be served now, by words that tell a stranger nothing."""

from __future__ import annotations

import asyncio
import json
import logging
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from litestar import Litestar

from origin import create_app
from origin.readiness import Missing, Question, Readiness
from tests.origin.asgi import ask, call
from tests.origin.conftest import NOW, Nas, origin_app


@pytest.fixture(autouse=True)
def _asked_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("origin.readiness.KEPT_S", 0.0)


def missing(app: Litestar) -> list[str]:
    answer = call(app, "/readyz")
    assert (answer.headers["content-type"], answer.headers["cache-control"]) == (
        "application/json",
        "no-store",
    )
    said = json.loads(answer.body)
    if answer.status == 200:
        assert said == {"status": "ready"}
        return []
    assert (answer.status, said.keys(), said["status"]) == (503, {"status", "missing"}, "unavailable")
    return list(said["missing"])


def test_ready(nas: Nas) -> None:
    app = origin_app(nas, roots={"nas-1": nas.music})
    assert missing(app) == []
    head = call(app, "/readyz", method="HEAD")
    assert (head.status, head.body, head.headers["content-length"]) == (200, b"", "18")
    assert call(app, "/readyz/x").status == 404


def test_each_thing_that_may_be_missing(nas: Nas) -> None:
    (nas.folder / "store").mkdir()
    roots = {"nas-1": nas.music, "nas-2": nas.folder / "two"}
    app = origin_app(nas, roots=roots, catalog=nas.folder / "store")
    assert missing(app) == ["root"]
    (nas.folder / "two").mkdir()
    assert missing(app) == []
    app.state.private_origin_secret = ""
    assert missing(app) == ["secret"]
    nas.db_path.rename(nas.folder / "away.db")
    (nas.folder / "store").rename(nas.folder / "away")
    nas.music.rename(nas.folder / "gone")
    answer = call(app, "/readyz")
    assert json.loads(answer.body)["missing"] == ["secret", "catalogue", "root", "store"]
    for hidden in (str(nas.folder), "nas-", "two", "music"):
        assert hidden not in f"{answer.headers}{answer.body.decode()}"


def test_root_that_is_a_file_is_missing(nas: Nas) -> None:
    (nas.folder / "file").write_bytes(b"x")
    assert missing(origin_app(nas, roots={"nas-1": nas.folder / "file"})) == ["root"]


def test_folder_that_may_not_be_read_is_missing(unprivileged: Path) -> None:
    music = unprivileged / "music"
    music.mkdir()
    readiness = Readiness(unprivileged / "catalogue.db", [music], None)
    assert Missing.ROOT not in asyncio.run(readiness.missing(True))
    music.chmod(0)
    assert Missing.ROOT in asyncio.run(readiness.missing(True))


def test_catalogue_that_is_locked_or_no_catalogue_is_missing(nas: Nas) -> None:
    app = origin_app(nas)
    with closing(nas.connect()) as writer:
        writer.execute("PRAGMA journal_mode=DELETE")
        writer.execute("BEGIN EXCLUSIVE")
        assert missing(app) == ["catalogue"]
        writer.execute("ROLLBACK")
    assert missing(app) == []
    nas.db_path.write_bytes(b"no database at all" * 100)
    assert missing(app) == ["catalogue"]


def test_catalogue_without_locations_answers(nas: Nas) -> None:
    """An older one: whoever signs paths is served all the same."""
    older = nas.folder / "older.db"
    with closing(sqlite3.connect(older)) as connection:
        connection.execute("CREATE TABLE songs (id)")
    app = create_app(older, clock=lambda: NOW)
    app.state.private_origin_secret = "a secret of the tests, long enough"
    assert missing(app) == []


@pytest.fixture
def hanging(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Folders cannot be read until the event is set: a network share that is gone."""
    awake = threading.Event()

    def hang(folder: Path) -> bool:
        return awake.wait(20)

    monkeypatch.setattr("origin.readiness._is_readable", hang)
    monkeypatch.setattr("origin.readiness.FOLDER_LIMIT_S", 0.02)
    yield awake
    awake.set()


def test_disk_that_hangs_keeps_nobody_waiting(nas: Nas, hanging: threading.Event) -> None:
    """The loop goes on, one thread waits however many ask, and it is ready when the disk is back."""
    app = origin_app(nas, roots={"nas-1": nas.music})

    async def ask_often() -> None:
        answers = await asyncio.gather(
            *(ask(app, "/readyz") for _ in range(50)), *(ask(app, "/healthz") for _ in range(50))
        )
        assert [answer.status for answer in answers] == [503] * 50 + [200] * 50
        waiting = [each for each in threading.enumerate() if each.name == "origin-ready"]
        assert len(waiting) == 1
        hanging.set()
        waiting[0].join()
        assert (await ask(app, "/readyz")).status == 200

    asyncio.run(ask_often())


def test_strangers_who_ask_often_cost_one_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """At most once a second, whoever asks."""
    monkeypatch.setattr("origin.readiness.KEPT_S", 1.0)
    looked: list[int] = []
    now = [5.0]

    def look() -> bool:
        looked.append(1)
        return True

    question = Question(look, 20.0, lambda: now[0])

    async def many() -> None:
        for _ in range(10):
            assert await asyncio.gather(*(question.is_true() for _ in range(20))) == [True] * 20
        now[0] += 0.99
        assert await question.is_true()
        assert len(looked) == 1
        now[0] += 0.01
        assert await question.is_true()
        assert len(looked) == 2

    asyncio.run(many())


def test_no_thread_to_be_had_is_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: Any) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", fail)
    assert asyncio.run(Question(lambda: True, 20.0).is_true()) is False


def test_only_a_change_is_logged(nas: Nas, caplog: pytest.LogCaptureFixture) -> None:
    app = origin_app(nas)
    with caplog.at_level(logging.INFO, "origin"):
        for _ in range(3):
            missing(app)
        nas.db_path.unlink()
        for _ in range(3):
            missing(app)
    assert [record.getMessage() for record in caplog.records] == ["ready", "not ready: catalogue"]
