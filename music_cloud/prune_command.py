"""The command that deletes what no kept snapshot needs.

Invariant: without a word about what to keep it keeps much, and it says what it keeps before what it deletes.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import click

from music_cloud.addresses import open_store, state_folder
from music_cloud.options import Duration, json_option, print_json, printable, settings_options
from music_cloud.screen import Screen, format_bytes, format_count
from music_cloud.settings import load_settings
from publisher.prune import PruneOptions, PruneResult, prune
from publisher.retention import GRACE, Policy
from publisher.signing import load_signing_key
from stores.base import ListedObject
from stores.progress import Progress

DEFAULT_LAST = 10  # where no option says what to keep: both of these
DEFAULT_WITHIN = timedelta(days=30)
_NAMED = 5  # keys that are told; `--json` has them all


@click.command("prune")
@click.option("--store", "address", required=True, help="s3://bucket/prefix or a folder.")
@click.option("--keep-last", type=click.IntRange(1, 1_000_000), help="Keep so many of the newest snapshots.")
@click.option(
    "--keep-within", type=Duration(), help="Keep what was the newest snapshot at any time since, such as 30d."
)
@click.option(
    "--grace",
    type=Duration(),
    default=f"{GRACE.days}d",
    show_default=True,
    help="Keep what a mirror may still be fetching: a day for caches, and the longest sync.",
)
@click.option(
    "--single-publisher",
    is_flag=True,
    help="Prune a store that ignores preconditions. Only when no other machine ever publishes to it.",
)
@click.option(
    "--accept-clock",
    is_flag=True,
    help="Prune although the last publish has a later date: its machine's clock was wrong, ours is right.",
)
@click.option("--dry-run", is_flag=True, help="Say what would be deleted, and write nothing.")
@click.option("--signing-key", "signing_key_file", help="Secret key file that signs what is published.")
@settings_options
@json_option
def prune_command(
    address: str,
    keep_last: int | None,
    keep_within: int | None,
    grace: int,
    single_publisher: bool,
    accept_clock: bool,
    dry_run: bool,
    env_file: Path | None,
    as_json: bool,
    **options: str | None,
) -> None:
    """Delete old snapshots, and what interrupted publishes have left, from a store.

    A snapshot stays when --keep-last or --keep-within keeps it; with neither, the last 10 and those of
    30 days stay. Publishes and mirrors may go on meanwhile. A prune that was interrupted is finished by the
    next one. In a bucket with versioning, old versions go on taking room until a lifecycle rule ends them.
    """
    settings = load_settings(os.environ, env_file, options)
    key = load_signing_key(Path(settings.signing_key_file)) if settings.signing_key_file else None
    store = open_store(address, settings)
    with Screen(sys.stderr) as screen:
        result = prune(
            store,
            state_folder(settings, store.address, os.environ),
            PruneOptions(
                choose_policy(keep_last, keep_within, grace),
                dry_run=dry_run,
                signing_key=key,
                single_publisher=single_publisher,
                accept_clock=accept_clock,
            ),
            progress=Progress(screen.observe),
        )
    if as_json:
        print_json(prune_fields(result) | {"signed_by": key and key.public.key_id})
    else:
        for line in prune_lines(result):
            click.echo(line)
    if result.remaining:
        raise click.ClickException(
            f"the store still lists {len(result.remaining)} objects that it was told to delete, the first "
            f"{result.remaining[0]}: it only pretends to delete"
        )


def choose_policy(keep_last: int | None, keep_within_s: int | None, grace_s: int) -> Policy:
    """The policy that the options mean; one of them alone does not bring the default of the other."""
    grace = timedelta(seconds=grace_s)
    if keep_last is None and keep_within_s is None:
        return Policy(DEFAULT_LAST, DEFAULT_WITHIN, grace)
    return Policy(keep_last, None if keep_within_s is None else timedelta(seconds=keep_within_s), grace)


def prune_fields(result: PruneResult) -> dict[str, Any]:
    """The fields of `prune --json`."""
    plan = result.plan
    return {
        "outcome": result.outcome,
        "sequence": result.sequence,
        "oldest_kept": plan.oldest_kept,
        "kept_snapshots": plan.snapshots,
        "kept_manifests": plan.manifests,
        "kept_objects": len(plan.kept),
        "kept_bytes": _bytes(plan.kept),
        "condemned_objects": len(plan.candidates),
        "condemned_bytes": _bytes(plan.candidates),
        "condemned": [found.key for found in plan.candidates],
        "deleted_objects": len(result.deleted),
        "deleted_bytes": _bytes(result.deleted),
        "remaining": result.remaining,
        "postponed_objects": plan.postponed,
        "young_objects": len(plan.young),
        "young_bytes": _bytes(plan.young),
        "alien": plan.alien,
        "missing": plan.missing,
        "seconds": round(result.seconds, 3),
    }


def prune_lines(result: PruneResult) -> Iterator[str]:
    """What `prune` prints."""
    plan = result.plan
    yield (
        f"kept: {format_count(plan.snapshots, 'snapshot')}, from manifest {plan.oldest_kept} on;"
        f" {_sum(plan.kept)}"
        + (f"; {_sum(plan.young)} that nothing needs are younger than the grace" if plan.young else "")
    )
    if result.outcome == "unchanged":
        yield "nothing to delete"
    elif result.outcome == "planned":
        yield f"would delete: {_sum(plan.candidates)}"
    else:
        yield f"deleted: {_sum(result.deleted)}"
    if result.outcome == "stopped":
        yield "  another prune has begun; it deletes the rest"
    if plan.postponed and plan.candidates:
        yield f"  {plan.postponed} more objects are too many for one prune; run it again"
    elif plan.postponed:
        yield f"  {plan.postponed} objects wait: too many were deleted within a week; run it again then"
    if plan.missing:
        missing = format_count(len(plan.missing), "object")
        yield (
            f"  missing of what is kept: {missing} ({_name(plan.missing)}); "
            "`music-cloud verify` says which snapshots need them"
        )
    if plan.alien:
        yield f"  left alone, because it is not ours: {_name(plan.alien)}"


def _bytes(listing: Sequence[ListedObject]) -> int:
    return sum(found.size_bytes for found in listing)


def _sum(listing: Sequence[ListedObject]) -> str:
    return f"{format_count(len(listing), 'object')}, {format_bytes(_bytes(listing))}"


def _name(keys: Sequence[str]) -> str:
    """The first of some keys, which strangers may have chosen."""
    more = f" and {len(keys) - _NAMED} more" if len(keys) > _NAMED else ""
    return ", ".join(printable(key[:120]) for key in keys[:_NAMED]) + more
