"""The one way in which the local stack fails."""

from __future__ import annotations

from pathlib import Path

TAIL_CHARACTERS = 2000


class LocalStackError(RuntimeError):
    """A server of the local stack is not there or does not start."""


def quote_tail(log: Path) -> str:
    """Return the end of a log file, for an error that a person will read."""
    return log.read_text(encoding="utf-8", errors="replace")[-TAIL_CHARACTERS:]
