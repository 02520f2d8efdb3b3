"""Real audio for the tracks that exist nowhere but on the NAS.

Invariant: what the catalogue says about a playable track is true, byte for byte: the file is at its locator
beneath the root, has the size and the duration in the rows, and its only active location is the NAS. The
files are complete before the rows that name them are committed.
"""

import json
import math
import sqlite3
import wave
from array import array
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Final

from music_cloud.sample.catalogue import open_catalogue
from music_cloud.sample.playlists import NAS_BACKEND_NAME
from music_cloud.sample.songs import LOCAL_PLATFORM, R2_PUBLIC, next_id

PLAYABLE_PLAYLIST: Final = "NAS 试听"

_CHANNELS: Final = 2
_SAMPLE_BYTES: Final = 2
_FRAME_BYTES: Final = _CHANNELS * _SAMPLE_BYTES
_NOTE_S: Final = 0.3

# I-V-vi-IV in C major as MIDI notes: a bass and four notes of an arpeggio per chord.
_CHORDS: Final = (
    (48, (60, 64, 67, 72)),
    (43, (62, 67, 71, 74)),
    (45, (60, 64, 69, 72)),
    (41, (60, 65, 69, 72)),
)
_NOTES_PER_CHORD: Final = 8


@dataclass(frozen=True, slots=True)
class PlayableTrack:
    """A song of the catalogue with a real file at ``path``."""

    song_id: int
    name: str
    path: Path
    size_bytes: int


@dataclass(frozen=True, slots=True)
class _Recording:
    name: str
    singers: str
    locator: str
    seconds: int


# One is large enough for seeking to matter; between them the locators need percent-encoding in every way
# that Windows, too, allows in a file name.
_RECORDINGS: Final = (
    _Recording("长夜漫步", "示例乐队", "示例乐队/试听 专辑/01 长夜漫步.wav", 240),
    _Recording("晨光 #1", "示例乐队", "示例乐队/试听 专辑/02 晨光 #1.wav", 12),
    _Recording("百分之百 100%", "示例乐队", "示例乐队/试听 专辑/03 百分之百 100%.wav", 8),
    _Recording("Morning Rain & You", "Sample Band", "Sample Band/First Light/04 Morning Rain & You.wav", 5),
)


def write_wav(path: Path, *, seconds: float, seed: int, sample_rate: int = 44100) -> None:
    """Write a 16-bit stereo PCM file with a melody that the seed decides.

    Raises ``ValueError`` when the duration or the rate is not positive, ``OSError`` from the file system.
    """
    if seconds <= 0 or sample_rate <= 0:
        raise ValueError(f"a recording needs a positive duration and rate, found {seconds} and {sample_rate}")
    frames_left = round(seconds * sample_rate)
    with wave.open(str(path), "wb") as out:
        out.setnchannels(_CHANNELS)
        out.setsampwidth(_SAMPLE_BYTES)
        out.setframerate(sample_rate)
        out.setnframes(frames_left)
        for note in _melody(Random(seed), sample_rate):
            frames = len(note) // _FRAME_BYTES
            if frames >= frames_left:
                out.writeframesraw(note[: frames_left * _FRAME_BYTES])
                return
            out.writeframesraw(note)
            frames_left -= frames


def add_playable_tracks(catalogue: Path, root: Path, *, seed: int = 1) -> list[PlayableTrack]:
    """Add four NAS-only songs with real files beneath ``root``, in a playlist ``PLAYABLE_PLAYLIST``.

    Raises ``FileNotFoundError`` without a catalogue, ``ValueError`` when it has no backend ``nas-1`` or has
    the tracks already, ``OSError`` and ``sqlite3.Error`` when something cannot be written.
    """
    with closing(open_catalogue(catalogue)) as connection:
        connection.execute("BEGIN IMMEDIATE")  # rolled back by close() if anything below raises
        backend = connection.execute(
            "SELECT id FROM storage_backends WHERE name = ?", (NAS_BACKEND_NAME,)
        ).fetchone()
        if backend is None:
            raise ValueError(f"{catalogue} has no storage backend named {NAS_BACKEND_NAME}")
        if connection.execute("SELECT 1 FROM playlists WHERE platform = ?", (LOCAL_PLATFORM,)).fetchone():
            raise ValueError(f"{catalogue} has playable tracks already")
        tracks = []
        for number, recording in enumerate(_RECORDINGS):
            path = root.joinpath(*recording.locator.split("/"))
            path.parent.mkdir(parents=True, exist_ok=True)
            write_wav(path, seconds=recording.seconds, seed=seed + number)
            size_bytes = path.stat().st_size
            song_id = _insert_song(connection, recording, size_bytes, backend[0], number)
            tracks.append(PlayableTrack(song_id, recording.name, path, size_bytes))
        _insert_playlist(connection, [track.song_id for track in tracks])
        connection.execute("COMMIT")
    return tracks


