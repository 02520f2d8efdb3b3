"""Asks a store whether it honours preconditions: before the first publish to it, and for `doctor`.

Invariant: the only object that is written is a scratch key of our own, which is deleted again. A store that
answers "written" to a write whose condition fails would let two publishers overwrite each other. What the
answers mean is decided apart from asking, by `judge`.
"""

from __future__ import annotations

import secrets
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, NamedTuple

from contracts.errors import (
    AccessDenied,
    ObjectMissing,
    PreconditionFailed,
    StoreError,
    StoreUnavailable,
    UnsuitableStore,
)
from publisher.profile import Preconditions, Profile, adapt_store, program_version
from publisher.state import State
from stores.base import Create, Overwrite, PutMode, Store, Update, read_whole
from stores.single_publisher import SinglePublisherStore
from stores.unquoted import unquote

HINT = "use another store, or --single-publisher when this is the only machine that ever publishes to it"
_PROBE_MAX_BYTES = 64
_OTHER_ETAG = '"00000000000000000000000000000000"'

Written = Literal["written", "refused", "unsupported"]
"""What came of a write: "unsupported" is any answer that is neither, such as 501."""


@dataclass(frozen=True)
class Answers:
    """What came of each conditional write, in the order in which they are asked.

    `create` of a new key; `create_again`; `update_other`, with another entity tag; `update`, with its
    own, as the store spells it. The two without quotes are asked only where the latter was not written, None
    where not. `update_absent` when the key is deleted. `is_gone`: whether it is then.
    """

    create: Written = "unsupported"
    create_again: Written = "unsupported"
    update_other: Written = "unsupported"
    update: Written = "unsupported"
    unquoted_other: Written | None = None
    unquoted: Written | None = None
    update_absent: Written = "unsupported"
    is_gone: bool = False


class Verdict(NamedTuple):
    """How to spell conditions, and what is wrong with the store: None, or the end of a sentence about it."""

    preconditions: Preconditions
    fault: str | None


def judge(answers: Answers) -> Verdict:
    """What the answers mean."""
    if answers.create != "written":
        return Verdict("none", "does not take a write that should only create an object")
    if answers.create_again != "refused":
        return Verdict("none", "overwrites an object that should only be created")
    if answers.update_other != "refused":
        return Verdict("none", "overwrites an object that has changed")
    spelling: Preconditions = "quoted"
    if answers.update != "written":
        spelling = "unquoted"
        if answers.unquoted_other != "refused" or answers.unquoted != "written":
            return Verdict("none", "refuses to update an object that has not changed")
    if answers.update_absent != "refused":
        return Verdict("none", "updates an object that is gone")
    return Verdict(spelling, None if answers.is_gone else "does not delete what it is told to delete")


def ask_preconditions(store: Store) -> Answers:
    """Ask a store by conditional writes to a scratch key.

    Raises:
        AccessDenied, StoreUnavailable, StoreError: as the store does to a plain write.
    """
    key = f"probe-{secrets.token_hex(16)}"
    try:
        return _ask(store, key)
    finally:
        with suppress(StoreError):  # what the probe found matters more than what it leaves
            store.delete(key)


def verify_preconditions(store: Store, now: datetime) -> Profile:
    """What a store was found to do, when that is fit for a publish.

    Raises:
        UnsuitableStore: naming the condition that the store ignores or refuses.
        AccessDenied, StoreUnavailable: as the store does.
    """
    answers = ask_preconditions(store)
    verdict = judge(answers)
    if verdict.fault is not None:
        raise UnsuitableStore(f"{store.address} {verdict.fault}; {HINT}")
    return Profile(
        store=store.address,
        probed_at=now,
        program=program_version(),
        preconditions=verdict.preconditions,
        deletes=answers.is_gone,
    )


def suit_store(store: Store, state: State, now: datetime, *, single_publisher: bool = False) -> Store:
    """The store as whoever moves its pointer has to speak to it; it is asked when no profile says how.

    Raises: as `verify_preconditions`, also for what the doctor has found; OSError when the profile cannot be
        kept.
    """
    if single_publisher:
        return SinglePublisherStore(store)
    profile = state.load_profile()
    if profile is not None and profile.is_of(store.address, program_version()) and profile.excludes is False:
        raise UnsuitableStore(
            f"{store.address} lets publishers overwrite each other when they come at once, as doctor found "
            f"on {profile.probed_at:%Y-%m-%d}; {HINT}; when that is mended, run `music-cloud doctor` again"
        )
    if profile is None or not profile.is_believed(store.address, program_version()):
        profile = verify_preconditions(store, now)
        state.store_profile(profile)
    return adapt_store(store, profile)


def _ask(store: Store, key: str) -> Answers:
    create = _put(store, key, b"first", Create())
    if create == "unsupported":
        store.put(key, b"first", Overwrite())  # which says whether it is the condition that is not taken
        return Answers(create)
    if create == "refused":  # an answer was lost, and the repetition met our own object
        create = "written" if _exists(store, key) else "refused"
    create_again = _put(store, key, b"second", Create())
    update_other = _put(store, key, b"third", Update(_OTHER_ETAG))
    etag = store.head(key).etag
    update = _put(store, key, b"fourth", Update(etag))
    if update == "refused" and read_whole(store.get(key), _PROBE_MAX_BYTES) == b"fourth":
        update = "written"  # it came twice, and the answer was to the second
    unquoted_other = unquoted = None
    if update != "written":
        unquoted_other = _put(store, key, b"fifth", unquote(Update(_OTHER_ETAG)))
        unquoted = _put(store, key, b"sixth", unquote(Update(etag)))
    etag = store.head(key).etag
    store.delete(key)
    spelt = Update(etag) if update == "written" else unquote(Update(etag))
    update_absent = _put(store, key, b"last", spelt)
    if update_absent == "written":
        store.delete(key)
    return Answers(
        create,
        create_again,
        update_other,
        update,
        unquoted_other,
        unquoted,
        update_absent,
        not _exists(store, key),
    )


def _put(store: Store, key: str, body: bytes, mode: PutMode) -> Written:
    try:
        store.put(key, body, mode)
    except PreconditionFailed:
        return "refused"
    except (AccessDenied, StoreUnavailable):
        raise
    except StoreError:
        return "unsupported"
    return "written"


def _exists(store: Store, key: str) -> bool:
    try:
        store.head(key)
    except ObjectMissing:
        return False
    return True
