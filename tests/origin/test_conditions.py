"""Preconditions, section by section of RFC 9110; all dates around the RFC's own example."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from origin.conditions import Decision, Validators, decide
from origin.http_dates import format_http_date, parse_http_date
from origin.ranges import ByteRange

CHANGED_S = 784_111_777  # Sun, 06 Nov 1994 08:49:37 GMT: RFC 9110, section 5.6.7
CHANGED = "Sun, 06 Nov 1994 08:49:37 GMT"
BEFORE = "Sun, 06 Nov 1994 08:49:36 GMT"
AFTER = "Sun, 06 Nov 1994 08:49:38 GMT"
NOW = 1_800_000_000
FILE = Validators(100, '"v1"', CHANGED_S)
PART = (ByteRange(0, 9),)
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
        # "Otherwise, the recipient SHOULD process the Range header field as requested."
        ("13.1.5", {"range": "bytes=500-", "if-range": '"v1"'}, 416),
        # A list is no entity tag, and neither is a tag that came twice.
        ("13.1.5", RANGE | {"if-range": '"v0", "v1"'}, 200),
        ("13.1.5", RANGE | {"if-range": '"v1", "v1"'}, 200),
        ("13.1.5", RANGE | {"if-range": "*"}, 200),
        ("13.1.5", RANGE | {"if-range": ""}, 200),
        # One of several that exists is one; a Range header that came twice is joined, and malformed.
        ("15.3.7.2", {"range": "bytes=0-9,500-"}, 206),
        ("14.2", {"range": "bytes=0-1, bytes=5-6"}, 200),
        # "… or the field value has more than one member": a date that came twice is joined.
        ("13.1.3", {"if-modified-since": f"{CHANGED}, {CHANGED}"}, 200),
        ("13.1.4", {"if-unmodified-since": f"{BEFORE}, {BEFORE}"}, 200),
        # A list may be empty, and hold empty elements (5.6.1): no tag of it is ours.
        ("13.1.1", {"if-match": ""}, 412),
        ("13.1.2", {"if-none-match": ""}, 200),
        ("5.6.1", {"if-match": ' , ,"v1",\t,'}, 200),
        # "*" stands alone.
        ("13.1.1", {"if-match": '*, "v1"'}, 412),
        ("13.1.2", {"if-none-match": '"v0", *'}, 200),
        # "opaque-tag" has no escapes, and "W/" is case-sensitive.
        ("8.8.3", {"if-none-match": 'w/"v1"'}, 200),
        ("8.8.3", {"if-none-match": '"\\"v1"'}, 200),
    ],
)
def test_decision(section: str, headers: dict[str, str], status: int) -> None:
    expected = Decision(status, PART if status == 206 else ())
    assert expected == decide("GET", headers, FILE, NOW), section


def test_several_ranges_are_coalesced() -> None:
    """Section 15.3.7.2: what is left is one range, or several in the order of the header."""
    large = FILE._replace(size_bytes=10_000)
    for header, ranges in {
        "bytes=0-1,5-6": [(0, 6)],
        "bytes=-1,0-0": [(9999, 9999), (0, 0)],
        "bytes=0-,5-": [(0, 9999)],
    }.items():
        expected = Decision(206, tuple(ByteRange(*bounds) for bounds in ranges))
        assert expected == decide("GET", {"range": header}, large, NOW)


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
    """Section 5.6.7: "more than 50 years in the future" means the past; now is 2027-01-15T08:00:00Z."""
    for date, year in {
        "Sunday, 06-Nov-76 08:49:37 GMT": "2076",
        "Friday, 15-Jan-77 08:00:00 GMT": "2077",
        "Friday, 15-Jan-77 08:00:01 GMT": "1977",
        "Sunday, 06-Nov-78 08:49:37 GMT": "1978",
    }.items():
        assert year == format_http_date(parse_http_date(date, NOW) or 0)[12:16]


def test_leap_second_is_a_date() -> None:
    """Section 5.6.7: 60 is a second; 61 is none."""
    leap = parse_http_date("Sat, 31 Dec 2016 23:59:60 GMT", NOW)
    assert leap == parse_http_date("Sat, 31 Dec 2016 23:59:59 GMT", NOW)


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
        "Foo, 06 Nov 1994 08:49:37 GMT",
        "Foosday, 06-Nov-94 08:49:37 GMT",
        "sun, 06 nov 1994 08:49:37 gmt",
        "Sat, 31 Dec 2016 23:59:61 GMT",
        "Sun, 06 Nov 1994 08:60:37 GMT",
        "Sun, 06 Nov 1994 24:49:37 GMT",
        "Sun, 06 Nov 0000 08:49:37 GMT",
        "１Sun, 06 Nov 1994 08:49:37 GMT",
        "1994-11-06T08:49:37Z",
    ],
)
def test_no_date(text: str) -> None:
    assert parse_http_date(text, NOW) is None


@given(st.text(alphabet='W/"v1,* \t\\', max_size=60))
def test_strong_match_is_a_weak_one(header: str) -> None:
    """Section 8.8.3.2: what the strong comparison finds equal, the weak one does too; and nothing raises."""
    if decide("GET", {"if-match": header}, FILE, NOW).status == 200:
        assert decide("GET", {"if-none-match": header}, FILE, NOW).status == 304


@given(st.text(max_size=60), st.integers(0, 4_000_000_000))
def test_no_text_raises(text: str, now: int) -> None:
    parse_http_date(text, now)


@given(st.integers(0, 253_402_300_799))
def test_what_is_written_is_read(time_s: int) -> None:
    assert time_s == parse_http_date(format_http_date(time_s), NOW)
