"""What `doctor` says: one finding each, and the judgements that every kind of store shares.

Invariant: nothing here asks a store; the same answers always give the same findings. "bad" means that a
publish, or a mirror of a read-only address, cannot rely on the store; everything else can be lived with.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from statistics import median
from typing import Literal

import msgspec

from contracts.errors import StoreError
from publisher.probe import HINT, Answers, Written, judge
from publisher.profile import Profile
from stores.stranger import Answer

Level = Literal["good", "note", "warning", "bad"]
Kind = Literal["bucket", "folder", "web"]
_CLOCK_FINE = timedelta(seconds=5)  # no harm to anybody, but NTP does better
_CLOCK_TOLERANCE = timedelta(minutes=5)  # a publish refuses beyond it (publisher/plan.py)
ORIGIN = "https://player.example"  # a web page that asks
REQUESTS = 5  # of which the usual time counts
_SLOW_S = 1.0  # a publish asks for each of its blobs one after the other


class Check(msgspec.Struct, frozen=True):
    """One finding: what was looked at, how good it is, what was found, and what to do about it ("": nothing).

    `found` and `advice` may quote a server: they are no more to be trusted than it is.
    """

    name: str
    level: Level
    found: str
    advice: str = ""


class Diagnosis(msgspec.Struct, frozen=True):
    """All findings about one store; `profile` is what a publisher goes by, where one can publish to it."""

    store: str
    kind: Kind
    checked_at: datetime
    program: str
    checks: tuple[Check, ...]
    profile: Profile | None = None

    @property
    def is_usable(self) -> bool:
        """Whether nothing bad was found."""
        return all(check.level != "bad" for check in self.checks)


def attempt(name: str, ask: Callable[[], Check], advice: str = "", level: Level = "warning") -> Check:
    """A finding, or what the store said instead of an answer."""
    try:
        return ask()
    except StoreError as error:
        return Check(name, level, str(error), advice)


def check_preconditions(answers: Answers, *, single_publisher: bool) -> list[Check]:
    """A finding for each conditional write; a single publisher can live without them."""
    level: Level = "warning" if single_publisher else "bad"

    def row(name: str, wanted: Written, got: Written) -> Check:
        if got == wanted:
            return Check(name, "good", got)
        return Check(name, level, f"{got}, should be {wanted}", "" if single_publisher else HINT)

    create = row("create an object", "written", answers.create)
    if answers.create != "written":
        return [create]
    if answers.update != "written" and judge(answers).preconditions == "unquoted":
        found = f"{answers.update} with its entity tag in quotes, written without: publishes leave them out"
        update = Check("update it", "note", found)
    else:
        update = row("update it", "written", answers.update)
    return [
        create,
        row("create it again", "refused", answers.create_again),
        update,
        row("update what has changed", "refused", answers.update_other),
        row("update what is gone", "refused", answers.update_absent),
        check_deletion(answers.is_gone, level),
    ]


def check_deletion(is_gone: bool, level: Level) -> Check:
    """Whether what is deleted is gone."""
    if is_gone:
        return Check("delete it", "good", "gone")
    advice = (
        "allow the key to delete (s3:DeleteObject) and end object locks and retention, or nothing is freed"
    )
    return Check("delete it", level, "still there", advice)


def check_race(winners: int, threads: int, *, single_publisher: bool) -> Check:
    """How many of several updates at once, all from the same entity tag, were written."""
    name, found = "race of updates", f"{winners} of {threads} written"
    if winners == 1:
        return Check(name, "good", found)
    if winners == 0:
        return Check(name, "note", found, "two publishes at the same moment may both have to be repeated")
    return Check(name, "warning" if single_publisher else "bad", found, HINT)


def check_clock(now: datetime, store_now: datetime | None, *, is_asked: bool = True) -> Check:
    """How far this machine's clock is off the store's; `is_asked`: by a publish, which then refuses."""
    if store_now is None:
        return Check("clock", "note", "the store says no time")
    off = abs(now - store_now)
    found = f"{off.total_seconds():.0f} s apart"
    advice = "set this machine's clock (NTP)"
    if is_asked:
        advice += ": a publish refuses when it is 5 minutes off the store's"
    if off <= _CLOCK_FINE:
        return Check("clock", "good", found)
    return Check("clock", "bad" if is_asked and off > _CLOCK_TOLERANCE else "warning", found, advice)


def check_latency(seconds: Sequence[float]) -> Check:
    """How long a small request takes."""
    usual_s = median(seconds)
    found = f"{usual_s * 1000:.0f} ms, {max(seconds) * 1000:.0f} ms at most, of {len(seconds)}"
    if usual_s < _SLOW_S:
        return Check("latency", "good", found)
    return Check("latency", "warning", found, "a publish asks once for each blob: choose a region nearby")


def check_cors(answer: Answer) -> Check:
    """Whether scripts of web pages may read; a mirror is no web page."""
    allowed = answer.headers.get("access-control-allow-origin")
    if allowed in ("*", ORIGIN):
        return Check("CORS", "good", f"allowed to {allowed}")
    found = f"allowed to {allowed} only" if allowed else "no web page may read it"
    return Check("CORS", "note", found, "needed only by players that read it in a browser")
