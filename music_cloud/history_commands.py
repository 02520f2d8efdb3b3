"""The commands that know the past: `history` lists it, `rollback` goes back to it.

Invariant: `history` only reads, and tells what it has read before it tells that more is broken.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from datetime import timedelta
from itertools import islice
from pathlib import Path
from typing import Any

import click

from contracts.errors import HistoryError, SnapshotError
from music_cloud.addresses import open_readable_store, open_store, state_folder
from music_cloud.options import json_option, print_json, printable, settings_options
from music_cloud.reports import publish_fields, publish_lines
from music_cloud.screen import Screen, format_bytes
from music_cloud.settings import load_settings
from music_cloud.status import format_moment
from music_cloud.store_keys import named_keys
from music_cloud.tables import align
from publisher import PublishOptions
from publisher.history import Snapshot, fold_renewals, walk_history
from publisher.pointer import fetch_pointer
from publisher.rollback import roll_back
from publisher.signing import load_signing_key
from stores.progress import Progress

_HEAD = ("sequence", "published", "snapshot", "playlists", "tracks", "files", "database", "delta", "")
_NUMBERS = (0, 3, 4, 5, 6, 7)


@click.command("history")
@click.option("--store", "address", required=True, help="https://…, s3://bucket/prefix or a folder.")
@click.option("--limit", type=click.IntRange(1, 1_000_000), help="List so many of the newest snapshots.")
@settings_options
@json_option
def history_command(
    address: str, limit: int | None, env_file: Path | None, as_json: bool, **options: str | None
) -> None:
    """List the snapshots that a store keeps, newest first.

    A renewal is no snapshot of its own. Each link of the chain is checked; where it is broken, what was read
    until there is listed, and the exit code is 1.
    """
    settings = load_settings(os.environ, env_file, options)
    store = open_readable_store(address, settings)
    pointer = fetch_pointer(store)
    if pointer is None:
        raise SnapshotError(f"nothing was ever published to {address}")
    snapshots: list[dict[str, Any]] = []
    broken: HistoryError | None = None
    try:
        for snapshot in islice(fold_renewals(walk_history(store, pointer)), limit):
            snapshots.append(_snapshot_fields(snapshot))  # its manifests are not kept: they may be many
    except HistoryError as error:
        broken = error
    if as_json:
        print_json({"snapshots": snapshots, "broken": None if broken is None else str(broken)})
    else:
        for line in align([_HEAD, *(_format_row(fields) for fields in snapshots)], _NUMBERS):
            click.echo(line)
    if broken is not None:
        raise broken


@click.command("rollback")
@click.option("--store", "address", required=True, help="s3://bucket/prefix or a folder.")
@click.option(
    "--to",
    required=True,
    metavar="SNAPSHOT",
    help="Where to: a sequence, a snapshot id, or a manifest's digest or its first 8 digits (see history).",
)
@click.option(
    "--db",
    "source_db",
    type=click.Path(path_type=Path),
    help="The catalogue, to be sure that none of its paths is in what becomes public again.",
)
@click.option(
    "--single-publisher",
    is_flag=True,
    help="As for publish: the store ignores preconditions, and nobody else publishes to it.",
)
@click.option("--accept-clock", is_flag=True, help="As for publish: the last publish's clock was wrong.")
@click.option("--dry-run", is_flag=True, help="Say what would be sent, and send nothing.")
@click.option("--no-proof", is_flag=True, help="As for publish: check nothing before the pointer moves.")
@click.option("--signing-key", "signing_key_file", help="Secret key file that signs (music-cloud keygen).")
@click.option(
    "--public-key",
    "public_keys",
    multiple=True,
    metavar="RW…|FILE",
    help="Public key that may have signed the snapshot gone back to, beside the signing key's own.",
)
@settings_options
@json_option
def rollback_command(
    address: str,
    to: str,
    source_db: Path | None,
    single_publisher: bool,
    accept_clock: bool,
    dry_run: bool,
    no_proof: bool,
    public_keys: tuple[str, ...],
    env_file: Path | None,
    as_json: bool,
    **options: str | None,
) -> None:
    """Publish an earlier snapshot's database again, and hold it.

    Mirrors download a delta. Later publishes change nothing, until `music-cloud publish --resume`. With a
    signing key, only a snapshot that it has signed, or one of --public-key, is gone back to.
    """
    settings = load_settings(os.environ, env_file, options | {"public_keys": "\n".join(public_keys) or None})
    key = load_signing_key(Path(settings.signing_key_file)) if settings.signing_key_file else None
    store = open_store(address, settings)
    with Screen(sys.stderr) as screen:
        result = roll_back(
            store,
            state_folder(settings, store.address, os.environ),
            to,
            PublishOptions(
                metadata_keys=settings.kept_metadata_keys(),
                segment_bytes=settings.segment_bytes,
                level=settings.keyframe_level,
                batch_pages=settings.delta_batch_pages,
                expiry=timedelta(days=settings.expiry_days),
                single_publisher=single_publisher,
                accept_clock=accept_clock,
                dry_run=dry_run,
                proof=not no_proof,
                signing_key=key,
            ),
            source_db=source_db,
            trusted=named_keys(settings),
            progress=Progress(screen.observe),
        )
    if as_json:
        print_json(publish_fields(result) | {"signed_by": key and key.public.key_id})
        return
    for line in publish_lines(result):
        click.echo(line)
    if key is not None and result.outcome == "published":
        click.echo(f"  signed by key {key.public.key_id}")


def _snapshot_fields(snapshot: Snapshot) -> dict[str, Any]:
    first, last = snapshot.first.manifest, snapshot.last.manifest
    return {
        "sequence": first.sequence,
        "last_sequence": last.sequence,
        "renewals": snapshot.renewals,
        "digest": snapshot.first.digest,
        "snapshot_id": first.snapshot_id,
        "published_at": first.published_at,
        "expires_at": last.expires_at,
        "playlist_count": first.playlist_count,
        "track_count": first.track_count,
        "file_count": first.file_count,
        "cover_count": first.cover_count,
        "database_bytes": first.database.size_bytes,
        "delta_bytes": snapshot.delta_bytes,
        "has_keyframe": snapshot.has_keyframe,
        "keyframe_bytes": last.keyframe.stored_bytes if snapshot.has_keyframe else None,
        "is_rollback": snapshot.is_rollback,
        "is_held": last.held,
    }


def _format_row(fields: dict[str, Any]) -> tuple[str, ...]:
    delta = fields["delta_bytes"]
    return (
        str(fields["sequence"]),
        format_moment(fields["published_at"]),
        printable(fields["snapshot_id"]),
        *(f"{fields[name]:,}" for name in ("playlist_count", "track_count", "file_count")),
        format_bytes(fields["database_bytes"]),
        "-" if delta is None else format_bytes(delta),
        ", ".join(_marks(fields)),
    )


def _marks(fields: dict[str, Any]) -> Iterator[str]:
    if fields["has_keyframe"]:
        yield f"keyframe of {format_bytes(fields['keyframe_bytes'])}"
    if fields["is_rollback"]:
        yield "rollback, held" if fields["is_held"] else "rollback"
    if fields["renewals"]:
        yield f"renewed until {fields['last_sequence']}"
