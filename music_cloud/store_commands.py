"""The commands that look at a store: `status` for monitoring, `verify` for certainty.

Invariant: both only read. They exit with 1 when something needs attention, after they have said what and what
to do; a store that cannot be asked is never called good.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click

from contracts.digests import digest_bytes
from contracts.errors import MalformedError, ObjectMissing, SnapshotError
from contracts.layout import POINTER_KEY
from contracts.manifest import MANIFEST_MAX_BYTES, parse_manifest
from mirror import Mirror
from music_cloud.addresses import open_readable_store, open_store
from music_cloud.options import (
    Duration,
    json_option,
    print_json,
    printable,
    public_key_option,
    settings_options,
)
from music_cloud.screen import Screen, format_bytes, format_count
from music_cloud.settings import load_settings
from music_cloud.status import MirrorState, Status, find_extended_at, status_fields, status_lines
from music_cloud.store_keys import judge_signature, named_keys
from publisher.history import find_behind_since, find_held_since, walk_history
from publisher.pointer import Pointer
from publisher.verify import VerifyResult, verify_store
from stores.base import ReadableStore, read_whole
from stores.progress import Progress

_NAMED = 5  # aliens that are told by name; `--json` has them all


@click.command("status")
@click.option("--store", "address", required=True, help="https://…, s3://bucket/prefix or a folder.")
@click.option(
    "--mirror",
    "folders",
    multiple=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of a mirror, to say how far behind it is. May be repeated.",
)
@click.option(
    "--max-lag", type=Duration(), default="1h", show_default=True, help="How long a mirror may be behind."
)
@public_key_option
@settings_options
@json_option
def status_command(
    address: str,
    folders: tuple[Path, ...],
    max_lag: int,
    public_keys: tuple[str, ...],
    env_file: Path | None,
    as_json: bool,
    **options: str | None,
) -> None:
    """Say what is published, how old it is, and how far mirrors are behind.

    Exit code 1 when something needs attention: it has expired or will soon, its signature is not good, or a
    mirror has been behind for too long. The first line says it all, as monitoring systems want it.
    """
    settings = load_settings(os.environ, env_file, options | {"public_keys": "\n".join(public_keys) or None})
    named = named_keys(settings)
    store = open_readable_store(address, settings)
    now = datetime.now(UTC).replace(microsecond=0)
    try:
        reading = store.get(POINTER_KEY)
    except ObjectMissing as error:
        raise SnapshotError(f"nothing was ever published to {address}") from error
    stored = read_whole(reading, MANIFEST_MAX_BYTES)
    pointer = Pointer(parse_manifest(stored), digest_bytes(stored), reading.info.etag)
    longest = timedelta(seconds=max_lag)
    status = Status(
        pointer.manifest,
        now,
        judge_signature(store, stored, named).signature,
        [_look_at_mirror(store, pointer, folder, now - longest) for folder in folders],
        longest,
        find_held_since(store, pointer) if pointer.manifest.held else None,
        # Only where there was a prune, which left its list, the manifest's own dates may mislead.
        find_extended_at(walk_history(store, pointer)) if pointer.manifest.condemned else None,
    )
    if as_json:
        print_json(status_fields(status))
    else:
        for line in status_lines(status):
            click.echo(line)
    if status.problems:
        raise click.exceptions.Exit(1)


@click.command("verify")
@click.option("--store", "address", required=True, help="s3://bucket/prefix or a folder.")
@click.option("--quick", is_flag=True, help="Compare sizes with a listing; download nothing but manifests.")
@click.option(
    "--scratch",
    type=click.Path(file_okay=False, exists=True, path_type=Path),
    help="Folder with room for a database, which is restored there; else where temporary files are.",
)
@public_key_option
@settings_options
@json_option
def verify_command(
    address: str,
    quick: bool,
    scratch: Path | None,
    public_keys: tuple[str, ...],
    env_file: Path | None,
    as_json: bool,
    **options: str | None,
) -> None:
    """Check every object that a kept snapshot needs: that it is there and, unless --quick, each of its bytes.

    In full, everything is downloaded once, and the newest database is rebuilt from its keyframe. Exit code 1
    when something is missing or damaged; each is named, with what to do.
    """
    settings = load_settings(os.environ, env_file, options | {"public_keys": "\n".join(public_keys) or None})
    named = named_keys(settings)
    store = open_store(address, settings)
    if named:
        try:
            stored = read_whole(store.get(POINTER_KEY), MANIFEST_MAX_BYTES)
        except ObjectMissing as error:
            raise SnapshotError(f"nothing was ever published to {address}") from error
        named = judge_signature(store, stored, named).keys
    with ExitStack() as stack:
        screen = stack.enter_context(Screen(sys.stderr))
        folder = None
        if not quick:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="verify-", dir=scratch)))
        result = verify_store(store, folder, public_keys=named, progress=Progress(screen.observe))
    if as_json:
        print_json(_verify_fields(result))
    else:
        for line in _verify_lines(result):
            click.echo(printable(line))
    if not result.is_good:
        raise click.exceptions.Exit(1)


def _look_at_mirror(store: ReadableStore, pointer: Pointer, folder: Path, limit: datetime) -> MirrorState:
    name = str(folder)
    try:
        current = Mirror(folder).current()
    except (MalformedError, OSError) as error:
        return MirrorState(name, None, str(error))
    if current is None or current.sequence >= pointer.manifest.sequence:
        return MirrorState(name, current)
    return MirrorState(name, current, None, find_behind_since(store, pointer, current.sequence, limit))


def _verify_fields(result: VerifyResult) -> dict[str, Any]:
    return {
        "is_good": result.is_good,
        "is_whole": result.is_whole,
        "newest": result.newest,
        "oldest": result.oldest,
        "manifests": result.manifests,
        "objects": result.objects,
        "size_bytes": result.size_bytes,
        "signed": result.signed,
        "findings": result.findings,
        "orphans": result.orphans,
        "orphan_bytes": result.orphan_bytes,
        "aliens": result.aliens,
        "alien_bytes": result.alien_bytes,
    }


def _verify_lines(result: VerifyResult) -> Iterator[str]:
    done = (
        "every byte was read, and the newest database restored"
        if result.is_whole
        else "sizes were compared, bytes were not"
    )
    size = f"{format_count(result.objects, 'object')}, {format_bytes(result.size_bytes)}"
    span = f"sequence {result.oldest} to {result.newest}"
    if result.is_good:
        yield f"OK: {size}, {span}: {done}"
    else:
        yield f"DAMAGED: {format_count(len(result.findings), 'fault')} in {size}, {span}: {done}"
    for finding in result.findings:
        yield f"  {finding.key}: {finding.wrong}; {finding.advice}"
    if result.signed is not None:
        yield f"  signed by a known key: {result.signed:,} of {result.manifests:,} manifests"
    if result.orphans is None:
        yield "  orphans: nobody knows, because the history is broken"
    elif result.orphans:
        orphans = f"{format_count(result.orphans, 'object')}, {format_bytes(result.orphan_bytes or 0)}"
        yield f"  orphans: {orphans}, which no manifest names; `prune` deletes them"
    if result.aliens:
        named = ", ".join(result.aliens[:_NAMED]) + (", …" if len(result.aliens) > _NAMED else "")
        size = format_bytes(result.alien_bytes)
        yield f"  not of a bucket's layout: {format_count(len(result.aliens), 'object')}, {size}: {named}"
