"""What a command says of its result: lines for people, fields for scripts.

Invariant: nothing is done here; the same result always gives the same text.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mirror import SyncResult
from music_cloud.options import printable
from music_cloud.screen import format_bytes, format_count
from publisher import PublishResult, TableChanges


def publish_fields(result: PublishResult) -> dict[str, Any]:
    """The fields of `publish --json`."""
    manifest = result.manifest
    return {
        "outcome": result.outcome,
        "resumed": result.resumed,
        "sequence": manifest.sequence,
        "snapshot_id": manifest.snapshot_id,
        "expires_at": manifest.expires_at,
        "playlist_count": manifest.playlist_count,
        "track_count": manifest.track_count,
        "file_count": manifest.file_count,
        "database_bytes": manifest.database.size_bytes,
        "tables": {name: changes._asdict() for name, changes in result.tables.items()},
        "pages": result.pages,
        "keyframe": result.keyframe,
        "sent_bytes": result.sent_bytes,
        "sent_objects": result.sent_objects,
        "present_bytes": result.present_bytes,
        "full_bytes": result.full_bytes,
        "postponed": result.postponed,
        "repaired": result.repaired,
        "held_since": result.held_since,
        "proof_seconds": round(result.proof_seconds, 3),
        "proof_remark": result.proof_remark,
        "seconds": round(result.seconds, 3),
    }


def publish_lines(result: PublishResult) -> Iterator[str]:
    """What `publish` prints."""
    manifest = result.manifest
    outcome = "would publish" if result.outcome == "planned" else result.outcome
    yield (
        f"{outcome}: snapshot {manifest.sequence}, {manifest.snapshot_id}"
        + (" (an interrupted publish comes first)" if result.resumed else "")
    )
    if result.held_since is not None:
        yield (
            f"  held by a rollback since {result.held_since:%Y-%m-%d %H:%M:%S} UTC; "
            "`music-cloud publish --resume` goes on with the catalogue"
        )
    if result.repaired:
        yield f"  repaired: {format_count(result.repaired, 'object')} that had been missing or damaged"
    changed = [(name, changes) for name, changes in result.tables.items() if any(changes)]
    for name, changes in changed:
        yield f"  {name}: {_format_changes(changes)}"
    if result.outcome == "unchanged":
        return
    sent = f"{format_bytes(result.sent_bytes)} in {result.sent_objects} objects"
    yield (
        f"  {'to send' if result.outcome == 'planned' else 'sent'}: {sent}"
        + (f", of {result.pages:,} changed pages" if result.pages else "")
        + (", a keyframe among them" if result.keyframe else "")
        + (f"; {format_bytes(result.present_bytes)} were there already" if result.present_bytes else "")
    )
    ratio = result.full_bytes / max(1, result.sent_bytes)
    if result.outcome != "renewed" and not result.keyframe and ratio >= 2:
        yield f"  a full upload: {format_bytes(result.full_bytes)}, {ratio:,.0f} times as much"
    proof = f", {result.proof_seconds:.1f} of them for the proof" if result.proof_seconds else ""
    yield f"  {result.seconds:.1f} s{proof}"


def sync_fields(result: SyncResult) -> dict[str, Any]:
    """The fields of `mirror --json`."""
    current = result.current
    return {
        "outcome": result.outcome,
        "sequence": current.sequence,
        "snapshot_id": current.snapshot_id,
        "published_at": current.published_at,
        "expires_at": current.expires_at,
        "downloaded_bytes": result.downloaded_bytes,
        "fallback": result.fallback,
        "seconds": round(result.seconds, 3),
    }


def sync_line(result: SyncResult) -> str:
    """What `mirror` prints."""
    current = result.current
    return (
        f"{result.outcome}: snapshot {current.sequence}, {printable(current.snapshot_id)}; "
        f"downloaded {format_bytes(result.downloaded_bytes)} in {result.seconds:.1f} s"
    )


def _format_changes(changes: TableChanges) -> str:
    counts = zip(changes, ("new", "changed", "gone"), strict=True)
    return ", ".join(f"{count:,} {what}" for count, what in counts if count)
