"""The sample catalogue keeps its promises: every awkward row, equal rows for equal seeds, real audio."""

import json
import sqlite3
import wave
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, get_args

import pytest

from music_cloud.sample import (
    SECRET_MARKER,
    Churn,
    ChurnCounts,
    add_playable_tracks,
    create_catalogue,
    evolve,
    write_wav,
)
from music_cloud.sample.__main__ import main
from music_cloud.sample.catalogue import TABLES, count_rows
from music_cloud.sample.churn import plan_churn
from music_cloud.sample.popularity import Popularity

SONGS = 2_000

Rows = dict[str, list[tuple[Any, ...]]]


@contextmanager
def opened(path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as connection:
        yield connection


def query(path: Path, sql: str) -> list[tuple[Any, ...]]:
    with opened(path) as connection:
        return connection.execute(sql).fetchall()


def value(path: Path, sql: str) -> Any:
    return query(path, sql)[0][0]


def all_rows(path: Path) -> Rows:
    return {table: query(path, f"SELECT rowid, * FROM {table} ORDER BY rowid") for table in TABLES}


def by_id(rows: list[tuple[Any, ...]]) -> dict[int, tuple[Any, ...]]:
    return {row[0]: row for row in rows}


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One catalogue for all tests that only read."""
    path = tmp_path_factory.mktemp("sample") / "catalogsync.db"
    create_catalogue(path, songs=SONGS)
    return path


@pytest.fixture
def fresh(tmp_path: Path) -> Path:
    path = tmp_path / "catalogsync.db"
    create_catalogue(path, songs=SONGS, seed=5)
    return path


def test_same_seed_gives_identical_rows_and_another_seed_does_not(catalogue: Path, tmp_path: Path) -> None:
    create_catalogue(tmp_path / "same.db", songs=SONGS, seed=1)
    create_catalogue(tmp_path / "other.db", songs=SONGS, seed=2)
    assert all_rows(catalogue) == all_rows(tmp_path / "same.db")
    assert all_rows(catalogue)["songs"] != all_rows(tmp_path / "other.db")["songs"]


@pytest.mark.parametrize("songs", [1, 2, 3, 60])
def test_even_the_smallest_catalogue_fills_all_eight_tables(tmp_path: Path, songs: int) -> None:
    path = tmp_path / "small.db"
    create_catalogue(path, songs=songs)
    counts = count_rows(path)
    assert songs == counts["songs"]
    assert all(counts[table] > 0 for table in TABLES)


def test_proportions_are_those_of_a_real_catalogue(catalogue: Path) -> None:
    counts = count_rows(catalogue)
    assert counts["playlists"] == SONGS // 50
    assert counts["playlist_songs"] == pytest.approx(2 * SONGS, rel=0.1)
    assert counts["file_assets"] == pytest.approx(1.3 * SONGS, rel=0.05)
    assert counts["file_locations"] == pytest.approx(1.2 * counts["file_assets"], rel=0.05)


def test_finished_catalogue_is_in_wal_mode_with_nothing_beside_it(fresh: Path) -> None:
    assert [fresh] == list(fresh.parent.iterdir())
    assert value(fresh, "PRAGMA journal_mode") == "wal"
    assert value(fresh, "PRAGMA integrity_check") == "ok"


@pytest.mark.parametrize(
    ("awkward", "sql"),
    [
        ("entry without its song", "playlist_songs WHERE song_id NOT IN (SELECT id FROM songs)"),
        ("entry without its playlist", "playlist_songs WHERE playlist_id NOT IN (SELECT id FROM playlists)"),
        ("NULL position", "playlist_songs WHERE position IS NULL"),
        (
            "position twice",
            "(SELECT 1 FROM playlist_songs GROUP BY playlist_id, position HAVING count(*) > 1)",
        ),
        (
            "entry twice",
            "(SELECT 1 FROM playlist_songs GROUP BY playlist_id, song_id, position HAVING count(*) > 1)",
        ),
        (
            "gap",
            "(SELECT position - lag(position) OVER (PARTITION BY playlist_id ORDER BY position) AS step"
            " FROM playlist_songs) WHERE step > 1",
        ),
        ("NULL play count", "playlists WHERE play_count IS NULL"),
        ("NULL song count", "playlists WHERE collected_song_count IS NULL"),
        ("NULL size", "songs WHERE file_size_bytes IS NULL"),
        ("NULL metadata", "songs WHERE metadata_json IS NULL"),
        ("invalid JSON", "songs WHERE metadata_json IS NOT NULL AND NOT json_valid(metadata_json)"),
        ("member without its playlist", "pool_playlists WHERE playlist_id NOT IN (SELECT id FROM playlists)"),
        (
            "toplist with two playlists",
            "(SELECT 1 FROM pool_playlists JOIN playlists AS l ON l.id = playlist_id"
            " JOIN playlist_pools AS p ON p.id = pool_id AND p.pool_kind = 'toplist'"
            " GROUP BY pool_id HAVING count(*) = 2)",
        ),
        (
            "toplist in two pools",
            "(SELECT 1 FROM playlist_pools GROUP BY platform, external_id HAVING count(*) > 1)",
        ),
        ("inactive location", "file_locations WHERE status IN ('missing', 'deleted')"),
        ("public key with #", "file_locations WHERE backend_id = 1 AND instr(locator, '#')"),
        ("public key with ?", "file_locations WHERE backend_id = 1 AND instr(locator, '?')"),
        ("public key with a space", "file_locations WHERE backend_id = 1 AND instr(locator, ' ')"),
        ("Chinese public key", "file_locations WHERE backend_id = 1 AND locator GLOB '*[一-龥]*'"),
        ("Chinese NAS path", "file_locations WHERE backend_id = 3 AND locator GLOB '*[一-龥]*/*.flac'"),
    ],
)
def test_every_awkward_thing_is_present(catalogue: Path, awkward: str, sql: str) -> None:
    assert value(catalogue, f"SELECT count(*) FROM {sql}") > 0, awkward


def test_secrets_in_metadata_are_valid_json_and_carry_the_marker(catalogue: Path) -> None:
    marked = query(catalogue, f"SELECT metadata_json FROM songs WHERE metadata_json LIKE '%{SECRET_MARKER}%'")
    assert len(marked) == SONGS // 100
    keys = Counter(key for (text,) in marked for key in json.loads(text))
    assert {"cookie", "access_token", "localPath", "authorization", "source"} < set(keys)


def test_metadata_has_the_length_of_real_metadata(catalogue: Path) -> None:
    lengths = query(
        catalogue, "SELECT length(CAST(metadata_json AS BLOB)) FROM songs WHERE json_valid(metadata_json)"
    )
    assert all(80 <= length <= 200 for (length,) in lengths)


def test_backends_are_one_public_bucket_one_private_bucket_and_the_nas(catalogue: Path) -> None:
    rows = query(
        catalogue, "SELECT name, backend_type, base_path, config_json FROM storage_backends ORDER BY id"
    )
    assert rows == [
        ("r2-public", "object_storage", None, '{"public_base_url": "https://media.example.com/audio/"}'),
        ("b2-private", "object_storage", None, '{"bucket": "music-private"}'),
        ("nas-1", "nas", "/volume1/music", None),
    ]


def test_remote_ids_are_unique_within_a_platform(catalogue: Path) -> None:
    assert (
        value(catalogue, "SELECT count(*) FROM (SELECT DISTINCT platform, remote_song_id FROM songs)")
        == SONGS
    )


def test_existing_file_is_never_replaced(tmp_path: Path) -> None:
    path = tmp_path / "precious.db"
    path.write_text("precious")
    with pytest.raises(FileExistsError, match=r"precious\.db"):
        create_catalogue(path, songs=1)
    assert path.read_text() == "precious"


@pytest.mark.parametrize("songs", [0, -1, 5_000_001])
def test_impossible_size_is_refused_and_leaves_no_file(tmp_path: Path, songs: int) -> None:
    with pytest.raises(ValueError, match=str(songs)):
        create_catalogue(tmp_path / "none.db", songs=songs)
    assert list(tmp_path.iterdir()) == []


def test_plan_is_proportional_with_at_least_one_of_each() -> None:
    assert ChurnCounts(300, 300, 30, 100, 400, 20, 5) == plan_churn("hour", 1_000_000)
    assert ChurnCounts(3_000, 3_000, 300, 1_000, 4_000, 200, 50) == plan_churn("day", 1_000_000)
    assert ChurnCounts(1, 1, 1, 1, 1, 1, 1) == plan_churn("hour", 1)
    assert ChurnCounts(songs_added=10_000) == plan_churn("growth", 1_000_000)


def test_evolve_changes_exactly_the_rows_it_counts(fresh: Path) -> None:
    before = all_rows(fresh)
    counts = evolve(fresh, churn="day", seed=3)
    after = all_rows(fresh)
    assert plan_churn("day", SONGS) == counts

    songs_before, songs_after = by_id(before["songs"]), by_id(after["songs"])
    assert counts.songs_added - counts.songs_deleted == len(songs_after) - len(songs_before)
    survivors = {
        i for i in songs_before.keys() & songs_after.keys() if songs_before[i][3] == songs_after[i][3]
    }
    changed = sum(songs_before[i] != songs_after[i] for i in survivors)
    # A song that was changed and then deleted is counted as both.
    assert counts.songs_changed - counts.songs_deleted <= changed <= counts.songs_changed

    playlists = by_id(before["playlists"])
    renamed = sum(playlists[row[0]][4] != row[4] for row in after["playlists"])
    played = sum(playlists[row[0]][7] != row[7] for row in after["playlists"])
    assert counts.playlists_renamed == renamed
    assert counts.play_counts_changed == played
    for untouched in ("playlist_pools", "pool_playlists", "storage_backends"):
        assert before[untouched] == after[untouched]


def test_inserted_entry_moves_the_entries_behind_it(fresh: Path) -> None:
    before = {row[0]: row for row in all_rows(fresh)["playlist_songs"]}
    evolve(fresh, churn="hour", seed=3)
    shifts = Counter(
        row[3] - before[row[0]][3]
        for row in all_rows(fresh)["playlist_songs"]
        if row[0] in before and row[:3] == before[row[0]][:3] and row[3] is not None
    )
    assert {0, 1} == set(shifts)


def test_changed_size_is_the_same_in_song_and_asset(fresh: Path) -> None:
    evolve(fresh, churn="day", seed=9)
    evolve(fresh, churn="day", seed=10)
    first_assets = "SELECT song_id, min(id) AS id FROM file_assets GROUP BY song_id"
    different = value(
        fresh,
        f"SELECT count(*) FROM songs AS s JOIN ({first_assets}) AS f ON f.song_id = s.id"
        " JOIN file_assets AS a ON a.id = f.id WHERE a.file_size_bytes <> s.file_size_bytes",
    )
    assert different == 0


@pytest.mark.parametrize("churn", get_args(Churn))
def test_evolved_catalogue_stays_whole_and_follows_the_seed(tmp_path: Path, churn: Churn) -> None:
    paths = [tmp_path / f"{n}.db" for n in range(3)]
    for path, seed in zip(paths, (7, 7, 8), strict=True):
        create_catalogue(path, songs=SONGS)
        evolve(path, churn=churn, seed=seed)
        assert value(path, "PRAGMA integrity_check") == "ok"
    first, same, other = (all_rows(path) for path in paths)
    assert first == same
    assert first != other


def test_growth_adds_songs_and_changes_no_other_row(fresh: Path) -> None:
    before = all_rows(fresh)
    assert ChurnCounts(songs_added=SONGS // 100) == evolve(fresh, churn="growth", seed=1)
    after = all_rows(fresh)
    for table in TABLES:
        assert before[table] == after[table][: len(before[table])]
    assert len(after["songs"]) == SONGS + SONGS // 100


def test_many_hours_leave_no_files_of_deleted_songs(fresh: Path) -> None:
    for seed in range(24):
        evolve(fresh, churn="hour", seed=seed)
    assert value(fresh, "PRAGMA integrity_check") == "ok"
    for orphans in (
        "file_assets WHERE song_id NOT IN (SELECT id FROM songs)",
        "file_locations WHERE file_asset_id NOT IN (SELECT id FROM file_assets)",
    ):
        assert value(fresh, f"SELECT count(*) FROM {orphans}") == 0


@pytest.mark.parametrize("songs", [1, 2, 5])
def test_tiny_catalogue_survives_a_week(tmp_path: Path, songs: int) -> None:
    path = tmp_path / "tiny.db"
    create_catalogue(path, songs=songs)
    for seed in range(7):
        evolve(path, churn="day", seed=seed)
    assert value(path, "PRAGMA integrity_check") == "ok"


def test_deleted_largest_id_is_given_out_again(fresh: Path) -> None:
    """SQLite reuses the largest id, so an id names different songs over time; the origin must notice."""
    names: dict[int, set[tuple[str, str]]] = {}
    for seed in range(30):
        evolve(fresh, churn="hour", seed=seed)
        for song_id, platform, remote_id in query(fresh, "SELECT id, platform, remote_song_id FROM songs"):
            names.setdefault(song_id, set()).add((platform, remote_id))
    assert any(len(seen) > 1 for seen in names.values())


def test_missing_catalogue_is_not_made_by_evolving_it(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none\.db"):
        evolve(tmp_path / "none.db", churn="hour", seed=1)
    assert list(tmp_path.iterdir()) == []


def test_popularity_is_a_permutation_that_rank_inverts() -> None:
    popularity = Popularity(64)
    assert list(range(64)) == sorted(popularity.rank(row_id) for row_id in range(1, 65))


def test_playable_tracks_are_what_the_catalogue_says(fresh: Path, tmp_path: Path) -> None:
    root = tmp_path / "nas root"
    tracks = add_playable_tracks(fresh, root)
    assert len(tracks) == 4
    assert max(track.size_bytes for track in tracks) >= 40 * 2**20
    assert {"#", " ", "%", "&"} <= set("".join(track.path.name for track in tracks))
    for track in tracks:
        [(size, asset_size, metadata, backend, locator)] = query(
            fresh,
            "SELECT s.file_size_bytes, a.file_size_bytes, s.metadata_json, b.name, l.locator FROM songs AS s"
            " JOIN file_assets AS a ON a.song_id = s.id JOIN file_locations AS l ON l.file_asset_id = a.id"
            " JOIN storage_backends AS b ON b.id = l.backend_id"
            f" WHERE s.id = {track.song_id} AND l.status = 'active'",
        )
        assert ("nas-1", track.size_bytes, track.size_bytes) == (backend, size, asset_size)
        assert root / locator == track.path
        assert track.size_bytes == track.path.stat().st_size
        with wave.open(str(track.path), "rb") as audio:
            assert audio.getparams()[:3] == (2, 2, 44100)
            assert json.loads(metadata)["duration"] * 44100 == audio.getnframes()
            assert any(audio.readframes(44100))
    entries = query(
        fresh,
        "SELECT song_id FROM playlist_songs JOIN playlists ON id = playlist_id"
        " WHERE name = 'NAS 试听' ORDER BY position",
    )
    assert [track.song_id for track in tracks] == [song_id for (song_id,) in entries]

    with pytest.raises(ValueError, match="already"):
        add_playable_tracks(fresh, root)

    for seed in range(10):
        evolve(fresh, churn="day", seed=seed)
    kept = query(fresh, "SELECT id, file_size_bytes FROM songs WHERE platform = 'local' ORDER BY id")
    assert [(track.song_id, track.size_bytes) for track in tracks] == kept


def test_wav_has_the_asked_length_and_follows_the_seed(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_wav(tmp_path / name, seconds=1.25, seed=seed, sample_rate=8000)
    with wave.open(str(tmp_path / "a"), "rb") as audio:
        assert audio.getparams()[:4] == (2, 2, 8000, 10_000)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert (tmp_path / "a").read_bytes() != (tmp_path / "c").read_bytes()


def test_command_makes_evolves_and_counts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "made.db"
    assert main(["--songs", "100", "--out", str(path), "--evolve", "hour"]) == 0
    assert main(["--out", str(path), "--evolve", "growth"]) == 0
    out = capsys.readouterr().out
    assert "one hour: songs_added 1" in out
    assert "songs 101" in out.splitlines()[-1]


@pytest.mark.parametrize(
    "arguments",
    [
        ["--songs", "0"],
        ["--songs", "many"],
        ["--evolve", "hour"],
        ["--evolve", "century"],
        [],
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([*arguments, "--out", str(tmp_path / "none.db")])
    assert stopped.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_command_refuses_an_existing_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "precious.db"
    path.write_text("precious")
    with pytest.raises(SystemExit) as stopped:
        main(["--songs", "5", "--out", str(path)])
    assert stopped.value.code == 2
    assert "exists already" in capsys.readouterr().err
    assert path.read_text() == "precious"
