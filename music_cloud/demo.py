"""The demo: the whole road on a sample catalogue, in one temporary folder, told as it happens.

Invariant: every line it prints was measured or compared in this very run; nothing is left behind.
"""

from __future__ import annotations

import secrets
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path

from contracts.best_source import FILE_COLUMNS, best_source
from contracts.errors import SignatureError
from contracts.layout import POINTER_KEY
from contracts.minisign import KEY_NUMBER_BYTES, SEED_BYTES, SecretKey
from contracts.tokens import create_origin_token
from mirror import Mirror
from music_cloud.sample import add_playable_tracks, create_catalogue, evolve
from music_cloud.screen import format_bytes
from origin import CATALOG_PATH, STREAM_PATH, create_app, serving
from publisher import PublishOptions, PublishResult, publish
from stores import FolderStore, HttpStore, RetryingReader

# What a page of the most played playlist asks for.
_QUERY = """SELECT name, singers FROM catalog_playlist_tracks JOIN catalog_tracks USING (song_id)
    WHERE playlist_id = (SELECT playlist_id FROM catalog_playlists ORDER BY play_count DESC LIMIT 1)
    ORDER BY ordinal LIMIT 20"""


def run_demo(songs: int, say: Callable[[str], None]) -> None:
    """Publish a catalogue, mirror it, swap it under a reader, and play a track that is only on the NAS."""
    with tempfile.TemporaryDirectory(prefix="music-cloud-demo-") as folder:
        _run(_Nas(Path(folder), songs), say)


class _Nas:
    """The machine with the music: a catalogue, audio files, a bucket in a folder, a secret and a key."""

    def __init__(self, folder: Path, songs: int) -> None:
        self.folder = folder
        self.catalogue = folder / "catalogsync.db"
        self.music = folder / "volume1" / "music"
        self.bucket = folder / "bucket"
        self.secret = secrets.token_urlsafe(32)
        self.key = SecretKey(secrets.token_bytes(KEY_NUMBER_BYTES), secrets.token_bytes(SEED_BYTES))
        create_catalogue(self.catalogue, songs=songs)
        self.track = max(add_playable_tracks(self.catalogue, self.music), key=lambda track: track.size_bytes)

    def publish(self) -> PublishResult:
        options = PublishOptions(signing_key=self.key)
        return publish(self.catalogue, FolderStore(self.bucket), self.folder / "state", options)

    def origin(self) -> AbstractContextManager[str]:
        """Serve the bucket and the audio files; gives the base URL."""
        app = create_app(self.catalogue, roots={"nas-1": self.music}, catalog=self.bucket)
        app.state.private_origin_secret = self.secret
        return serving(app)


def _run(nas: _Nas, say: Callable[[str], None]) -> None:
    say("1. A NAS: a catalogue full of paths and secrets, and audio files")
    say(f"   {format_bytes(nas.catalogue.stat().st_size)} of SQLite; only here: {nas.track.path.name}")

    say("2. publish: export, compress, name by digest, upload, sign, move the pointer last")
    first = nas.publish()
    say(
        f"   snapshot {first.manifest.sequence}: {first.manifest.track_count:,} tracks, a database of "
        f"{format_bytes(first.manifest.database.size_bytes)} in {format_bytes(first.sent_bytes)}, "
        f"{first.seconds:.1f} s"
    )
    again = nas.publish()
    say(f"   published again without a change: {again.outcome}, {again.sent_bytes} bytes sent")

    with nas.origin() as url:
        say(f"3. mirror, on the website's server: over HTTP from {url}{CATALOG_PATH}")
        public_key = nas.key.public.line
        say(f"   it pins the public key {public_key[:12]}…")
        mirror = Mirror(
            nas.folder / "mirror", RetryingReader(HttpStore(url + CATALOG_PATH)), public_keys=[public_key]
        )
        synced = mirror.sync()
        digest = synced.current.database.digest
        say(f"   snapshot {synced.current.sequence}, verified against {digest[:12]}…, {synced.seconds:.1f} s")
        _verify(synced.signed_by == nas.key.public.key_id, "the mirror believed another key")
        _refuse_forgery(nas, mirror, say)

        say("4. an hour passes on the NAS; publish, and swap the mirror under the running website")
        changes = evolve(nas.catalogue, churn="hour", seed=1)
        second = nas.publish()
        with _website(mirror) as website:
            website.wait_for(first.manifest.sequence)
            mirror.sync()
            website.wait_for(second.manifest.sequence)
        say(
            f"   {changes.songs_added} songs added, {changes.songs_changed} changed; snapshot "
            f"{second.manifest.sequence}; {format_bytes(second.sent_bytes)} sent"
        )
        say(f"   the website ran {website.queries:,} queries meanwhile, {website.failures} failed")
        _verify(website.failures == 0, "a query failed during the swap")

        say("5. a listener plays a track that only the NAS has, through a signed link")
        _listen(nas, mirror, url, say)


