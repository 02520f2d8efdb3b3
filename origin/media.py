"""What a player is told a file is, and what a browser is told to save it as.

Invariant: neither the content type nor the file name shows the name on the NAS, unless the token's claims
do.
"""

from __future__ import annotations

import re
from functools import lru_cache
from urllib.parse import quote

UNKNOWN_TYPE = "application/octet-stream"

# Python's mimetypes lacks .mka and gets .wv wrong, and what it says depends on the machine. The sources: a
# registration with IANA by the RFC that is named; "WHATWG": MIME Sniffing, section 6.2; "desktop": the
# shared-mime-info database of freedesktop.org, which players on Linux look into.
_TYPES = {
    "aac": "audio/aac",  # IANA, by ISO/IEC JTC 1/SC 29: ADTS
    "ac3": "audio/ac3",  # RFC 4184
    "aif": "audio/aiff",  # WHATWG
    "aifc": "audio/aiff",  # WHATWG
    "aiff": "audio/aiff",  # WHATWG
    "amr": "audio/amr",  # RFC 4867
    "ape": "audio/x-ape",  # desktop
    "dff": "audio/x-dff",  # desktop
    "dsf": "audio/x-dsf",  # desktop
    "dts": "audio/vnd.dts",  # IANA, by DTS
    "eac3": "audio/eac3",  # RFC 4598
    "flac": "audio/flac",  # RFC 9639, section 12.1
    "m4a": "audio/mp4",  # RFC 4337
    "m4b": "audio/mp4",  # RFC 4337; the desktop's audio/x-m4b is known to no browser
    "mka": "audio/x-matroska",  # desktop; RFC 9559 registers audio/matroska, and players do not know it yet
    "mp2": "audio/mpeg",  # RFC 3003
    "mp3": "audio/mpeg",  # RFC 3003
    "mpc": "audio/x-musepack",  # desktop
    "oga": "audio/ogg",  # RFC 5334
    "ogg": "audio/ogg",  # RFC 5334
    "opus": "audio/ogg",  # RFC 7845, section 9
    "spx": "audio/ogg",  # RFC 5334
    "tta": "audio/x-tta",  # desktop
    "wav": "audio/wav",  # what browsers know; RFC 2361's audio/vnd.wave is known to few
    "weba": "audio/webm",  # webmproject.org, "WebM Container Guidelines"
    "wma": "audio/x-ms-wma",  # Microsoft
    "wv": "audio/x-wavpack",  # desktop
}
# RFC 8187, section 3.2.1: attr-char without the letters and digits, which quote() never encodes.
_ATTR_CHARS = "!#$&+-.^_`|~"
_NOT_IN_FALLBACK = re.compile(r'[^ -~]|["\\%]')
# RFC 6266, section 4.3: what would name another folder or a hidden file. Unicode, UAX #9: what would show
# another extension than the name has. Claims hold none of the first two; a surrogate has no UTF-8.
_UNSAFE = re.compile(
    "[\x00-\x1f\x7f-\x9f]|[/\\\\]|^[.]+|[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]|[\ud800-\udfff]"
)
_LONGEST_NAME_BYTES = 255  # NAME_MAX of Linux; other systems count characters, of which there are fewer.
_LONGEST_EXTENSION_BYTES = 16


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


@lru_cache(maxsize=256)  # A player asks for one file many times; a header has at most 1,100 characters.
def content_disposition(disposition: str, file_name: str) -> str:
    """The Content-Disposition header (RFC 6266) for `inline` or `attachment` and a name in Unicode.

    What no file name should have becomes `_`, and the name is cut so that a file system can hold it. The
    plain parameter is ASCII, for clients that know no other: what it cannot hold becomes `_` too, and so do
    `"`, `\\` and `%`, because clients read them differently, escaped or not (RFC 6266, appendix D). The name
    itself follows in UTF-8 (RFC 8187) when the two differ.
    """
    name = _cut(_UNSAFE.sub("_", file_name))
    fallback = _NOT_IN_FALLBACK.sub("_", name)
    header = f'{disposition}; filename="{fallback}"'
    if fallback != name:
        header += f"; filename*=UTF-8''{quote(name, safe=_ATTR_CHARS)}"
    return header


def _cut(name: str) -> str:
    """The name in at most `_LONGEST_NAME_BYTES` bytes of UTF-8, with its extension, in whole characters."""
    if len(name.encode("utf-8")) <= _LONGEST_NAME_BYTES:
        return name
    stem, dot, ending = name.rpartition(".")
    kept = (dot + ending).encode("utf-8")
    if not stem or len(kept) > _LONGEST_EXTENSION_BYTES:
        stem, kept = name, b""
    short = stem.encode("utf-8")[: _LONGEST_NAME_BYTES - len(kept)] + kept
    return short.decode("utf-8", "ignore")
