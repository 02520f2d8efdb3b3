"""The keyframe's zstd level: bytes against seconds, beside the `zstd` command on the whole file.

`python -m benchmarks.keyframe [--songs N]`. One run; ratios are to `zstd -3`, the usual full upload.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import subprocess
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from contracts.keyframe import KEYFRAME_LEVEL, SEGMENT_BYTES
from music_cloud.sample import create_catalogue
from publisher.export import build_database
from publisher.keyframes import write_keyframe
from stores.progress import Progress

LEVELS = (1, 3, 6, 9, 12, 15)


def main() -> None:
    """Print a table of levels."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--songs", type=int, default=100_000)
    songs = parser.parse_args().songs
    with tempfile.TemporaryDirectory(prefix="benchmark-keyframe-") as folder:
        source, database = Path(folder, "source.db"), Path(folder, "catalog_read.db")
        create_catalogue(source, songs=songs)
        export = build_database(source, database, now=datetime.now(UTC))
        source.unlink()
        print(f"{songs:,} songs, a database of {export.database.size_bytes / 1e6:.1f} MB, segments of 16 MiB")
        whole_bytes, whole_s = _zstd(database)
        print(f"{'':<16}{'MB':>9}{'ratio':>8}{'seconds':>9}{'ratio':>8}")
        print(f"{'zstd -3, whole':<16}{whole_bytes / 1e6:9.2f}{1:8.3f}{whole_s:9.2f}{1:8.2f}")
        for level in LEVELS:
            blobs_dir = Path(folder, f"level-{level}")
            blobs_dir.mkdir()
            started = time.perf_counter()
            keyframe = write_keyframe(database, export.database, blobs_dir, SEGMENT_BYTES, level, Progress())
            seconds = time.perf_counter() - started
            mark = " *" if level == KEYFRAME_LEVEL else ""
            print(
                f"{f'level {level}{mark}':<16}{keyframe.stored_bytes / 1e6:9.2f}"
                f"{keyframe.stored_bytes / whole_bytes:8.3f}{seconds:9.2f}{seconds / whole_s:8.2f}"
            )
            shutil.rmtree(blobs_dir)
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"peak memory of this process {peak_mib:.0f} MiB; * is the default")


def _zstd(database: Path) -> tuple[int, float]:
    target = database.with_suffix(".zst")
    started = time.perf_counter()
    subprocess.run(["zstd", "-q", "-3", "-f", "-o", target, database], check=True)
    seconds = time.perf_counter() - started
    size_bytes = target.stat().st_size
    target.unlink()
    return size_bytes, seconds


if __name__ == "__main__":
    main()
