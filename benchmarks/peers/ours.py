"""Our publisher and our mirror, each in a process of its own, with the seconds of every step.

    python -m benchmarks.peers.ours publish SOURCE BASE TARGET FOLDER STEPS
    python -m benchmarks.peers.ours encode BASE TARGET FOLDER STEPS
    python -m benchmarks.peers.ours apply BASE FOLDER TARGET STEPS SIZE DIGEST

FOLDER takes the delta's blobs, the file STEPS the seconds as JSON.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

from benchmarks.peers.measure import Cost, Result, digest_of, folder_bytes, run_python, verify_same

_MODULE = "benchmarks.peers.ours"
_PIECE_BYTES = 64 << 10


class Ours(NamedTuple):
    """A publish and, of its parts, the seconds; `encode` is the comparison and the encoding by themselves."""

    result: Result
    encode: Cost
    publish_steps: dict[str, float]
    apply_steps: dict[str, float]


def measure_ours(source: Path, base: Path, target: Path, scratch: Path) -> Ours:
    """Publish the state of `source`, which makes `target`, and mirror it.

    Raises:
        RuntimeError: when the mirror's database is not `target`, or encoding again gives other bytes.
    """
    steps, blobs, again = scratch / "steps.json", scratch / "blobs", scratch / "again"
    restored = scratch / "restored.db"
    publisher = run_python(_MODULE, "publish", source, base, target, blobs, steps)
    publish_steps = json.loads(steps.read_bytes())
    encode = run_python(_MODULE, "encode", base, target, again, steps)
    if [path.read_bytes() for path in _stored(again)] != [path.read_bytes() for path in _stored(blobs)]:
        raise RuntimeError("the same two databases made two deltas")
    size_bytes, digest = target.stat().st_size, digest_of(target)
    mirror = run_python(_MODULE, "apply", base, blobs, restored, steps, str(size_bytes), digest)
    verify_same(restored, target)
    sent_bytes = folder_bytes(blobs)
    result = Result(sent_bytes, publisher, sent_bytes, mirror)
    return Ours(result, encode, publish_steps, json.loads(steps.read_bytes()))


class _Steps:
    """Seconds by the name of the step."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - started


def _publish(steps: _Steps, source: Path, base: Path, target: Path, folder: Path) -> None:
    from contracts.digests import digest_stream
    from stores.files import clone_file

    with steps.timed("copy"):
        clone_file(base, target)
    with steps.timed("refresh"):
        refresh_as_a_publisher(source, target)
    _encode(steps, base, target, folder)
    with steps.timed("digest"), target.open("rb") as stream:
        digest_stream(stream)


def refresh_as_a_publisher(source: Path, database: Path) -> None:
    """Refresh a database, knowing from a file beside it what the refresh before has said."""
    import msgspec

    from publisher.known import NOTHING_KNOWN, Known
    from publisher.refresh import refresh_database

    beside = database.with_name("known")
    known = NOTHING_KNOWN
    if beside.exists():
        settings, assets = msgspec.json.decode(beside.read_bytes(), type=tuple[str, str])
        known = Known(settings, Path(assets))
    found = refresh_database(source, database, known=known).known
    beside.write_bytes(msgspec.json.encode((found.settings, str(found.assets))))


def _encode(steps: _Steps, base: Path, target: Path, folder: Path) -> None:
    from contracts.page_delta_encoder import changed_pages, encode_delta

    folder.mkdir()
    with base.open("rb") as old, target.open("rb") as new:
        with steps.timed("compare"):
            changed = changed_pages(old, new)
        with steps.timed("encode"):
            for number, blob in enumerate(encode_delta(old, new, changed)):
                (folder / f"{number:06}").write_bytes(blob)


def _apply(steps: _Steps, base: Path, folder: Path, target: Path, size_bytes: int, digest: str) -> None:
    from contracts.digests import digest_stream
    from contracts.page_delta_decoder import DeltaDecoder
    from contracts.read_model import PAGE_BYTES
    from stores.files import clone_file

    with steps.timed("copy"):
        clone_file(base, target)
    with target.open("r+b") as database:
        with steps.timed("apply"):
            decoder = DeltaDecoder(database, base.stat().st_size // PAGE_BYTES, size_bytes // PAGE_BYTES)
            for path in _stored(folder):
                with path.open("rb") as blob:
                    decoder.apply(iter(partial(blob.read, _PIECE_BYTES), b""))
            decoder.finish()
        with steps.timed("verify"):
            database.seek(0)
            if digest_stream(database) != digest:
                raise SystemExit("the digest is wrong")


def _stored(folder: Path) -> list[Path]:
    return sorted(folder.iterdir())


def main() -> None:
    """Do what the arguments say, for `measure_ours`."""
    steps = _Steps()
    command, *paths = sys.argv[1:]
    if command == "publish":
        source, base, target, folder, written = map(Path, paths)
        _publish(steps, source, base, target, folder)
    elif command == "encode":
        base, target, folder, written = map(Path, paths)
        _encode(steps, base, target, folder)
    else:
        base, folder, target, written = map(Path, paths[:4])
        _apply(steps, base, folder, target, int(paths[4]), paths[5])
    written.write_text(json.dumps(steps.seconds))


if __name__ == "__main__":
    main()
