"""Cuts a database into the blobs of a keyframe.

Invariant: memory is bounded by a few segments, whatever the size of the database.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from contracts.digests import digest_bytes
from contracts.keyframe import encode_segment
from contracts.manifest import Blob, Database, Keyframe
from stores.files import write_file
from stores.progress import Progress

# zstd releases the interpreter lock; each worker holds a segment and its frame, some 32 MiB.
_WORKERS = min(4, os.cpu_count() or 1)


def write_keyframe(
    path: Path, database: Database, blobs_dir: Path, segment_bytes: int, level: int, progress: Progress
) -> Keyframe:
    """Compress the database at `path` into files named by digest in `blobs_dir`, each on disk.

    Raises:
        OSError: when a blob cannot be written.
    """
    progress.begin("compress", database.size_bytes)

    def write_segment(start: int) -> Blob:
        with path.open("rb") as stream:
            stream.seek(start)
            segment = stream.read(segment_bytes)
        frame = encode_segment(segment, level)
        blob = Blob(digest_bytes(frame), len(frame))
        # Equal segments make one blob; another worker may be writing it, and writes the same bytes.
        temporary = blobs_dir / f".{start}"
        write_file(temporary, frame)
        temporary.replace(blobs_dir / blob.digest)
        progress.add(len(segment))
        return blob

    with ThreadPoolExecutor(_WORKERS, "compress") as executor:
        blobs = tuple(executor.map(write_segment, range(0, database.size_bytes, segment_bytes)))
    return Keyframe(database, segment_bytes, blobs)
