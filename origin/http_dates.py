"""HTTP dates (RFC 9110, section 5.6.7): strict in what is read, IMF-fixdate in what is written.

Invariant: text that is not one of the three forms is no date, whatever the locale; times are Unix seconds.
"""

from __future__ import annotations

import re
from calendar import timegm
from datetime import UTC, datetime
from email.utils import formatdate

_MONTHS = {
    name: number
    for number, name in enumerate(
        ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"), 1
    )
}
_DAY, _MONTH = r"(?P<day>[0-9]{2})", r"(?P<month>[A-Z][a-z]{2})"
_TIME = r"(?P<hour>[0-9]{2}):(?P<minute>[0-9]{2}):(?P<second>[0-9]{2})"
_FORMS = tuple(
    re.compile(form)
    for form in (
        # IMF-fixdate: Sun, 06 Nov 1994 08:49:37 GMT
        rf"[A-Z][a-z]{{2}}, {_DAY} {_MONTH} (?P<year>[0-9]{{4}}) {_TIME} GMT",
        # RFC 850: Sunday, 06-Nov-94 08:49:37 GMT
        rf"[A-Z][a-z]{{5,8}}, {_DAY}-{_MONTH}-(?P<year>[0-9]{{2}}) {_TIME} GMT",
        # asctime: Sun Nov  6 08:49:37 1994
        rf"[A-Z][a-z]{{2}} {_MONTH} (?P<day>[ 0-9][0-9]) {_TIME} (?P<year>[0-9]{{4}})",
    )
)


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
    year, month = int(match["year"]), _MONTHS.get(match["month"])
    if month is None:
        return None
    if len(match["year"]) == 2:
        this_year = datetime.fromtimestamp(now, UTC).year
        year += this_year - this_year % 100
        if year > this_year + 50:
            year -= 100
    second = min(int(match["second"]), 59)  # A leap second, 60, is no second of Unix time.
    try:
        moment = datetime(year, month, int(match["day"]), int(match["hour"]), int(match["minute"]), second)
    except ValueError:
        return None
    return timegm(moment.timetuple())
