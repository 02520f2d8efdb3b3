"""A NAS for tests: a folder of music, the catalogue that knows it, and an origin in front of both."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest
from litestar import Litestar

from contracts.handles import format_handle
from contracts.tokens import create_origin_token
from origin import STREAM_PATH, create_app, serving
from origin.files import Files
from tests.origin.asgi import Answer, call

SECRET = "a secret of the tests, long enough"
NOW = 1_800_000_000  # 2027-01-15T08:00:00Z
FOREVER = 4_000_000_000  # For tests against a real server, whose clock is the machine's.

# The part of the source's schema that locates files (design, section 4).
SCHEMA = """
CREATE TABLE songs (
    id INTEGER PRIMARY KEY, platform, remote_song_id, name, singers, ext, file_size_bytes, metadata_json
);
CREATE TABLE storage_backends (id INTEGER PRIMARY KEY, name, backend_type, base_path, config_json);
CREATE TABLE file_assets (id INTEGER PRIMARY KEY, song_id, quality_label, ext, file_size_bytes);
CREATE TABLE file_locations (id INTEGER PRIMARY KEY, file_asset_id, backend_id, locator, status, is_primary);
"""


@dataclass
class Nas:
    """A folder with one backend, `nas-1`, whose root is `music`, and its catalogue."""

    folder: Path

    @property
    def music(self) -> Path:
        return self.folder / "music"

    @property
    def db_path(self) -> Path:
        return self.folder / "catalogsync.db"

    def connect(self) -> sqlite3.Connection:
        return sqlite3.connect(self.db_path, isolation_level=None)

    def add(
        self, locator: str, content: bytes | None = None, *, backend_id: int = 1, status: str = "active"
    ) -> str:
        """Catalogue a file, write it when there is content, and return its handle."""
        if content is not None:
            path = self.music / locator
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        size_bytes = len(content or b"")
        with closing(self.connect()) as connection:
            song_id = connection.execute("INSERT INTO songs(name) VALUES ('x')").lastrowid or 0
            asset_id = connection.execute(
                "INSERT INTO file_assets(song_id, file_size_bytes) VALUES (?, ?)", (song_id, size_bytes)
            ).lastrowid
            location_id = connection.execute(
                "INSERT INTO file_locations(file_asset_id, backend_id, locator, status) VALUES (?, ?, ?, ?)",
                (asset_id, backend_id, locator, status),
            ).lastrowid
        return format_handle(location_id or 0, song_id, asset_id or 0, size_bytes)

    def execute(self, statement: str, *values: object) -> None:
        with closing(self.connect()) as connection:
            connection.execute(statement, values)


@pytest.fixture(autouse=True)
def files_are_closed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """In-process applications have no shutdown: close their threads and connections after the test."""
    made: list[Files] = []

    class Recorded(Files):
        def __init__(self, db_path: Path, bound_roots: Mapping[str, Path], **settings: bool) -> None:
            super().__init__(db_path, bound_roots, **settings)
            made.append(self)

    monkeypatch.setattr("origin.app.Files", Recorded)
    yield
    for files in made:
        files.close()


@pytest.fixture
def nas(tmp_path: Path) -> Nas:
    return make_nas(tmp_path)


def make_nas(folder: Path) -> Nas:
    made = Nas(folder)
    made.music.mkdir()
    with closing(made.connect()) as connection:
        connection.executescript(SCHEMA)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute(
            "INSERT INTO storage_backends VALUES (1, 'nas-1', 'nas', ?, '{}')", (str(made.music),)
        )
    return made


@pytest.fixture
def app(nas: Nas) -> Litestar:
    """An origin for the NAS, at the second `NOW`."""
    return origin_app(nas)


def origin_app(nas: Nas, now: Callable[[], float] = lambda: NOW, **settings: object) -> Litestar:
    app = create_app(nas.db_path, nas.folder / "origin.env", clock=now, **settings)  # type: ignore[arg-type]
    app.state.private_origin_secret = SECRET
    return app


@pytest.fixture
def base_url(nas: Nas) -> Iterator[str]:
    """The address of a real server for the NAS, at the machine's time."""
    app = create_app(nas.db_path)
    app.state.private_origin_secret = SECRET
    with serving(app) as url:
        yield url


def link(locator: str, expires_at: int = NOW + 600, **claims: object) -> str:
    """The path of a stream link."""
    return STREAM_PATH + create_origin_token(SECRET, locator, expires_at, **claims)  # type: ignore[arg-type]


def stream(app: Litestar, locator: str, headers: dict[str, str] | None = None, method: str = "GET") -> Answer:
    """The answer to a request for a link to this locator, in-process."""
    return call(app, link(locator), headers or {}, method)


def content_of(size_bytes: int, seed: int = 1) -> bytes:
    """Bytes that are the same in every run and nowhere repeat."""
    return random.Random(seed).randbytes(size_bytes)
