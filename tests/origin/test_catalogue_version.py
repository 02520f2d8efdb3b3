"""The version of the catalogue: another one after each commit, whoever wrote and however fast."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from origin.catalogue_version import CatalogueVersion
from tests.origin.conftest import Nas


@pytest.fixture(params=["WAL", "DELETE", "TRUNCATE", "PERSIST"])
def journal(request: pytest.FixtureRequest, nas: Nas) -> str:
    nas.execute(f"PRAGMA journal_mode={request.param}")
    return str(request.param)


@pytest.fixture
def version(nas: Nas, journal: str) -> Iterator[CatalogueVersion]:
    asked = CatalogueVersion(nas.db_path)
    asked.open()
    yield asked
    asked.close()


def test_every_commit_has_another_version(nas: Nas, version: CatalogueVersion) -> None:
    """Hundreds within one tick of the kernel's clock, with the WAL begun anew now and then."""
    seen = set()
    with closing(nas.connect()) as writer:
        for n in range(300):
            writer.execute("INSERT INTO songs(name) VALUES ('x')")
            if n % 50 == 0:
                writer.execute("PRAGMA wal_checkpoint(RESTART)")
            now = version.now()
            assert now is not None
            assert now not in seen
            seen.add(now)


def test_same_version_while_nobody_commits(nas: Nas, version: CatalogueVersion) -> None:
    """Reading is no writing, and what was rolled back was never there."""
    before = version.now()
    assert before is not None
    with closing(nas.connect()) as other:
        other.execute("SELECT * FROM songs").fetchall()
        other.execute("BEGIN IMMEDIATE")
        other.execute("INSERT INTO songs(name) VALUES ('x')")
        other.execute("ROLLBACK")
    assert before == version.now()


def test_commit_by_another_connection_of_long_ago(nas: Nas, version: CatalogueVersion) -> None:
    """It opens and closes, and as the last it would remove the WAL."""
    before = version.now()
    nas.execute("INSERT INTO songs(name) VALUES ('x')")
    assert version.now() not in (before, None)


def test_writer_in_the_way_is_not_waited_for(nas: Nas) -> None:
    nas.execute("PRAGMA journal_mode=DELETE")
    version = CatalogueVersion(nas.db_path)
    version.open()
    assert version.now() is not None
    with closing(nas.connect()) as writer:
        writer.execute("BEGIN EXCLUSIVE")
        assert version.now() is None
        version.open()
        assert version.now() is None
    version.open()
    assert version.now() is not None
    version.close()
    assert version.now() is None


@pytest.mark.parametrize("fate", ["replaced", "missing", "a folder"])
def test_nobody_knows_of_a_catalogue_that_is_another_one(
    nas: Nas, version: CatalogueVersion, fate: str
) -> None:
    before = version.now()
    nas.db_path.rename(nas.folder / "old.db")
    if fate == "replaced":
        with closing(sqlite3.connect(nas.db_path)) as new:
            new.execute("CREATE TABLE songs(id)")
    elif fate == "a folder":
        nas.db_path.mkdir()
    assert version.now() is None
    version.open()
    assert version.now() != before
    version.close()


def test_nothing_is_opened_on_the_event_loop(tmp_path: Path) -> None:
    """Nor is anything made where there is nothing."""
    version = CatalogueVersion(tmp_path / "catalogue.db")
    assert version.now() is None
    version.open()
    assert (version.now(), list(tmp_path.iterdir())) == (None, [])
