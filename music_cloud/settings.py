"""Settings, from the command line, the environment and an env file, in that order of precedence.

Invariant: every value is checked before anything is done with it, and a secret is never an argument that `ps`
would show: any setting `NAME` may be given as `NAME_FILE`, the path of a file that holds it.
`docs/settings.md` describes each for operators; a test holds it to this file.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from contracts.env_file import parse_env_file
from contracts.errors import MalformedError
from contracts.keyframe import KEYFRAME_LEVEL, SEGMENT_BYTES
from contracts.manifest import SEGMENT_MAX_BYTES, SEGMENT_MIN_BYTES
from contracts.minisign import KEY_FILE_MAX_BYTES, PublicKey, parse_public_key
from contracts.page_delta import MAX_BATCH_PAGES
from contracts.page_delta_encoder import BATCH_PAGES
from stores.s3 import S3Settings

PREFIX = "MUSIC_CLOUD_"
# Read by the origin from the same env file (origin/settings.py).
ORIGIN_NAMES = (
    "ACCEL_KEY",
    "ACCEL_PREFIX",
    "PRIVATE_ORIGIN_SECRET",
    "PRIVATE_ORIGIN_KEY_RING",
    "MAX_TOKEN_TTL_S",
    "ORIGIN_ROOTS",
    "FOLLOW_MOUNTS",
    "CATALOG",
    "TRUSTED_PROXIES",
    "MAX_CONNECTIONS_PER_LINK",
    "MAX_COPIES_PER_LINK",
    "METRICS_NETWORKS",
    "STALL_LIMIT_S",
    "LOG_FORMAT",
)
# What the rest of the world calls these; ours come first.
_AWS_NAMES = {
    "s3_endpoint": ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"),
    "s3_region": ("AWS_REGION", "AWS_DEFAULT_REGION"),
    "s3_access_key_id": ("AWS_ACCESS_KEY_ID",),
    "s3_secret_access_key": ("AWS_SECRET_ACCESS_KEY",),
    "s3_session_token": ("AWS_SESSION_TOKEN",),
}


class SettingsError(MalformedError):
    """A setting that cannot be used; its text names the setting and never a secret's value."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Every setting of the publisher and the mirror; each is `MUSIC_CLOUD_` and its name in capitals."""

    s3_endpoint: str | None = None
    s3_region: str = "us-east-1"
    s3_access_key_id: str | None = None
    s3_secret_access_key: str | None = None
    s3_session_token: str | None = None
    s3_addressing_style: Literal["auto", "path", "virtual"] = "auto"
    s3_anonymous: bool = False
    state_dir: str | None = None
    metadata_keys: str | None = None
    expiry_days: Annotated[int, Meta(ge=1, le=3650)] = 14
    keyframe_level: Annotated[int, Meta(ge=1, le=19)] = KEYFRAME_LEVEL
    segment_bytes: Annotated[int, Meta(ge=SEGMENT_MIN_BYTES, le=SEGMENT_MAX_BYTES)] = SEGMENT_BYTES
    delta_batch_pages: Annotated[int, Meta(ge=1, le=MAX_BATCH_PAGES)] = BATCH_PAGES
    database_max_bytes: Annotated[int, Meta(ge=1)] | None = None
    smoke_query: str | None = None
    # The name of a file by itself: a secret key never stands in an environment or an env file.
    signing_key_file: str | None = None
    public_keys: str | None = None
    unsigned: bool = False

    def s3(self) -> S3Settings:
        """The part that opens a bucket."""
        return S3Settings(
            endpoint_url=self.s3_endpoint,
            region=self.s3_region,
            access_key_id=self.s3_access_key_id,
            secret_access_key=self.s3_secret_access_key,
            session_token=self.s3_session_token,
            addressing_style=self.s3_addressing_style,
            anonymous=self.s3_anonymous,
        )

    def kept_metadata_keys(self) -> frozenset[str] | None:
        """The allow-list for `metadata_json`, or None to keep all that is public."""
        if self.metadata_keys is None:
            return None
        return frozenset(key.strip() for key in self.metadata_keys.split(",") if key.strip())

    def pinned_keys(self) -> tuple[PublicKey, ...]:
        """The public keys that a mirror believes; empty when it is to believe whatever it is served.

        Raises:
            SettingsError: when one is no key, or it is not said which of the two is meant.
        """
        entries = [entry.strip() for entry in re.split("[,\n]", self.public_keys or "")]
        # What a public key file has before its key.
        keys = [_load_public_key(entry) for entry in entries if entry and not entry.startswith("untrusted ")]
        if keys and self.unsigned:
            raise SettingsError("a mirror either pins public keys or is unsigned; leave one of the two out")
        if not keys and not self.unsigned:
            raise SettingsError(
                "pin the public key of the publisher with --public-key (`music-cloud keygen` prints it), "
                "or say --unsigned to believe whatever the store serves"
            )
        return tuple(dict.fromkeys(keys))


