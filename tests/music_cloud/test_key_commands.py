"""Keys on the command line: made, used, handed over, and never shown."""

from __future__ import annotations

import base64
import json
import os
import stat
from pathlib import Path

import pytest

from contracts.minisign import parse_public_key, parse_secret_key
from music_cloud.cli import run
from music_cloud.sample import evolve
from music_cloud.settings import SettingsError, load_settings


@pytest.fixture(autouse=True)
def _at_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("MUSIC_CLOUD_ENV_FILE", "MUSIC_CLOUD_STATE_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)


Capture = pytest.CaptureFixture[str]


def keygen(capsys: Capture, *arguments: str) -> dict[str, str]:
    assert run(["keygen", "--json", *arguments]) == 0
    made: dict[str, str] = json.loads(capsys.readouterr().out)
    return made


def result(capsys: Capture, *arguments: str, code: int = 0) -> dict[str, str]:
    assert run([*arguments, "--json"]) == code
    fields: dict[str, str] = json.loads(capsys.readouterr().out or "{}")
    return fields


def test_keygen_writes_both_files_and_says_what_to_pin(capsys: Capture, tmp_path: Path) -> None:
    assert run(["keygen"]) == 0
    printed = capsys.readouterr().out
    key = parse_secret_key((tmp_path / "music-cloud.key").read_bytes())
    assert parse_public_key((tmp_path / "music-cloud.pub").read_text()) == key.public
    assert f"key {key.public.key_id}\n" in printed
    assert f"--public-key {key.public.line}\n" in printed
    assert str(tmp_path / "music-cloud.key") in printed


def test_secret_key_is_printed_nowhere(capsys: Capture, tmp_path: Path) -> None:
    for arguments in ([], ["--out", "b.key", "--json"]):
        assert run(["keygen", *arguments]) == 0
        printed = capsys.readouterr()
        for path in tmp_path.glob("*.key"):
            content = base64.b64decode(path.read_text().split("\n")[1])
            seed = content[62:94]
            for secret in (base64.b64encode(content[60:]).decode(), seed.hex(), path.read_text()[70:200]):
                assert secret[:20] not in printed.out + printed.err


@pytest.mark.skipif(os.name == "nt", reason="Windows keeps permissions elsewhere")
@pytest.mark.parametrize("force", [[], ["--force"]])
def test_only_the_owner_may_read_the_secret_key(tmp_path: Path, force: list[str]) -> None:
    before = os.umask(0)
    try:
        assert run(["keygen", *force]) == 0
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "music-cloud.key").stat().st_mode) == 0o600


@pytest.mark.parametrize("existing", ["music-cloud.key", "music-cloud.pub"])
def test_existing_key_is_not_overwritten(tmp_path: Path, capsys: Capture, existing: str) -> None:
    (tmp_path / existing).write_bytes(b"precious")
    assert run(["keygen"]) == 1
    assert "is there already" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {existing: b"precious"}


