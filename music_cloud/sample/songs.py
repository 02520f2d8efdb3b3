"""Songs with their files: what one new song brings into ``songs``, ``file_assets`` and ``file_locations``.

Invariant: rows are a function of the random generator and of the first ids, nothing else, and at most
``FLUSH_SONGS`` songs are ever held. Every awkward kind of metadata comes at a fixed distance, so that a
catalogue of a few thousand songs is sure to hold all of them.
"""

import sqlite3
from random import Random
from typing import Final

from music_cloud.sample.titles import build_pools

PLATFORMS: Final = ("qq", "netease", "kugou", "kuwo", "migu")

R2_PUBLIC: Final = 1
PRIVATE_BUCKET: Final = 2
NAS: Final = 3

# Songs that nobody fetched from a platform: real files on the NAS, which churn leaves alone.
LOCAL_PLATFORM: Final = "local"

SECRET_MARKER: Final = "SECRET-MARKER"

# Large enough that executemany dominates, small enough to be nothing next to SQLite's cache.
FLUSH_SONGS: Final = 5_000

# One song in so many, at a fixed remainder.
_NULL_METADATA_EVERY: Final = 50
_SECRET_EVERY: Final = 100
_INVALID_JSON_EVERY: Final = 1_000
_NULL_SIZE_EVERY: Final = 500

# What scrapers and downloaders really leave in metadata, one of them nested, two of them places.
_SECRETS: Final = (
    '"cookie": "MUSIC_U={value}; __csrf=5b1c"',
    '"access_token": "{value}"',
    '"localPath": "/volume1/music/{value}/01.flac"',
    '"authorization": "Bearer {value}"',
    '"source": {{"cookie": "uin={value}"}}',
    '"localPath": "D:\\\\Music\\\\{value}"',
)
_GENRES: Final = ("流行", "摇滚", "民谣", "电子", "说唱", "古风", "R&B", "Jazz", "Pop", "Folk")

