"""The command line: options in, one line or JSON out.

Invariant: bad usage is exit code 2, a failure is 1 with one sentence on stderr; a traceback is a bug.
What the commands do is in the packages below; this file only puts them together.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from types import FrameType
from typing import NoReturn

import click

from contracts.errors import ContractError, StoreError
from mirror import Mirror, SyncResult, follow
from mirror.trust import DATABASE_MAX_BYTES
from music_cloud.addresses import open_readable_store, open_store, state_folder
from music_cloud.doctor_command import doctor_command
from music_cloud.history_commands import history_command, rollback_command
from music_cloud.key_commands import keygen_command, rotate_key_command
from music_cloud.options import (
    Duration,
    db_option,
    json_option,
    print_json,
    printable,
    public_key_option,
    settings_options,
)
from music_cloud.origin_commands import origin_command, token_group
from music_cloud.prune_command import prune_command
from music_cloud.reports import publish_fields, publish_lines, sync_fields, sync_line
from music_cloud.screen import Screen
from music_cloud.settings import SettingsError, load_settings
from music_cloud.store_commands import status_command, verify_command
from publisher import PublishOptions, export_snapshot, publish
from publisher.signing import load_signing_key
from stores.progress import Progress


class Stopped(BaseException):
    """SIGTERM: like Ctrl-C, nothing on the way up mistakes it for a failure."""


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="music-cloud")
def cli() -> None:
    """Publish a music catalogue from a NAS, mirror it, and stream what exists only there.

    Exit codes: 0 success, 1 failure, 2 wrong usage.
    """


@cli.command("export-snapshot")
@db_option
@click.option("--target-dir", required=True, type=click.Path(file_okay=False, path_type=Path))
@settings_options
@json_option
def export_command(
    source_db: Path, target_dir: Path, env_file: Path | None, as_json: bool, **options: str | None
) -> None:
    """Write catalog_read.db and manifest.json into a folder, without publishing them."""
    settings = load_settings(os.environ, env_file, options)
    snapshot = export_snapshot(source_db, target_dir, metadata_keys=settings.kept_metadata_keys())
    if as_json:
        print_json(snapshot)
    else:
        click.echo(
            f"exported {snapshot.snapshot_id}: {snapshot.playlist_count:,} playlists, "
            f"{snapshot.track_count:,} tracks, {snapshot.file_count:,} files"
        )


@cli.command("publish")
@db_option
@click.option("--store", "address", required=True, help="s3://bucket/prefix or a folder.")
@click.option(
    "--single-publisher",
    is_flag=True,
    help="Publish to a store that ignores preconditions. Only when no other machine ever publishes to it.",
)
@click.option(
    "--accept-clock",
    is_flag=True,
    help="Publish although the last publish has a later date: its machine's clock was wrong, ours is right.",
)
@click.option("--rebuild", is_flag=True, help="Export the catalogue anew, where a refresh would do.")
@click.option("--resume", is_flag=True, help="Go on with the catalogue after a rollback.")
@click.option(
    "--repair",
    is_flag=True,
    help="Read every blob that is published, and put right what is missing or damaged.",
)
@click.option("--dry-run", is_flag=True, help="Say what would be sent, and send nothing.")
@click.option(
    "--no-proof",
    is_flag=True,
    help="Neither check the new database nor read back what was uploaded before the pointer moves.",
)
@click.option("--signing-key", "signing_key_file", help="Secret key file that signs (music-cloud keygen).")
@settings_options
@json_option
def publish_command(
    source_db: Path,
    address: str,
    single_publisher: bool,
    accept_clock: bool,
    rebuild: bool,
    resume: bool,
    repair: bool,
    dry_run: bool,
    no_proof: bool,
    env_file: Path | None,
    as_json: bool,
    **options: str | None,
) -> None:
    """Bring a store to the present state of the catalogue, sending only what changed.

    A run that was interrupted is finished by the next one. Nothing changed: nothing is sent.
    """
    if repair and dry_run:
        raise click.UsageError("--repair and --dry-run: `music-cloud verify` says what is to be repaired")
    settings = load_settings(os.environ, env_file, options)
    key = load_signing_key(Path(settings.signing_key_file)) if settings.signing_key_file else None
    store = open_store(address, settings)
    with Screen(sys.stderr) as screen:
        result = publish(
            source_db,
            store,
            state_folder(settings, store.address, os.environ),
            PublishOptions(
                metadata_keys=settings.kept_metadata_keys(),
                segment_bytes=settings.segment_bytes,
                level=settings.keyframe_level,
                batch_pages=settings.delta_batch_pages,
                expiry=timedelta(days=settings.expiry_days),
                single_publisher=single_publisher,
                accept_clock=accept_clock,
                rebuild=rebuild,
                resume=resume,
                repair=repair,
                dry_run=dry_run,
                proof=not no_proof,
                signing_key=key,
            ),
            progress=Progress(screen.observe),
        )
    if as_json:
        print_json(publish_fields(result) | {"signed_by": key and key.public.key_id})
    else:
        for line in publish_lines(result):
            click.echo(line)
        if key is not None and result.outcome != "planned":
            click.echo(f"  signed by key {key.public.key_id}")
    for remark in (result.postponed, result.proof_remark):
        if remark is not None:
            _complain(remark)


@cli.command("mirror")
@click.option("--from", "address", required=True, help="https://…, s3://bucket/prefix or a folder.")
@click.option("--to", "target_dir", required=True, type=click.Path(file_okay=False, path_type=Path))
@click.option("--follow", "is_following", is_flag=True, help="Go on until stopped.")
@click.option(
    "--interval", type=Duration(), default="30s", show_default=True, help="Time between polls of --follow."
)
@click.option(
    "--reset-trust",
    is_flag=True,
    help="Forget which repository, snapshot and succession of keys was seen, after the repository was meant "
    "to begin anew.",
)
@public_key_option
@click.option("--unsigned", is_flag=True, help="Believe whatever the store serves, signed or not.")
@click.option(
    "--accept-expired",
    is_flag=True,
    help="Begin with a snapshot whose time is over, if there is no other; only while nothing is served yet.",
)
@settings_options
@json_option
def mirror_command(
    address: str,
    target_dir: Path,
    is_following: bool,
    interval: int,
    reset_trust: bool,
    public_keys: tuple[str, ...],
    unsigned: bool,
    accept_expired: bool,
    env_file: Path | None,
    as_json: bool,
    **options: str | None,
) -> None:
    """Keep a verified copy of the published catalogue in a folder.

    It says whom to believe: the publisher, by --public-key, or everybody, by --unsigned.
    """
    options |= {"public_keys": "\n".join(public_keys) or None, "unsigned": "true" if unsigned else None}
    settings = load_settings(os.environ, env_file, options)
    pinned = settings.pinned_keys()
    store = open_readable_store(address, settings)
    with Screen(sys.stderr) as screen:
        mirror = Mirror(
            target_dir,
            store,
            public_keys=pinned,
            unsigned=settings.unsigned,
            database_max_bytes=settings.database_max_bytes or DATABASE_MAX_BYTES,
            smoke_query=settings.smoke_query,
            progress=Progress(screen.observe),
            accept_expired=accept_expired,
        )
        if reset_trust:
            mirror.reset_trust()
        if is_following:
            _follow(mirror, interval, as_json)
        else:
            _report_sync(mirror.sync(), as_json)


@cli.command("demo")
@click.option("--songs", default=20_000, show_default=True, type=click.IntRange(100, 5_000_000))
def demo_command(songs: int) -> None:
    """Show the whole road on a sample catalogue, in a temporary folder that is removed again."""
    from music_cloud.demo import run_demo

    run_demo(songs, click.echo)


cli.add_command(doctor_command)
cli.add_command(keygen_command)
cli.add_command(rotate_key_command)
cli.add_command(prune_command)
cli.add_command(status_command)
cli.add_command(history_command)
cli.add_command(rollback_command)
cli.add_command(verify_command)
cli.add_command(origin_command)
cli.add_command(token_group)


def _follow(mirror: Mirror, interval_s: int, as_json: bool) -> None:
    from threading import Event

    def report(event: SyncResult | Exception) -> None:
        if isinstance(event, Exception):
            _complain(event)
        elif event.outcome != "unchanged":
            _report_sync(event, as_json)

    try:
        follow(mirror, Event(), interval_s, report)
    except Stopped:
        return


def _report_sync(result: SyncResult, as_json: bool) -> None:
    if as_json:
        print_json(sync_fields(result) | {"signed_by": result.signed_by, "expired": result.expired})
    else:
        by = f"; signed by key {result.signed_by}" if result.signed_by else "; not asked who signed it"
        click.echo(sync_line(result) + by)
    for complaint in (result.fallback, result.expired):
        if complaint is not None:
            _complain(complaint)


def _complain(error: BaseException | str) -> None:
    message = printable(" ".join(str(error).split())) or type(error).__name__
    click.echo(f"music-cloud: {message}", err=True)


@contextmanager
def _stopping() -> Iterator[list[int]]:
    """Let SIGINT and SIGTERM raise; gives the numbers of those that came.

    Both are remembered as well, because SQLite turns what is raised within one of its functions into an error
    of its own.
    """
    received: list[int] = []

    def stop(number: int, frame: FrameType | None) -> NoReturn:
        received.append(number)
        raise KeyboardInterrupt if number == signal.SIGINT else Stopped

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def main() -> NoReturn:
    """Run the command that `sys.argv` names; exits."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run a command; returns its exit code, which is 130 or 143 after SIGINT or SIGTERM."""
    with _stopping() as received:
        code = _run(arguments)
    return 128 + received[0] if received and code else code


def _run(arguments: list[str]) -> int:
    try:
        code = cli.main(arguments, prog_name="music-cloud", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt, Stopped):
        return 1  # said by the signal that came
    except SettingsError as error:
        _complain(error)
        return 2
    except BrokenPipeError:  # the reader of our output has left; do not complain again when Python exits
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (ContractError, StoreError, OSError, sqlite3.Error) as error:
        _complain(error)
        return 1
    return code if isinstance(code, int) else 0  # what a command exits with that has found something
