"""Examines an http(s) address that can only be read, as a public mirror sees it.

Invariant: nothing is written, and no request has credentials. Bytes are judged by what the pointer says of
them; whether a mirror believes the pointer is the mirror's decision, with its keys.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from contracts.digests import digest_bytes
from contracts.errors import ContractError, StoreError
from contracts.layout import POINTER_KEY, blob_key, manifest_key
from contracts.manifest import MANIFEST_MAX_BYTES, Blob, Manifest, parse_manifest
from publisher.doctor.checks import (
    ORIGIN,
    REQUESTS,
    Check,
    Diagnosis,
    attempt,
    check_clock,
    check_cors,
    check_latency,
)
from publisher.profile import program_version
from stores.base import ReadableStore, read_whole
from stores.http import HttpStore
from stores.stranger import Answer, ask_as_stranger

# Mirrors ask every 30 s, and are late by as long as a cache keeps the pointer (docs/format.md says 15 s).
_POINTER_MAX_S = 300
_BLOB_MIN_S = 86_400
_ABSENT = manifest_key("0" * 64)
_AGE = re.compile(r"(?:^|[,\s])(s-maxage|max-age)=\"?([0-9]{1,10})")

Ask = Callable[[str, Mapping[str, str]], Answer]
"""Sends a GET for a key with these headers."""


def examine_web(store: HttpStore, now: Callable[[], datetime], monotonic: Callable[[], float]) -> Diagnosis:
    """All findings about an address; an error on the way is a finding too."""
    address = store.address

    def ask(key: str, headers: Mapping[str, str]) -> Answer:
        url = f"{address}/{key}"
        return ask_as_stranger(url, headers=headers, max_bytes=MANIFEST_MAX_BYTES, clock=monotonic)

    checks: list[Check] = []
    try:
        answer = ask(POINTER_KEY, {"Origin": ORIGIN, "Cache-Control": "no-cache"})
    except StoreError as error:
        advice = "check the address, the name server, the certificate and the firewall"
        checks.append(Check("reach it", "bad", str(error), advice))
    else:
        pointer, manifest = check_pointer(answer, now())
        checks.append(pointer)
        checks.append(check_scheme(address))
        checks.append(check_clock(now(), _date(answer)))
        if answer.status == 200:
            checks += _examine_pointer(ask, answer)
        if manifest is not None:
            blob = manifest.keyframe.blobs[0]
            checks += _examine_blob(ask, blob)
            checks.append(_read_as_mirror(store, manifest))
        checks.append(attempt("what is not there", lambda: check_absent(ask(_ABSENT, {}).status)))
        checks.append(attempt("latency", lambda: _measure(ask)))
    return Diagnosis(address, "web", now(), program_version(), tuple(checks))


def _examine_pointer(ask: Ask, answer: Answer) -> list[Check]:
    etag = answer.headers.get("etag", "")
    return [
        check_coding(answer.headers.get("content-encoding")),
        check_pointer_caching(answer.headers.get("cache-control")),
        attempt(
            "ask whether it changed",
            lambda: check_revalidation(
                etag, ask(POINTER_KEY, {"If-None-Match": etag}).status if etag else 200
            ),
        ),
        check_cors(answer),
    ]


def _examine_blob(ask: Ask, blob: Blob) -> list[Check]:
    """The findings about a blob that the pointer names, of which one byte is asked for."""
    try:
        answer = ask(blob_key(blob.digest), {"Range": "bytes=0-0"})
    except StoreError as error:
        return [Check("blobs", "bad", str(error), "let everyone read what is beneath blobs/")]
    checks = [check_blob(answer, blob.size_bytes)]
    if answer.status in (200, 206):
        checks.append(check_blob_caching(answer.headers.get("cache-control")))
    return checks


def _read_as_mirror(store: ReadableStore, manifest: Manifest) -> Check:
    """Whether a mirror gets the pointer, and the smallest blob that it names, by the very same code."""
    name = "read as a mirror does"
    advice = (
        "let what stands before the store send Content-Length, no coding, and the bytes as they are stored"
    )
    blobs = [*manifest.keyframe.blobs, *(blob for delta in manifest.deltas for blob in delta.blobs)]
    blob = min(blobs, key=lambda blob: blob.size_bytes)
    try:
        reading = store.get_if_changed(POINTER_KEY, "")
        assert reading is not None  # nothing was named that may be unchanged
        parse_manifest(read_whole(reading, MANIFEST_MAX_BYTES))
        found = digest_bytes(read_whole(store.get(blob_key(blob.digest)), blob.size_bytes))
    except (ContractError, StoreError) as error:
        return Check(name, "bad", str(error), advice)
    if found != blob.digest:
        return Check(name, "bad", f"blob {blob.digest} comes as other bytes", advice)
    return Check(name, "good", f"the pointer, and a blob of {blob.size_bytes} bytes")


def _measure(ask: Ask) -> Check:
    return check_latency([ask(POINTER_KEY, {}).seconds for _ in range(REQUESTS)])


def check_pointer(answer: Answer, now: datetime) -> tuple[Check, Manifest | None]:
    """What the pointer is, and the manifest in it when there is one."""
    name, status = "the pointer", answer.status
    if status in (404, 410):
        advice = "publish to it first, or check the prefix in the address"
        return Check(name, "warning", f"nothing published here ({status})", advice), None
    if status in (401, 403):
        advice = "make the bucket public to read (docs/providers.md), or check the prefix in the address"
        return Check(name, "bad", f"refused ({status})", advice), None
    if 300 <= status < 400:
        target = answer.headers.get("location", "elsewhere")
        return Check(name, "bad", f"redirected to {target}", "use that address: mirrors follow none"), None
    if status != 200:
        return Check(name, "bad", f"status {status}", "look into the server's log"), None
    try:
        manifest = parse_manifest(answer.body)
    except ContractError as error:
        return Check(name, "bad", str(error), "check the prefix in the address"), None
    found = f"sequence {manifest.sequence}, of {manifest.published_at:%Y-%m-%d %H:%M} UTC"
    if manifest.expires_at <= now:
        return Check(name, "warning", f"{found}, expired", "publish again: mirrors alarm"), manifest
    return Check(name, "good", found), manifest


def check_scheme(address: str) -> Check:
    """Whether the way is private; signatures protect what comes, not who sees it."""
    if address.startswith("https://"):
        return Check("TLS", "good", "https")
    return Check(
        "TLS", "note", "plain http", "harmless with --public-key: signatures protect what mirrors adopt"
    )


def check_coding(coding: str | None) -> Check:
    """Whether bytes come as they are stored, as was asked for by `Accept-Encoding: identity`."""
    if coding in (None, "", "identity"):
        return Check("content coding", "good", "none")
    if coding == "aws-chunked":
        return Check(
            "content coding", "note", "aws-chunked, which is none: the server stored a header of S3's"
        )
    advice = "let the server or CDN compress only for clients that accept it: mirrors refuse such an answer"
    return Check("content coding", "bad", f"{coding}, although none was accepted", advice)


def check_pointer_caching(cache_control: str | None) -> Check:
    """Whether caches keep the pointer for seconds only."""
    advice = "serve manifest.json with Cache-Control: public, max-age=15 (docs/format.md)"
    age_s = parse_max_age(cache_control)
    if age_s is None:
        return Check("caching of the pointer", "warning", f"{cache_control or 'not said'}", advice)
    if age_s <= _POINTER_MAX_S:
        return Check("caching of the pointer", "good", f"{age_s} s")
    return Check("caching of the pointer", "warning", f"{age_s} s", advice)


def check_blob_caching(cache_control: str | None) -> Check:
    """Whether caches may keep what never changes."""
    age_s = parse_max_age(cache_control)
    if age_s is not None and age_s >= _BLOB_MIN_S:
        return Check("caching of blobs", "good", f"{age_s} s")
    advice = "serve blobs/ and manifests/ with Cache-Control: public, max-age=31536000, immutable"
    return Check("caching of blobs", "note", f"{cache_control or 'not said'}", advice)


def check_revalidation(etag: str, status: int) -> Check:
    """Whether an unchanged pointer costs no download."""
    if etag and status == 304:
        return Check("ask whether it changed", "good", "not modified (304)")
    found = f"status {status}" if etag else "no entity tag"
    return Check("ask whether it changed", "note", found, "each poll of a mirror costs the whole pointer")


def check_blob(answer: Answer, size_bytes: int) -> Check:
    """What came of asking for the first byte of a blob of this size."""
    if answer.status == 206:
        total = answer.headers.get("content-range", "").rpartition("/")[2]
        if total == str(size_bytes):
            return Check("blobs", "good", "there, and from any byte on")
        return Check("blobs", "bad", f"{total or 'unknown'} bytes instead of {size_bytes}", "publish again")
    if answer.status == 200:
        return Check("blobs", "note", "no ranges", "a download that breaks off starts from the beginning")
    advice = "let everyone read what is beneath blobs/, or see what `music-cloud verify` says"
    return Check("blobs", "bad", f"status {answer.status}", advice)


def check_absent(status: int) -> Check:
    """How the server says that there is no such object."""
    name = "what is not there"
    if status in (404, 410):
        return Check(name, "good", f"missing ({status})")
    if status in (401, 403):
        return Check(name, "note", f"refused ({status})", "a missing object looks like a forbidden one here")
    advice = "answer 404 to what is not there: a mirror cannot tell it from a damaged object"
    return Check(name, "bad" if status == 200 else "warning", f"status {status}", advice)


def parse_max_age(cache_control: str | None) -> int | None:
    """For how many seconds a shared cache may keep an answer (RFC 9111, section 5.2); None: not said."""
    text = (cache_control or "").lower()
    if "no-store" in text or "no-cache" in text:
        return 0
    ages = dict(_AGE.findall(text))
    age = ages.get("s-maxage", ages.get("max-age"))
    return None if age is None else int(age)


def _date(answer: Answer) -> datetime | None:
    try:
        return parsedate_to_datetime(answer.headers.get("date", "")).astimezone(UTC)
    except (ValueError, TypeError, OverflowError):
        return None
