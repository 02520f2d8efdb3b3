"""How a database ages that is refreshed 200 times and never rebuilt: its size, its free pages, its deltas.

    python -m benchmarks.drift [--songs N] [--rounds N]

Each round is an hour of churn, every tenth a day. A mirror follows: it applies every delta to one file, whose
digest is compared with the publisher's whenever a line is printed. At the end the database must pass SQLite's
integrity check and hold the rows of a fresh export.
"""

from __future__ import annotations

import argparse
import shutil
import sqlite3
import tempfile
import time
from contextlib import closing
from pathlib import Path
from statistics import median
from typing import NamedTuple

from benchmarks.peers.measure import verify_same
from benchmarks.peers.rows import verify_equal_rows
from contracts.page_delta_decoder import DeltaDecoder
from contracts.page_delta_encoder import changed_pages, encode_delta
from contracts.read_model import PAGE_BYTES
from music_cloud.sample import Churn, create_catalogue, evolve
from publisher.export import build_database
from publisher.refresh import refresh_database

SONGS = 100_000
ROUNDS = 200
SHOWN_EVERY = 20
DAY_EVERY = 10


class Round(NamedTuple):
    """One refresh and its delta; `seconds` are those of both."""

    churn: Churn
    delta_bytes: int
    file_bytes: int
    free_pages: int
    seconds: float


def take_round(source: Path, base: Path, target: Path, mirror: Path, churn: Churn) -> Round:
    """Refresh a copy of `base`, which becomes the next base, and let the mirror apply the delta."""
    started = time.perf_counter()
    shutil.copyfile(base, target)
    refresh_database(source, target)
    with base.open("rb") as old, target.open("rb") as new:
        blobs = list(encode_delta(old, new, changed_pages(old, new)))
    seconds = time.perf_counter() - started
    base_pages, target_pages = base.stat().st_size // PAGE_BYTES, target.stat().st_size // PAGE_BYTES
    with mirror.open("r+b") as database:
        decoder = DeltaDecoder(database, base_pages, target_pages)
        for blob in blobs:
            decoder.apply([blob])
        decoder.finish()
    with closing(sqlite3.connect(f"{target.as_uri()}?mode=ro", uri=True)) as connection:
        (free_pages,) = connection.execute("PRAGMA freelist_count").fetchone()
    target.replace(base)
    return Round(churn, sum(map(len, blobs)), target_pages * PAGE_BYTES, free_pages, seconds)


def show(number: int, rounds: list[Round]) -> None:
    """Print the line of the last rounds."""
    last = rounds[-1]
    hours = [taken for taken in rounds if taken.churn == "hour"]
    days = [taken.delta_bytes for taken in rounds if taken.churn == "day"]
    print(
        f"| {number} | {last.file_bytes / 1e6:.2f} | {last.free_pages:,} | "
        f"{median(taken.delta_bytes for taken in hours):,.0f} | "
        f"{f'{median(days):,.0f}' if days else ''} | {median(taken.seconds for taken in hours):.2f} |",
        flush=True,
    )


def show_end(source: Path, base: Path, rounds: list[Round]) -> None:
    """Check the aged database and print how it compares with a fresh export."""
    with closing(sqlite3.connect(f"{base.as_uri()}?mode=ro", uri=True)) as connection:
        (verdict,) = connection.execute("PRAGMA integrity_check").fetchone()
    fresh = base.with_name("fresh.db")
    build_database(source, fresh)
    verify_equal_rows(base, fresh)
    growth = base.stat().st_size / fresh.stat().st_size - 1
    hours = [taken.delta_bytes for taken in rounds if taken.churn == "hour"]
    first, last = median(hours[:SHOWN_EVERY]), median(hours[-SHOWN_EVERY:])
    print(
        f"\nintegrity_check: {verdict}. Its rows are those of a fresh export of "
        f"{fresh.stat().st_size / 1e6:.2f} MB, than which it is {growth:.1%} larger. An hour's delta: "
        f"{first:,.0f} bytes in the median of the first {SHOWN_EVERY} hours, {last:,.0f} in that of the last "
        f"{SHOWN_EVERY} ({last / first - 1:+.1%})."
    )


def main() -> None:
    """Print a line for every 20 rounds, with medians of those."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.drift", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--songs", type=int, default=SONGS, metavar="N")
    parser.add_argument("--rounds", type=int, default=ROUNDS, metavar="N")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="benchmark-drift-") as folder:
        source, base, mirror = (Path(folder, name) for name in ("catalogue.db", "base.db", "mirror.db"))
        create_catalogue(source, songs=options.songs)
        build_database(source, base)
        shutil.copyfile(base, mirror)
        print(f"{options.songs:,} songs; an export of {base.stat().st_size / 1e6:.2f} MB\n")
        print("| refreshes | file, MB | free pages | an hour, bytes | a day, bytes | refresh and delta, s |")
        print("|---|---|---|---|---|---|")
        rounds: list[Round] = []
        for number in range(1, options.rounds + 1):
            churn: Churn = "hour" if number % DAY_EVERY else "day"
            evolve(source, churn=churn, seed=number)
            rounds.append(take_round(source, base, base.with_name("target.db"), mirror, churn))
            if number % SHOWN_EVERY == 0:
                verify_same(mirror, base)
                show(number, rounds[-SHOWN_EVERY:])
        verify_same(mirror, base)
        show_end(source, base, rounds)


if __name__ == "__main__":
    main()
