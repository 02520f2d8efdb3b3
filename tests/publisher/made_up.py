"""The real publish of a catalogue that is made up: a few pages, each of which has a few variants.

What was there before comes again byte for byte, so that the same blobs are made again; and a publish takes
milliseconds.
"""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from functools import cache
from io import BytesIO
from pathlib import Path

from contracts.digests import digest_bytes
from contracts.keyframe import encode_segment
from contracts.manifest import Blob, Database, Delta, Keyframe, Manifest, SnapshotManifest
from contracts.page_delta_encoder import changed_pages, encode_delta
from publisher import Environment, PublishOptions
from publisher.candidates import Candidates
from publisher.chain import needs_keyframe
from publisher.pointer import Pointer
from publisher.profile import Profile, program_version
from publisher.publish import PublishRun
from publisher.state import Candidate, State, WaitingKeyframe
from stores.base import Store
from stores.files import write_file
from stores.progress import Progress

START = datetime(2026, 11, 22, 12, tzinfo=UTC)
EXPIRY = timedelta(days=400)
PAGE_BYTES = 4096
PAGES = 4
VARIANTS = 4  # of each page: so many that one is long forgotten when it comes again


@cache
def page(number: int, variant: int) -> bytes:
    """A page that compresses badly: what it takes must count beside the manifest."""
    return random.Random(number << 8 | variant).randbytes(1000) + bytes(PAGE_BYTES - 1000)


@cache
def content(variants: tuple[int, ...]) -> tuple[Database, bytes]:
    """A database of these variants of its pages."""
    pages = b"".join(page(number, variant) for number, variant in enumerate(variants))
    return Database(digest_bytes(pages), len(pages)), pages


@cache
def segments(variants: tuple[int, ...]) -> tuple[bytes, ...]:
    return tuple(encode_segment(page(number, variant), 1) for number, variant in enumerate(variants))


@cache
def delta(base: tuple[int, ...], target: tuple[int, ...]) -> tuple[bytes, ...]:
    old, new = BytesIO(content(base)[1]), BytesIO(content(target)[1])
    return tuple(encode_delta(old, new, changed_pages(old, new), batch_pages=256))


class MadeUpCandidates(Candidates):
    """Candidates of a catalogue that is nothing but the variants of its pages."""

    wanted: tuple[int, ...] = (0,) * PAGES
    known: dict[str, tuple[int, ...]]
    state: State

    def __init__(self, state: State, known: dict[str, tuple[int, ...]]) -> None:
        self.state, self.known = state, known

    def make(
        self, base: Pointer | None, *, rebuild: bool, now: datetime, keep: bool = True
    ) -> Candidate | None:
        database, pages = content(self.wanted)
        self.known[database.digest] = self.wanted
        if base is not None and base.manifest.database == database:
            return None
        with self.state.scratch() as scratch:
            made = keyframe = None
            if base is not None:
                blobs = delta(self.known[base.manifest.database.digest], self.wanted)
                made = Delta(base.manifest.database, database, write(scratch, blobs))
            if base is None or made is None or needs_keyframe(base.manifest, made):
                keyframe = Keyframe(database, PAGE_BYTES, write(scratch, segments(self.wanted)))
            snapshot = SnapshotManifest("made-up", "2026-11-22T12:00:00Z", 1, 0, 0, 0, 0)
            digest = base and base.digest
            candidate = Candidate("memory:", digest, snapshot, database, made, keyframe)
            path = scratch / "catalog_read.db"
            path.write_bytes(pages)
            self.state.store_database(path, database)
            self.state.candidate.store(candidate, scratch)
            return candidate

    def make_keyframe(self, manifest: Manifest) -> WaitingKeyframe | None:
        variants = self.known[manifest.database.digest]
        with self.state.scratch() as scratch:
            blobs = write(scratch, segments(variants))
            waiting = WaitingKeyframe("memory:", Keyframe(manifest.database, PAGE_BYTES, blobs))
            self.state.keyframe.store(waiting, scratch)
            return waiting

    def is_rebuild_due(self, manifest: Manifest) -> bool:
        return False


def write(scratch: Path, contents: tuple[bytes, ...]) -> tuple[Blob, ...]:
    blobs = [Blob(digest_bytes(stored), len(stored)) for stored in contents]
    for blob, stored in dict(zip(blobs, contents, strict=True)).items():
        write_file(scratch / "blobs" / blob.digest, stored)
    return tuple(blobs)


class MadeUpPublish(PublishRun):
    """The real publish, of a made-up catalogue."""

    def __init__(self, store: Store, candidates: MadeUpCandidates, environment: Environment) -> None:
        options = PublishOptions(expiry=EXPIRY, proof=False)
        super().__init__(None, store, candidates.state, options, Progress(), environment)
        self._candidates = candidates


def prepared(folder: Path) -> State:
    """A state folder that knows the store, so that nobody asks it first."""
    folder.mkdir(parents=True, exist_ok=True)
    state = State(folder)
    state.store_profile(
        Profile(
            store="memory:", probed_at=START, program=program_version(), preconditions="quoted", deletes=True
        )
    )
    return state
