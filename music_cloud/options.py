"""Options that several commands share, and how results are printed."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
import msgspec

Command = TypeVar("Command", bound=Callable[..., Any])
_DURATION = re.compile(r"([0-9]{1,6})([smhd])")
_LONGEST_S = 3650 * 86_400  # ten years: no wait and no link is meant to be longer
_UNIT_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


class Duration(click.ParamType[int]):
    """Seconds, written as 30s, 15m, 2h or 1d."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        match = _DURATION.fullmatch(value)
        seconds = int(match[1]) * _UNIT_S[match[2]] if match else 0
        if not 0 < seconds <= _LONGEST_S:
            self.fail(f"{value!r} is not a time such as 30s, 15m, 2h or 1d", param, ctx)
        return seconds


db_option = click.option(
    "--db",
    "source_db",
    required=True,
    type=click.Path(path_type=Path),
    help="The authoritative catalogue; it is only read.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as one line of JSON.")
public_key_option = click.option(
    "--public-key",
    "public_keys",
    multiple=True,
    metavar="RW…|FILE",
    help="Public key that must have signed, or one that it hands over to. May be repeated.",
)
env_file_option = click.option(
    "--env-file",
    envvar="MUSIC_CLOUD_ENV_FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File of KEY=value lines with settings and secrets (docs/settings.md).",
)


def settings_options(command: Command) -> Command:
    """The options that say where the settings are and which bucket is meant."""
    for option in (
        click.option("--region", "s3_region", help="Region of the S3 bucket."),
        click.option("--endpoint", "s3_endpoint", help="URL of the S3 server, when it is not AWS."),
        env_file_option,
    ):
        command = option(command)
    return command


def printable(text: str) -> str:
    """Text that may come from a stranger, so that it cannot speak to the terminal or forge a line."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)


def print_json(value: Any) -> None:
    """Print a result for scripts: one line. What cannot be said in UTF-8 is replaced: names of files may be
    any bytes."""
    try:
        encoded = msgspec.json.encode(value)
    except UnicodeEncodeError:
        encoded = msgspec.json.encode(_replace_surrogates(msgspec.to_builtins(value)))
    click.echo(encoded.decode())


def _replace_surrogates(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        return {name: _replace_surrogates(item) for name, item in value.items()}
    return [_replace_surrogates(item) for item in value] if isinstance(value, list | tuple) else value
