"""The origin's log: one line for each noteworthy event, as text or as JSON, under an id of the request.

Invariant: a line holds no token, whatever was logged, because each is redacted once more as it is written;
and no path and no client, because nobody passes any. A request's id is random and made only when a line or
an error needs it, so it cannot be traced to the token. What is logged is said where it happens.
"""

from __future__ import annotations

import json
import logging
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, TextIO

from origin.redact import redact

_ID_BYTES = 8  # A million lines have the same id twice with a probability of 1 in 37 million.
# None outside of a request; "" in one that has not needed an id yet. Every request is a task of its own.
_request_id: ContextVar[str | None] = ContextVar("origin_request_id", default=None)


class LogFormat(StrEnum):
    """How a line is written."""

    TEXT = "text"
    JSON = "json"


def begin_request() -> None:
    """From here on, in this task, ids are those of another request."""
    _request_id.set("")


def request_id() -> str:
    """The id of the request that is being answered."""
    known = _request_id.get()
    if not known:
        known = secrets.token_hex(_ID_BYTES)
        _request_id.set(known)
    return known


def event(name: str, **fields: object) -> dict[str, Any]:
    """What makes a log record an event: pass it as `extra`. It has the request's id where there is one."""
    is_request = _request_id.get() is not None
    return {"event": name, "fields": fields, "request_id": request_id() if is_request else ""}


@contextmanager
def logging_as(log_format: LogFormat, stream: TextIO | None = None) -> Iterator[None]:
    """Write the origin's events, and everybody's warnings, while the block runs; to stderr by default."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter() if log_format is LogFormat.JSON else TextFormatter())
    root, ours = logging.getLogger(), logging.getLogger("origin")
    level = ours.level
    root.addHandler(handler)
    ours.setLevel(logging.INFO)
    try:
        yield
    finally:
        ours.setLevel(level)
        root.removeHandler(handler)


class TextFormatter(logging.Formatter):
    """A sentence, and behind it the fields as `name=value`."""

    def format(self, record: logging.LogRecord) -> str:
        line = f"{_time(record)} {record.levelname} {record.name}: {record.getMessage()}"
        if fields := _fields(record):
            line += f" [{' '.join(f'{name}={value}' for name, value in fields.items())}]"
        if trace := _trace(self, record):
            line += f"\n{trace}"
        return redact(line)


class JsonFormatter(logging.Formatter):
    """One object a line, in ASCII: `time`, `level`, `logger`, `message`, and the fields of an event."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            **_fields(record),
            "message": record.getMessage(),
        }
        if trace := _trace(self, record):
            line["exception"] = trace
        # Before it is encoded: behind an escape a redacted line would be no JSON any more.
        return json.dumps({name: _redacted(value) for name, value in line.items()})


def _time(record: logging.LogRecord) -> str:
    """RFC 3339, in UTC, with milliseconds."""
    moment = datetime.fromtimestamp(record.created, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _fields(record: logging.LogRecord) -> dict[str, object]:
    name = getattr(record, "event", None)
    if name is None:
        return {}
    fields: Mapping[str, object] = getattr(record, "fields", {})
    known_id = getattr(record, "request_id", "")
    return {"event": name, **fields, **({"request_id": known_id} if known_id else {})}


def _trace(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    if record.exc_text or not record.exc_info:
        return record.exc_text or ""
    return formatter.formatException(record.exc_info)


def _redacted(value: object) -> object:
    return value if isinstance(value, bool | int | float | None) else redact(str(value))
