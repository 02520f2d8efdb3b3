"""Columns and ages for people: text in, text out.

Invariant: what may come from a stranger is printable before it gets here; a table never wraps by itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import timedelta


def align(rows: Sequence[Sequence[str]], numbers: Sequence[int] = ()) -> Iterator[str]:
    """The rows as lines, each column as wide as its widest cell; `numbers` are columns set to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (
            cell.rjust(width) if place in numbers else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        yield "  ".join(cells).rstrip()


def format_age(age: timedelta) -> str:
    """A length of time for people, in its largest unit: "45 s", "12 min", "3 h", "5 d"."""
    seconds = max(0, int(age.total_seconds()))
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min"
    if seconds < 2 * 86_400:
        return f"{seconds // 3600} h"
    return f"{seconds // 86_400} d"
