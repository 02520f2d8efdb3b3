"""Tokens are credentials: what is logged about a request shows that there was one, never which.

Invariant: no record of the loggers below leaves them with a token in its message, its arguments or its
traceback, in any percent-encoded spelling, whatever server runs the application and however it was started.
Records of other loggers are not touched: nothing else of ours ever logs a token.
"""

from __future__ import annotations

import logging
import re
from typing import Any
from urllib.parse import unquote

REDACTED = "[token]"

# uvicorn's, hypercorn's, Litestar's, the event loop's and our own. A filter does not reach child loggers.
LOGGERS = (
    "asgi",
    "asyncio",
    "hypercorn.access",
    "hypercorn.error",
    "litestar",
    "origin",
    "uvicorn",
    "uvicorn.access",
    "uvicorn.asgi",
    "uvicorn.error",
)

# Letters of base64url, or any character percent-encoded once or more often. The shortest token has 67.
# One class and no alternatives: nothing here can be matched in two ways, and so in quadratic time.
_RUN = re.compile(r"[A-Za-z0-9_%-]{32,}")
# Version 1 and kind 1, 2 or 3 in base64url (docs/format.md, "Bytes"), and enough to hold a claim. A
# token that was cut or changed is redacted as well: it may differ from a good one in one character.
_TOKEN = re.compile(r"AQ[EIM][A-Za-z0-9_-]{29,}")
# Nobody encodes so often by mistake. What still can be decoded then is taken for a token.
_MAX_DECODINGS = 8
_FORMATTER = logging.Formatter()


def redact(text: str) -> str:
    """The text, with `REDACTED` for everything in it that is or contains a token."""
    return _RUN.sub(_redact_run, text)


def install_redaction() -> None:
    """Put the filter on every logger of `LOGGERS`, once. Configuring logging later leaves filters there."""
    for name in LOGGERS:
        logger = logging.getLogger(name)
        if not any(isinstance(each, TokenFilter) for each in logger.filters):
            logger.addFilter(TokenFilter())


class TokenFilter(logging.Filter):
    """Lets every record pass, without tokens."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg = _without_tokens(record.msg)
        if isinstance(record.args, dict):
            record.args = {key: _without_tokens(value) for key, value in record.args.items()}
        elif record.args:
            # Of the same length: uvicorn's access formatter unpacks it.
            record.args = tuple(map(_without_tokens, record.args))
        if record.exc_info and not record.exc_text:
            # Formatters use exc_text when there is one.
            record.exc_text = _FORMATTER.formatException(record.exc_info)
        if record.exc_text and (redacted := redact(record.exc_text)) != record.exc_text:
            record.exc_text = redacted
            record.exc_info = None  # A formatter of somebody else's would write it anew.
        if record.stack_info:
            record.stack_info = redact(record.stack_info)
        return True


def _without_tokens(value: Any) -> Any:
    """The value itself, unless its text holds a token; then that text, redacted."""
    if isinstance(value, int | float | None):
        return value
    text = str(value)
    redacted = redact(text)
    return value if redacted == text else redacted


def _redact_run(match: re.Match[str]) -> str:
    decoded = match[0]
    for _ in range(_MAX_DECODINGS):
        once_more = unquote(decoded)
        if once_more == decoded:
            return REDACTED if _TOKEN.search(decoded) else match[0]
        decoded = once_more
    return REDACTED
