"""Feeds damaged page deltas to the decoder: `python -m tests.fuzz.page_delta [--seconds N] [--seed N]`.

Anything but a `MalformedError` ends it with a traceback, after the blob was printed as hexadecimal digits.
With atheris installed (it is no dependency), `--atheris` lets coverage choose the damage instead.
"""

from __future__ import annotations

import argparse
import importlib
import random
import sys
import time
from pathlib import Path

from contracts.errors import MalformedError
from contracts.read_model import PAGE_BYTES
from tests.contracts.page_delta_databases import database, decode, encode, mutate

BASE = database(*[1] * 12)
TARGET = database(1, 2, 3, *[1] * 8, 2, 2, 2)
GOLDEN = Path(__file__).parent.parent / "vectors" / "page-delta-blob.bin"
SEEDS = [GOLDEN.read_bytes(), *encode(BASE, TARGET, batch_pages=2)]


def main() -> None:
    """Run until the time is over."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--atheris", action="store_true")
    options = parser.parse_args()
    if options.atheris:
        atheris = importlib.import_module("atheris")
        atheris.instrument_all()
        atheris.Setup(sys.argv[:1], apply_damaged)
        atheris.Fuzz()
    dice = random.Random(options.seed)
    end = time.monotonic() + options.seconds
    tried = 0
    while time.monotonic() < end:
        apply_damaged(mutate(dice.choice(SEEDS), dice))
        tried += 1
    print(f"{tried:,} damaged deltas were refused or harmless")  # noqa: T201


def apply_damaged(blob: bytes) -> None:
    """Apply a blob that may be anything."""
    try:
        decode(BASE, 14 * PAGE_BYTES, [blob])
    except MalformedError:
        return
    except BaseException:
        print(blob.hex())  # noqa: T201
        raise


if __name__ == "__main__":
    main()
