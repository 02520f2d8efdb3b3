"""The page delta's level, batch and order of pages: bytes against seconds.

`python -m benchmarks.page_delta BASE TARGET`, two databases of which the second is the first, refreshed in
place. One run. The first line is the whole of it, as it is done; seconds in the tables are of one processor
and of the compression alone.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

from contracts.page_delta import read_pages
from contracts.page_delta_encoder import (
    BATCH_PAGES,
    QUICK,
    THOROUGH,
    THOROUGH_PAGES,
    changed_pages,
    encode_batch,
    encode_delta,
)
from contracts.page_order import order_pages
from contracts.read_model import PAGE_BYTES
from contracts.zstd_api import zstd

BATCHES = (128, 256, 512, 1024, 2048, 4096)
LEVELS = (9, 12, 15, 16, 18, 19)


def main() -> None:
    """Print the delta as it is made, then a table of batches and one of levels."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("base", type=Path)
    parser.add_argument("target", type=Path)
    options = parser.parse_args()
    with options.base.open("rb") as base, options.target.open("rb") as target:
        started = time.perf_counter()
        changed = changed_pages(base, target)
        compared_s = time.perf_counter() - started
        size_bytes = sum(len(blob) for blob in encode_delta(base, target, changed))
        seconds = time.perf_counter() - started
        peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(
            f"{len(changed):,} changed pages: {size_bytes:,} bytes in {seconds:.2f} s, "
            f"of which comparing {compared_s:.2f} s; peak memory {peak_mib:.0f} MiB"
        )
        ordered = order_pages(changed, lambda page: read_pages(target, [page]))
        small = len(changed) <= THOROUGH_PAGES
        efforts = {"quick": QUICK, **({"thorough": THOROUGH} if small else {})}
        print(f"\n{'batches of':<26}{'bytes':>12}{'seconds':>9}")
        for name, effort in efforts.items():
            for batch_pages in BATCHES:
                _measure(f"{batch_pages} pages, {name}", base, target, ordered, batch_pages, effort)
        _measure(f"{BATCH_PAGES} pages, by number", base, target, changed, BATCH_PAGES, QUICK)
        print(f"\n{f'batches of {BATCH_PAGES}':<26}{'bytes':>12}{'seconds':>9}")
        for level in LEVELS:
            effort = {zstd.CompressionParameter.compression_level: level}
            _measure(f"level {level}", base, target, ordered, BATCH_PAGES, effort)


def _measure(
    name: str,
    base: BinaryIO,
    target: BinaryIO,
    pages: Sequence[int],
    batch_pages: int,
    effort: Mapping[int, int],
) -> None:
    base_pages = base.seek(0, 2) // PAGE_BYTES
    size_bytes, seconds = 0, 0.0
    for start in range(0, len(pages), batch_pages):
        batch = sorted(pages[start : start + batch_pages])
        old = read_pages(base, [page for page in batch if page < base_pages])
        new = read_pages(target, batch)
        started = time.process_time()
        size_bytes += len(encode_batch(batch, old, new, effort))
        seconds += time.process_time() - started
    print(f"{name:<26}{size_bytes:12,}{seconds:9.2f}", flush=True)


if __name__ == "__main__":
    main()
