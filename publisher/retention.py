"""What a prune keeps and what it may delete; decides and touches nothing.

Invariant: what is kept is the newest part of the history, without a gap, and everything that it names. What
is not of the bucket's layout, a succession of keys, and whatever is younger than the grace is never deleted.
What was condemned stays condemned for a week, and always leaves room for more. Whether deleting is safe while
others publish is publisher/prune.py's part.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import chain

from contracts.condemned import MAX_CONDEMNED
from contracts.errors import ContractError, HistoryError
from contracts.layout import POINTER_KEY, Kind, blob_key, format_key, manifest_key, parse_key
from contracts.manifest import Manifest
from publisher.history import Link
from stores.base import ListedObject

# Design, section 5: an edge cache serves an old pointer for a day, and a mirror that met it there then syncs
# for as long as its line takes.
GRACE = timedelta(days=7)
# A request to delete: it is retried for minutes, and a machine that sleeps on it wakes after the weekend.
_ON_ITS_WAY = timedelta(days=7)
_DELETABLE = {Kind.MANIFEST, Kind.SIGNATURE, Kind.BLOB}


@dataclass(frozen=True)
class Policy:
    """Which snapshots are kept; one that any rule keeps is, and so is every newer one.

    `keep_last`: so many snapshots; manifests that only renew one belong to it. `keep_within`: what was the
    newest at any moment of this time, up to now. `grace`: the same for what a mirror may still be fetching;
    an object that is younger is not deleted either.
    """

    keep_last: int | None = None
    keep_within: timedelta | None = None
    grace: timedelta = GRACE


@dataclass(frozen=True)
class RetentionPlan:
    """What stays and what goes.

    `snapshots` and `manifests` are kept, the oldest with the sequence `oldest_kept`; `kept` is everything
    listed that stays because of them. `candidates` may be deleted, sorted by key, and `postponed` more were
    too many for one prune. `young` are named by nobody, but younger than the grace. `alien` are keys that are
    not of the layout. `missing` are named by what is kept, and were not listed. At `condemned_before`, by the
    store's clock, the list that the pointer names as condemned had taken the place of the one before it.
    `remembered` is what of that list stays condemned beside the candidates.
    """

    snapshots: int
    manifests: int
    oldest_kept: int
    kept: tuple[ListedObject, ...]
    candidates: tuple[ListedObject, ...]
    postponed: int
    young: tuple[ListedObject, ...]
    alien: tuple[str, ...]
    missing: tuple[str, ...]
    condemned_before: datetime
    remembered: Mapping[str, datetime]


def plan_retention(
    history: Iterable[Link],
    policy: Policy,
    listing: Collection[ListedObject],
    now: datetime,
    list_before: Mapping[str, datetime | None] | None = None,
) -> RetentionPlan:
    """What a policy keeps of a store.

    `history` is newest first, and read no further than it has to be; `listing` is of the whole store, made
    after the pointer was read; `now` is the store's clock, by which the listing is dated. `list_before` is
    the list that the pointer names as condemned: what of it is remembered leaves room for only so many more.
    Raises: what reading the history raises, unless what follows would not be kept anyway.
    """
    written = {listed.key: listed.modified for listed in listing}
    named: set[str] = set()
    required: set[str] = set()
    snapshots = manifests = 0
    oldest_kept = 0
    condemned_before = now
    condemned: set[str | None] = set()
    for link, number, moved_before in _select_kept(history, policy, written, now):
        snapshots, manifests, oldest_kept = number, manifests + 1, link.manifest.sequence
        condemned.add(link.manifest.condemned)
        if len(condemned) == 1:  # still the one of the pointer
            condemned_before = moved_before
        required.update(required_keys(link.digest, link.manifest))
        named.update(optional_keys(link.digest, link.manifest))
    named |= required
    kept: list[ListedObject] = []
    candidates: list[ListedObject] = []
    young: list[ListedObject] = []
    alien: list[str] = []
    for listed in sorted(listing):
        kind = _find_kind(listed.key)
        if kind is None:
            alien.append(listed.key)
        elif kind not in _DELETABLE or listed.key in named:
            kept.append(listed)
        elif now - listed.modified < policy.grace:
            young.append(listed)
        else:
            candidates.append(listed)
    remembered = remember(list_before or {}, condemned_before, now)
    chosen = _choose(candidates, remembered.keys())
    return RetentionPlan(
        snapshots,
        manifests,
        oldest_kept,
        tuple(kept),
        tuple(chosen),
        len(candidates) - len(chosen),
        tuple(young),
        tuple(alien),
        tuple(sorted(required - written.keys())),
        condemned_before,
        remembered,
    )


def remember(
    entries: Mapping[str, datetime | None], condemned_before: datetime, now: datetime
) -> dict[str, datetime]:
    """What of a list stays condemned in the next, which is made now.

    The prune that made it deletes until the next takes its place. The one before, whose entries have the
    latest time, deleted until this list had taken its own: that was later, but before `condemned_before`.
    """
    present = max(now, condemned_before)  # of two clocks that differ; what is present is the latest
    latest = max((until for until in entries.values() if until is not None), default=present)
    remembered: dict[str, datetime] = {}
    for key, until in entries.items():
        if until is None:
            remembered[key] = present
            continue
        ended = max(until, condemned_before) if until == latest else until
        if now - ended < _ON_ITS_WAY:
            remembered[key] = ended
    return remembered


def required_keys(digest: str, manifest: Manifest) -> Iterator[str]:
    """The keys of all objects without which a manifest, named by `digest`, is not whole."""
    yield manifest_key(digest)
    for blob in chain(manifest.keyframe.blobs, *(delta.blobs for delta in manifest.deltas)):
        yield blob_key(blob.digest)


def optional_keys(digest: str, manifest: Manifest) -> Iterator[str]:
    """The keys of objects that belong to a manifest, where there are such objects."""
    yield format_key(Kind.SIGNATURE, digest)
    if manifest.condemned is not None:
        yield blob_key(manifest.condemned)


def _select_kept(
    history: Iterable[Link], policy: Policy, written: dict[str, datetime], now: datetime
) -> Iterator[tuple[Link, int, datetime]]:
    """The links that are kept, each with the number of its snapshot, from 1, and a moment at which the
    pointer had moved to it."""
    links = iter(history)
    number = 0
    after: Link | None = None
    # When the one after was made, by the store's clock as well as its publisher's. The pointer moved to it
    # later, by as much as its publisher was slow or asleep: before the next one was made at the latest.
    made_at = written.get(POINTER_KEY, now)
    moved_before = now
    while True:
        is_due = after is not None and not (
            now - made_at < (policy.keep_within or timedelta()) or now - moved_before < policy.grace
        )
        try:
            link = next(links, None)
        except HistoryError:
            # What is broken here is past what the rules ask for; a renewal of the last would be its only use.
            if is_due and number >= (policy.keep_last or 0):
                return
            raise
        if link is None:
            return
        is_other = after is None or link.manifest.database != after.manifest.database
        if is_due and number + is_other > (policy.keep_last or 0):
            return
        number += is_other
        moved_before = made_at
        yield link, number, moved_before
        published_at = link.manifest.published_at
        made_at = max(published_at, written.get(manifest_key(link.digest), published_at))
        after = link


def _choose(candidates: Sequence[ListedObject], earlier: Collection[str]) -> list[ListedObject]:
    """As many of these as a list holds beside the earlier ones, and never more than half of a list: what a
    prune deletes does not age before another list takes its place, and that must have room for something."""
    room = MAX_CONDEMNED - len(earlier)
    chosen: list[ListedObject] = []
    for listed in candidates:
        is_new = listed.key not in earlier
        if len(chosen) == MAX_CONDEMNED // 2:
            break
        if is_new and room <= 0:  # somebody else may have listed more
            continue
        chosen.append(listed)
        room -= is_new
    return chosen


def _find_kind(key: str) -> Kind | None:
    """What a key names; None when the layout has no such name."""
    try:
        return parse_key(key).kind
    except ContractError:
        return None
