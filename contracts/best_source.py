"""The best source of a track: which of its files a website plays, by what link, and for how long.

Invariant: the choice depends on the rows alone, and nothing is minted for anything but a handle: a link never
shows a path. The clock is a parameter; reading the rows is the caller's (`docs/examples/website.py`).

The order, first difference decides:
1. active files only, and only those with a public URL or a handle;
2. a primary file before others;
3. the better quality: lossless, high, standard, low (synonyms: `QUALITY_RANKS`), then any other label;
4. a public URL before a link to the NAS, whose uplink is narrower;
5. the lower `location_id`, so that the choice never flickers.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from contracts.errors import MalformedError
from contracts.handles import parse_handle
from contracts.keyring import KeyRing
from contracts.tokens import MAX_TIME_S, TokenKind, create_origin_token

# Where the origin takes each kind of token: in the path, or, for the lease, in the body of a POST.
STREAM_PATH = "/api/private-origin/stream/"
LISTEN_PATH = "/listen/"
RENEW_PATH = "/api/private-origin/renew"

PAUSE_S = 30 * 60  # Design, section 7: a link outlives its track by a pause of half an hour.
LEASE_LIFE_S = 6 * 60 * 60  # The same: longer than an evening, and never extended.
LISTEN_LIFE_S = 24 * 60 * 60  # Long enough to be sent to a friend; whoever makes one may choose another.
# What a track of unknown length counts as: longer than nearly every recording, much shorter than a day.
UNKNOWN_DURATION_S = 60 * 60
# A length beyond a day is not one in seconds (some platforms write milliseconds), so it counts as unknown.
LONGEST_DURATION_S = 24 * 60 * 60
# The keys of `metadata_json` that may hold the track's length in seconds, the first that does counts.
DURATION_KEYS = ("duration_s", "duration")

# Smaller is better. Labels are compared in lower case, without spaces, "-" and "_".
QUALITY_RANKS = {
    "lossless": 0, "flac": 0, "hires": 0, "master": 0, "sq": 0, "wav": 0, "alac": 0,
    "high": 1, "hq": 1, "320": 1, "320k": 1, "exhigh": 1, "higher": 1,
    "standard": 2, "normal": 2, "medium": 2, "192k": 2, "128k": 2,
    "low": 3, "96k": 3, "64k": 3,
}  # fmt: skip
_UNKNOWN_QUALITY = max(QUALITY_RANKS.values()) + 1
_SEPARATORS = str.maketrans("", "", " -_")

# Of contracts.read_model.TABLES["catalog_track_files"]; a test holds the two together.
FILE_COLUMNS = (
    "location_id",
    "song_id",
    "quality_label",
    "ext",
    "file_size_bytes",
    "backend_type",
    "backend_name",
    "locator",
    "public_url",
    "status",
    "is_primary",
)


class TrackFile(NamedTuple):
    """What of a row of `catalog_track_files` decides."""

    location_id: int
    quality_label: str
    locator: str
    public_url: str
    status: str
    is_primary: bool


class LeasedSource(NamedTuple):
    """A URL to play a track from, and the lease that is exchanged for a fresh one; "" for a public URL."""

    url: str
    lease: str


def best_source(
    files: Iterable[Mapping[str, Any] | Sequence[Any]],
    metadata_json: str | None,
    *,
    secret: str | bytes | KeyRing,
    origin_url: str,
    now: float,
    file_name: str = "",
    max_token_ttl_s: int | None = None,
) -> str | None:
    """The URL to play a track from: a file's public URL, or a fresh link to the NAS; None when it has none.

    Args:
        files: the track's rows of `catalog_track_files`: mappings, `sqlite3.Row`s, or tuples of `SELECT *`.
        metadata_json: the track's, of `catalog_tracks`; a link lives as long as the duration in it and a
            pause of `PAUSE_S`.
        secret: what signs the link.
        origin_url: where the origin is, such as `https://music.example`, with or without a `/` at its end.
        now: Unix seconds.
        file_name: what a browser may save the file as; "": the origin chooses.
        max_token_ttl_s: the longest life that the origin accepts, when it is set to accept less than any.

    Raises:
        KeyError, ValueError: a row lacks a column.
        TypeError, MalformedError: `secret` is none.
        MalformedToken: `file_name` is no file name.
    """
    found = leased_source(
        files,
        metadata_json,
        secret=secret,
        origin_url=origin_url,
        now=now,
        file_name=file_name,
        max_token_ttl_s=max_token_ttl_s,
    )
    return found and found.url


def leased_source(
    files: Iterable[Mapping[str, Any] | Sequence[Any]],
    metadata_json: str | None,
    *,
    secret: str | bytes | KeyRing,
    origin_url: str,
    now: float,
    file_name: str = "",
    max_token_ttl_s: int | None = None,
) -> LeasedSource | None:
    """As `best_source`, with a lease beside the link: for a player that goes on after a long pause.

    The page keeps the lease and posts it to `RENEW_PATH` when the link is refused (`docs/tokens.md`).

    Raises: as `best_source`.
    """
    chosen = choose_file(files)
    if chosen is None:
        return None
    if chosen.public_url:
        return LeasedSource(chosen.public_url, "")
    duration_s = parse_duration(metadata_json)

    def signed(kind: TokenKind) -> str:
        return create_origin_token(
            secret,
            chosen.locator,
            min(int(now) + link_life_s(duration_s, max_token_ttl_s, kind), MAX_TIME_S),
            kind=kind,
            duration_s=duration_s,
            file_name=file_name,
        )

    url = f"{origin_url.rstrip('/')}{STREAM_PATH}{signed(TokenKind.STREAM)}"
    return LeasedSource(url, signed(TokenKind.LEASE))


def choose_file(files: Iterable[Mapping[str, Any] | Sequence[Any]]) -> TrackFile | None:
    """The first of a track's files in the order that this module describes, None when none can be played."""
    return min(filter(_is_playable, map(_track_file, files)), key=_rank, default=None)


