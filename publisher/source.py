"""The authoritative catalogue, opened so that its writer hardly notices.

Invariant: not a byte of the catalogue is written, and everything that is read belongs to one moment.
A WAL catalogue is read in place: readers do not block its writer. With a rollback journal every reader
blocks every commit, so the catalogue is first copied within one short shared lock, and the copy is read;
benchmarks/export.py measures how long a writer waits in both modes. When several connections read, they
begin anew until nothing was committed between the first and the last of them.
Beside a WAL catalogue that no program has open, SQLite leaves an empty -wal and its -shm, which the next
writer takes over; removing them could race with that writer.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path

from contracts.errors import SourceError

# Time for another program's transaction to end; Python's own default for the same wait.
LOCK_TIMEOUT_S = 5.0
# Pages copied under one lock: some milliseconds, far below any writer's own timeout.
_COPY_PAGES = 1024
_COPY_ATTEMPTS = 3  # a writer that commits once in a while leaves one of them in peace
# Beginning on three connections takes less than a millisecond: who disturbs all of these never rests.
_BEGIN_ATTEMPTS = 1000
# The file format write version: https://www.sqlite.org/fileformat2.html#file_format_version_numbers
_WAL_AT, _WAL = 18, b"\x02"
_ALL_PAGES = -1  # https://www.sqlite.org/c3ref/backup_finish.html, sqlite3_backup_step

REQUIRED_COLUMNS = {
    "playlists": "id platform remote_playlist_id name description cover_url play_count collected_song_count",
    "songs": "id platform remote_song_id name singers ext file_size_bytes metadata_json",
    "playlist_songs": "playlist_id song_id position",
}
OPTIONAL_COLUMNS = {
    "playlist_pools": "id platform pool_kind external_id name",
    "pool_playlists": "pool_id playlist_id",
    "storage_backends": "id name backend_type base_path config_json",
    "file_assets": "id song_id quality_label ext file_size_bytes",
    "file_locations": "id file_asset_id backend_id locator status is_primary",
}


def catalogue_bytes(source_db: Path) -> int:
    """The size of a catalogue, with what its writers have not moved into it yet; 0 when there is none."""
    files = (source_db, source_db.with_name(f"{source_db.name}-wal"))
    return sum(file.stat().st_size for file in files if file.exists())


def copied_bytes(source_db: Path) -> int:
    """How much of a disk the private copy of a catalogue takes; 0 when none is made."""
    try:
        with source_db.open("rb") as stream:
            is_wal = stream.read(_WAL_AT + 1)[_WAL_AT:] == _WAL
    except OSError:  # whoever opens it next says what is wrong
        return 0
    return 0 if is_wal else catalogue_bytes(source_db)


# Tables whose ids tell rows of the read model apart.
_IDENTIFIED = {"playlists", "songs", "file_locations"}


@contextmanager
def source_errors(source_db: Path) -> Iterator[None]:
    """Turn what SQLite says while the catalogue is read into one sentence.

    Raises:
        SourceError: for any sqlite3.Error raised inside, but a full disk, which the source does not cause.
    """
    try:
        yield
    except sqlite3.Error as error:
        if is_disk_full(error):
            raise
        raise SourceError(f"{source_db}: {_explain(error)}") from error


def is_disk_full(error: sqlite3.Error) -> bool:
    return _primary_code(error) == sqlite3.SQLITE_FULL


def _primary_code(error: sqlite3.Error) -> int:
    code: int = getattr(error, "sqlite_errorcode", 0)
    return code & 0xFF  # https://www.sqlite.org/rescode.html


def _explain(error: sqlite3.Error) -> str:
    match _primary_code(error):
        case sqlite3.SQLITE_NOTADB:
            return "this file is not an SQLite database"
        case sqlite3.SQLITE_CORRUPT:
            return "the database is corrupt; `PRAGMA integrity_check` tells where"
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return "another program keeps the database locked; try again later"
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_CANTOPEN:
            return (
                "the database cannot be read without writing beside it: it is in WAL mode or was left by a "
                "crash, and its folder is not writable for this user, or the file may not be read at all"
            )
        case sqlite3.SQLITE_MISMATCH | sqlite3.SQLITE_CONSTRAINT:
            return f"the database is not a catalogue: {error}"
        case _:
            return str(error)


@contextmanager
def attached_source(
    targets: Sequence[sqlite3.Connection],
    source_db: Path,
    scratch_dir: Path,
    lock_timeout_s: float = LOCK_TIMEOUT_S,
) -> Iterator[set[str]]:
    """Attach the catalogue to each target as `source`, read-only; yields the names of its tables.

    Each target is then in a transaction, and all see the catalogue as it was at one moment; what the caller
    does not commit is rolled back. `scratch_dir` holds the private copy, when one is needed.
    Raises:
        SourceError: when the file is missing, locked, corrupt, or not a catalogue.
    """
    if not source_db.exists():
        raise SourceError(f"{source_db}: there is no such file")
    if not source_db.is_file():
        raise SourceError(f"{source_db}: this is not a file")
    with source_errors(source_db), ExitStack() as undo:
        with closing(_open_read_only(source_db, lock_timeout_s)) as catalogue:
            tables = _verify_catalogue(catalogue, source_db)
            (journal_mode,) = catalogue.execute("PRAGMA journal_mode").fetchone()
            if journal_mode == "wal":
                read = source_db
            else:
                read = _copy(catalogue, scratch_dir)
                undo.callback(read.unlink)
        for target in targets:
            target.execute("ATTACH ? AS source", (_read_only_uri(read),))
            undo.callback(_detach, target)
        with closing(_open_read_only(read, lock_timeout_s)) as watch:
            _begin_at_one_moment(targets, watch)
        yield tables


def _detach(target: sqlite3.Connection) -> None:
    if target.in_transaction:
        target.execute("ROLLBACK")
    target.execute("DETACH source")


def _begin_at_one_moment(targets: Sequence[sqlite3.Connection], watch: sqlite3.Connection) -> None:
    """Begin a transaction on each target, between two of another program's commits.

    `watch` sees every commit to the catalogue: https://www.sqlite.org/pragma.html#pragma_data_version
    """
    for _ in range(_BEGIN_ATTEMPTS):
        before = watch.execute("PRAGMA data_version").fetchone()
        for target in targets:
            target.execute("BEGIN")
            # Only with its first read does a transaction take its view of the file.
            target.execute("SELECT count(*) FROM source.sqlite_master").fetchone()
        if before == watch.execute("PRAGMA data_version").fetchone():
            return
        for target in targets:
            target.execute("ROLLBACK")
    restless = sqlite3.OperationalError("another program commits without a pause")
    restless.sqlite_errorcode = sqlite3.SQLITE_BUSY
    raise restless


def _read_only_uri(path: Path) -> str:
    return f"{path.resolve().as_uri()}?mode=ro"


def _open_read_only(path: Path, lock_timeout_s: float) -> sqlite3.Connection:
    return sqlite3.connect(_read_only_uri(path), uri=True, isolation_level=None, timeout=lock_timeout_s)


class _Disturbed(Exception):
    """The catalogue was written to between two steps of a copy."""


def _copy(catalogue: sqlite3.Connection, scratch_dir: Path) -> Path:
    """Copy a catalogue that has a rollback journal.

    First in steps that each lock it for milliseconds; when its writer comes between two of them, the copy
    begins again. With a writer that never rests it would do so for ever: the last attempt copies everything
    under one lock, from the page cache that the others have filled.
    """
    copy = scratch_dir / "source.db"
    copy.unlink(missing_ok=True)
    left: int | None = None

    def observe(status: int, remaining: int, total: int) -> None:
        nonlocal left
        if status in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            locked = sqlite3.OperationalError("database is locked")
            locked.sqlite_errorcode = status
            raise locked
        if left is not None and remaining >= left:
            raise _Disturbed
        left = remaining

    with closing(sqlite3.connect(copy, isolation_level=None)) as private:
        private.execute("PRAGMA synchronous=OFF")
        for pages in (*[_COPY_PAGES] * _COPY_ATTEMPTS, _ALL_PAGES):
            left = None
            with suppress(_Disturbed):
                catalogue.backup(private, pages=pages, progress=observe)
                break
    return copy


def _has_unique_ids(catalogue: sqlite3.Connection, table: str) -> bool:
    """Whether no two rows have one id; counted only where the table's declaration does not see to it."""
    keys = [row for row in catalogue.execute(f"PRAGMA table_info({table})") if row[5]]
    if [(row[1].lower(), row[2].upper()) for row in keys] == [("id", "INTEGER")]:
        return True
    counts = catalogue.execute(f"SELECT count(id), count(DISTINCT id) FROM {table}").fetchone()
    return bool(counts[0] == counts[1])


def _verify_catalogue(catalogue: sqlite3.Connection, source_db: Path) -> set[str]:
    tables = {
        name
        for (name,) in catalogue.execute("SELECT name FROM sqlite_master WHERE type IN ('table', 'view')")
    }
    missing = sorted(REQUIRED_COLUMNS.keys() - tables)
    if missing:
        raise SourceError(f"{source_db}: this is not a catalogue: it has no table {', '.join(missing)}")
    for table, columns in (REQUIRED_COLUMNS | OPTIONAL_COLUMNS).items():
        if table in tables:
            found = {row[1] for row in catalogue.execute(f"PRAGMA table_info({table})")}
            lacking = [column for column in columns.split() if column not in found]
            if lacking:
                raise SourceError(
                    f"{source_db}: this is not a catalogue: {table} has no column {', '.join(lacking)}"
                )
    for table in _IDENTIFIED & tables:
        if not _has_unique_ids(catalogue, table):
            raise SourceError(f"{source_db}: this is not a catalogue: {table} has an id more than once")
    (encoding,) = catalogue.execute("PRAGMA encoding").fetchone()
    if encoding != "UTF-8":
        raise SourceError(f"{source_db}: text is stored as {encoding}; only UTF-8 catalogues can be exported")
    return tables
