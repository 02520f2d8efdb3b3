"""Examines a bucket: what a publisher needs of it, and what a stranger may do there.

Invariant: only scratch keys of our own are written, and they are deleted again whatever is found. The
judgements are functions of what was answered.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from datetime import datetime
from threading import Barrier

import msgspec

from contracts.errors import PreconditionFailed, StoreError, StoreUnavailable
from publisher.doctor.checks import (
    ORIGIN,
    REQUESTS,
    Check,
    Diagnosis,
    attempt,
    check_clock,
    check_cors,
    check_latency,
    check_preconditions,
    check_race,
)
from publisher.probe import ask_preconditions, judge
from publisher.profile import Profile, adapt_store, program_version
from stores.base import Overwrite, Store, Update
from stores.retrying import Backoff, RetryingStore
from stores.s3 import S3Store
from stores.stranger import Answer, ask_as_stranger

_THREADS = 8
_SCRATCH = b"written by music-cloud doctor, to be deleted\n" * 16
# How servers refuse who has no right; anything else, such as 503, says nothing about rights.
_REFUSED = {400, 401, 403, 404, 405}
_POLICY = "docs/providers.md has the policy"


def examine_bucket(
    store: S3Store,
    now: Callable[[], datetime],
    monotonic: Callable[[], float],
    *,
    single_publisher: bool,
    backoff: Backoff | None = None,
) -> Diagnosis:
    """All findings about a bucket, and its profile; an error of the store is a finding too."""
    checks: list[Check] = []
    profile = None
    try:
        checks.append(check_clock(now(), store.now()))
        profile = _examine_writes(store, now(), checks, single_publisher, backoff)
        with _scratch(store) as key:
            _examine_reads(store, key, checks, monotonic)
            _examine_strangers(store, key, checks)
    except StoreError as error:
        checks.append(
            Check(
                "reach it",
                "bad",
                str(error),
                "check the address, the bucket, the credentials and their rights",
            )
        )
    return Diagnosis(store.address, "bucket", now(), program_version(), tuple(checks), profile)


def _examine_writes(
    store: S3Store, now: datetime, checks: list[Check], single_publisher: bool, backoff: Backoff | None
) -> Profile:
    # As a publish asks: a store that is busy for a moment is not one that ignores conditions.
    answers = ask_preconditions(RetryingStore(store, backoff))
    checks += check_preconditions(answers, single_publisher=single_publisher)
    verdict = judge(answers)
    with _scratch(store) as key:
        checks_sums = store.is_checking_sums(key)
    checks.append(check_sums(checks_sums))
    profile = Profile(
        store=store.address,
        probed_at=now,
        program=program_version(),
        preconditions=verdict.preconditions,
        deletes=answers.is_gone,
        checks_sums=checks_sums,
    )
    if verdict.preconditions != "none":
        with _scratch(store) as key:
            winners = race(adapt_store(store, profile), key, store.head(key).etag)
            # More of them than one would each have overwritten another publisher's pointer.
            checks.append(check_race(winners, _THREADS, single_publisher=single_publisher))
            profile = msgspec.structs.replace(profile, excludes=winners <= 1)
    return profile


def race(store: Store, key: str, etag: str) -> int:
    """How many of several threads that update one object from the same entity tag were told "written"."""
    barrier = Barrier(_THREADS)

    def update(number: int) -> bool:
        barrier.wait()
        try:
            store.put(key, b"by %d" % number, Update(etag))
        except (PreconditionFailed, StoreUnavailable):  # Ceph answers 500 to some that lose
            return False
        return True

    with ThreadPoolExecutor(_THREADS) as executor:
        return sum(executor.map(update, range(_THREADS)))


def _examine_reads(store: S3Store, key: str, checks: list[Check], monotonic: Callable[[], float]) -> None:
    etag = store.head(key).etag
    checks.append(attempt("read from the middle", lambda: _read_rest(store, key)))
    checks.append(attempt("ask whether it changed", lambda: _read_if_changed(store, key, etag)))
    checks.append(
        attempt(
            "list it",
            lambda: check_listing(key in {found.key for found in store.list_objects(key)}),
            "allow the key to list (s3:ListBucket): verify and prune need it",
        )
    )
    seconds = []
    for _ in range(REQUESTS):
        began_s = monotonic()
        store.head(key)
        seconds.append(monotonic() - began_s)
    checks.append(check_latency(seconds))


def _examine_strangers(store: S3Store, key: str, checks: list[Check]) -> None:
    served: list[Check] = []  # what only an object that anyone may read can show

    def read() -> Check:
        answer = ask_as_stranger(store.url(key), headers={"Origin": ORIGIN})
        if answer.status == 200:
            served.extend((check_headers(answer), check_cors(answer)))
        return check_anonymous_read(answer.status)

    checks.append(attempt("read by anyone", read))
    checks.extend(served)
    checks.append(
        attempt(
            "list by anyone", lambda: check_anonymous_listing(ask_as_stranger(store.listing_url(key)).status)
        )
    )
    checks.append(attempt("write by anyone", lambda: check_anonymous_write(_write_as_stranger(store))))


def check_sums(is_checking: bool) -> Check:
    """Whether the store compares what it stores with the SHA-256 that it was sent."""
    if is_checking:
        return Check("wrong checksum", "good", "refused")
    advice = "what is damaged on its way may be stored: use https, and do not publish with --no-proof"
    return Check("wrong checksum", "warning", "written", advice)


def check_listing(is_listed: bool) -> Check:
    """Whether an object that was just written is in the listing."""
    if is_listed:
        return Check("list it", "good", "listed")
    advice = "verify and prune see such a store late: prune with a long --keep-within"
    return Check("list it", "warning", "not listed yet", advice)


def check_anonymous_read(status: int) -> Check:
    """Whether a mirror needs no credentials."""
    if status == 200:
        return Check("read by anyone", "good", "allowed: mirrors need no credentials")
    found = f"refused ({status})"
    advice = f"let mirrors read with a key of their own (--from s3://…), or make the bucket public: {_POLICY}"
    return Check("read by anyone", "note", found, advice)


def check_anonymous_listing(status: int) -> Check:
    """Whether a stranger may list the bucket, which no mirror needs."""
    if status in _REFUSED:
        return Check("list by anyone", "good", f"refused ({status})")
    if status != 200:
        return _unanswered("list by anyone", status)
    advice = f"take s3:ListBucket from everyone; reading needs only s3:GetObject: {_POLICY}"
    return Check("list by anyone", "warning", "allowed", advice)


def check_anonymous_write(status: int) -> Check:
    """Whether a stranger may overwrite the pointer."""
    if status in _REFUSED:
        return Check("write by anyone", "good", f"refused ({status})")
    if not 200 <= status < 300:
        return _unanswered("write by anyone", status)
    return Check("write by anyone", "bad", "allowed", f"take s3:PutObject from everyone: {_POLICY}")


def _unanswered(name: str, status: int) -> Check:
    return Check(name, "warning", f"could not be asked ({status})", "run doctor again when the store answers")


def check_headers(answer: Answer) -> Check:
    """Whether the headers that a scratch object was stored with are served with it."""
    kept = (answer.headers.get("content-type"), answer.headers.get("cache-control"))
    if kept == ("application/octet-stream", "no-store"):
        return Check("media type and caching", "good", "kept")
    advice = (
        "let the proxy or CDN in front set Cache-Control as docs/format.md says, or it may cache the pointer"
    )
    return Check("media type and caching", "warning", f"served as {kept[0]}, {kept[1]}", advice)


def _read_rest(store: S3Store, key: str) -> Check:
    with closing(store.get(key, 7)) as reading:
        is_rest = b"".join(reading) == _SCRATCH[7:]
    if is_rest:
        return Check("read from the middle", "good", "possible: a download that breaks off goes on")
    return Check("read from the middle", "bad", "other bytes than were stored", "use another store")


def _read_if_changed(store: S3Store, key: str, etag: str) -> Check:
    reading = store.get_if_changed(key, etag)
    if reading is None:
        return Check("ask whether it changed", "good", "not modified (304)")
    reading.close()
    return Check(
        "ask whether it changed", "note", "sent again", "each poll of a mirror costs the whole pointer"
    )


def _write_as_stranger(store: S3Store) -> int:
    """The status that a write without credentials gets, to a key that nobody owns yet."""
    key = f"probe-{secrets.token_hex(16)}"
    try:
        return ask_as_stranger(store.url(key), "PUT", body=_SCRATCH).status
    finally:
        with suppress(StoreError):
            store.delete(key)


@contextmanager
def _scratch(store: S3Store) -> Iterator[str]:
    """An object of our own, deleted in the end."""
    key = f"probe-{secrets.token_hex(16)}"
    try:
        store.put(key, _SCRATCH, Overwrite())
        yield key
    finally:
        with suppress(StoreError):
            store.delete(key)
