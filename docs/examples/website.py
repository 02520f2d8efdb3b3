"""What a website does with its mirror: find the URL to play a track from.

    python website.py MIRROR_FOLDER SONG_ID ORIGIN_URL < secret.txt

The website knows the mirrored database and one secret. It never learns where the NAS keeps a file: the link
it makes holds an opaque handle, works for one file, and expires after the track's length and half an hour.
"""

from __future__ import annotations

import sqlite3
import sys
import time
from contextlib import closing
from pathlib import Path

from contracts.best_source import best_source


def playable_url(
    connection: sqlite3.Connection, song_id: int, *, secret: str, origin_url: str, now: float
) -> str | None:
    """The URL to play a track from, public or a fresh link to the NAS; None when there is no such track."""
    track = connection.execute(
        "SELECT name, ext, metadata_json FROM catalog_tracks WHERE song_id = ?", (song_id,)
    ).fetchone()
    if track is None:
        return None
    name, ext, metadata_json = track
    files = connection.execute("SELECT * FROM catalog_track_files WHERE song_id = ?", (song_id,))
    return best_source(
        files,
        metadata_json,
        secret=secret,
        origin_url=origin_url,
        now=now,
        file_name=safe_file_name(name, ext),
    )


def safe_file_name(name: str | None, ext: str | None) -> str:
    """What a listener's browser saves the track as: its title, without what no file name may hold."""
    if not name or not ext:
        return ""
    title = "".join(
        letter if letter.isprintable() and letter not in "/\\" else " " for letter in f"{name}.{ext}"
    )
    return title.strip()[-200:]


def main() -> None:
    from mirror import Mirror

    folder, song_id, origin_url = sys.argv[1:]
    with closing(Mirror(Path(folder)).connect()) as connection:
        url = playable_url(
            connection,
            int(song_id),
            secret=sys.stdin.readline().strip(),
            origin_url=origin_url,
            now=time.time(),
        )
    sys.stdout.write(f"{url or 'nothing to play'}\n")


if __name__ == "__main__":
    main()