def load_settings(
    environment: Mapping[str, str], env_file: Path | None, options: Mapping[str, str | None]
) -> Settings:
    """The settings from options (by field name, None where not given), environment and env file.

    Raises:
        SettingsError: naming the first value that cannot be used, or an unknown name in the env file.
    """
    in_file = load_env_file(env_file) if env_file is not None else {}
    values: dict[str, str] = {}
    for field in Settings.__struct_fields__:
        value = options.get(field)
        for source in (environment, in_file):
            if value is None:
                value = find_setting(source, (PREFIX + field.upper(), *_AWS_NAMES.get(field, ())))
        if value is not None:
            values[field] = value
    if environment.get(PREFIX + "METADATA_KEYS", in_file.get(PREFIX + "METADATA_KEYS")) == "":
        raise SettingsError(f"{PREFIX}METADATA_KEYS names no key; leave it out to keep all that are public")
    try:
        return msgspec.convert(values, Settings, strict=False)
    except msgspec.ValidationError as error:
        message, _, path = str(error).partition(" - at `$.")
        raise SettingsError(f"{PREFIX}{path.rstrip('`').upper()}: {message}") from error


def load_env_file(path: Path) -> dict[str, str]:
    """The assignments of an env file.

    Raises:
        SettingsError: when it cannot be read, or has a name of ours that is none.
    """
    try:
        values = parse_env_file(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, MalformedError) as error:
        raise SettingsError(f"{path}: {error}") from error
    known = {PREFIX + field.upper() for field in Settings.__struct_fields__}
    known |= {PREFIX + name for name in ORIGIN_NAMES}
    for name in values:
        if name.startswith(PREFIX) and not {name, name.removesuffix("_FILE")} & known:
            close = difflib.get_close_matches(name, known, 1)
            raise SettingsError(
                f"{path}: there is no setting {name}" + (f"; did you mean {close[0]}?" if close else "")
            )
    return values


def find_setting(source: Mapping[str, str], names: Iterable[str]) -> str | None:
    """The first of these settings that a source has, itself or as the file that `NAME_FILE` names.

    Raises:
        SettingsError: when that file cannot be read.
    """
    for name in names:
        if source.get(name):
            return source[name]
        path = source.get(name + "_FILE")
        if path and name.startswith(PREFIX):
            try:
                return Path(path).read_text("utf-8").strip()
            except (OSError, UnicodeDecodeError) as error:
                raise SettingsError(f"{name}_FILE: {error}") from error
    return None


def _load_public_key(entry: str) -> PublicKey:
    """The key in a line `RW…`, or in the file that has this name."""
    try:
        return parse_public_key(entry)
    except MalformedError as error:
        not_a_key = error
    try:
        with Path(entry).open("rb") as stream:
            return parse_public_key(stream.read(KEY_FILE_MAX_BYTES).decode("utf-8"))
    except (FileNotFoundError, ValueError) as error:
        # A line that was cut or mistyped is neither; a name with a NUL is a ValueError.
        reason = error if isinstance(error, MalformedError) else not_a_key
        raise SettingsError(f"{PREFIX}PUBLIC_KEYS: {entry[:40]!r}: {reason}") from error
    except OSError as error:
        raise SettingsError(f"{PREFIX}PUBLIC_KEYS: {error}") from error