def _insert_song(
    connection: sqlite3.Connection, recording: _Recording, size_bytes: int, backend_id: int, number: int
) -> int:
    song_id, asset_id = next_id(connection, "songs"), next_id(connection, "file_assets")
    location_id = next_id(connection, "file_locations")
    album = recording.locator.split("/")[1]
    metadata = {"duration": recording.seconds, "album": album, "bitrate": 1411, "lang": "zh"}
    connection.execute(
        "INSERT INTO songs VALUES (?, ?, ?, ?, ?, 'wav', ?, ?)",
        (
            song_id,
            LOCAL_PLATFORM,
            f"nas-{number + 1}",
            recording.name,
            recording.singers,
            size_bytes,
            json.dumps(metadata, ensure_ascii=False),
        ),
    )
    connection.execute(
        "INSERT INTO file_assets VALUES (?, ?, 'lossless', 'wav', ?)", (asset_id, song_id, size_bytes)
    )
    insert_location = "INSERT INTO file_locations VALUES (?, ?, ?, ?, ?, ?)"
    connection.execute(insert_location, (location_id, asset_id, backend_id, recording.locator, "active", 1))
    if number == 1:  # was in the public bucket once: a deleted location must not make a track public
        connection.execute(
            insert_location, (location_id + 1, asset_id, R2_PUBLIC, recording.locator, "deleted", 0)
        )
    return song_id


def _insert_playlist(connection: sqlite3.Connection, song_ids: list[int]) -> None:
    playlist_id = next_id(connection, "playlists")
    connection.execute(
        "INSERT INTO playlists VALUES (?, ?, 'nas-preview', ?, ?, NULL, 0, ?)",
        (playlist_id, LOCAL_PLATFORM, PLAYABLE_PLAYLIST, "只在 NAS 上的曲目", len(song_ids)),
    )
    connection.executemany(
        "INSERT INTO playlist_songs VALUES (?, ?, ?)",
        [(playlist_id, song_id, position) for position, song_id in enumerate(song_ids, start=1)],
    )


def _melody(rng: Random, sample_rate: int) -> Iterator[bytes]:
    """Endless notes; sixteen are synthesized once and then only repeated, so length costs only disk."""
    transpose = rng.randrange(-4, 5)
    bars = [
        [_note(sample_rate, bass + transpose, treble + transpose) for treble in trebles]
        for bass, trebles in _CHORDS
    ]
    while True:
        for bar in bars:
            step = rng.randrange(len(bar))
            for _ in range(_NOTES_PER_CHORD):
                yield bar[step]
                step = (step + rng.choice((-1, 1, 1, 2))) % len(bar)


def _note(sample_rate: int, bass: int, treble: int) -> bytes:
    """A pluck over a soft bass, interleaved stereo; it starts and ends at zero, so notes join silently."""
    frames = max(1, round(_NOTE_S * sample_rate))
    low = math.tau * 440 * 2 ** ((bass - 69) / 12) / sample_rate
    high = math.tau * 440 * 2 ** ((treble - 69) / 12) / sample_rate
    samples = array("h", bytes(frames * _FRAME_BYTES))
    for n in range(frames):
        t = n / frames
        fade = min(1.0, t * 40) * min(1.0, (1 - t) * 12)
        pluck = math.exp(-3.5 * t) * (math.sin(high * n) + 0.35 * math.sin(2 * high * n))
        hum = 0.5 * math.sin(low * n)
        samples[2 * n] = int(fade * 9_000 * (pluck + 0.8 * hum))
        samples[2 * n + 1] = int(fade * 9_000 * (0.8 * pluck + hum))
    return samples.tobytes()  # in native order; wave swaps on big-endian machines
