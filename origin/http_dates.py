"""HTTP dates (RFC 9110, section 5.6.7): strict in what is read, IMF-fixdate in what is written.

Invariant: text that is not one of the three forms is no date, whatever the locale; times are Unix seconds.
"""

from __future__ import annotations

import re
from calendar import timegm
from datetime import UTC, datetime
from email.utils import formatdate
from functools import lru_cache

_MONTHS = {
    name: number
    for number, name in enumerate(
        ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"), 1
    )
}
_SHORT_WEEKDAY = "(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)"
_WEEKDAY = "(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day"
_DAY, _MONTH = r"(?P<day>[0-9]{2})", rf"(?P<month>{'|'.join(_MONTHS)})"
# 60 is a leap second.
_TIME = r"(?P<hour>[0-9]{2}):(?P<minute>[0-9]{2}):(?P<second>[0-5][0-9]|60)"
_FORMS = tuple(
    re.compile(form)
    for form in (
        # IMF-fixdate: Sun, 06 Nov 1994 08:49:37 GMT
        rf"{_SHORT_WEEKDAY}, {_DAY} {_MONTH} (?P<year>[0-9]{{4}}) {_TIME} GMT",
        # RFC 850: Sunday, 06-Nov-94 08:49:37 GMT
        rf"{_WEEKDAY}, {_DAY}-{_MONTH}-(?P<year>[0-9]{{2}}) {_TIME} GMT",
        # asctime: Sun Nov  6 08:49:37 1994
        rf"{_SHORT_WEEKDAY} {_MONTH} (?P<day>[ 0-9][0-9]) {_TIME} (?P<year>[0-9]{{4}})",
    )
)


@lru_cache(maxsize=1024)  # A player asks for one file many times.
def format_http_date(time_s: int) -> str:
    """The IMF-fixdate of a time in Unix seconds."""
    return formatdate(time_s, usegmt=True)


def parse_http_date(text: str, now: float) -> int | None:
    """The Unix seconds that an HTTP date names, or None when the text is none.

    `now`, in Unix seconds, decides the century of a two-digit year: one that seems more than 50 years in the
    future is in the past (RFC 9110, section 5.6.7).
    """
    for form in _FORMS:
        match = form.fullmatch(text)
        if match is not None:
            break
    else:
        return None
    year = int(match["year"])
    rest = (
        _MONTHS[match["month"]],
        int(match["day"]),
        int(match["hour"]),
        int(match["minute"]),
        min(int(match["second"]), 59),  # A leap second is no second of Unix time.
    )
    if len(match["year"]) == 2:
        today = datetime.fromtimestamp(now, UTC).timetuple()
        year += today.tm_year - today.tm_year % 100
        if (year - 50, *rest) > today[:6]:
            year -= 100
    try:
        moment = datetime(year, *rest)
    except ValueError:
        return None
    return timegm(moment.timetuple())
