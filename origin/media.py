"""What a player is told a file is, and what a browser is told to save it as.

Invariant: neither the content type nor the file name shows the name on the NAS, unless the token's claims
do.
"""

from __future__ import annotations

import re
from urllib.parse import quote

UNKNOWN_TYPE = "application/octet-stream"

# Python's mimetypes lacks .mka and gets .wv wrong, and what it says depends on the machine.
# audio/flac: RFC 9639; audio/ogg also for .opus: RFC 7845, section 9; audio/mp4: RFC 4337; audio/mpeg:
# RFC 3003; audio/aac and audio/x-matroska: IANA and matroska.org; the rest is what players look for.
_TYPES = {
    "aac": "audio/aac",
    "aif": "audio/aiff",
    "aiff": "audio/aiff",
    "ape": "audio/x-ape",
    "flac": "audio/flac",
    "m4a": "audio/mp4",
    "mka": "audio/x-matroska",
    "mp3": "audio/mpeg",
    "oga": "audio/ogg",
    "ogg": "audio/ogg",
    "opus": "audio/ogg",
    "wav": "audio/wav",
    "wma": "audio/x-ms-wma",
    "wv": "audio/x-wavpack",
}
# RFC 8187, section 3.2.1: attr-char without the letters and digits, which quote() never encodes.
_ATTR_CHARS = "!#$&+-.^_`|~"
_NOT_IN_FALLBACK = re.compile(r'[^ -~]|["\\%]')


def extension(name: str) -> str:
    """The part of a file name after its last dot, in lower case; "" when it has none."""
    stem, dot, ending = name.rpartition(".")
    return ending.lower() if dot and stem else ""


def content_type(ending: str) -> str:
    """The media type for an extension as `extension` returns it."""
    return _TYPES.get(ending, UNKNOWN_TYPE)


def track_name(location_id: int | None, ending: str) -> str:
    """The name of a file whose claims give it none; an extension that is not audio is not shown."""
    stem = "track" if location_id is None else f"track-{location_id}"
    return f"{stem}.{ending}" if ending in _TYPES else stem


def content_disposition(disposition: str, file_name: str) -> str:
    """The Content-Disposition header (RFC 6266) for `inline` or `attachment` and a name in Unicode.

    The plain parameter is ASCII, for clients that know no other: what it cannot hold, and the `"`, `\\` and
    `%` that clients read differently (RFC 6266, appendix D), becomes `_`. The name itself follows in UTF-8
    (RFC 8187) when the two differ.
    """
    fallback = _NOT_IN_FALLBACK.sub("_", file_name)
    header = f'{disposition}; filename="{fallback}"'
    if fallback != file_name:
        header += f"; filename*=UTF-8''{quote(file_name, safe=_ATTR_CHARS)}"
    return header
