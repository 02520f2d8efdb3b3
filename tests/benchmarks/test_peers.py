"""The benchmark of publishers counts what it says, and names whom it leaves out."""

from __future__ import annotations

import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import pytest

from benchmarks.peers.__main__ import measure_step
from benchmarks.peers.measure import Peer, Result, run, verify_same
from benchmarks.peers.report import Measured, format_limits, format_table
from benchmarks.peers.rows import listed_rows_bytes, opened_differences, verify_equal_rows
from benchmarks.peers.scenario import FIRST_HOUR, take_steps
from benchmarks.peers.whole_files import FULL_UPLOAD
from music_cloud.sample import create_catalogue
from publisher.export import build_database

SONGS = 500


@pytest.fixture(autouse=True)
def _without_sync(monkeypatch: pytest.MonkeyPatch) -> None:
    """What others write to this machine's disks is not waited for: only measurements need that."""
    monkeypatch.setattr("os.sync", lambda: None)


def _never(old: Path, new: Path, scratch: Path) -> Result:
    raise AssertionError("a peer that is not installed was run")


ABSENT = Peer("absent", "rebuilt", ("no-such-program",), _never)


def _measure(folder: Path) -> list[Measured]:
    return [
        measure_step(step, SONGS, [FULL_UPLOAD, ABSENT], folder, slow=False)
        for step in take_steps(folder, SONGS, ["hour"])
    ]


def test_step_counts_the_bytes_that_were_restored_and_names_the_absent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each step starts from the refreshed database of the step before; nobody is left out in silence."""
    monkeypatch.setattr("benchmarks.peers.scenario.WARM_UP_DAYS", 1)
    measured = _measure(tmp_path)
    assert [step.step for step in measured] == [FIRST_HOUR, "hour"]
    table = format_table(measured[1])
    assert "| absent | rebuilt | skipped: no-such-program not installed |" in table
    assert f"| **music-cloud** | refreshed | {measured[1].ours.result.uploaded_bytes:,} | 1.0 |" in table
    assert set(measured[1].ours.publish_steps) == {"copy", "refresh", "compare", "encode", "digest"}
    assert measured[1].listed_bytes > 0
    limits = format_limits(measured[1])
    assert any("refresh and delta at most 4 s" in line and line.endswith("reached") for line in limits)
    if not FULL_UPLOAD.missing:
        full = measured[1].find("full zstd -3", "rebuilt")
        assert full is not None
        assert full.uploaded_bytes > 10 * measured[1].ours.result.uploaded_bytes


def test_peak_is_that_of_the_command_and_not_of_the_benchmark() -> None:
    """On Linux a child's peak begins with its parent's, so a large parent must not show."""
    ballast = b"x" * (256 << 20)
    small = run(sys.executable, "-c", "pass")
    large = run(sys.executable, "-c", "b'x' * (100 << 20)")
    assert small.peak_mib < 64 < 100 < large.peak_mib < 200 < len(ballast) / (1 << 20)


def test_command_that_fails_ends_the_benchmark() -> None:
    """Its cost would be that of nothing."""
    with pytest.raises(RuntimeError, match="exit code 3"):
        run(sys.executable, "-c", "raise SystemExit(3)")


def test_wrong_result_is_not_measured(tmp_path: Path) -> None:
    """A peer whose mirror has other bytes has published nothing."""
    (tmp_path / "one").write_bytes(b"1")
    (tmp_path / "two").write_bytes(b"2")
    with pytest.raises(RuntimeError, match="is not the file"):
        verify_same(tmp_path / "one", tmp_path / "two")


def test_every_differing_row_is_found(tmp_path: Path) -> None:
    """A changed, an added and a deleted row each count once, and a NULL is a value."""
    source, old, new = (tmp_path / name for name in ("source.db", "old.db", "new.db"))
    create_catalogue(source, songs=50)
    build_database(source, old)
    build_database(source, new)
    verify_equal_rows(old, new)
    with closing(sqlite3.connect(new, isolation_level=None)) as connection:
        connection.execute("UPDATE catalog_tracks SET name = NULL WHERE song_id = 1")
        connection.execute("DELETE FROM catalog_tracks WHERE song_id = 2")
        connection.execute("INSERT INTO catalog_playlists(playlist_id) VALUES (999999)")
    with opened_differences(old, new) as connection:
        counts = {
            name: connection.execute(f"SELECT count(*) FROM {name}").fetchone()[0]
            for name in ("put_catalog_tracks", "gone_catalog_tracks", "put_catalog_playlists")
        }
    assert counts == {"put_catalog_tracks": 1, "gone_catalog_tracks": 1, "put_catalog_playlists": 1}
    assert listed_rows_bytes(old, new) > 0
    with pytest.raises(RuntimeError, match="are not as in"):
        verify_equal_rows(old, new)
