"""Whether what an earlier run left ready may still follow what is published.

Invariant: nothing that anybody has published or decided in between is undone by it. A prune and a renewal
give the pointer another digest and decide nothing: if they counted, a slow upload would never come to its end
between daily prunes, and a rollback that was interrupted would be forgotten.
"""

from __future__ import annotations

from collections.abc import Iterable

from contracts.errors import HistoryError
from contracts.manifest import Digest
from publisher.history import Link, walk_history
from publisher.pointer import Pointer
from publisher.state import Candidate
from stores.base import Store


def may_follow(candidate: Candidate, store: Store, base: Pointer | None) -> bool:
    """Whether the pointer is what a candidate was made to follow, or only renews that.

    What cannot be looked up any more, because its history is broken or pruned, was something else.
    Raises:
        AccessDenied, StoreUnavailable, StoreError: as the store does.
    """
    if candidate.store != store.address:
        return False
    if base is None or candidate.base is None or candidate.base == base.digest:
        return candidate.base == (base and base.digest)
    try:
        return only_renews(walk_history(store, base), candidate.base)
    except HistoryError:
        return False


def only_renews(history: Iterable[Link], digest: Digest) -> bool:
    """Whether the newest manifest of a history has the database and the hold of the one with this digest, and
    so has each in between: what came back after something else was published is another matter."""
    newest: Link | None = None
    for link in history:
        newest = newest or link
        found, wanted = link.manifest, newest.manifest
        if (found.database, found.held) != (wanted.database, wanted.held):
            return False
        if link.digest == digest:
            return True
    return False
