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

from contracts.tokens import TokenKind, verify_origin_token
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


@pytest.mark.parametrize(
    ("kind", "life_s"), [("stream", 200 + 30 * 60), ("lease", 6 * 60 * 60), ("listen", 24 * 60 * 60)]
)
def test_each_kind_has_its_own_life_and_is_recognised(
    kind: str, life_s: int, env_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    create = ["token", "create", HANDLE, "--kind", kind, "--duration", "200s", "--json"]
    assert run([*create, "--env-file", str(env_file)]) == 0
    created = json.loads(capsys.readouterr().out)
    assert created["kind"] == kind
    assert run(["token", "inspect", created["token"], "--env-file", str(env_file), "--json"]) == 0
    claims = json.loads(capsys.readouterr().out)
    assert (claims["verdict"], claims["kind"]) == ("good", kind)
    assert life_s - 10 <= claims["remaining_s"] <= life_s
    others = {each.name.lower() for each in TokenKind} - {kind}
    for other in others:
        inspect = ["token", "inspect", created["token"], "--kind", other]
        assert run([*inspect, "--env-file", str(env_file)]) == 1


def test_a_listening_page_has_its_own_address(env_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    create = ["token", "create", HANDLE, "--kind", "listen", "--origin-url", "https://music.example"]
    assert run([*create, "--env-file", str(env_file)]) == 0
    link = capsys.readouterr().out.strip()
    assert link.startswith("https://music.example/listen/AQM")
    assert run(["token", "inspect", link, "--env-file", str(env_file)]) == 0
    assert "listen" in capsys.readouterr().out


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
        ["create", HANDLE, "--kind", "lease", "--ttl", "7h"],
        ["create", HANDLE, "--kind", "lease", "--origin-url", "https://music.example"],
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


@pytest.mark.parametrize("line", ["MUSIC_CLOUD_TRUSTED_PROXIES=proxy", "MUSIC_CLOUD_MAX_COPIES_PER_LINK=all"])
def test_a_setting_that_cannot_be_used_stops_the_origin(
    line: str, env_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    env_file.write_text(f"{line}\n")
    assert run(["origin", "--db", "x", "--env-file", str(env_file)]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


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


def test_log_as_json_is_nothing_but_json(tmp_path: Path, env_file: Path) -> None:
    """Start, a refusal, stop: each an object on a line; the settings in effect, and no secret or path."""
    options = ["--root", f"nas-1={tmp_path}", "--catalog", str(tmp_path), "--stall-limit", "90s"]
    with env_file.open("a") as settings:
        settings.write("MUSIC_CLOUD_LOG_FORMAT=json\n")
    command = [sys.executable, "-m", "music_cloud", "origin", "--db", str(tmp_path / "x.db"), "--port", "0"]
    with subprocess.Popen(
        [*command, *options, "--env-file", str(env_file)], stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        first = process.stderr.readline()
        started = json.loads(first)
        with pytest.raises(urllib.error.HTTPError, match="401") as refused:
            urllib.request.urlopen(f"{started['url']}/api/private-origin/stream/x")
        quoted = refused.value.headers["X-Request-Id"]
        refused.value.close()
        with urllib.request.urlopen(f"{started['url']}/metrics") as answer:
            assert b'refusals_total{reason="malformed"} 1' in answer.read()
        process.send_signal(signal.SIGTERM)
        rest = process.stderr.read()
        assert process.wait() == 0
    events = [started, *map(json.loads, rest.splitlines())]
    assert [event["event"] for event in events] == ["started", "refused", "stopped"]
    assert (started["stall_limit_s"], started["roots"], started["catalog"]) == (90, 1, True)
    assert (events[1]["reason"], events[1]["request_id"]) == ("malformed", quoted)
    for hidden in (SECRET, str(tmp_path), "nas-1"):
        assert hidden not in first + rest


@pytest.mark.parametrize(("option", "value"), [("--stall-limit", "soon"), ("--log-format", "xml")])
def test_an_option_that_cannot_be_used_stops_the_origin(option: str, value: str) -> None:
    assert run(["origin", "--db", "x", option, value]) == 2


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
