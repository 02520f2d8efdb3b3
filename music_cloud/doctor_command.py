"""The command that examines a store, before one relies on it or when something is wrong.

Invariant: a store that is not usable is exit code 1, whatever else is printed; what a server says is printed
only after it was made harmless to a terminal.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TextIO

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from contracts.errors import ConflictError, UnsuitableStore
from music_cloud.addresses import open_plain_store, state_folder
from music_cloud.options import json_option, print_json, printable, settings_options
from music_cloud.settings import Settings, load_settings
from publisher.doctor import Check, Diagnosis, Level, examine_store, store_diagnosis
from publisher.state import State

_STYLES: dict[Level, str] = {"good": "green", "note": "cyan", "warning": "yellow", "bad": "bold red"}
_PLAIN_WIDTH = 110  # where no terminal says how wide it is: most findings fit on a line


@click.command("doctor")
@click.option("--store", "address", required=True, help="s3://bucket/prefix, a folder, or https://… to read.")
@click.option(
    "--single-publisher",
    is_flag=True,
    help="Only one machine ever publishes to it: a store that ignores preconditions is good enough.",
)
@settings_options
@json_option
def doctor_command(
    address: str, single_publisher: bool, env_file: Path | None, as_json: bool, **options: str | None
) -> None:
    """Examine a store: what it can do, what is wrong with it, and what to do about that.

    Writes scratch objects of its own and deletes them; only reads from https://…. What it finds is kept for
    publishes from this machine. Exit code 1: the store is not usable.
    """
    settings = load_settings(os.environ, env_file, options)
    diagnosis = examine_store(open_plain_store(address, settings), single_publisher=single_publisher)
    kept_in, remark = _keep(diagnosis, settings)
    if as_json:
        print_json(diagnosis_fields(diagnosis, kept_in))
    else:
        print_diagnosis(diagnosis, kept_in, sys.stdout)
    if remark is not None:
        click.echo(f"music-cloud: {printable(remark)}", err=True)
    if not diagnosis.is_usable:
        names = ", ".join(check.name for check in diagnosis.checks if check.level == "bad")
        raise UnsuitableStore(f"{diagnosis.store} is not usable as it is: {names}")


def diagnosis_fields(diagnosis: Diagnosis, kept_in: Path | None) -> dict[str, object]:
    """The fields of `doctor --json`."""
    return {
        "store": diagnosis.store,
        "kind": diagnosis.kind,
        "usable": diagnosis.is_usable,
        "checked_at": diagnosis.checked_at,
        "program": diagnosis.program,
        "checks": diagnosis.checks,
        "profile": diagnosis.profile,
        "state_folder": None if kept_in is None else str(kept_in),
    }


def print_diagnosis(diagnosis: Diagnosis, kept_in: Path | None, stream: TextIO) -> None:
    """Print a table of what was found, and beneath it what to do about what is not good."""
    width = None if stream.isatty() else _PLAIN_WIDTH
    console = Console(file=stream, width=width, highlight=False, markup=False, emoji=False)
    table = Table(title=Text(printable(diagnosis.store)), title_justify="left", box=None, pad_edge=False)
    for heading in ("check", "result", "found"):
        table.add_column(heading, overflow="fold")
    for check in diagnosis.checks:
        table.add_row(check.name, Text(check.level, _STYLES[check.level]), Text(_found(check)))
    console.print(table)
    advice: dict[tuple[Level, str], list[str]] = {}  # said once, for all that it is good for
    for check in diagnosis.checks:
        if check.advice and check.level != "good":
            advice.setdefault((check.level, check.advice), []).append(check.name)
    for (level, what), names in advice.items():
        console.print(Text.assemble((level, _STYLES[level]), f": {', '.join(names)}: {printable(what)}"))
    console.print("usable" if diagnosis.is_usable else "not usable", end="")
    console.print("" if kept_in is None else f"; kept for publishes in {printable(str(kept_in))}")


def _found(check: Check) -> str:
    return printable(" ".join(check.found.split()))


def _keep(diagnosis: Diagnosis, settings: Settings) -> tuple[Path | None, str | None]:
    """Where the profile is kept now, when there is one; or why it is not, which changes no finding."""
    if diagnosis.profile is None:
        return None, None
    try:
        folder = state_folder(settings, diagnosis.store, os.environ)
        return (folder if store_diagnosis(diagnosis, State(folder)) else None), None
    except (ConflictError, OSError) as error:
        return None, f"what was found is not kept for publishes: {error}"