def test_force_overwrites_and_leaves_nothing_beside(tmp_path: Path, capsys: Capture) -> None:
    first = keygen(capsys)
    second = keygen(capsys, "--force")
    assert first["key_id"] != second["key_id"]
    assert parse_secret_key((tmp_path / "music-cloud.key").read_bytes()).public.line == second["public_key"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["music-cloud.key", "music-cloud.pub"]


@pytest.mark.parametrize("out", ["a.pub", "no/such/folder/a.key"])
def test_keygen_that_cannot_write_leaves_nothing(tmp_path: Path, capsys: Capture, out: str) -> None:
    assert run(["keygen", "--out", out]) != 0
    assert "Traceback" not in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_whole_road_signed_rotated_and_followed(catalogue: Path, tmp_path: Path, capsys: Capture) -> None:
    """As the operator types it."""
    old, new = keygen(capsys, "--out", "old.key"), keygen(capsys, "--out", "new.key")
    publish = ["publish", "--db", str(catalogue), "--store", "bucket"]
    mirror = ["mirror", "--from", "bucket", "--to", "mirror", "--public-key", old["public_key"]]
    assert result(capsys, *publish, "--signing-key", "old.key")["signed_by"] == old["key_id"]
    assert result(capsys, *mirror)["signed_by"] == old["key_id"]
    rotate = ["rotate-key", "--store", "bucket", "--old", "old.key", "--new", "new.key"]
    assert result(capsys, *rotate) == {
        "outcome": "published",
        "old_key_id": old["key_id"],
        "new_key_id": new["key_id"],
        "public_key": new["public_key"],
    }
    assert result(capsys, *rotate)["outcome"] == "unchanged"
    evolve(catalogue, churn="hour", seed=1)
    assert result(capsys, *publish, "--signing-key", "new.key")["outcome"] == "published"
    assert result(capsys, *mirror)["signed_by"] == new["key_id"]
    assert run([*publish, "--signing-key", "old.key"]) == 1  # by mistake, from a forgotten timer
    assert f"handed over to {new['key_id']}" in capsys.readouterr().err


def test_lines_for_people_name_the_key(catalogue: Path, capsys: Capture) -> None:
    made = keygen(capsys)
    assert (
        run(["publish", "--db", str(catalogue), "--store", "bucket", "--signing-key", "music-cloud.key"]) == 0
    )
    assert f"signed by key {made['key_id']}\n" in capsys.readouterr().out
    assert run(["mirror", "--from", "bucket", "--to", "a", "--public-key", "music-cloud.pub"]) == 0
    assert f"signed by key {made['key_id']}\n" in capsys.readouterr().out
    assert run(["mirror", "--from", "bucket", "--to", "b", "--unsigned"]) == 0
    assert "not asked who signed it\n" in capsys.readouterr().out


def test_settings_name_the_keys_too(catalogue: Path, tmp_path: Path, capsys: Capture) -> None:
    made = keygen(capsys)
    (tmp_path / "nas.env").write_text("MUSIC_CLOUD_SIGNING_KEY_FILE=music-cloud.key\n")
    (tmp_path / "site.env").write_text("MUSIC_CLOUD_PUBLIC_KEYS_FILE=music-cloud.pub\n")
    publish = ["publish", "--db", str(catalogue), "--store", "bucket", "--env-file", "nas.env"]
    assert result(capsys, *publish)["signed_by"] == made["key_id"]
    mirror = ["mirror", "--from", "bucket", "--to", "mirror", "--env-file", "site.env"]
    assert result(capsys, *mirror)["signed_by"] == made["key_id"]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "pin the public key"),
        (["--public-key", ""], "pin the public key"),
        (["--public-key", "RWnonsense"], "not a minisign public key"),
        (["--public-key", "no-such-file.pub"], "not a minisign public key"),
        (["--public-key", "music-cloud.key"], "this is a secret key"),
        (["--public-key", "music-cloud.pub", "--unsigned"], "leave one of the two out"),
    ],
)
def test_mirror_that_does_not_say_whom_it_believes_is_wrong_usage(
    arguments: list[str], complaint: str, capsys: Capture
) -> None:
    keygen(capsys)
    assert run(["mirror", "--from", "x", "--to", "y", *arguments]) == 2
    assert complaint in capsys.readouterr().err


def test_several_public_keys_and_files_are_pinned(tmp_path: Path, capsys: Capture) -> None:
    lines = [keygen(capsys, "--out", f"{name}.key")["public_key"] for name in "abc"]
    (tmp_path / "two.pub").write_text((tmp_path / "b.pub").read_text() + (tmp_path / "c.pub").read_text())
    for value in (",".join(lines), f"{lines[0]}\nb.pub, c.pub,", "\n".join(lines) + "\n" + lines[0]):
        keys = load_settings({"MUSIC_CLOUD_PUBLIC_KEYS": value}, None, {}).pinned_keys()
        assert [key.line for key in keys] == lines
    keys = load_settings({"MUSIC_CLOUD_PUBLIC_KEYS_FILE": "two.pub"}, None, {}).pinned_keys()
    assert [key.line for key in keys] == lines[1:]


def test_secret_key_in_an_env_file_is_refused_unseen(tmp_path: Path) -> None:
    (tmp_path / "x.env").write_text("MUSIC_CLOUD_SIGNING_KEY=RWQAAEIyhush\n")
    with pytest.raises(SettingsError, match="did you mean MUSIC_CLOUD_SIGNING_KEY_FILE") as caught:
        load_settings({}, tmp_path / "x.env", {})
    assert "hush" not in str(caught.value)


@pytest.mark.skipif(os.name == "nt", reason="Windows keeps permissions elsewhere")
def test_publish_with_a_key_that_others_may_read_is_refused_before_anything_is_done(
    catalogue: Path, tmp_path: Path, capsys: Capture
) -> None:
    keygen(capsys)
    (tmp_path / "music-cloud.key").chmod(0o644)
    publish = ["publish", "--db", str(catalogue), "--store", "bucket", "--signing-key", "music-cloud.key"]
    assert run(publish) == 1
    assert "chmod 600" in capsys.readouterr().err
    assert not (tmp_path / "bucket").exists()
