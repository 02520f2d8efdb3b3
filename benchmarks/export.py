"""How fast a catalogue is exported, against fetching everything and `executemany`, and how long writers wait.

    python -m benchmarks.export [--songs N]

Both exports get the same sample catalogue and run in a process of their own, in turns, so that a machine
that slows down slows both; before anything is printed their rows are compared. Figures are medians over the
rounds, the ratio is the median of the ratios within a round, and the peak is the largest resident set of the
process. The second table shows the longest that a program which commits a hundred times a second was kept
waiting while the catalogue was exported, by the journal mode, and what it waits without an export.
"""

from __future__ import annotations

import argparse
import platform
import sqlite3
import tempfile
import threading
import time
from contextlib import closing
from pathlib import Path
from statistics import median

from benchmarks.children import Run, measure_child, report_child
from benchmarks.export_peer import export_by_fetching
from contracts.read_model import DATABASE_NAME, TABLES
from music_cloud.sample import create_catalogue
from publisher import export_snapshot

SONGS = (100_000, 1_000_000)
ROUNDS = 3
NEEDED_RATIO = 4.0
PEAK_LIMIT_MIB = 130
WRITER_PAUSE_S = 0.01
WRITER_TIMEOUT_S = 5.0  # the default of Python's sqlite3, and so what a writer can be expected to endure


def run_peer(source: Path, folder: Path) -> None:
    (folder / DATABASE_NAME).unlink(missing_ok=True)
    export_by_fetching(source, folder / DATABASE_NAME)


def run_ours(source: Path, folder: Path) -> None:
    export_snapshot(source, folder)


CONTENDERS = {"fetch-all and executemany": run_peer, "music-cloud": run_ours}


def measure(name: str, source: Path, folder: Path) -> Run:
    """Run one export in a process of its own."""
    return measure_child("benchmarks.export", name, source, folder)


def verify_equal_rows(first: Path, second: Path) -> int:
    """Raise unless both databases hold the same rows; the number of rows."""
    with closing(sqlite3.connect(first)) as connection:
        connection.execute("ATTACH ? AS other", (str(second),))
        for table in TABLES:
            for left, right in (("main", "other"), ("other", "main")):
                difference = f"SELECT * FROM {left}.{table} EXCEPT SELECT * FROM {right}.{table}"
                (count,) = connection.execute(f"SELECT count(*) FROM ({difference})").fetchone()
                assert count == 0, f"{count} rows of {table} are only in {left}"
        counts = " + ".join(f"(SELECT count(*) FROM {table})" for table in TABLES)
        rows: int = connection.execute(f"SELECT {counts}").fetchone()[0]
        return rows


class Writer(threading.Thread):
    """A program that goes on writing to the catalogue; keeps the longest that one commit took."""

    def __init__(self, source: Path) -> None:
        super().__init__()
        self.longest_s = 0.0
        self.commits = 0
        self.stopped = threading.Event()
        self._source = source

    def run(self) -> None:
        with closing(
            sqlite3.connect(self._source, isolation_level=None, timeout=WRITER_TIMEOUT_S)
        ) as connection:
            while not self.stopped.wait(WRITER_PAUSE_S):
                started = time.perf_counter()
                connection.execute("UPDATE songs SET file_size_bytes = file_size_bytes + 1 WHERE id = 1")
                self.longest_s = max(self.longest_s, time.perf_counter() - started)
                self.commits += 1


def measure_writer(source: Path, folder: Path, *, exporting: bool) -> Writer:
    """A writer's figures during an export, or during two seconds without one."""
    writer = Writer(source)
    writer.start()
    try:
        if exporting:
            measure("music-cloud", source, folder)
        else:
            writer.stopped.wait(2)
    finally:
        writer.stopped.set()
        writer.join()
    return writer


def compare(source: Path, scratch: Path, rounds: int) -> bool:
    """Print the first table; whether what is needed was reached."""
    runs: dict[str, list[Run]] = {name: [] for name in CONTENDERS}
    folders = {name: scratch / f"out-{number}" for number, name in enumerate(CONTENDERS)}
    for folder in folders.values():
        folder.mkdir()
    for _ in range(rounds):
        for name, folder in folders.items():
            runs[name].append(measure(name, source, folder))
    rows = verify_equal_rows(*(folder / DATABASE_NAME for folder in folders.values()))
    peer, ours = runs.values()
    print(f"\n{'export':28}{'seconds':>10}{'CPU':>10}{'peak MiB':>10}{'ratio':>8}")
    for name, measured in runs.items():
        ratio = median(other.seconds / run.seconds for other, run in zip(peer, measured, strict=True))
        peak = max(run.peak_mib for run in measured)
        print(
            f"{name:28}{median(run.seconds for run in measured):10.2f}"
            f"{median(run.cpu_seconds for run in measured):10.2f}{peak:10.0f}{ratio:8.1f}"
        )
    print(f"{rows:,} rows, the same in both; medians of {rounds} rounds")
    ratio = median(other.seconds / run.seconds for other, run in zip(peer, ours, strict=True))
    return ratio >= NEEDED_RATIO and max(run.peak_mib for run in ours) < PEAK_LIMIT_MIB


def compare_writers(source: Path, scratch: Path) -> None:
    """Print the second table. Changes the catalogue's journal mode."""
    print(f"\n{'writer':28}{'commits':>10}{'longest wait, ms':>20}{'without export':>18}")
    for journal_mode in ("wal", "delete"):
        with closing(sqlite3.connect(source)) as connection:
            connection.execute(f"PRAGMA journal_mode={journal_mode}")
        alone = measure_writer(source, scratch, exporting=False)
        writer = measure_writer(source, scratch / "snapshot", exporting=True)
        print(
            f"{journal_mode:28}{writer.commits:10}{writer.longest_s * 1e3:20.1f}{alone.longest_s * 1e3:18.1f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.export", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "--songs", type=int, metavar="N", help="one size only (default: 100,000 and 1,000,000)"
    )
    parser.add_argument("--rounds", type=int, default=ROUNDS, metavar="N")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        name, source, folder = options.child
        report_child(lambda: CONTENDERS[name](Path(source), Path(folder)))
        return
    print(
        f"{platform.python_implementation()} {platform.python_version()} on {platform.machine()}, "
        f"SQLite {sqlite3.sqlite_version}"
    )
    reached = True
    for songs in [options.songs] if options.songs else SONGS:
        with tempfile.TemporaryDirectory(prefix="benchmark-export-") as folder:
            source = Path(folder, "catalogue.db")
            create_catalogue(source, songs=songs)
            print(f"\n{songs:,} songs, {source.stat().st_size / 1e6:.0f} MB")
            reached = compare(source, Path(folder), options.rounds) and reached
            compare_writers(source, Path(folder))
    if not reached:
        print(f"\nnot reached: {NEEDED_RATIO:g} times as fast, below {PEAK_LIMIT_MIB} MiB")


if __name__ == "__main__":
    main()
