"""Whether anybody has written to the catalogue since it was last asked, at the price of a few microseconds.

Invariant: two equal versions mean that no commit came between them: it is SQLite that says so, to one
connection that stays open ("PRAGMA data_version", sqlite.org/pragma.html), in WAL as well as in rollback
mode, whatever the clock and the granularity of the file system's times are. Times and sizes would not do: a
WAL that begins anew keeps its size, a commit's pages are written seconds before they count, and two writes
within a tick of the kernel have one time.
`now` is for the event loop. It opens nothing, and what it touches (the file's metadata, the WAL's index or
the first page) it keeps in memory by touching it; with a writer in the way it does not wait, and nobody
knows. `open`, which may wait for a disk, is for a thread.
"""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path
from typing import NamedTuple

from origin.roots import ON_WINDOWS

_ASK = "PRAGMA data_version"


class Version(NamedTuple):
    """Comparable only for equality: versions of two connections have nothing to do with each other."""

    connection: int
    commits: int


class _Kept(NamedTuple):
    connection: sqlite3.Connection
    cursor: sqlite3.Cursor
    serial: int
    identity: tuple[int, int]  # Device and inode of the file that was at the path just before.


class CatalogueVersion:
    """The version of what is at `db_path`; one object for one event loop and its threads."""

    def __init__(self, db_path: Path) -> None:
        self._path = db_path
        self._kept: _Kept | None = None
        self._opened = 0
        self._opening = threading.Lock()

    def now(self) -> Version | None:
        """The version, or None when nobody knows: nothing is open, a writer is in the way, or it is gone."""
        kept = self._kept
        if kept is None:
            return None
        try:
            status = self._path.stat()
            if (status.st_dev, status.st_ino) == kept.identity:
                return Version(kept.serial, kept.cursor.execute(_ASK).fetchall()[0][0])
        except (OSError, sqlite3.Error):
            pass
        self.close()
        return None

    def open(self) -> None:
        """Make `now` know, if that is possible. Windows cannot replace an open file: there it never knows."""
        with self._opening:
            if self._kept is not None or ON_WINDOWS:
                return
            connection = None
            try:
                status = self._path.stat()
                # The timeout: whoever asks on the event loop cannot wait for a lock.
                connection = sqlite3.connect(
                    f"{self._path.as_uri()}?mode=ro",
                    uri=True,
                    timeout=0,
                    isolation_level=None,
                    check_same_thread=False,
                )
                connection.execute(_ASK).fetchall()  # Here, and not on the event loop, the file is opened.
            except (OSError, sqlite3.Error):
                if connection is not None:
                    connection.close()
                return
            self._opened += 1
            self._kept = _Kept(connection, connection.cursor(), self._opened, (status.st_dev, status.st_ino))

    def close(self) -> None:
        """Keep nothing open; `now` knows nothing until it is opened again."""
        kept, self._kept = self._kept, None
        if kept is not None:
            kept.connection.close()
