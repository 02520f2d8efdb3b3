"""`doctor` on the command line: what it prints, its exit code, and what a publish makes of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from localstack import Bucket
from music_cloud.addresses import state_folder
from music_cloud.cli import run
from music_cloud.settings import Settings
from publisher.doctor import Check, Diagnosis
from publisher.state import State


@pytest.fixture(autouse=True)
def state_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    for name in ("MUSIC_CLOUD_ENV_FILE", "MUSIC_CLOUD_STATE_DIR", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "xdg-state"))
    return tmp_path / "xdg-state"


def test_a_good_folder_is_exit_code_0_and_its_profile_is_kept(
    tmp_path: Path, state_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "store"
    folder.mkdir()
    assert run(["doctor", "--store", str(folder), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["usable"], said["kind"], said["store"]) == (True, "folder", str(folder))
    assert {"name": "locks", "level": "good", "found": "honoured", "advice": ""} in said["checks"]
    kept = state_folder(Settings(), str(folder), {"XDG_STATE_HOME": str(state_home)})
    assert said["state_folder"] == str(kept)
    profile = State(kept).load_profile()
    assert profile is not None
    assert profile.store == str(folder)


def test_what_is_not_usable_is_exit_code_1_with_what_to_do(
    tmp_path: Path, state_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["doctor", "--store", str(tmp_path / "absent")]) == 1
    printed = capsys.readouterr()
    assert "there is no such folder" in printed.out
    assert "bad: the folder: mount the disk it is on" in printed.out
    assert printed.err.startswith("music-cloud: ")
    assert printed.err.count("\n") == 1
    assert not state_home.exists()


def test_wrong_usage_is_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["doctor"]) == 2
    assert run(["doctor", "--store", "ftp://x"]) == 2
    assert "s3://bucket/prefix" in capsys.readouterr().err


def test_a_read_only_address_keeps_nothing(
    state_home: Path, bucket: Bucket, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["doctor", "--store", f"{bucket.public_url}/site"]) == 0
    assert "nothing published here (404)" in capsys.readouterr().out
    assert not state_home.exists()


def test_a_bucket_that_was_examined_is_not_probed_by_the_publish(
    catalogue: Path, tmp_path: Path, bucket: Bucket, capsys: pytest.CaptureFixture[str]
) -> None:
    """Both go by one profile, in one folder."""
    env_file = tmp_path / "settings.env"
    env_file.write_text(
        f"MUSIC_CLOUD_S3_ENDPOINT={bucket.endpoint_url}\n"
        f"MUSIC_CLOUD_S3_ACCESS_KEY_ID={bucket.access_key}\n"
        f"MUSIC_CLOUD_S3_SECRET_ACCESS_KEY={bucket.secret_key}\n"
    )
    where = ["--store", f"s3://{bucket.bucket}/site", "--env-file", str(env_file), "--json"]
    assert run(["doctor", *where]) == 0
    said = json.loads(capsys.readouterr().out)
    assert run(["publish", "--db", str(catalogue), *where]) == 0
    profile = State(Path(said["state_folder"])).load_profile()
    assert profile is not None
    assert profile.checks_sums is True  # which only the doctor finds out
    assert json.loads(capsys.readouterr().out)["outcome"] == "published"


def test_what_a_server_says_cannot_speak_to_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """Nor is it taken for markup."""
    import sys
    from datetime import UTC, datetime

    from music_cloud.doctor_command import print_diagnosis

    hostile = Check("x", "bad", "\x1b[31m[bold]red\nline", "\x1b]0;title\x07 [link=https://x]")
    diagnosis = Diagnosis("s3://\x1bbucket", "bucket", datetime.now(UTC), "1", (hostile,))
    print_diagnosis(diagnosis, None, sys.stdout)
    printed = capsys.readouterr().out
    assert "\x1b" not in printed
    assert "\x07" not in printed
    assert "[bold]red line" in printed
    assert "[link=https://x]" in printed


def test_while_a_publish_runs_the_findings_are_printed_all_the_same(
    tmp_path: Path, state_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """They are what somebody asked for; only a later publish asks the store again."""
    folder = tmp_path / "store"
    folder.mkdir()
    kept = state_folder(Settings(), str(folder), {"XDG_STATE_HOME": str(state_home)})
    with State(kept).locked():
        assert run(["doctor", "--store", str(folder), "--json"]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["usable"] is True
    assert json.loads(printed.out)["state_folder"] is None
    assert printed.err.startswith("music-cloud: what was found is not kept for publishes: another publish is")
    assert State(kept).load_profile() is None


def test_state_folder_that_cannot_be_written_is_a_remark(
    tmp_path: Path, state_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "store").mkdir()
    state_home.write_text("a file where a folder should be")
    assert run(["doctor", "--store", str(tmp_path / "store")]) == 0
    printed = capsys.readouterr()
    assert "\nusable\n" in printed.out
    assert "not kept for publishes" in printed.err


@pytest.mark.parametrize("command", [["doctor"], ["status"], ["publish", "--db", "x.db"]])
@pytest.mark.parametrize("as_json", [[], ["--json"]])
def test_address_that_is_not_utf8_is_wrong_usage(
    command: list[str], as_json: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """What `$'\\xff'` of a shell becomes in Python: no profile or state could name it."""
    assert run([*command, "--store", "/tmp/\udcff", *as_json]) == 2
    assert "is not UTF-8: '/tmp/\\udcff'" in capsys.readouterr().err
