"""What a refresh costs against a fresh export, and how little of the file it moves.

    python -m benchmarks.refresh [--songs N]

For an hour and a day of churn, a copy of the export from before is refreshed, and the aged catalogue is
exported anew, each in a process of its own and in turns, so that a machine that slows down slows both; then
their rows are compared. Figures are medians over the rounds, and the peak is the largest resident set of the
process. Without `fsync`, the export writes its whole file and the refresh its changed pages: how many they
are, against the file before, is the last column. A file fresh from an export has no room on its pages, so the
first hour after one moves more pages than the hours after it: the second hour shows those. The first line is
the first refresh after an export: it knows no settings, so it looks at every row, and finds no difference.
"""

from __future__ import annotations

import argparse
import platform
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable
from itertools import zip_longest
from pathlib import Path
from statistics import median

from benchmarks.children import Run, measure_child, report_child
from benchmarks.export import verify_equal_rows
from benchmarks.peers.ours import refresh_as_a_publisher
from contracts.read_model import PAGE_BYTES
from publisher.export import build_database

SONGS = (100_000, 1_000_000)
ROUNDS = 3
PEAK_LIMIT_MIB = 130
STEPS = (("hour", "hour"), ("second hour", "hour"), ("day", "day"))


def measure(name: str, source: Path, database: Path) -> Run:
    """Run an export or a refresh in a process of its own."""
    return measure_child("benchmarks.refresh", name, source, database)


def run_sample(*arguments: str) -> None:
    """In a process of its own, too: on Linux a child's peak begins with that of the parent."""
    subprocess.run([sys.executable, "-m", "music_cloud.sample", *arguments], check=True, capture_output=True)


def run_refresh(source: Path, database: Path) -> None:
    """As a publisher does: what the last refresh has said is beside the base."""
    refresh_as_a_publisher(source, database)


CHILDREN: dict[str, Callable[[Path, Path], object]] = {"refresh": run_refresh, "export": build_database}


def count_changed_pages(before: Path, after: Path) -> int:
    """How many pages of a file are not those of the file before."""
    with before.open("rb") as old, after.open("rb") as new:
        pages = zip_longest(iter(lambda: old.read(PAGE_BYTES), b""), iter(lambda: new.read(PAGE_BYTES), b""))
        return sum(old_page != new_page for old_page, new_page in pages)


def compare(label: str, source: Path, base: Path, rounds: int) -> float:
    """Print two rows of the table; leaves the refreshed database in place of `base`; the refresh's peak."""
    refreshed, fresh = base.with_name("refreshed.db"), base.with_name("fresh.db")
    runs: dict[str, list[Run]] = {"refresh": [], "export": []}
    for _ in range(rounds):
        shutil.copyfile(base, refreshed)
        fresh.unlink(missing_ok=True)
        runs["refresh"].append(measure("refresh", source, refreshed))
        runs["export"].append(measure("export", source, fresh))
    verify_equal_rows(refreshed, fresh)
    for name, after in (("refresh", refreshed), ("export", fresh)):
        columns = [median(column) for column in zip(*runs[name], strict=True)]
        pages = count_changed_pages(base, after)
        print(
            f"{label:14}{name:10}{columns[0]:10.2f}{columns[1]:10.2f}{columns[2]:10.0f}"
            f"{pages:12,}{pages * PAGE_BYTES / 1e6:10.1f}{after.stat().st_size / 1e6:10.1f}",
            flush=True,
        )
    refreshed.replace(base)
    return max(run.peak_mib for run in runs["refresh"])


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.refresh", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "--songs", type=int, metavar="N", help="one size only (default: 100,000 and 1,000,000)"
    )
    parser.add_argument("--rounds", type=int, default=ROUNDS, metavar="N")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        name, source, database = options.child
        report_child(lambda: CHILDREN[name](Path(source), Path(database)))
        return
    print(
        f"{platform.python_implementation()} {platform.python_version()} on {platform.machine()}, "
        f"SQLite {sqlite3.sqlite_version}"
    )
    peak_mib = 0.0
    for songs in [options.songs] if options.songs else SONGS:
        with tempfile.TemporaryDirectory(prefix="benchmark-refresh-") as folder:
            source, base = Path(folder, "catalogue.db"), Path(folder, "base.db")
            run_sample("--songs", str(songs), "--out", str(source))
            measure("export", source, base)
            first = measure("refresh", source, base)
            print(
                f"\n{songs:,} songs, {base.stat().st_size / 1e6:.0f} MB; medians of {options.rounds} rounds"
            )
            print(
                f"{'':24}{'seconds':>10}{'CPU':>10}{'peak MiB':>10}{'pages moved':>12}{'their MB':>10}"
                f"{'file MB':>10}"
            )
            print(
                f"{'nothing':14}{'refresh':10}{first.seconds:10.2f}{first.cpu_seconds:10.2f}{first.peak_mib:10.0f}",
                flush=True,
            )
            for seed, (label, churn) in enumerate(STEPS):
                run_sample("--evolve", churn, "--seed", str(seed), "--out", str(source))
                peak_mib = max(peak_mib, compare(label, source, base, options.rounds))
    if peak_mib >= PEAK_LIMIT_MIB:
        print(f"\nnot reached: a refresh below {PEAK_LIMIT_MIB} MiB")


if __name__ == "__main__":
    main()
