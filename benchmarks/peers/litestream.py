"""Litestream: the same change of rows as one transaction of a WAL database, replicated to a folder."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

from benchmarks.peers.measure import Peer, Result, folder_bytes, run, verify_same
from benchmarks.peers.rows import apply_differences, collect_differences, verify_equal_rows


def litestream(old: Path, new: Path, scratch: Path) -> Result:
    """Only the LTX file of the one transaction counts: no compaction and no daily snapshot.

    A mirror that follows the replica downloads that file, but the command that ends when it is done restores
    the whole: its seconds are those of the whole.
    """
    live, restored, replica = scratch / "live.db", scratch / "restored.db", scratch / "replica"
    shutil.copyfile(old, live)
    replicate = ("litestream", "replicate", "-once", "-log-level", "error", live, f"file://{replica}")
    with closing(sqlite3.connect(live.as_uri(), uri=True, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        # While this connection is open and nobody checkpoints, the log goes on and no snapshot is needed.
        connection.execute("PRAGMA wal_autocheckpoint=0")
        collect_differences(connection, new)
        run(*replicate)
        before = folder_bytes(replica)
        apply_differences(connection)
        publisher = run(*replicate)
        sent_bytes = folder_bytes(replica) - before
        (busy, _, _) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if busy:
            raise RuntimeError("the log could not be written back")
    mirror = run("litestream", "restore", "-o", restored, f"file://{replica}")
    verify_same(restored, live)
    verify_equal_rows(restored, new)
    return Result(sent_bytes, publisher, sent_bytes, mirror)


LITESTREAM = Peer("Litestream", "refreshed", ("litestream",), litestream)