_BASE62: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
# 4,096 different chunks of four characters: twelve bits of a key become a piece of a QQ songmid by look-up.
_CHUNKS: Final = tuple(
    _BASE62[n % 62] + _BASE62[n * 7 % 62] + _BASE62[n // 62 % 62] + _BASE62[n // 3844] for n in range(4096)
)

_INSERT_SONGS: Final = "INSERT INTO songs VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
_INSERT_ASSETS: Final = "INSERT INTO file_assets VALUES (?, ?, ?, ?, ?)"
_INSERT_LOCATIONS: Final = "INSERT INTO file_locations VALUES (?, ?, ?, ?, ?, ?)"

_SongRow = tuple[int, str, str, str, str, str, int | None, str | None]
_AssetRow = tuple[int, int, str, str, int]
_LocationRow = tuple[int, int, int, str, str, int]


class SongWriter:
    """Composes new songs and writes them in batches; ids go on from the largest ones, as SQLite's do."""

    def __init__(self, connection: sqlite3.Connection, rng: Random) -> None:
        self._connection = connection
        self._rng = rng
        self._pools = build_pools()
        self._song_id = next_id(connection, "songs")
        self._asset_id = next_id(connection, "file_assets")
        self._location_id = next_id(connection, "file_locations")
        # A salt, so that a reused song id does not bring back the remote id of the song that is gone.
        self._salt = rng.getrandbits(64)
        self._songs: list[_SongRow] = []
        self._assets: list[_AssetRow] = []
        self._locations: list[_LocationRow] = []

    def add(self) -> int:
        """Compose one song and return its id; it reaches the database with the next ``flush``."""
        random = self._rng.random
        pools = self._pools
        song_id = self._song_id
        self._song_id += 1

        u = random()
        singer_index = int(u * u * len(pools.singers))
        lead, lang = pools.singers[singer_index]
        singers = lead
        if random() < 0.08:
            singers = f"{lead}/{pools.singers[int(random() * 400)][0]}"
        titles = pools.titles[lang]
        title = titles[int(random() * len(titles))] + pools.suffixes[int(random() * len(pools.suffixes))]
        # A singer has seven albums, so files of one album share a folder as they do on a real disk.
        album_index = (singer_index * 7 + int(random() * 7)) * 7919
        album = titles[album_index % len(titles)]

        platform, remote_id = self._platform_and_remote_id(song_id)
        duration_s = 120 + int((random() + random()) * 110)
        ext, quality, kbps = self._format()
        size_bytes = duration_s * kbps * 125 + int(random() * 60_000)
        stored_size = None if song_id % _NULL_SIZE_EVERY == 3 else size_bytes
        metadata = self._metadata(song_id, duration_s, album, album_index, kbps, lang)
        self._songs.append((song_id, platform, remote_id, title, singers, ext, stored_size, metadata))

        folder = f"{lead}/{album}/{int(random() * 12) + 1:02d} {title}"
        key = f"{lead}/{title}-{song_id}" if random() < 0.4 else remote_id
        self._add_asset(song_id, quality, ext, size_bytes, folder, f"{platform}/{quality}/{key}")
        if random() < 0.3:
            size_bytes = duration_s * 128 * 125 + int(random() * 60_000)
            self._add_asset(
                song_id, "standard", "mp3", size_bytes, f"{folder} [128k]", f"{platform}/standard/{key}"
            )
        return song_id

    def flush(self) -> None:
        """Write what was composed since the last time."""
        for statement, rows in (
            (_INSERT_SONGS, self._songs),
            (_INSERT_ASSETS, self._assets),
            (_INSERT_LOCATIONS, self._locations),
        ):
            self._connection.executemany(statement, rows)
            rows.clear()

    def _platform_and_remote_id(self, song_id: int) -> tuple[str, str]:
        # An odd multiplier and a salt permute 2**64, and so the low bits too: no two songs share a remote id.
        key = (song_id * 0x9E3779B97F4A7C15 ^ self._salt) & 0xFFFF_FFFF_FFFF_FFFF
        u = self._rng.random()
        if u < 0.30:
            return "qq", f"00{_CHUNKS[key & 4095]}{_CHUNKS[key >> 12 & 4095]}{_CHUNKS[key >> 24 & 4095]}"
        if u < 0.65:
            return "netease", str(key & 0x7FFF_FFFF)
        if u < 0.80:
            return "kugou", f"{key:016X}{self._rng.getrandbits(64):016X}"
        if u < 0.92:
            return "kuwo", str(key & 0x1FFF_FFFF)
        return "migu", f"6{key & 0x1_FFFF_FFFF:010d}"

    def _format(self) -> tuple[str, str, int]:
        """Extension, quality label and kbit/s; FLAC's rate depends on the music, the others' do not."""
        u = self._rng.random()
        if u < 0.35:
            return "flac", "lossless", 700 + int(self._rng.random() * 500)
        if u < 0.80:
            return "mp3", "high", 320
        if u < 0.96:
            return "m4a", "high", 256
        return "wav", "lossless", 1411

    def _metadata(
        self, song_id: int, duration_s: int, album: str, album_index: int, kbps: int, lang: str
    ) -> str | None:
        if song_id % _NULL_METADATA_EVERY == 29:
            return None
        year, month, day = 1988 + album_index % 37, album_index % 12 + 1, album_index % 28 + 1
        metadata = (
            f'{{"duration": {duration_s}, "album": "{album}", "bitrate": {kbps}, "lang": "{lang}", '
            f'"genre": "{_GENRES[album_index % 10]}", "released": "{year}-{month:02d}-{day:02d}"}}'
        )
        if song_id % _SECRET_EVERY == 13:
            secret = _SECRETS[song_id // _SECRET_EVERY % len(_SECRETS)]
            return f"{metadata[:-1]}, {secret.format(value=f'{SECRET_MARKER}-{song_id}')}}}"
        if song_id % _INVALID_JSON_EVERY == 7:
            return metadata[:-9]  # cut off in the middle, as by a column that was once too short
        return metadata

    def _add_asset(
        self, song_id: int, quality: str, ext: str, size_bytes: int, folder_path: str, key: str
    ) -> None:
        random = self._rng.random
        asset_id = self._asset_id
        self._asset_id += 1
        self._assets.append((asset_id, song_id, quality, ext, size_bytes))

        u = random()
        backend_id = R2_PUBLIC if u < 0.5 else PRIVATE_BUCKET if u < 0.62 else NAS
        self._add_location(asset_id, backend_id, f"{folder_path if backend_id == NAS else key}.{ext}", 1)
        if random() < 0.2:
            if backend_id == NAS:
                self._add_location(asset_id, R2_PUBLIC, f"{key}.{ext}", 0)
            else:
                self._add_location(asset_id, NAS, f"{folder_path}.{ext}", 0)

    def _add_location(self, asset_id: int, backend_id: int, locator: str, is_primary: int) -> None:
        u = self._rng.random()
        status = "active" if u < 0.94 else "missing" if u < 0.97 else "deleted"
        self._locations.append((self._location_id, asset_id, backend_id, locator, status, is_primary))
        self._location_id += 1


def next_id(connection: sqlite3.Connection, table: str) -> int:
    """The id SQLite would give the next row: one more than the largest, so a deleted one can come back."""
    largest: int | None = connection.execute(f"SELECT max(id) FROM {table}").fetchone()[0]
    return (largest or 0) + 1
