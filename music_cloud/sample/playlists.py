"""Playlists, their entries, the pools that group playlists, and the storage backends.

Invariant: every catalogue, however small, holds at least one of each thing a naive export trips over:
entries whose song or playlist is gone, positions that are NULL, doubled or skipped, the same entry twice,
a toplist with two playlists, and two pools that claim the same toplist.
"""

import json
import sqlite3
from collections.abc import Iterator
from random import Random
from typing import Final

from music_cloud.sample.popularity import Popularity
from music_cloud.sample.songs import NAS, PLATFORMS, PRIVATE_BUCKET, R2_PUBLIC
from music_cloud.sample.titles import build_pools

PUBLIC_BASE_URL: Final = "https://media.example.com/audio/"
NAS_BACKEND_NAME: Final = "nas-1"

# Far above every id that growth can reach, so what dangles today still dangles after a year of churn.
DANGLING_ID: Final = 2_000_000_000

_SONGS_PER_PLAYLIST: Final = 50
_ENTRIES_PER_SONG: Final = 2
_FEWEST_PLAYLISTS: Final = 3
_GOLDEN_FRACTION: Final = 0.6180339887498949
# u**7 has the mean 1/8: most playlists are short, the longest eight times the mean.
_SIZE_EXPONENT: Final = 7

_TOPLISTS: Final = ("热歌榜", "新歌榜", "飙升榜", "原创榜")
_CATEGORIES: Final = ("华语", "欧美", "粤语", "民谣", "电子", "影视原声")

_PoolRow = tuple[int, str, str, str, str, str, str | None]


def playlist_count(songs: int) -> int:
    return max(_FEWEST_PLAYLISTS, songs // _SONGS_PER_PLAYLIST)


def playlist_rows(rng: Random, songs: int) -> Iterator[tuple[object, ...]]:
    """Rows of ``playlists``; play counts follow Zipf's law over the popularity rank."""
    names = build_pools().playlist_names
    count = playlist_count(songs)
    popularity = Popularity(count)
    for playlist_id in range(1, count + 1):
        platform = PLATFORMS[(playlist_id - 1) % len(PLATFORMS)]
        remote_id = str(rng.getrandbits(33))
        name = f"{names[int(rng.random() * len(names))]} Vol.{int(rng.random() * 40) + 1}"
        kind = rng.random()
        cover = f"https://p{remote_id[-1]}.music.example.net/{platform}/cover/{rng.getrandbits(64):016x}.jpg"
        play_count = int(800_000_000 / (1 + popularity.rank(playlist_id)) * (0.7 + 0.6 * rng.random()))
        yield (
            playlist_id,
            platform,
            remote_id,
            name,
            f"{name}:每周更新,收录 {int(rng.random() * 90) + 10} 首好歌" if kind < 0.6 else None,
            cover if kind < 0.93 else "" if kind < 0.96 else None,
            None if playlist_id % 50 == 2 else play_count,
            None if playlist_id % 40 == 3 else int(rng.random() * 300),
        )


def entry_rows(rng: Random, songs: int) -> Iterator[tuple[int, int, int | None]]:
    """Rows of ``playlist_songs``: about two per song, popular songs in many playlists."""
    random = rng.random
    count = playlist_count(songs)
    popularity = Popularity(songs)
    scale = (_SIZE_EXPONENT + 1) * _ENTRIES_PER_SONG * songs / count
    phase = random()
    for playlist_id in range(1, count + 1):
        # Steps of the golden ratio fill the unit interval evenly: the total comes out right for any count.
        size = int(scale * ((playlist_id * _GOLDEN_FRACTION + phase) % 1.0) ** _SIZE_EXPONENT)
        seen: set[int] = set()
        position = 0
        for _ in range(max(1, size)):
            song_id = popularity.pick(rng)
            if song_id in seen:  # the popular ones are in already; what is left of the dice may stay doubled
                song_id = 1 + int(random() * songs)
            seen.add(song_id)
            u = random()
            if u > 0.012:
                position += 1
                yield playlist_id, song_id, position
            elif u > 0.009:
                yield playlist_id, song_id, None
            elif u > 0.004:
                yield playlist_id, song_id, max(1, position)
            elif u > 0.001:
                position += 4
                yield playlist_id, song_id, position
            else:
                position += 1
                yield playlist_id, DANGLING_ID + song_id, position
    yield from (
        (1, DANGLING_ID, 1),
        (DANGLING_ID, 1, 1),
        (1, 1, None),
        (1, 1, None),
        (2, 1, 2),
        (2, 1, 2),
    )


def insert_pools(connection: sqlite3.Connection, songs: int) -> None:
    """Fill ``playlist_pools`` and ``pool_playlists``: per platform four toplists and six categories."""
    count = playlist_count(songs)
    pools: list[_PoolRow] = []
    members: dict[tuple[int, int], None] = {}  # an ordered set: small catalogues wrap around

    def add_pool(platform: str, kind: str, external_id: str, name: str, playlists: list[int]) -> None:
        pool_id = len(pools) + 1
        url = f"https://{platform}.example.net/{kind}/{external_id}"
        metadata = json.dumps({"update": "daily", "rank": pool_id}) if pool_id % 3 else None
        pools.append((pool_id, platform, kind, external_id, name, url, metadata))
        members.update({(pool_id, playlist % count + 1): None for playlist in playlists})

    step = len(PLATFORMS)  # playlists take turns over the platforms, so this stays on one platform
    for p, platform in enumerate(PLATFORMS):
        for k, name in enumerate(_TOPLISTS):
            both = [p, p + 6 * step] if p == k == 0 else [p + k * step]
            add_pool(platform, "toplist", str(3778 + 19 * p + k), name, both)
        for k, name in enumerate(_CATEGORIES):
            playlists = [p + (7 + 5 * k + n) * step for n in range(5)]
            add_pool(platform, "category", f"c{p}{k:02d}", name, playlists)
    # Renamed upstream and collected twice: the same toplist and playlist under a second pool id.
    add_pool(PLATFORMS[0], "toplist", "3778", "热歌榜 (旧)", [0])
    members[(1, DANGLING_ID)] = None
    connection.executemany("INSERT INTO playlist_pools VALUES (?, ?, ?, ?, ?, ?, ?)", pools)
    connection.executemany("INSERT INTO pool_playlists VALUES (?, ?)", members)


def insert_backends(connection: sqlite3.Connection) -> None:
    """One bucket the public may read, one it may not, and the NAS itself."""
    public = json.dumps({"public_base_url": PUBLIC_BASE_URL})
    connection.executemany(
        "INSERT INTO storage_backends VALUES (?, ?, ?, ?, ?)",
        (
            (R2_PUBLIC, "r2-public", "object_storage", None, public),
            (PRIVATE_BUCKET, "b2-private", "object_storage", None, json.dumps({"bucket": "music-private"})),
            (NAS, NAS_BACKEND_NAME, "nas", "/volume1/music", None),
        ),
    )
