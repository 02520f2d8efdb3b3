"""The read model: its golden schema, which `sqlite3` reads too, and every way not to be one."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from contracts.errors import MalformedError
from contracts.read_model import APPLICATION_ID, INDEXES, TABLES, USER_VERSION, verify_schema

ROOT = Path(__file__).parents[2]
GOLDEN = (ROOT / "tests" / "vectors" / "read-model.sql").read_text(encoding="utf-8")


def make(path: Path, *statements: str) -> Path:
    """A database of the golden schema, and then of these statements."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.executescript(GOLDEN)
        for statement in statements:
            connection.execute(statement)
    return path


def verify(path: Path) -> None:
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as connection:
        connection.execute("PRAGMA trusted_schema=OFF")
        verify_schema(connection)


def test_schema_is_the_golden_text() -> None:
    """A change of one letter breaks mirrors that compare the text: raise the schema version for it."""
    statements = ["PRAGMA application_id = 1296257604; -- 0x4D435244\nPRAGMA user_version = 1"]
    statements += [*TABLES.values(), *INDEXES.values()]
    assert ";\n\n".join(statements) + ";\n" == GOLDEN
    assert (APPLICATION_ID, USER_VERSION) == (0x4D435244, 1)


def test_schema_in_the_format_document_is_the_golden_text() -> None:
    assert GOLDEN in (ROOT / "docs" / "format.md").read_text(encoding="utf-8")


def test_database_of_the_golden_schema_is_a_read_model(tmp_path: Path) -> None:
    verify(make(tmp_path / "a.db"))


@pytest.mark.skipif(not shutil.which("sqlite3"), reason="needs the sqlite3 program (Debian package sqlite3)")
def test_database_made_by_the_sqlite3_program_is_a_read_model(tmp_path: Path) -> None:
    """A second implementation needs the golden text and nothing of ours."""
    path = tmp_path / "a.db"
    subprocess.run(["sqlite3", path], input=GOLDEN.encode(), check=True)
    verify(path)


@pytest.mark.parametrize(
    ("statements", "named"),
    [
        (["CREATE VIEW v AS SELECT 1"], "view v"),
        (["CREATE TABLE extra(a)"], "table extra"),
        (["CREATE INDEX extra ON catalog_tracks(name)"], "index extra"),
        (
            ["CREATE TRIGGER t AFTER INSERT ON catalog_tracks BEGIN DELETE FROM catalog_playlists; END"],
            "trigger t",
        ),
        (["CREATE VIRTUAL TABLE f USING fts5(a)"], "table f"),
        (["DROP INDEX catalog_track_files_by_song"], "missing: index catalog_track_files_by_song"),
        (["DROP TABLE catalog_toplists"], "missing: .*table catalog_toplists"),
        (["ALTER TABLE catalog_tracks RENAME COLUMN singers TO artists"], "table catalog_tracks"),
        (["ALTER TABLE catalog_tracks ADD COLUMN more TEXT"], "table catalog_tracks"),
        (["ANALYZE"], "table sqlite_stat1"),
        (
            [
                "DROP TABLE catalog_playlists",
                "CREATE VIEW catalog_playlists AS SELECT load_extension('x') AS playlist_id",
            ],
            "view catalog_playlists",
        ),
        (
            [
                "DROP INDEX catalog_track_files_by_song",
                "CREATE UNIQUE INDEX catalog_track_files_by_song ON catalog_track_files(song_id)",
            ],
            "index catalog_track_files_by_song",
        ),
        (["PRAGMA application_id = 0"], "application id 0x0"),
        (["PRAGMA application_id = -1"], "application id -0x1"),
        (["PRAGMA user_version = 2"], "user version 2"),
    ],
    ids=lambda value: value[-1][:40] if isinstance(value, list) else "",
)
def test_foreign_schema_is_refused_by_name(statements: list[str], named: str, tmp_path: Path) -> None:
    """Exactly the golden schema, because a schema is code that runs when it is queried."""
    if "fts5" in statements[0]:
        _skip_without_fts5()
    with pytest.raises(MalformedError, match=named):
        verify(make(tmp_path / "a.db", *statements))


def _skip_without_fts5() -> None:
    with closing(sqlite3.connect(":memory:")) as connection:
        if not connection.execute("SELECT sqlite_compileoption_used('ENABLE_FTS5')").fetchone()[0]:
            pytest.skip("this build of SQLite has no FTS5 to make a virtual table with")


def test_edited_schema_text_is_refused(tmp_path: Path) -> None:
    """What an attacker writes into sqlite_master with a hex editor."""
    path = make(tmp_path / "a.db")
    path.write_bytes(path.read_bytes().replace(b"singers TEXT", b"singers BLOB"))
    with pytest.raises(MalformedError, match="table catalog_tracks"):
        verify(path)


@pytest.mark.parametrize(
    "spoil",
    {
        "text": lambda content: b"not a database, but longer than the hundred bytes of a header" * 100,
        "empty": lambda content: b"",
        "truncated": lambda content: content[:3000],
        "schema of another format": lambda content: content[:44] + b"\xff\xff\xff\xff" + content[48:],
        "first page of zeros": lambda content: content[:100] + bytes(4000),
        "schema that is not UTF-8": lambda content: content.replace(
            b"singers TEXT", b"\xff\xfe\xfd\xfcers TEXT"
        ),
        "schema that is no SQL": lambda content: content.replace(b"CREATE TABLE", b"CREATE BREAD"),
    }.items(),
    ids=lambda spoil: spoil[0],
)
def test_broken_file_is_malformed(spoil: tuple[str, Callable[[bytes], bytes]], tmp_path: Path) -> None:
    path = make(tmp_path / "a.db")
    path.write_bytes(spoil[1](path.read_bytes()))
    with pytest.raises(MalformedError):
        verify(path)
