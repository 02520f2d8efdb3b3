"""The demo: the whole road on a sample catalogue, in one temporary folder, told as it happens.

Invariant: every line it prints was measured or compared in this very run; nothing is left behind.
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from mirror import Mirror
from music_cloud.sample import create_catalogue, evolve
from music_cloud.screen import format_bytes
from publisher import publish
from stores import FolderStore, HttpStore, RetryingReader

_QUERY = """SELECT name, singers FROM catalog_playlist_tracks JOIN catalog_tracks USING (song_id)
    WHERE playlist_id = ? ORDER BY ordinal LIMIT 20"""


def run_demo(songs: int, say: Callable[[str], None]) -> None:
    """Make a catalogue, publish it, mirror it over HTTP, change it, and swap it under a reader."""
    with tempfile.TemporaryDirectory(prefix="music-cloud-demo-") as folder:
        _run(Path(folder), songs, say)


def _run(folder: Path, songs: int, say: Callable[[str], None]) -> None:
    catalogue, bucket, state = folder / "catalogsync.db", folder / "bucket", folder / "state"
    say(f"1. A NAS with a catalogue of {songs:,} songs")
    create_catalogue(catalogue, songs=songs)
    say(f"   {format_bytes(catalogue.stat().st_size)} of SQLite, with paths and secrets in it")

    say("2. publish: export, compress, name by digest, upload, move the pointer last")
    first = publish(catalogue, FolderStore(bucket), state)
    say(
        f"   snapshot {first.manifest.sequence}: a database of "
        f"{format_bytes(first.manifest.database.size_bytes)} in {format_bytes(first.sent_bytes)}, "
        f"{first.sent_objects} objects, {first.seconds:.1f} s"
    )
    again = publish(catalogue, FolderStore(bucket), state)
    say(f"   published again without a change: {again.outcome}, {again.sent_bytes} bytes sent")

    with _served(bucket) as url:
        say(f"3. mirror: over HTTP from {url}")
        mirror = Mirror(folder / "mirror", RetryingReader(HttpStore(url)))
        synced = mirror.sync()
        say(
            f"   snapshot {synced.current.sequence}, verified against "
            f"{synced.current.database.digest[:12]}…, {synced.seconds:.1f} s"
        )
        with closing(mirror.connect()) as connection:
            (playlist, name) = connection.execute(
                "SELECT playlist_id, name FROM catalog_playlists ORDER BY play_count DESC LIMIT 1"
            ).fetchone()
            for track, singers in connection.execute(_QUERY, (playlist,)).fetchmany(3):
                say(f"   {name}: {track} – {singers}")

        say("4. an hour passes on the NAS; publish, and swap the mirror under a running website")
        changes = evolve(catalogue, churn="hour", seed=1)
        second = publish(catalogue, FolderStore(bucket), state)
        with _website(mirror, playlist) as website:
            website.wait_for(first.manifest.sequence)
            mirror.sync()
            website.wait_for(second.manifest.sequence)
        say(
            f"   {changes.songs_added} songs added, {changes.songs_changed} changed; snapshot "
            f"{second.manifest.sequence}; {format_bytes(second.sent_bytes)} sent"
        )
        say(f"   the website ran {website.queries:,} queries meanwhile, {website.failures} failed")
        if website.failures:
            raise RuntimeError("a query failed during the swap")


@contextmanager
def _served(folder: Path) -> Iterator[str]:
    """Serve the files of a folder over HTTP on a free port of this machine."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_QuietHandler, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Nothing: the demo tells its own story."""


class _Website:
    """Queries a mirror from a thread of its own, as a web application would."""

    def __init__(self, mirror: Mirror, playlist_id: int) -> None:
        self.queries = 0
        self.failures = 0
        self._mirror = mirror
        self._playlist_id = playlist_id
        self._stop = threading.Event()
        self._sequence = 0
        self._moved = threading.Condition()
        self.thread = threading.Thread(target=self._run)

    def wait_for(self, sequence: int) -> None:
        """Return when a query was answered by that snapshot or a later one."""
        with self._moved:
            if not self._moved.wait_for(lambda: self._sequence >= sequence, timeout=30):
                raise RuntimeError("the website never saw the new snapshot")

    def stop(self) -> None:
        self._stop.set()
        self.thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                current = self._mirror.current()
                with closing(self._mirror.connect()) as connection:
                    connection.execute(_QUERY, (self._playlist_id,)).fetchall()
            except Exception:
                self.failures += 1
            else:
                self.queries += 1
                with self._moved:
                    self._sequence = current.sequence if current else 0
                    self._moved.notify_all()


@contextmanager
def _website(mirror: Mirror, playlist_id: int) -> Iterator[_Website]:
    website = _Website(mirror, playlist_id)
    website.thread.start()
    try:
        yield website
    finally:
        website.stop()
