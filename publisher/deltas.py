"""Writes the page delta between two databases into blobs.

Invariant: memory is bounded by the batches, whatever the databases and the change.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from contracts.digests import digest_bytes
from contracts.manifest import Blob
from contracts.page_delta_encoder import changed_pages, encode_delta
from stores.files import write_file


class WrittenDelta(NamedTuple):
    """The blobs of a delta, in order and on disk, and the number of pages in them."""

    blobs: tuple[Blob, ...]
    pages: int


def compare_databases(base: Path, target: Path) -> list[int]:
    """The indexes of the pages of `target` that `base` does not have, or has with other contents.

    Raises:
        OSError: when one of the files cannot be read.
    """
    with base.open("rb") as old, target.open("rb") as new:
        return changed_pages(old, new)


def write_delta(
    base: Path, target: Path, changed: Sequence[int], blobs_dir: Path, *, batch_pages: int, max_bytes: int
) -> WrittenDelta | None:
    """Write what turns the database in the file `base` into that in `target`, into files named by digest.

    `changed` is what `compare_databases` said of them, `batch_pages` how many pages are compressed together.
    None when the two are equal, or when it comes to more than `max_bytes`.
    Raises:
        OSError: when a database cannot be read or a blob not be written.
    """
    if not changed and base.stat().st_size == target.stat().st_size:
        return None
    blobs: list[Blob] = []
    with base.open("rb") as old, target.open("rb") as new:
        for content in encode_delta(old, new, changed, batch_pages=batch_pages):
            blob = Blob(digest_bytes(content), len(content))
            max_bytes -= blob.size_bytes
            if max_bytes < 0:
                for written in blobs:
                    (blobs_dir / written.digest).unlink()
                return None
            write_file(blobs_dir / blob.digest, content)
            blobs.append(blob)
    # A database that only became shorter sends one page all the same.
    return WrittenDelta(tuple(blobs), len(changed) or 1)
