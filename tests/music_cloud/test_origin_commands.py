"""The origin's commands: a served link, and tokens made and read by hand."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from contracts.tokens import verify_origin_token
from music_cloud.cli import run
from music_cloud.sample import add_playable_tracks
from publisher import export_snapshot

SECRET = "a secret of the tests, long enough"
HANDLE = "loc:5.0123abcd"


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(("MUSIC_CLOUD_", "PRIVATE_ORIGIN_"))]:
        monkeypatch.delenv(name)


@pytest.fixture
def env_file(tmp_path: Path) -> Path:
    path = tmp_path / "origin.env"
    path.write_text(f"MUSIC_CLOUD_PRIVATE_ORIGIN_SECRET={SECRET}\n")
    return path


def test_a_token_that_was_created_is_inspected_as_good(
    env_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    create = ["token", "create", HANDLE, "--ttl", "10m", "--file-name", "七里香.flac", "--download"]
    assert run([*create, "--env-file", str(env_file)]) == 0
    token = capsys.readouterr().out.strip()
    assert run(["token", "inspect", token, "--env-file", str(env_file), "--json"]) == 0
    claims = json.loads(capsys.readouterr().out)
    assert claims["verdict"] == "good"
    assert (claims["locator"], claims["file_name"], claims["disposition"]) == (
        HANDLE,
        "七里香.flac",
        "attachment",
    )
    assert 590 <= claims["remaining_s"] <= 600


def test_a_link_is_inspected_from_standard_input(
    env_file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An argument shows in `ps`."""
    create = ["token", "create", HANDLE, "--origin-url", "https://music.example/"]
    assert run([*create, "--env-file", str(env_file)]) == 0
    link = capsys.readouterr().out
    assert link.startswith("https://music.example/api/private-origin/stream/")
    monkeypatch.setattr("sys.stdin", io.StringIO(link))
    assert run(["token", "inspect", "-", "--env-file", str(env_file)]) == 0


def test_an_expired_token_is_shown_and_exits_1(
    env_file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(["token", "create", HANDLE, "--ttl", "1s", "--env-file", str(env_file)]) == 0
    token = capsys.readouterr().out.strip()
    later = verify_origin_token(SECRET, token, 0).expires_at + 5
    monkeypatch.setattr("time.time", lambda: float(later))
    assert run(["token", "inspect", token, "--env-file", str(env_file)]) == 1
    assert "expired" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [
        ["create", "/volume1/music/a.flac"],
        ["create", "loc:5"],
        ["create", HANDLE, "--network", "everywhere"],
        ["create", HANDLE, "--file-name", "../a.flac"],
        ["create", HANDLE, "--ttl", "forever"],
        ["create", HANDLE, "--kind", "admin"],
    ],
)
def test_what_cannot_be_signed_is_wrong_usage(
    arguments: list[str], env_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["token", *arguments, "--env-file", str(env_file)]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert SECRET not in printed.err


def test_the_longest_life_that_the_origin_accepts_is_kept(
    env_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A track of unknown length must still play where the limit is an hour."""
    unlimited = ["token", "create", HANDLE, "--env-file", str(env_file)]
    assert run(unlimited) == 0
    too_long = capsys.readouterr().out.strip()
    with env_file.open("a") as settings:
        settings.write("MUSIC_CLOUD_MAX_TOKEN_TTL_S=3600\n")
    assert run([*unlimited, "--json"]) == 0
    token = json.loads(capsys.readouterr().out)["token"]
    assert run(["token", "inspect", token, "--env-file", str(env_file)]) == 0
    assert run(["token", "inspect", too_long, "--env-file", str(env_file)]) == 1
    assert run([*unlimited, "--ttl", "2h"]) == 2


def test_a_misspelt_setting_stops_the_origin(env_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    env_file.write_text("MUSIC_CLOUD_PRIVATE_ORIGIN_SECERT=x\n")
    assert run(["origin", "--db", "x", "--env-file", str(env_file)]) == 2
    assert "did you mean MUSIC_CLOUD_PRIVATE_ORIGIN_SECRET" in capsys.readouterr().err


def test_a_tampered_token_exits_1_with_one_sentence(
    env_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["token", "create", HANDLE, "--env-file", str(env_file)]) == 0
    token = capsys.readouterr().out.strip()
    assert run(["token", "inspect", f"B{token[1:]}", "--env-file", str(env_file)]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_without_a_secret_tokens_are_refused_with_the_setting_to_make(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(["token", "create", HANDLE]) == 2
    assert "MUSIC_CLOUD_PRIVATE_ORIGIN_SECRET" in capsys.readouterr().err


def test_a_key_ring_signs_with_its_newest_secret(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ring").write_text("the older one, long enough\nthe newest one, long enough\n")
    monkeypatch.setenv("MUSIC_CLOUD_PRIVATE_ORIGIN_KEY_RING", str(tmp_path / "ring"))
    assert run(["token", "create", HANDLE]) == 0
    token = capsys.readouterr().out.strip()
    assert verify_origin_token("the newest one, long enough", token, 0).locator == HANDLE


def test_the_origin_command_serves_a_link_until_sigterm(
    catalogue: Path, tmp_path: Path, env_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The operator's road: serve, sign a handle of the public database, play."""
    track = add_playable_tracks(catalogue, tmp_path / "music")[0]
    export_snapshot(catalogue, tmp_path / "snapshot")
    handle = _handle_of(tmp_path / "snapshot" / "catalog_read.db", track.song_id)
    command = [sys.executable, "-m", "music_cloud", "origin", "--db", str(catalogue), "--port", "0"]
    with subprocess.Popen(
        [*command, "--root", f"nas-1={tmp_path / 'music'}", "--env-file", str(env_file)],
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        url = process.stderr.readline().removeprefix("listening on ").strip()
        create = ["token", "create", handle, "--origin-url", url, "--env-file", str(env_file)]
        assert run(create) == 0
        link = capsys.readouterr().out.strip()
        with urllib.request.urlopen(link) as answer:
            assert answer.read() == track.path.read_bytes()
        with pytest.raises(urllib.error.HTTPError, match="401") as refused:
            urllib.request.urlopen(link[:-1])
        refused.value.close()
        process.send_signal(signal.SIGTERM)
        rest = process.stderr.read()
        assert process.wait() == 0
    assert "Traceback" not in rest
    assert link.rpartition("/")[2] not in rest


def _handle_of(database: Path, song_id: int) -> str:
    import sqlite3

    connection = sqlite3.connect(database)
    try:
        (handle,) = connection.execute(
            "SELECT locator FROM catalog_track_files WHERE song_id = ?", (song_id,)
        ).fetchone()
    finally:
        connection.close()
    return str(handle)
