"""The playlists' entries: what of them differs between the catalogue and an earlier export.

Invariant: entries are numbered as publisher/rows.py says. There a window counts them, which takes longer than
sorting them; here they are sorted into a table, whose rowids count: an entry's ordinal is its distance from
the first of its playlist. So the entries before are read once, in order, and what they are compared with is
read in the same order.
"""

from __future__ import annotations

import sqlite3

from publisher.rows import ENTRY_ORDER, define_existing_ids, select, song_exists

_NAME = "catalog_playlist_tracks"
_OLD_LENGTH = f"(SELECT max(ordinal) FROM old.{_NAME} AS was WHERE was.playlist_id = runs.playlist_id)"


def collect_entries(connection: sqlite3.Connection) -> None:
    """Fill `main.catalog_playlist_tracks` with what differs, and `gone_…` with the keys of what is gone.

    The earlier export is attached as `old`, in which the ordinals of a playlist run from 1 without gaps.
    Raises:
        sqlite3.Error: when a database cannot be read, or the entries of a playlist spell its id in two ways.
    """
    define_existing_ids(connection)
    columns = ", ".join(select(_NAME).columns[name] for name in ("playlist_id", "song_id", "position"))
    for statement in (
        "CREATE TEMP TABLE sorted(place INTEGER PRIMARY KEY, playlist_id INTEGER, song_id INTEGER NOT NULL,"
        " position INTEGER)",
        f"INSERT INTO temp.sorted(playlist_id, song_id, position) SELECT {columns}"
        " FROM source.playlist_songs CROSS JOIN temp.song_ids ON"
        f" {song_exists('playlist_songs.song_id')} ORDER BY playlist_songs.playlist_id, {ENTRY_ORDER}",
        # Each playlist is one run of places, `before` the place ahead of its first. Whether it exists
        # is asked once for all of them.
        "CREATE TEMP TABLE runs(playlist_id INTEGER PRIMARY KEY, before INTEGER NOT NULL,"
        " length INTEGER NOT NULL)",
        "INSERT INTO temp.runs SELECT playlist_id, before, length FROM (SELECT playlist_id, before,"
        " lead(before, 1, (SELECT max(place) FROM temp.sorted)) OVER (ORDER BY before) - before AS length"
        " FROM (SELECT entry.playlist_id, entry.place - 1 AS before FROM temp.sorted AS entry"
        " LEFT JOIN temp.sorted AS previous ON previous.place = entry.place - 1"
        " WHERE previous.place IS NULL OR previous.playlist_id IS NOT entry.playlist_id)"
        ") JOIN temp.playlist_ids ON playlist_ids.id = playlist_id",
        f"INSERT INTO main.{_NAME} SELECT was.playlist_id, was.ordinal, entry.song_id, entry.position"
        f" FROM temp.runs CROSS JOIN old.{_NAME} AS was"
        " ON was.playlist_id = runs.playlist_id AND was.ordinal <= runs.length"
        " CROSS JOIN temp.sorted AS entry ON entry.place = runs.before + was.ordinal"
        " WHERE (was.song_id IS NOT entry.song_id OR was.position IS NOT entry.position)",
        f"INSERT INTO main.{_NAME} SELECT runs.playlist_id, entry.place - before, song_id, position"
        f" FROM temp.runs CROSS JOIN temp.sorted AS entry"
        f" ON entry.place > before + coalesce({_OLD_LENGTH}, 0) AND entry.place <= before + length",
        # Every playlist that had entries was exported.
        f"INSERT INTO gone_{_NAME} SELECT was.playlist_id, was.ordinal FROM old.catalog_playlists"
        f" LEFT JOIN temp.runs USING (playlist_id) CROSS JOIN old.{_NAME} AS was"
        " ON was.playlist_id = catalog_playlists.playlist_id AND was.ordinal > coalesce(length, 0)",
    ):
        connection.execute(statement)
