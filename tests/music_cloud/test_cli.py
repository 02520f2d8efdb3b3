"""The command line as a person or a script meets it."""

from __future__ import annotations

import io
import json
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from localstack import Bucket
from music_cloud.cli import run
from music_cloud.sample import evolve
from music_cloud.screen import Screen, format_bytes


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("MUSIC_CLOUD_ENV_FILE", "MUSIC_CLOUD_STATE_DIR", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "xdg-state"))


def test_publish_and_mirror_over_a_real_s3_server(
    catalogue: Path, tmp_path: Path, bucket: Bucket, capsys: pytest.CaptureFixture[str]
) -> None:
    """The user's road: settings in an env file, publish to S3, mirror by plain HTTP."""
    env_file = tmp_path / "settings.env"
    env_file.write_text(
        f"MUSIC_CLOUD_S3_ENDPOINT={bucket.endpoint_url}\n"
        f"MUSIC_CLOUD_S3_ACCESS_KEY_ID={bucket.access_key}\n"
        f"MUSIC_CLOUD_S3_SECRET_ACCESS_KEY={bucket.secret_key}\n"
    )
    publish = ["publish", "--db", str(catalogue), "--store", f"s3://{bucket.bucket}/site", "--json"]
    mirror = [
        "mirror",
        "--from",
        f"{bucket.public_url}/site",
        "--to",
        str(tmp_path / "mirror"),
        "--unsigned",
        "--json",
    ]
    outcomes = []
    for command in (publish, publish, mirror, mirror):
        assert run([*command, "--env-file", str(env_file)]) == 0
        outcomes.append(json.loads(capsys.readouterr().out)["outcome"])
    evolve(catalogue, churn="hour", seed=1)
    for command in (publish, mirror):
        assert run([*command, "--env-file", str(env_file)]) == 0
        outcomes.append(json.loads(capsys.readouterr().out)["outcome"])
    assert outcomes == ["published", "unchanged", "updated", "unchanged", "published", "updated"]


def test_export_snapshot_writes_the_database_and_its_manifest(catalogue: Path, tmp_path: Path) -> None:
    target = tmp_path / "snapshot"
    assert run(["export-snapshot", "--db", str(catalogue), "--target-dir", str(target)]) == 0
    manifest = json.loads((target / "manifest.json").read_text())
    tracks = sqlite3.connect(target / "catalog_read.db")
    try:
        assert tracks.execute("SELECT count(*) FROM catalog_tracks").fetchone() == (manifest["track_count"],)
    finally:
        tracks.close()
    assert sorted(path.name for path in target.iterdir()) == ["catalog_read.db", "manifest.json"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["no-such-command"],
        ["publish"],
        ["publish", "--db", "x", "--store", ""],
        ["publish", "--db", "x", "--store", "ftp://x"],
        ["publish", "--db", "x", "--store", "https://only.example/read"],
        ["publish", "--db", "x", "--store", "s3://"],
        ["publish", "--db", "x", "--store", "s3://user@bucket"],
        ["publish", "--db", "x", "--store", "s3://[x/y"],
        ["publish", "--db", "x", "--store", "s3://bad bucket!/x"],
        ["publish", "--db", "x", "--store", "y", "--env-file", "/no/such/file"],
        ["mirror", "--from", "http://", "--to", "x"],
        ["mirror", "--from", "http://user:secret@host/", "--to", "x"],
        ["mirror", "--from", "x", "--to", "y", "--interval", "soon"],
        ["mirror", "--from", "x", "--to", "y", "--interval", "0s"],
        ["mirror", "--from", "x", "--to", "y", "--interval", "999999d"],
        ["mirror", "--from", "http://host:port/", "--to", "x"],
        ["origin", "--db", "x", "--root", "x"],
        ["demo", "--songs", "-1"],
    ],
)
def test_wrong_usage_is_exit_code_2_and_no_traceback(
    arguments: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(arguments) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "Traceback" not in printed.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["export-snapshot", "--db", "missing.db", "--target-dir", "out"],
        ["publish", "--db", "missing.db", "--store", "bucket"],
        ["publish", "--db", "garbage.db", "--store", "bucket"],
        ["publish", "--db", "garbage.db", "--store", "garbage.db"],
        ["mirror", "--from", "empty", "--to", "mirror", "--unsigned"],
        ["mirror", "--from", "damaged", "--to", "mirror", "--unsigned"],
    ],
)
def test_a_failure_is_exit_code_1_and_one_sentence(
    arguments: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "garbage.db").write_bytes(b"garbage" * 1000)
    (tmp_path / "empty").mkdir()
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "manifest.json").write_bytes(b"{}")
    assert run(arguments) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    complaints = [line for line in printed.err.splitlines() if line.startswith("music-cloud: ")]
    assert len(complaints) == 1
    assert "Traceback" not in printed.err


