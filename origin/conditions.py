"""Preconditions and ranges (RFC 9110, sections 13 and 14): from a request's headers to what is answered.

Invariant: the order is that of section 13.2.2, and only then does a range count; no I/O happens here.
A header that may not repeat and does is joined by the caller like any other, and so becomes malformed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from origin.http_dates import parse_http_date
from origin.ranges import ByteRange, coalesce, parse_ranges

_ETAG = r'(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"'  # Section 8.8.3.
_ETAG_LIST = re.compile(rf"[ \t,]*{_ETAG}(?:[ \t]*,[ \t,]*{_ETAG})*[ \t,]*")
_EACH_ETAG = re.compile(_ETAG)


class Validators(NamedTuple):
    """What is compared: the size, the strong entity tag with its quotes, and the time of the last change.

    `last_modified_s` is in Unix seconds, None when none is sent. It must be old enough that the
    representation cannot change again within that second, so that it is a strong validator (section 8.8.2.2).
    """

    size_bytes: int
    etag: str
    last_modified_s: int | None = None


class Decision(NamedTuple):
    """The status (200, 206, 304, 412 or 416), and with 206 the ranges to send, in that order."""

    status: int
    ranges: tuple[ByteRange, ...] = ()


def decide(method: str, headers: Mapping[str, str], validators: Validators, now: float) -> Decision:
    """What a GET or HEAD that would otherwise be answered with 200 is answered with.

    `headers` has lower-case names and values without white space around them; `now` is in Unix seconds and
    only reads two-digit years. The ranges of a 206 are coalesced; a Range header of too many is ignored.
    """
    status = _precondition(headers, validators, now)
    if status is not None:
        return Decision(status)
    # Only GET has ranges: section 14.2.
    header = headers.get("range") if method == "GET" else None
    if header is None or not _if_range(headers, validators, now):
        return Decision(200)
    ranges = parse_ranges(header, validators.size_bytes)
    if ranges is None:
        return Decision(200)
    # Also after an If-Range that holds: "process the Range header field as requested" (section 13.1.5).
    return Decision(206, tuple(coalesce(ranges))) if ranges else Decision(416)


def _precondition(headers: Mapping[str, str], validators: Validators, now: float) -> int | None:
    """The status that the preconditions decide on, steps 1 to 4 of section 13.2.2."""
    changed_s = validators.last_modified_s
    if (if_match := headers.get("if-match")) is not None:
        if not _matches(if_match, validators.etag, weak=False):
            return 412
    elif changed_s is not None:
        since_s = _date(headers, "if-unmodified-since", now)
        if since_s is not None and changed_s > since_s:
            return 412
    if (if_none_match := headers.get("if-none-match")) is not None:
        if _matches(if_none_match, validators.etag, weak=True):
            return 304
    elif changed_s is not None:
        since_s = _date(headers, "if-modified-since", now)
        if since_s is not None and changed_s <= since_s:
            return 304
    return None


def _if_range(headers: Mapping[str, str], validators: Validators, now: float) -> bool:
    """Whether a Range header counts: step 5 of section 13.2.2, compared strongly (section 13.1.5)."""
    validator = headers.get("if-range")
    if validator is None:
        return True
    if '"' in validator:
        return validator == validators.etag
    # A date matches exactly or not at all; and None is no date's equal.
    wanted = parse_http_date(validator, now)
    return wanted is not None and wanted == validators.last_modified_s


def _matches(header: str, etag: str, *, weak: bool) -> bool:
    """Whether a list of entity tags, or `*`, holds this strong one; a malformed list holds none."""
    if header in (etag, "*"):  # What nearly every client sends.
        return True
    if not _ETAG_LIST.fullmatch(header):
        return False
    tags: list[str] = _EACH_ETAG.findall(header)
    return etag in tags or (weak and f"W/{etag}" in tags)


def _date(headers: Mapping[str, str], name: str, now: float) -> int | None:
    text = headers.get(name)
    return None if text is None else parse_http_date(text, now)
