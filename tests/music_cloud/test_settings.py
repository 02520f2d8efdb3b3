"""Settings: where they come from, which wins, and what is said of a wrong one."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from music_cloud.settings import ORIGIN_NAMES, PREFIX, Settings, SettingsError, load_settings


def test_an_option_beats_the_environment_and_that_the_env_file(tmp_path: Path) -> None:
    env_file = tmp_path / "settings.env"
    env_file.write_text(
        "MUSIC_CLOUD_S3_ENDPOINT=http://file\nMUSIC_CLOUD_S3_REGION=file\nMUSIC_CLOUD_EXPIRY_DAYS=3\n"
    )
    environment = {"MUSIC_CLOUD_S3_ENDPOINT": "http://environment", "MUSIC_CLOUD_S3_REGION": "environment"}
    settings = load_settings(environment, env_file, {"s3_endpoint": "http://option", "s3_region": None})
    assert (settings.s3_endpoint, settings.s3_region, settings.expiry_days) == (
        "http://option",
        "environment",
        3,
    )


def test_the_usual_aws_variables_are_understood_and_ours_win() -> None:
    aws = {
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_SESSION_TOKEN": "session",
        "AWS_DEFAULT_REGION": "eu-central-1",
        "AWS_ENDPOINT_URL_S3": "http://s3",
    }
    settings = load_settings(aws | {"MUSIC_CLOUD_S3_REGION": "ours"}, None, {})
    assert settings.s3_access_key_id == "key"
    assert settings.s3_secret_access_key == "secret"
    assert settings.s3_session_token == "session"
    assert settings.s3_endpoint == "http://s3"
    assert settings.s3_region == "ours"


def test_a_secret_may_stand_in_a_file(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("hush\n")
    settings = load_settings({"MUSIC_CLOUD_S3_SECRET_ACCESS_KEY_FILE": str(secret)}, None, {})
    assert settings.s3_secret_access_key == "hush"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("EXPIRY_DAYS", "0"),
        ("EXPIRY_DAYS", "soon"),
        ("KEYFRAME_LEVEL", "99"),
        ("SEGMENT_BYTES", "1"),
        ("S3_ADDRESSING_STYLE", "sideways"),
        ("S3_ANONYMOUS", "maybe"),
        ("DATABASE_MAX_BYTES", "-1"),
    ],
)
def test_a_wrong_value_is_refused_by_the_name_of_its_setting(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=f"MUSIC_CLOUD_{name}"):
        load_settings({PREFIX + name: value}, None, {})


def test_a_misspelt_setting_in_the_env_file_is_refused_with_a_suggestion(tmp_path: Path) -> None:
    env_file = tmp_path / "settings.env"
    env_file.write_text("MUSIC_CLOUD_S3_ENDPIONT=http://x\nOTHER_PROGRAM=1\n")
    with pytest.raises(SettingsError, match="did you mean MUSIC_CLOUD_S3_ENDPOINT"):
        load_settings({}, env_file, {})


def test_a_malformed_env_file_is_refused_without_showing_its_content(tmp_path: Path) -> None:
    env_file = tmp_path / "settings.env"
    env_file.write_text("# fine\nthis is a s3cr3t\n")
    with pytest.raises(SettingsError, match="line 2") as caught:
        load_settings({}, env_file, {})
    assert "s3cr3t" not in str(caught.value)


def test_a_missing_env_file_that_was_asked_for_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError):
        load_settings({}, tmp_path / "nowhere.env", {})


def test_every_setting_is_documented_and_nothing_else() -> None:
    text = (Path(__file__).parents[2] / "docs" / "settings.md").read_text("utf-8")
    documented = set(re.findall(r"^\| `MUSIC_CLOUD_([A-Z0-9_]+)`", text, re.MULTILINE))
    ours = {field.upper() for field in Settings.__struct_fields__} | set(ORIGIN_NAMES) | {"ENV_FILE"}
    assert documented == ours
