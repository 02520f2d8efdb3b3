"""A bucket, whoever stands between it and a mirror, and the mirror: in memory, or over real HTTP.

Change `objects` to be whoever can write to the bucket; fill `edge.answers` to be whoever can only change what
is served. `Site.attack` holds what every attack must leave behind.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal

import pytest
from msgspec.structs import replace as replace_fields

from contracts.digests import digest_bytes
from contracts.errors import AccessDenied, ObjectMissing, StoreUnavailable
from contracts.layout import POINTER_KEY, Kind, format_key
from contracts.manifest import Manifest, parse_manifest
from contracts.minisign import SecretKey
from contracts.succession import sign_succession, succession_keys
from mirror import Mirror, SyncResult
from stores import Backoff, HttpStore, MemoryStore, RetryingReader
from stores.base import PIECE_BYTES, ObjectInfo, ReadableStore, Reading
from tests.faults import FaultyStore
from tests.mirror.chain import NOW, Chain, served_file, serves

A, B, C, D = (SecretKey(letter * 8, letter * 32) for letter in (b"A", b"B", b"C", b"D"))
EVIL = SecretKey(A.public.number, b"!" * 32)  # anybody can take the number of a key for his own
COMMENT = "timestamp:1\tfile:m\thashed"
QUERY = "SELECT count(*), max(song_id), sum(length(name)) FROM catalog_tracks"
Way = Literal["memory", "http"]
WAYS: tuple[Way, ...] = ("memory", "http")
_LOOK_TIMEOUT_S = 0.05  # a client that has left looks no more
_HEADER_MAX_BYTES = 8192  # nginx, large_client_header_buffers


class Clock:
    """The time of day, and seconds that pass by `step_s` whenever somebody looks."""

    def __init__(self) -> None:
        self.now = NOW
        self.step_s = 0.0
        self._seconds = 0.0
        self._looked = threading.Condition()

    def wall(self) -> datetime:
        return self.now

    def monotonic(self) -> float:
        with self._looked:
            self._seconds += self.step_s
            self._looked.notify_all()
            return self._seconds

    def await_look(self) -> None:
        """Return when somebody has looked, for whom time passes."""
        with self._looked:
            if self.step_s:
                self._looked.wait(_LOOK_TIMEOUT_S)


@dataclass(frozen=True)
class Answer:
    """How an object is served: what is said of it, and what then comes, `piece_bytes` at a time."""

    content: bytes
    announced_bytes: int
    etag: str
    is_endless: bool = False
    piece_bytes: int = PIECE_BYTES


class Edge(MemoryStore):
    """What a mirror is served: the objects of a bucket, but for `answers`."""

    def __init__(self, objects: dict[str, bytes]) -> None:
        super().__init__()
        self.objects = objects
        self.answers: dict[str, Answer] = {}
        self.sent_bytes = 0

    def answer(self, key: str) -> Answer:
        """How this object is served now."""
        if key in self.answers:
            return self.answers[key]
        content = self._load(key)
        return Answer(content, len(content), f'"{digest_bytes(content)}"')

    def get(self, key: str, start: int = 0) -> Reading:
        answer = self.answer(key)
        return Reading(ObjectInfo(answer.announced_bytes, answer.etag), self._pieces(answer, key, start))

    def get_if_changed(self, key: str, etag: str) -> Reading | None:
        """RFC 9110, section 13.1.2: a star is every entity tag."""
        return None if etag in (self.answer(key).etag, "*") else self.get(key)

    def _pieces(self, answer: Answer, key: str, start: int) -> Iterator[bytes]:
        """As every client of HTTP sees it: no more than was announced, and an error when it is less."""
        content = answer.content[: answer.announced_bytes]
        for offset in range(start, len(content), answer.piece_bytes):
            yield self._count(content[offset : offset + answer.piece_bytes])
        while answer.is_endless:
            yield self._count(bytes(answer.piece_bytes))
        if len(content) < answer.announced_bytes:
            raise StoreUnavailable(f"{key} ended early")

    def _count(self, piece: bytes) -> bytes:
        self.sent_bytes += len(piece)
        return piece


class Site:
    """A bucket that anybody may change, and a mirror of it that pins the key A."""

    def __init__(self, chain: Chain, folder: Path) -> None:
        self.chain = chain
        self.objects = chain.store.objects
        self.clock = Clock()
        self.edge = Edge(self.objects)
        self.watched = FaultyStore(self.edge)
        self.history: list[bytes] = []  # the pointers that were published
        self.reader: ReadableStore = self.watched
        self.folder = folder / "mirror"
        self.mirror = self.open(A)

    def open(self, *pinned: SecretKey, folder: Path | None = None, accept_expired: bool = False) -> Mirror:
        """The mirror, started again with these keys; without one it believes everything."""
        return Mirror(
            folder or self.folder,
            self.reader,
            public_keys=[key.public for key in pinned],
            unsigned=not pinned,
            accept_expired=accept_expired,
            now=self.clock.wall,
            monotonic=self.clock.monotonic,
        )

    def publish(self, last: int, key: SecretKey | None = A, *, first: int = 0, keyframe: int = 0) -> Manifest:
        """Publish a database of the chain, signed."""
        manifest = self.chain.point(last, first=first, keyframe=keyframe, now=self.clock.now)
        if key is not None:
            self.sign(key)
        self.history.append(self.objects[POINTER_KEY])
        return manifest

    def forge(self, key: SecretKey | None = A, **changes: Any) -> None:
        """Publish the newest manifest once more, with these fields changed, signed."""
        self.chain.sequence += 1
        newest = parse_manifest(self.objects[POINTER_KEY])
        self.serve(replace_fields(newest, **{"sequence": self.chain.sequence, **changes}), key)

    def serve(self, manifest: Manifest, key: SecretKey | None = A) -> None:
        """Publish this manifest, whatever it says, signed."""
        self.chain.serve(manifest)
        if key is not None:
            self.sign(key)

    def sign(self, key: SecretKey) -> None:
        """Put a signature of what the pointer is now, whatever was there."""
        self.objects[self.signature_key()] = key.sign(self.objects[POINTER_KEY], COMMENT)

    def signature_key(self) -> str:
        return format_key(Kind.SIGNATURE, digest_bytes(self.objects[POINTER_KEY]))

    def hand_over(self, old: SecretKey, new: SecretKey) -> None:
        succession = sign_succession(old, new.public)
        name, signature_name = succession_keys(old.public.key_id)
        self.objects[name], self.objects[signature_name] = succession.stored, succession.signature

    def answer(self, key: str, **changes: Any) -> None:
        """Serve this object as it is but for these fields of `Answer`."""
        self.edge.answers[key] = replace(self.edge.answer(key), **changes)

    def sync(self) -> SyncResult:
        return self.mirror.sync()

    def serves(self, number: int) -> bool:
        return serves(self.mirror, self.chain.files[number])

    @contextmanager
    def attack(
        self, error: type[Exception], alarm: str, *, afterwards: str = "updated", republish: bool = False
    ) -> Iterator[None]:
        """What the body does is an attack: the next sync raises exactly this error, whose text matches.

        Nothing that is served has changed then, byte for byte; it answers, over old connections and new ones;
        nothing is left of what was fetched. When the body's changes are undone, the next sync does what it
        would have done (`afterwards`), and the newest honest database is served. `republish` says that this
        takes another publish, because the true key had signed the attack.
        """
        honest, now = {**self.objects}, self.clock.now
        newest = self.chain.pointed
        path, current = served_file(self.mirror), (self.folder / "current").read_bytes()
        content, generations = path.read_bytes(), self.generations()
        with closing(self.mirror.connect()) as before:
            (answer,) = before.execute(QUERY)
            yield
            with pytest.raises(error, match=alarm) as caught:
                self.sync()
            assert type(caught.value) is error
            assert served_file(self.mirror) == path
            assert (self.folder / "current").read_bytes() == current
            assert path.read_bytes() == content
            assert self.generations() == generations
            assert not (self.folder / "incoming").exists()
            assert before.execute(QUERY).fetchone() == answer
            with closing(self.mirror.connect()) as after:
                assert after.execute(QUERY).fetchone() == answer
        self.objects.clear()
        self.objects.update(honest)
        self.edge.answers.clear()
        self.clock.now, self.clock.step_s = now, 0.0
        if republish:
            self.publish(self.chain.files.index(newest))
        assert self.sync().outcome == afterwards
        assert serves(self.mirror, newest)

    def generations(self) -> list[str]:
        return sorted(path.name for path in (self.folder / "generations").iterdir())


@contextmanager
def serving(site: Site) -> Iterator[None]:
    """The mirror reads over HTTP, as the command line does, from a server that serves what `site` serves."""

    class Handler(_Handler):
        store = site.watched
        pause = staticmethod(site.clock.await_look)

    server = _Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    store = HttpStore(f"http://127.0.0.1:{server.server_address[1]}", clock=site.clock.monotonic)
    try:
        site.reader = RetryingReader(store, Backoff(attempts=3, sleep=lambda seconds: None))
        site.mirror = site.open(A)
        yield
    finally:
        store.close()
        server.shutdown()
        thread.join()
        server.server_close()


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """A client that has heard enough is no error; what a handler does wrong, the client sees."""


class _Handler(BaseHTTPRequestHandler):
    """GET as a server of a bucket answers it: whole or from a byte on, 304, 403, 404, 503."""

    store: FaultyStore
    pause: Callable[[], None]  # between pieces
    protocol_version = "HTTP/1.1"
    wbufsize = 0
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        if any(len(value) > _HEADER_MAX_BYTES for value in self.headers.values()):
            self._refuse(431)
            return
        key = self.path.removeprefix("/")
        asked = self.headers.get("Range", "bytes=0-")
        start = int(asked.removeprefix("bytes=").removesuffix("-"))
        try:
            if key == POINTER_KEY:
                reading = self.store.get_if_changed(key, self.headers.get("If-None-Match", ""))
            else:
                reading = self.store.get(key, start)
        except (ObjectMissing, AccessDenied, StoreUnavailable) as error:
            self._refuse({ObjectMissing: 404, AccessDenied: 403, StoreUnavailable: 503}[type(error)])
            return
        if reading is None:
            self.send_response(304)
            self.end_headers()
            return
        size_bytes = reading.info.size_bytes
        start = 0 if key == POINTER_KEY else start
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{size_bytes - 1}/{size_bytes}")
        self.send_header("Content-Length", str(size_bytes - start))
        self.send_header("ETag", reading.info.etag)
        self.end_headers()
        try:
            for piece in reading:
                self.wfile.write(piece)
                self.pause()
        except StoreUnavailable:
            self.close_connection = True

    def _refuse(self, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: the test says what went wrong."""


def later(**time: float) -> datetime:
    """So much after everything began."""
    return NOW + timedelta(**time)
