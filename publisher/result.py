"""What a publish says of itself when it is over.

Invariant: it only tells; nothing is decided by it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from contracts.manifest import Manifest
from publisher.differences import TableChanges
from publisher.state import Candidate

Outcome = Literal["published", "renewed", "unchanged", "planned"]


@dataclass(frozen=True)
class PublishResult:
    """What a publish did, or would do: "planned" is what a dry run says of what it would publish.

    `resumed`: a candidate of an earlier run was finished first. `keyframe`: one was published, with the
    snapshot or after it (a dry run knows only of the former). `tables`: the rows that changed, by table of
    the read model; empty when the catalogue was exported anew. `pages`: in the deltas, of 4,096 bytes. Bytes
    are those of blobs, manifest, signature and pointer: sent now, and in the store already. `full_bytes` are
    those of a full upload, which is the keyframe's blobs. `postponed`, when there is one, says in a sentence
    why a keyframe that is due could not follow; the snapshot is live all the same. `repaired` objects were
    missing or damaged. `held_since` is when a rollback began to hold what is published now. `proof_seconds`,
    of `seconds`, went into the proof (publisher/proof/); `proof_remark`, when there is one, says in a
    sentence what of it had to be left out.
    """

    outcome: Outcome
    manifest: Manifest
    resumed: bool
    keyframe: bool
    tables: Mapping[str, TableChanges]
    pages: int
    sent_bytes: int
    sent_objects: int
    present_bytes: int
    full_bytes: int
    seconds: float
    postponed: str | None = None
    repaired: int = 0
    held_since: datetime | None = None
    proof_seconds: float = 0.0
    proof_remark: str | None = None


def sum_changes(candidates: Sequence[Candidate]) -> dict[str, TableChanges]:
    """The rows that changed in any of these, table by table."""
    changes: dict[str, TableChanges] = {}
    for candidate in candidates:
        for name, change in candidate.tables.items():
            before = changes.get(name, TableChanges())
            changes[name] = TableChanges(*(sum(counts) for counts in zip(before, change, strict=True)))
    return changes
