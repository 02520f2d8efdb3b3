"""What the proof before the pointer moves adds to a publish, in seconds and in memory.

    python -m benchmarks.proof [--songs N]

A first publish into a folder, and then hour after hour, each in a process of its own: with the proof, and
without it into another folder. "proof" is what the publisher itself says of it, "of all" its share of that
very run. The peak is the largest resident set of the process; without the proof it says what the rest takes.
"""

from __future__ import annotations

import argparse
import platform
import resource
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from publisher import PublishOptions, publish
from stores.folder import FolderStore

SONGS = (100_000, 1_000_000)
STEPS = ("first", "first hour", "second hour", "third hour")
SHARE_LIMIT = 0.5  # an hourly publish must not become twice as slow
EXTRA_LIMIT_MIB = 40


class Run(NamedTuple):
    """What a publish took."""

    seconds: float
    proof_seconds: float
    peak_mib: float


def run_child(source: Path, folder: Path, proof: bool) -> None:
    """Publish, and print what it took."""
    result = publish(source, FolderStore(folder / "bucket"), folder / "state", PublishOptions(proof=proof))
    unit = 1 << 20 if sys.platform == "darwin" else 1 << 10
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
    print(result.seconds, result.proof_seconds, peak_mib)


def measure(source: Path, folder: Path, proof: bool) -> Run:
    """Publish in a process of its own."""
    arguments = [str(source), str(folder), str(int(proof))]
    command = [sys.executable, "-m", "benchmarks.proof", "--child", *arguments]
    finished = subprocess.run(command, check=True, capture_output=True, text=True)
    return Run(*map(float, finished.stdout.split()))


def run_sample(*arguments: str) -> None:
    """In a process of its own, too: on Linux a child's peak begins with that of the parent."""
    subprocess.run([sys.executable, "-m", "music_cloud.sample", *arguments], check=True, capture_output=True)


def compare(label: str, source: Path, folder: Path) -> tuple[float, float]:
    """Print a row of the table; the share of the proof, and the MiB that it adds to the peak."""
    bare = measure(source, folder / "bare", proof=False)
    run = measure(source, folder / "proven", proof=True)
    share = run.proof_seconds / run.seconds
    print(
        f"{label:14}{run.seconds:10.2f}{run.proof_seconds:9.2f}{share:8.0%}{run.peak_mib:10.0f}"
        f"{bare.peak_mib:10.0f}",
        flush=True,
    )
    return share, run.peak_mib - bare.peak_mib


def main() -> None:
    """Print a table for each size."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.proof", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "--songs", type=int, metavar="N", help="one size only (default: 100,000 and 1,000,000)"
    )
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        source, folder, proof = options.child
        run_child(Path(source), Path(folder), bool(int(proof)))
        return
    print(
        f"{platform.python_implementation()} {platform.python_version()} on {platform.machine()}, "
        f"SQLite {sqlite3.sqlite_version}"
    )
    hourly_share = most_mib = 0.0
    for songs in [options.songs] if options.songs else SONGS:
        with tempfile.TemporaryDirectory(prefix="benchmark-proof-") as name:
            source = Path(name, "catalogue.db")
            run_sample("--songs", str(songs), "--out", str(source))
            print(f"\n{songs:,} songs")
            print(f"{'':14}{'publish s':>10}{'proof s':>9}{'of all':>8}{'peak MiB':>10}{'without':>10}")
            for seed, label in enumerate(STEPS):
                if seed:
                    run_sample("--evolve", "hour", "--seed", str(seed), "--out", str(source))
                share, added_mib = compare(label, source, Path(name))
                hourly_share = max(hourly_share, share if seed else 0.0)
                most_mib = max(most_mib, added_mib)
    for what, found, limit in (
        ("share of an hourly publish", hourly_share, SHARE_LIMIT),
        ("MiB that the proof adds to the peak", most_mib, EXTRA_LIMIT_MIB),
    ):
        print(f"- {what}: {found:.2f} <= {limit}: {'reached' if found <= limit else '**NOT reached**'}")


if __name__ == "__main__":
    main()
