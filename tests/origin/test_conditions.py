"""Preconditions, section by section of RFC 9110; all dates around the RFC's own example."""

from __future__ import annotations

import pytest

from origin.conditions import Decision, Validators, decide
from origin.http_dates import format_http_date, parse_http_date
from origin.ranges import ByteRange

CHANGED_S = 784_111_777  # Sun, 06 Nov 1994 08:49:37 GMT: RFC 9110, section 5.6.7
CHANGED = "Sun, 06 Nov 1994 08:49:37 GMT"
BEFORE = "Sun, 06 Nov 1994 08:49:36 GMT"
AFTER = "Sun, 06 Nov 1994 08:49:38 GMT"
NOW = 1_800_000_000
FILE = Validators(100, '"v1"', CHANGED_S)
PART = ByteRange(0, 9)
RANGE = {"range": "bytes=0-9"}


@pytest.mark.parametrize(
    ("section", "headers", "status"),
    [
        ("13.1.1", {"if-match": '"v1"'}, 200),
        ("13.1.1", {"if-match": "*"}, 200),
        ("13.1.1", {"if-match": '"v0", "v1"'}, 200),
        ("13.1.1", {"if-match": '"v0"'}, 412),
        # "An origin server MUST use the strong comparison function."
        ("13.1.1", {"if-match": 'W/"v1"'}, 412),
        ("8.8.3", {"if-match": "v1"}, 412),
        ("8.8.3", {"if-match": '"v1'}, 412),
        # A tag may hold a comma.
        ("8.8.3", {"if-match": '"a,"v1""'}, 412),
        ("8.8.3", {"if-match": '"a,b", "v1"'}, 200),
        ("13.1.2", {"if-none-match": '"v1"'}, 304),
        ("13.1.2", {"if-none-match": "*"}, 304),
        ("13.1.2", {"if-none-match": '"v0"'}, 200),
        # "A recipient MUST use the weak comparison function."
        ("13.1.2", {"if-none-match": 'W/"v1"'}, 304),
        ("13.1.2", {"if-none-match": "v1"}, 200),
        ("13.1.3", {"if-modified-since": CHANGED}, 304),
        ("13.1.3", {"if-modified-since": AFTER}, 304),
        ("13.1.3", {"if-modified-since": BEFORE}, 200),
        # "A recipient MUST ignore the If-Modified-Since header field if the received field value is not a
        # valid HTTP-date."
        ("13.1.3", {"if-modified-since": "yesterday"}, 200),
        # "… MUST ignore If-Modified-Since if the request contains an If-None-Match header field."
        ("13.1.3", {"if-modified-since": CHANGED, "if-none-match": '"v0"'}, 200),
        ("13.1.4", {"if-unmodified-since": CHANGED}, 200),
        ("13.1.4", {"if-unmodified-since": BEFORE}, 412),
        ("13.1.4", {"if-unmodified-since": "yesterday"}, 200),
        # "… MUST ignore If-Unmodified-Since if the request contains an If-Match header field."
        ("13.1.4", {"if-unmodified-since": BEFORE, "if-match": '"v1"'}, 200),
        # 13.2.2: step 1 or 2 comes before 3 or 4, and those before 5.
        ("13.2.2", {"if-match": '"v0"', "if-none-match": '"v1"'}, 412),
        ("13.2.2", {"if-match": '"v1"', "if-none-match": '"v1"'}, 304),
        ("13.2.2", {"if-unmodified-since": BEFORE, "if-modified-since": CHANGED}, 412),
        ("13.2.2", {"if-none-match": '"v1"', "range": "bytes=500-"}, 304),
        ("13.2.2", {"if-match": '"v0"', "range": "bytes=500-"}, 412),
        ("15.5.17", {"range": "bytes=500-"}, 416),
        ("14.2", RANGE, 206),
        ("13.1.5", RANGE | {"if-range": '"v1"'}, 206),
        ("13.1.5", RANGE | {"if-range": '"v0"'}, 200),
        # "A client MUST NOT generate an If-Range header field containing an entity tag that is marked
        # as weak."
        ("13.1.5", RANGE | {"if-range": 'W/"v1"'}, 200),
        ("13.1.5", RANGE | {"if-range": CHANGED}, 206),
        # An exact match, not "not later than".
        ("13.1.5", RANGE | {"if-range": AFTER}, 200),
        ("13.1.5", RANGE | {"if-range": BEFORE}, 200),
        ("13.1.5", RANGE | {"if-range": "yesterday"}, 200),
        ("13.1.5", {"range": "bytes=500-", "if-range": '"v0"'}, 200),
        # Several ranges: a server may answer with the whole (14.2); one of several that exists is one.
        ("14.2", {"range": "bytes=0-1,5-6"}, 200),
        ("14.2", {"range": "bytes=0-9,500-"}, 206),
        # A Range header that came twice is joined, and malformed.
        ("14.2", {"range": "bytes=0-1, bytes=5-6"}, 200),
    ],
)
def test_decision(section: str, headers: dict[str, str], status: int) -> None:
    expected = Decision(status, PART if status == 206 else None)
    assert expected == decide("GET", headers, FILE, NOW), section


def test_head_has_no_ranges() -> None:
    """Section 14.2: Range is defined for GET only."""
    assert Decision(200) == decide("HEAD", RANGE, FILE, NOW)
    assert Decision(200) == decide("HEAD", {"range": "bytes=500-"}, FILE, NOW)
    assert Decision(304) == decide("HEAD", {"if-none-match": '"v1"'}, FILE, NOW)


@pytest.mark.parametrize("name", ["if-modified-since", "if-unmodified-since"])
def test_without_a_date_dates_are_ignored(name: str) -> None:
    """Sections 13.1.3 and 13.1.4: "… if the resource does not have a modification date available"."""
    young = FILE._replace(last_modified_s=None)
    for date in (BEFORE, CHANGED, AFTER):
        assert Decision(200) == decide("GET", {name: date}, young, NOW)
    assert Decision(200) == decide("GET", RANGE | {"if-range": CHANGED}, young, NOW)


@pytest.mark.parametrize(
    "text",
    [CHANGED, "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"],
)
def test_the_three_forms_of_a_date(text: str) -> None:
    """Section 5.6.7: "A recipient that parses a timestamp value MUST accept all three HTTP-date formats." """
    assert parse_http_date(text, NOW) == CHANGED_S
    assert format_http_date(CHANGED_S) == CHANGED


def test_century_of_a_short_year() -> None:
    """Section 5.6.7: more than 50 years in the future means the past."""
    assert format_http_date(parse_http_date("Sunday, 06-Nov-77 08:49:37 GMT", NOW) or 0)[12:16] == "2077"
    assert format_http_date(parse_http_date("Sunday, 06-Nov-78 08:49:37 GMT", NOW) or 0)[12:16] == "1978"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Sun, 06 Nov 1994 08:49:37",
        "Sun, 06 Nov 1994 08:49:37 UTC",
        "Sun, 06 Nov 1994 08:49:37 +0000",
        "Sun, 6 Nov 1994 08:49:37 GMT",
        "Sun, 31 Feb 1994 08:49:37 GMT",
        "Sun, 06 Foo 1994 08:49:37 GMT",
        "Sun, 06 Nov 1994 24:49:37 GMT",
        "Sun, 06 Nov 0000 08:49:37 GMT",
        "１Sun, 06 Nov 1994 08:49:37 GMT",
        "1994-11-06T08:49:37Z",
    ],
)
def test_no_date(text: str) -> None:
    assert parse_http_date(text, NOW) is None