def link_life_s(
    duration_s: int, max_token_ttl_s: int | None = None, kind: TokenKind = TokenKind.STREAM
) -> int:
    """How many seconds a token for a track of this duration lives; 0: the duration is not known."""
    if kind is TokenKind.LEASE:
        life_s = LEASE_LIFE_S
    elif kind is TokenKind.LISTEN:
        life_s = LISTEN_LIFE_S
    else:
        life_s = min(duration_s or UNKNOWN_DURATION_S, LONGEST_DURATION_S) + PAUSE_S
    return life_s if max_token_ttl_s is None else min(life_s, max_token_ttl_s)


def parse_duration(metadata_json: str | None) -> int:
    """A track's length from its metadata, in whole seconds, rounded up; 0 when they do not say."""
    try:
        metadata = json.loads(metadata_json or "null")
    except (ValueError, RecursionError):
        return 0
    if not isinstance(metadata, dict):
        return 0
    for key in DURATION_KEYS:
        value = metadata.get(key)
        if isinstance(value, str):
            try:
                value = float(value)
            except ValueError:
                continue
        if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= LONGEST_DURATION_S:
            return math.ceil(value)
    return 0


def _track_file(row: Mapping[str, Any] | Sequence[Any]) -> TrackFile:
    # sqlite3.Row has keys() and is no Mapping.
    by_name = row if hasattr(row, "keys") else dict(zip(FILE_COLUMNS, row, strict=True))
    fields: Any = by_name
    return TrackFile(
        location_id=fields["location_id"],
        quality_label=fields["quality_label"] or "",
        locator=fields["locator"],
        public_url=fields["public_url"] or "",
        status=fields["status"],
        is_primary=bool(fields["is_primary"]),
    )


def _is_playable(file: TrackFile) -> bool:
    if file.status != "active":
        return False
    if file.public_url:
        return True
    try:
        parse_handle(file.locator)
    except MalformedError:
        return False
    return True


def _rank(file: TrackFile) -> tuple[bool, int, bool, int]:
    label = file.quality_label.lower().translate(_SEPARATORS)
    return (
        not file.is_primary,
        QUALITY_RANKS.get(label, _UNKNOWN_QUALITY),
        not file.public_url,
        file.location_id,
    )
