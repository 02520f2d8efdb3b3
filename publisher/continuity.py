"""Whether a publisher may go on from the pointer that it finds; decides and touches nothing.

Invariant: what a publisher signs is never numbered below what it published before, nor by a leap that a
stranger chose. Signatures protect mirrors from a manifest that somebody else has put into the bucket; but a
publisher that continued from one would sign the next sequence: mirrors take nothing lower ever after, and the
numbers of a manifest end.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from contracts.errors import RollbackError, SignatureError
from contracts.layout import POINTER_KEY, manifest_key
from contracts.manifest import Digest, Manifest, RandomId, Sequence

# A publish a minute for thirty years: no other publisher has got so far ahead. Whoever forges a leap as long
# as this before every publish needs 2^29 of them to get to the end of the numbers (2^53).
LONGEST_LEAP = 1 << 24


class Published(msgspec.Struct, frozen=True):
    """What was last published from here: the repository, and the sequence and digest of the manifest."""

    repository: RandomId
    sequence: Sequence
    digest: Digest


def verify_continues(
    found: Manifest, known: Published | None, is_ours: Callable[[], bool], forget: str
) -> None:
    """Check the manifest that is to be continued against what was published from here, if that is known.

    `is_ours` asks whether our key has signed it; it is asked only of a leap. `forget` names what to delete
    where the store was meant to go back.
    Raises:
        RollbackError: when it is older.
        SignatureError: when it is so much newer that no publisher can have got there, and not signed by us.
    """
    if known is not None and known.repository != found.repository:
        known = None
    newest = "the newest true manifest"
    if known is not None:
        newest += f", {manifest_key(known.digest)} or one that came after it,"
        if found.sequence < known.sequence:
            raise RollbackError(
                f"the store serves snapshot {found.sequence}, although {known.sequence} was published from "
                f"here; run publish again in a while if a cache may be behind, or copy {newest} over "
                f"{POINTER_KEY}; if the store was put back from a backup, delete {forget}, and run "
                "`music-cloud mirror` once with --reset-trust on every mirror"
            )
    if found.sequence - (known.sequence if known else 0) > LONGEST_LEAP and not is_ours():
        raise SignatureError(
            f"the pointer has sequence {found.sequence}, which no publisher has got to, and is not signed by "
            f"the key of this one: somebody else has written to the store; keep him out, and copy {newest} "
            f"over {POINTER_KEY}"
        )
