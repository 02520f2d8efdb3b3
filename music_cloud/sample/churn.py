"""Ages a catalogue by an hour, a day, or a growth spurt.

Invariant: one step is one transaction, decided by the catalogue's rows and the seed alone, and it touches
only what it counts. Songs of the platform ``local`` have real files behind them (``audio``) and are never
changed or deleted. Popular rows are hit more often, and a deleted largest id is given out again, as SQLite
does.
"""

import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, Final, Literal

from music_cloud.sample.catalogue import open_catalogue
from music_cloud.sample.popularity import Popularity
from music_cloud.sample.songs import FLUSH_SONGS, NAS, R2_PUBLIC, SongWriter, next_id
from music_cloud.sample.titles import build_pools

Churn = Literal["hour", "day", "growth"]

# SQLite decides a value's type row by row, so the type checker cannot.
_Row = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class ChurnCounts:
    """How many rows one step changed; a song's assets, locations and appended entries count with the song."""

    songs_added: int = 0
    songs_changed: int = 0
    songs_deleted: int = 0
    locations_changed: int = 0
    play_counts_changed: int = 0
    entries_inserted: int = 0
    playlists_renamed: int = 0


# Per million songs. The mix on which the delta was designed and measured; a day is ten hours of it, because
# the nights are quiet.
_HOUR: Final = ChurnCounts(
    songs_added=300,
    songs_changed=300,
    songs_deleted=30,
    locations_changed=100,
    play_counts_changed=400,
    entries_inserted=20,
    playlists_renamed=5,
)
_HOURS_OF_CHANGE_PER_DAY: Final = 10
_GROWTH_PER_SONG: Final = 0.01

# Recent uploads are taken back more often than old songs vanish.
_NEWEST_DELETED: Final = 0.1
_ENTRIES_PER_NEW_SONG: Final = 2
_FRONT: Final = 5


def evolve(path: Path, *, churn: Churn, seed: int) -> ChurnCounts:
    """Apply one step of churn in place and return what was done.

    Every kind of change happens at least once, unless the catalogue has no row left that it could happen to.
    Growth adds one percent of new songs, with their files and playlist entries, and changes no other row.

    Raises ``FileNotFoundError`` without a catalogue at ``path``, ``ValueError`` for one without songs or
    playlists, ``sqlite3.Error`` when it cannot be written.
    """
    with closing(open_catalogue(path)) as connection:
        connection.execute("PRAGMA temp_store=MEMORY")
        connection.execute("BEGIN IMMEDIATE")  # rolled back by close() if anything below raises
        counts = _Step(connection, Random(f"{churn}:{seed}")).run(churn)
        connection.execute("COMMIT")
    return counts


def plan_churn(churn: Churn, songs: int) -> ChurnCounts:
    """What one step means for a catalogue of ``songs`` songs."""
    if churn == "growth":
        return ChurnCounts(songs_added=max(1, round(songs * _GROWTH_PER_SONG)))
    scale = songs / 1_000_000 * (_HOURS_OF_CHANGE_PER_DAY if churn == "day" else 1)
    return ChurnCounts(
        songs_added=max(1, round(_HOUR.songs_added * scale)),
        songs_changed=max(1, round(_HOUR.songs_changed * scale)),
        songs_deleted=max(1, round(_HOUR.songs_deleted * scale)),
        locations_changed=max(1, round(_HOUR.locations_changed * scale)),
        play_counts_changed=max(1, round(_HOUR.play_counts_changed * scale)),
        entries_inserted=max(1, round(_HOUR.entries_inserted * scale)),
        playlists_renamed=max(1, round(_HOUR.playlists_renamed * scale)),
    )