def _refuse_forgery(nas: _Nas, mirror: Mirror, say: Callable[[str], None]) -> None:
    """Change one letter of the manifest, as whoever can write to the bucket could."""
    pointer = nas.bucket / POINTER_KEY
    signed = pointer.read_bytes()
    pointer.write_bytes(signed.replace(b"snap-playlists", b"snap-forgeries", 1))
    try:
        mirror.sync()
    except SignatureError:
        say(f"   signed by key {nas.key.public.key_id}; a forged manifest is refused, and the site stays")
    else:
        _verify(False, "the mirror believed a forged manifest")
    finally:
        pointer.write_bytes(signed)


def _listen(nas: _Nas, mirror: Mirror, url: str, say: Callable[[str], None]) -> None:
    now = time.time()
    with closing(mirror.connect()) as connection:
        (metadata_json,) = connection.execute(
            "SELECT metadata_json FROM catalog_tracks WHERE song_id = ?", (nas.track.song_id,)
        ).fetchone()
        files = connection.execute(
            "SELECT * FROM catalog_track_files WHERE song_id = ?", (nas.track.song_id,)
        ).fetchall()
    link = best_source(files, metadata_json, secret=nas.secret, origin_url=url, now=now)
    _verify(link is not None, "the mirror knows no file of the track")
    token = str(link).rpartition("/")[2]
    say(f"   the website signs {files[0][FILE_COLUMNS.index('locator')]}: …{STREAM_PATH}{token[:12]}…")

    content = nas.track.path.read_bytes()
    middle = len(content) // 2
    for title, header, expected in (
        ("the first two bytes", "bytes=0-1", content[:2]),
        ("a seek to the middle", f"bytes={middle}-{middle + 0xFFFF}", content[middle : middle + 0x10000]),
        ("the whole file", "", content),
    ):
        status, body = _get(str(link), header)
        _verify(body == expected, f"{title} came wrong")
        say(f"   {title}: {status}, {format_bytes(len(body))}, byte for byte")
    tampered = f"{url}{STREAM_PATH}{token[:-1]}{'A' if token[-1] != 'A' else 'B'}"
    locator = files[0][FILE_COLUMNS.index("locator")]
    expired = f"{url}{STREAM_PATH}{create_origin_token(nas.secret, locator, int(now) - 1)}"
    for title, refused, wanted in (("a tampered", tampered, 401), ("an expired", expired, 410)):
        status, body = _get(refused)
        _verify(status == wanted, f"{title} link was answered {status}")
        say(f"   {title} link: {status} {body.decode()}")


def _get(url: str, range_header: str = "") -> tuple[int, bytes]:
    request = urllib.request.Request(url, headers={"Range": range_header} if range_header else {})
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def _verify(fine: bool, complaint: str) -> None:
    if not fine:
        raise RuntimeError(complaint)


class _Website:
    """Queries a mirror from a thread of its own, as a web application would."""

    def __init__(self, mirror: Mirror) -> None:
        self.queries = 0
        self.failures = 0
        self._mirror = mirror
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
                    connection.execute(_QUERY).fetchall()
            except Exception:
                self.failures += 1
            else:
                self.queries += 1
                with self._moved:
                    self._sequence = current.sequence if current else 0
                    self._moved.notify_all()


@contextmanager
def _website(mirror: Mirror) -> Iterator[_Website]:
    website = _Website(mirror)
    website.thread.start()
    try:
        yield website
    finally:
        website.stop()
