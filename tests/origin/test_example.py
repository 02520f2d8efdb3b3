"""The example in the docs: from a mirrored row to the bytes on the NAS."""

from __future__ import annotations

import importlib.util
import os
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import ModuleType

import pytest

from contracts.read_model import INDEXES, TABLES
from mirror import Mirror
from music_cloud.sample import add_playable_tracks
from origin import CATALOG_PATH, STREAM_PATH, create_app, serving
from publisher import publish
from stores import FolderStore, HttpStore
from tests.origin.conftest import FOREVER, SECRET, Nas, content_of, link

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "website.py"


@pytest.fixture
def website() -> ModuleType:
    spec = importlib.util.spec_from_file_location("website", EXAMPLE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def read_model() -> Iterator[sqlite3.Connection]:
    """What `Mirror.connect()` gives: a connection to a read model."""
    with closing(sqlite3.connect(":memory:")) as connection:
        for statement in (*TABLES.values(), *INDEXES.values()):
            connection.execute(statement)
        yield connection


def test_website_plays_what_is_only_on_the_nas(
    website: ModuleType, read_model: sqlite3.Connection, nas: Nas, base_url: str
) -> None:
    content = content_of(1000)
    handle = nas.add("歌手/首.flac", content)
    read_model.execute(
        "INSERT INTO catalog_tracks(song_id, name, ext, metadata_json) VALUES (1, '首/x', 'flac', ?)",
        ('{"duration": 200}',),
    )
    read_model.execute(
        "INSERT INTO catalog_track_files(location_id, song_id, locator, status) VALUES (1, 1, ?, 'active')",
        (handle,),
    )
    url = website.playable_url(read_model, 1, secret=SECRET, origin_url=base_url, now=time.time())
    with urllib.request.urlopen(url, timeout=20) as response:
        assert content == response.read()
        assert "%E9%A6%96%20x.flac" in response.headers["Content-Disposition"]
    assert website.playable_url(read_model, 2, secret=SECRET, origin_url=base_url, now=0) is None


def test_refusals_of_a_tampered_and_an_expired_link(nas: Nas, base_url: str) -> None:
    handle = nas.add("a.mp3", b"x")
    for path, status in ((link(handle, FOREVER) + "A", 401), (link(handle, 1), 410)):
        with pytest.raises(urllib.error.HTTPError) as refusal:
            urllib.request.urlopen(base_url + path, timeout=20)
        with refusal.value as answer:
            assert (status, "no-store") == (answer.code, answer.headers["Cache-Control"])


def test_whole_road_from_the_catalogue_to_the_listener(catalogue: Path, tmp_path: Path) -> None:
    """Published, mirrored over the origin's own catalog, run as the program that the docs show."""
    track = add_playable_tracks(catalogue, tmp_path / "music")[1]
    publish(catalogue, FolderStore(tmp_path / "bucket"), tmp_path / "state")
    app = create_app(catalogue, roots={"nas-1": tmp_path / "music"}, catalog=tmp_path / "bucket")
    app.state.private_origin_secret = SECRET
    with serving(app) as url, closing(HttpStore(url + CATALOG_PATH)) as store:
        Mirror(tmp_path / "mirror", store, unsigned=True).sync()
        printed = subprocess.run(
            [sys.executable, str(EXAMPLE), str(tmp_path / "mirror"), str(track.song_id), url],
            input=SECRET,
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONPATH": str(EXAMPLE.parents[2])},
        ).stdout
        assert printed.startswith(f"{url}{STREAM_PATH}")
        with urllib.request.urlopen(printed.strip(), timeout=20) as response:
            assert track.path.read_bytes() == response.read()