class _Step:
    """One open transaction with its dice. Each method makes one kind of change and returns how many."""

    def __init__(self, connection: sqlite3.Connection, rng: Random) -> None:
        self._connection = connection
        self._rng = rng
        self._largest_song = next_id(connection, "songs") - 1
        largest_playlist = next_id(connection, "playlists") - 1
        if self._largest_song < 1 or largest_playlist < 1:
            raise ValueError("the catalogue has no songs or no playlists that could change")
        self._popular_songs = Popularity(self._largest_song)
        self._popular_playlists = Popularity(largest_playlist)

    def run(self, churn: Churn) -> ChurnCounts:
        # The largest id stands for the size: counting a million rows would cost more than changing some.
        planned = plan_churn(churn, self._largest_song)
        if churn == "growth":
            return ChurnCounts(songs_added=self._add_songs(planned.songs_added))
        return ChurnCounts(
            songs_changed=self._change_songs(planned.songs_changed),
            locations_changed=self._change_locations(planned.locations_changed),
            play_counts_changed=self._change_play_counts(planned.play_counts_changed),
            entries_inserted=self._insert_entries(planned.entries_inserted),
            playlists_renamed=self._rename_playlists(planned.playlists_renamed),
            # Deleting comes before adding, so that the largest id can be reused within one step.
            songs_deleted=self._delete_songs(planned.songs_deleted),
            songs_added=self._add_songs(planned.songs_added),
        )

    def _change_songs(self, count: int) -> int:
        """Every other song gets new metadata, the rest a better file: a new size, also for its asset."""
        # What is broken stays broken: such rows are in the sample for a purpose.
        select = """
            SELECT file_size_bytes, metadata_json FROM songs
            WHERE id = ? AND platform <> 'local' AND file_size_bytes IS NOT NULL AND json_valid(metadata_json)
        """
        changed = 0
        resized: list[tuple[int, int, int]] = []
        for song_id, (size_bytes, text) in self._rows(
            select, lambda: self._popular_songs.pick(self._rng), count
        ):
            changed += 1
            if changed % 2 == 0:
                resized.append((song_id, size_bytes, size_bytes + 1 + int(self._rng.random() * 40_000)))
                continue
            metadata = json.loads(text)
            metadata["revision"] = metadata.get("revision", 0) + 1
            self._connection.execute(
                "UPDATE songs SET metadata_json = ? WHERE id = ?",
                (json.dumps(metadata, ensure_ascii=False), song_id),
            )
        self._resize(resized)
        return changed

    def _resize(self, resized: list[tuple[int, int, int]]) -> None:
        """Rows of song id, old size, new size. An asset of another quality has another size and keeps it."""
        self._connection.execute("CREATE TEMP TABLE resized (song_id INTEGER PRIMARY KEY, was, becomes)")
        self._connection.executemany("INSERT INTO resized VALUES (?, ?, ?)", resized)
        # Nothing indexes the assets by song: one scan for all of them, not one for each.
        for table, key in (("songs", "id"), ("file_assets", "song_id")):
            match = f"WHERE resized.song_id = {table}.{key}"
            self._connection.execute(
                f"UPDATE {table} SET file_size_bytes = (SELECT becomes FROM resized {match})"
                f" WHERE {key} IN (SELECT resized.song_id FROM resized)"
                f" AND file_size_bytes = (SELECT was FROM resized {match})"
            )
        self._connection.execute("DROP TABLE resized")

    def _change_locations(self, count: int) -> int:
        largest = next_id(self._connection, "file_locations") - 1
        if largest < 1:
            return 0
        select = """
            SELECT l.backend_id, l.status, l.locator FROM file_locations AS l
            JOIN file_assets AS a ON a.id = l.file_asset_id JOIN songs AS s ON s.id = a.song_id
            WHERE l.id = ? AND s.platform <> 'local'
        """
        changed = 0
        for location_id, row in self._rows(select, lambda: 1 + int(self._rng.random() * largest), count):
            backend_id, status, locator = row
            if status != "active":
                status = "active"
            elif backend_id == NAS and self._rng.random() < 0.6:
                backend_id, locator = R2_PUBLIC, f"from-nas/{locator}"
            else:
                status = "missing" if self._rng.random() < 0.6 else "deleted"
            self._connection.execute(
                "UPDATE file_locations SET backend_id = ?, status = ?, locator = ? WHERE id = ?",
                (backend_id, status, locator, location_id),
            )
            changed += 1
        return changed

    def _change_play_counts(self, count: int) -> int:
        changed = 0
        for playlist_id, (play_count,) in self._playlists("play_count", count):
            before = play_count or 0
            after = before + 1 + int(before * 0.002 * self._rng.random())
            self._connection.execute("UPDATE playlists SET play_count = ? WHERE id = ?", (after, playlist_id))
            changed += 1
        return changed

    def _insert_entries(self, count: int) -> int:
        """A new favourite near the front moves everything behind it: the change that hurts naive deltas."""
        changed = 0
        last = "(SELECT max(position) FROM playlist_songs WHERE playlist_id = playlists.id)"
        for playlist_id, (last_position,) in self._playlists(last, count):
            position = 1 + int(self._rng.random() * min(_FRONT, last_position or 1))
            self._connection.execute(
                "UPDATE playlist_songs SET position = position + 1 WHERE playlist_id = ? AND position >= ?",
                (playlist_id, position),
            )
            song_id = self._popular_songs.pick(self._rng)
            self._connection.execute(
                "INSERT INTO playlist_songs VALUES (?, ?, ?)", (playlist_id, song_id, position)
            )
            changed += 1
        return changed

    def _rename_playlists(self, count: int) -> int:
        names = build_pools().playlist_names
        changed = 0
        for playlist_id, (name,) in self._playlists("name", count):
            renamed = name
            while renamed == name:
                issue = 1 + int(self._rng.random() * 200)
                renamed = f"{names[int(self._rng.random() * len(names))]} 第{issue}期"
            self._connection.execute("UPDATE playlists SET name = ? WHERE id = ?", (renamed, playlist_id))
            changed += 1
        return changed

    def _delete_songs(self, count: int) -> int:
        def pick() -> int:
            if self._rng.random() < _NEWEST_DELETED:
                return next_id(self._connection, "songs") - 1
            return 1 + int(self._rng.random() * self._largest_song)

        select = "SELECT id FROM songs WHERE id = ? AND platform <> 'local'"
        gone = [(song_id,) for song_id, _ in self._rows(select, pick, count)]
        self._connection.execute("CREATE TEMP TABLE gone (song_id INTEGER PRIMARY KEY)")
        self._connection.executemany("INSERT INTO gone VALUES (?)", gone)
        for statement in (
            "DELETE FROM file_locations WHERE file_asset_id IN"
            " (SELECT id FROM file_assets WHERE song_id IN (SELECT song_id FROM gone))",
            "DELETE FROM file_assets WHERE song_id IN (SELECT song_id FROM gone)",
            "DELETE FROM playlist_songs WHERE song_id IN (SELECT song_id FROM gone)",
            "DELETE FROM songs WHERE id IN (SELECT song_id FROM gone)",
            "DROP TABLE gone",
        ):
            self._connection.execute(statement)
        return len(gone)

    def _add_songs(self, count: int) -> int:
        writer = SongWriter(self._connection, self._rng)
        for n in range(1, count + 1):
            song_id = writer.add()
            if n % FLUSH_SONGS == 0:
                writer.flush()
            for playlist_id, _ in self._playlists("id", _ENTRIES_PER_NEW_SONG):
                self._connection.execute(
                    "INSERT INTO playlist_songs SELECT ?, ?, coalesce(max(position), 0) + 1"
                    " FROM playlist_songs WHERE playlist_id = ?",
                    (playlist_id, song_id, playlist_id),
                )
        writer.flush()
        return count

    def _playlists(self, columns: str, count: int) -> Iterator[tuple[int, _Row]]:
        return self._rows(
            f"SELECT {columns} FROM playlists WHERE id = ?",
            lambda: self._popular_playlists.pick(self._rng),
            count,
        )

    def _rows(self, select: str, pick: Callable[[], int], count: int) -> Iterator[tuple[int, _Row]]:
        """Up to ``count`` different rows that exist. It gives up in the end: a table may have too few."""
        seen: set[int] = set()
        found = 0
        for _ in range(100 + 20 * count):
            if found == count:
                return
            row_id = pick()
            if row_id in seen:
                continue
            seen.add(row_id)
            row = self._connection.execute(select, (row_id,)).fetchone()
            if row is not None:
                found += 1
                yield row_id, row
