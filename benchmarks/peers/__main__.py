"""What one publish costs: our publisher against every known way to send a changed database.

    python -m benchmarks.peers [--songs N] [--churn hour|day|growth] [--slow] [--plot PATH]

A sample catalogue ages by an hour, and, after three days, by an hour, a day and one per cent of growth: what
the first refreshes after an export cost is told apart from what is usual. Each peer publishes the same
change, and its mirror's database is compared with what was published; who is not installed is named.
"rebuilt" are fresh exports before and after the change, "refreshed" the files that our own publisher keeps.
Bytes are what the method itself has to send; the manifest of some KB is left out. Seconds and peaks are of
whole processes; ours are from the start of the interpreter to the SHA-256 of the result, and include the copy
and the refresh of the database. Peers need a fresh export before ("rebuilt"), or a refresh ("refreshed").
"""

from __future__ import annotations

import argparse
import platform
import sqlite3
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.peers.chunks import CHUNKS_OF_REBUILT, CHUNKS_OF_REFRESHED
from benchmarks.peers.litestream import LITESTREAM
from benchmarks.peers.measure import Peer
from benchmarks.peers.ours import measure_ours
from benchmarks.peers.report import LIMITS_SONGS, Measured, Row, format_limits, format_table
from benchmarks.peers.rows import listed_rows_bytes, verify_equal_rows
from benchmarks.peers.scenario import CHURNS, FIRST_HOUR, Step, take_steps
from benchmarks.peers.whole_files import FULL_UPLOAD, PATCHES_OF_REBUILT, PATCHES_OF_REFRESHED

SONGS = (100_000, 1_000_000)
PEERS = [
    FULL_UPLOAD,
    *CHUNKS_OF_REBUILT,
    *PATCHES_OF_REBUILT,
    *CHUNKS_OF_REFRESHED,
    LITESTREAM,
    *PATCHES_OF_REFRESHED,
]


def measure_step(step: Step, songs: int, peers: Sequence[Peer], folder: Path, *, slow: bool) -> Measured:
    """Ours first: it makes the refreshed database that others work on."""
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        ours = measure_ours(step.source, step.base, step.refreshed, Path(scratch))
    verify_equal_rows(step.refreshed, step.new_export)
    return Measured(
        songs=songs,
        step=step.name,
        database_bytes=step.refreshed.stat().st_size,
        export_cost=step.export_cost,
        listed_bytes=listed_rows_bytes(step.base, step.refreshed),
        ours=ours,
        rows=[_measure_peer(peer, step, folder, slow=slow) for peer in peers],
    )


def _measure_peer(peer: Peer, step: Step, folder: Path, *, slow: bool) -> Row:
    if peer.missing:
        return Row(peer, None, f"{', '.join(peer.missing)} not installed")
    if peer.is_slow and not slow:
        return Row(peer, None, "only with --slow")
    pairs = {
        "rebuilt": (step.old_export, step.new_export),
        "refreshed": (step.base, step.refreshed),
    }
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        return Row(peer, peer.measure(*pairs[peer.basis], Path(scratch)))


def main() -> None:
    """Print a table for each size and churn, and at a million songs which limits were reached."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "--songs", type=int, metavar="N", help="one size only (default: 100,000 and 1,000,000)"
    )
    parser.add_argument("--churn", choices=CHURNS, help="one kind of change only (default: all)")
    parser.add_argument("--slow", action="store_true", help="also peers that take minutes and 4 GB of memory")
    parser.add_argument("--plot", type=Path, metavar="PATH", help="draw the largest size as a PNG")
    parser.add_argument(
        "--folder", type=Path, metavar="PATH", help="where 8 GB are free (default: the system's)"
    )
    options = parser.parse_args()
    print(
        f"{platform.python_implementation()} {platform.python_version()} on {platform.machine()}, "
        f"SQLite {sqlite3.sqlite_version}"
    )
    measured: list[Measured] = []
    for songs in [options.songs] if options.songs else SONGS:
        measured = []
        with tempfile.TemporaryDirectory(prefix="benchmark-peers-", dir=options.folder) as folder:
            for step in take_steps(Path(folder), songs, [options.churn] if options.churn else CHURNS):
                # What is special about the first hour is the refreshed file.
                peers = PATCHES_OF_REFRESHED if step.name == FIRST_HOUR else PEERS
                measured.append(measure_step(step, songs, peers, Path(folder), slow=options.slow))
                print(f"\n{format_table(measured[-1])}", flush=True)
                if songs == LIMITS_SONGS and (limits := format_limits(measured[-1])):
                    print("", *limits, sep="\n", flush=True)
    if options.plot:
        from benchmarks.peers.plot import draw

        draw(measured, options.plot)


if __name__ == "__main__":
    main()
