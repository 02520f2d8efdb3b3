"""Why a link was refused: for the log and for `/metrics`, never for the client.

Invariant: the reasons are few and fixed, so that counting them shows neither a link nor a listener, and a
stranger cannot make new ones up. Each refusal is noted once, by the endpoint that answers it.
"""

from __future__ import annotations

import logging
from enum import StrEnum

from origin.logs import event

logger = logging.getLogger("origin")


class Reason(StrEnum):
    """One word for each; `docs/metrics.md` explains them."""

    NO_SECRET = "no_secret"
    BAD_REQUEST = "bad_request"
    MALFORMED = "malformed"
    UNKNOWN_KEY = "unknown_key"
    BAD_SIGNATURE = "bad_signature"
    WRONG_KIND = "wrong_kind"
    NOT_YET_VALID = "not_yet_valid"
    EXPIRED = "expired"
    TOO_LONG_LIFE = "too_long_life"
    NETWORK = "network"
    LINK_LIMITED = "link_limited"
    CATALOGUE_UNAVAILABLE = "catalogue_unavailable"
    NO_DESCRIPTORS = "no_descriptors"
    NOT_FOUND = "not_found"


# What is wrong here and not with the link. Without a secret every request says so: that is no news.
_WARNINGS = frozenset({Reason.CATALOGUE_UNAVAILABLE, Reason.NO_DESCRIPTORS})


class Refusals:
    """How often there was which reason since the start."""

    def __init__(self) -> None:
        self.counts = dict.fromkeys(Reason, 0)

    def note(self, reason: Reason, status: int, detail: str) -> None:
        """Count a refusal, and log it; `detail` holds no token and no path."""
        self.counts[reason] += 1
        level = logging.WARNING if reason in _WARNINGS else logging.INFO
        if logger.isEnabledFor(level):
            fields = event("refused", reason=reason.value, status=status)
            logger.log(level, "a request was refused: %s", detail, extra=fields)