def test_every_command_explains_itself(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("export-snapshot", "publish", "mirror", "keygen", "rotate-key", "demo"):
        assert run([command, "--help"]) == 0
        assert f"music-cloud {command}" in capsys.readouterr().out


def test_the_secret_key_is_no_option() -> None:
    """What stands on the command line stands in `ps`."""
    for command in ("publish", "mirror"):
        assert run([command, "--s3-secret-access-key", "x"]) == 2


def test_sigterm_ends_a_publish_without_a_traceback(catalogue: Path, tmp_path: Path) -> None:
    """In the middle of the work; the next run goes on."""
    command = [sys.executable, "-m", "music_cloud", "publish", "--db", str(catalogue)]
    with subprocess.Popen(
        [*command, "--store", str(tmp_path / "bucket")], stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == "exporting the catalogue\n"
        process.terminate()
        rest = process.stderr.read()
        assert process.wait() in (0, 143)  # it may have been faster than the signal
    assert "Traceback" not in rest
    assert run(["publish", "--db", str(catalogue), "--store", str(tmp_path / "bucket")]) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_within_a_function_of_sqlite_is_no_failure_of_the_catalogue(
    catalogue: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    """SQLite reports what is raised there as an error of its own."""

    def interrupted(*arguments: object) -> None:
        os.kill(os.getpid(), number)

    monkeypatch.setattr("publisher.rows.public_metadata", lambda *arguments: interrupted)
    target = tmp_path / "snapshot"
    assert run(["export-snapshot", "--db", str(catalogue), "--target-dir", str(target)]) == 128 + number
    assert list(target.iterdir()) == []


def test_what_a_stranger_wrote_cannot_speak_to_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "\x1b]0;pwned\x07"
    assert (
        run(["mirror", "--from", str(tmp_path / name), "--to", str(tmp_path / "mirror"), "--unsigned"]) == 1
    )
    assert "\x1b" not in capsys.readouterr().err


def test_demo_runs_and_leaves_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert run(["demo", "--songs", "200"]) == 0
    printed = capsys.readouterr().out
    assert "0 failed" in printed
    assert "the whole file: 200, 40.4 MiB, byte for byte" in printed
    assert "a tampered link: 401" in printed
    assert "an expired link: 410" in printed
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1536, "1.5 KiB"),
        (5 << 30, "5.0 GiB"),
        (3 << 40, "3072.0 GiB"),
    ],
)
def test_sizes_are_written_in_powers_of_1024(size_bytes: int, text: str) -> None:
    """IEC 80000-13."""
    assert format_bytes(size_bytes) == text


def test_progress_is_plain_lines_where_there_is_no_terminal() -> None:
    now_s = 0.0
    stream = io.StringIO()
    with Screen(stream, clock=lambda: now_s) as screen:
        screen.observe("upload", 0, 100 << 20)
        now_s = 5.0
        screen.observe("upload", 10 << 20, 100 << 20)
        now_s = 10.0
        screen.observe("upload", 20 << 20, 100 << 20)
    assert stream.getvalue() == "uploading 100.0 MiB\n  20.0 MiB of 100.0 MiB, 2.0 MiB/s, 40 s left\n"


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_is_a_bar_with_bytes_rate_and_time_left_on_a_terminal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    stream = _Terminal()
    with Screen(stream) as screen:
        screen.observe("upload", 0, 100 << 20)
        screen.observe("upload", 50 << 20, 100 << 20)
    assert "uploading" in stream.getvalue()
    assert "100.0 MiB" in stream.getvalue()
