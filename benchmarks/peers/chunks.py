"""Peers that cut files where the content says so, and send chunks that are new: zchunk, casync, restic."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path

from benchmarks.peers.measure import Peer, Result, digest_of, folder_bytes, run, verify_same
from benchmarks.peers.ranges import range_server


def zchunk(old: Path, new: Path, scratch: Path) -> Result:
    """The mirror downloads by ranges what its own older zchunk file lacks, and unpacks.

    zchunk has no upload: the publisher is taken to send the same bytes, which flatters it.
    """
    served, own = scratch / "served", scratch / "own"
    served.mkdir()
    own.mkdir()
    had = _kept(old, scratch)
    if not had.exists():  # or the step before has made it
        run("zck", "-o", had, old)
    publisher = run("zck", "-o", served / "new.zck", new)
    with range_server(served) as server:
        url = f"http://127.0.0.1:{server.server_port}/new.zck"
        command = ("zckdl", "--fail-no-ranges", "-s", had, url)
        mirror = run(*command, cwd=own, env={"no_proxy": "127.0.0.1"})
        downloaded_bytes = server.sent_bytes
    mirror = mirror.then(run("unzck", "new.zck", cwd=own))
    verify_same(own / "new", new)
    (served / "new.zck").replace(_kept(new, scratch))
    return Result(downloaded_bytes, publisher, downloaded_bytes, mirror)


def _kept(database: Path, scratch: Path) -> Path:
    """Where the zchunk file of a database is kept for the next step: zck takes longer than all else."""
    return scratch.parent / f"{digest_of(database)}.zck"


def casync(chunk_bytes: int, old: Path, new: Path, scratch: Path) -> Result:
    """New chunks and the index are sent; the mirror takes what it has from its old database."""
    store, index, restored = scratch / "store", scratch / "new.caibx", scratch / "restored.db"
    store.mkdir()
    common = (f"--store={store}", f"--chunk-size={chunk_bytes}")
    run("casync", "make", *common, scratch / "old.caibx", old)
    before = folder_bytes(store)
    publisher = run("casync", "make", *common, index, new)
    sent_bytes = folder_bytes(store) - before + index.stat().st_size
    mirror = run("casync", "extract", f"--store={store}", f"--seed={old}", index, restored)
    verify_same(restored, new)
    return Result(sent_bytes, publisher, sent_bytes, mirror)


def restic(old: Path, new: Path, scratch: Path) -> Result:
    """The mirror is taken to keep a copy of the repository, and to restore the whole from it."""
    repository, database = scratch / "repository", scratch / "catalog_read.db"
    env = {
        "RESTIC_REPOSITORY": str(repository),
        "RESTIC_PASSWORD": "benchmark",
        "RESTIC_CACHE_DIR": str(scratch / "cache"),
    }
    run("restic", "-q", "init", env=env)
    shutil.copyfile(old, database)
    run("restic", "-q", "backup", database.name, cwd=scratch, env=env)
    before = folder_bytes(repository)
    shutil.copyfile(new, database)
    publisher = run("restic", "-q", "backup", database.name, cwd=scratch, env=env)
    sent_bytes = folder_bytes(repository) - before
    restored = scratch / "restored"
    mirror = run("restic", "-q", "restore", "latest", "--target", restored, env=env)
    verify_same(restored / database.name, new)
    return Result(sent_bytes, publisher, sent_bytes, mirror)


CASYNC_DEFAULT_BYTES = 64 << 10
CASYNC_SMALL_BYTES = 8 << 10  # two pages; of 8, 16 and 64 KiB it sends the fewest bytes of a refreshed file

CHUNKS_OF_REBUILT = [
    Peer("zchunk", "rebuilt", ("zck", "zckdl", "unzck"), zchunk),
    Peer("casync", "rebuilt", ("casync",), partial(casync, CASYNC_DEFAULT_BYTES)),
    Peer("restic", "rebuilt", ("restic",), restic),
]
CHUNKS_OF_REFRESHED = [
    Peer("zchunk", "refreshed", ("zck", "zckdl", "unzck"), zchunk),
    Peer("casync", "refreshed", ("casync",), partial(casync, CASYNC_DEFAULT_BYTES)),
    Peer("casync, 8 KiB chunks", "refreshed", ("casync",), partial(casync, CASYNC_SMALL_BYTES)),
    Peer("restic", "refreshed", ("restic",), restic),
]
