"""X-Accel-Redirect: the origin decides, and an nginx in front of it sends the bytes.

Invariant: where a file is, is told to nobody but a proxy that the operator trusts by its address and that
knows the key. The address alone would not do: a proxy that passes on what it does not understand would let a
stranger ask for the header, and would show it to him. What is told is the name of a root and the path of the
very file that was opened beneath it, never where the root is. docs/nginx/origin.conf is the other half.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from hmac import compare_digest
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import quote

from contracts.errors import MalformedError
from origin.client_address import TrustedProxies, parse_address
from origin.conditions import Decision

if TYPE_CHECKING:
    from litestar.types import HTTPScope

# Set, or emptied, in every request by docs/nginx/https.conf.
KEY_HEADER: Final = b"x-music-cloud-accel"

# What needs no quoting where nginx reads it, and in a header; 128 bits in base64 have 22 characters.
_KEY = re.compile(r"[A-Za-z0-9_-]{22,}")
_PREFIX = re.compile(r"/(?:[A-Za-z0-9_-]+/)+")
# Whoever opens a file by its old name finds nothing: proc(5), /proc/pid/fd.
_GONE = b" (deleted)"

_PRECONDITIONS = frozenset({"if-match", "if-modified-since", "if-none-match", "if-unmodified-since"})
# 18 digits fit into nginx's off_t; it refuses more, and we do not.
_PLAIN_RANGE = re.compile(r"bytes=(?:[0-9]{1,18}-[0-9]{0,18}|-[0-9]{1,18})")


class Accel(NamedTuple):
    """Who is told, and what: `roots` are the real paths of folders, and the internal location of each."""

    key: bytes
    trusted_proxies: TrustedProxies
    roots: tuple[tuple[bytes, bytes], ...]

    def redirect(self, scope: HTTPScope, descriptor: int) -> bytes | None:
        """The value of X-Accel-Redirect for an open file; None when this peer may not be told.

        None as well for a file that is beneath no root of ours, or where the kernel does not say which file
        is open: then the origin sends it by itself.
        """
        if not self._is_told(scope):
            return None
        path = _path_of(descriptor)
        return None if path is None else internal_uri(path, self.roots)

    def _is_told(self, scope: HTTPScope) -> bool:
        keys = [value for name, value in scope["headers"] if name == KEY_HEADER]
        return (
            is_trusted_peer(scope["client"], self.trusted_proxies)
            and len(keys) == 1
            and compare_digest(keys[0], self.key)
        )


def load_accel(
    prefix: str, key: str, trusted_proxies: TrustedProxies, roots: Mapping[str, Path]
) -> Accel | None:
    """What settings say; None without a prefix. `roots` are those that are bound by name.

    The real path of each root is looked up now. One that is not mounted yet and has links in its path is not
    recognised later on, and its files are sent by the origin.
    Raises:
        MalformedError: a setting is missing or does not follow its form; nobody would ever be told.
    """
    if not prefix:
        return None
    if not _PREFIX.fullmatch(prefix):
        raise MalformedError(f"an internal location is written /NAME/, found {prefix!r}")
    if not _KEY.fullmatch(key):
        raise MalformedError(
            "X-Accel-Redirect needs a key of at least 22 letters, digits, - and _, and the same in nginx"
        )
    if trusted_proxies == TrustedProxies():
        raise MalformedError("X-Accel-Redirect needs a proxy that is trusted by its address")
    locations = [
        (os.fsencode(os.path.realpath(root)), f"{prefix}{quote(name, safe='')}/".encode("ascii"))
        for name, root in roots.items()
    ]
    # The longest first: a root may lie in another one.
    locations.sort(key=lambda location: len(location[0]), reverse=True)
    return Accel(key.encode("ascii"), trusted_proxies, tuple(locations))


def is_trusted_peer(peer: tuple[str, int] | None, trusted: TrustedProxies) -> bool:
    """Whether the connection itself is a trusted proxy's, whatever any header says."""
    name = peer[0] if peer else ""
    if not name:
        return trusted.is_unix_trusted
    address = parse_address(name)
    return address is not None and trusted.has(address)


def internal_uri(path: bytes, roots: tuple[tuple[bytes, bytes], ...]) -> bytes | None:
    """The internal location's name for a file: the first root's that it is beneath.

    Percent-encoded, because nginx decodes the header's value (CHANGES, 1.5.9) and takes `?` for its end.
    """
    for folder, location in roots:
        beneath = folder.rstrip(b"/") + b"/"
        if path.startswith(beneath):
            return location + quote(path[len(beneath) :], safe="/").encode("ascii")
    return None


def nginx_agrees(method: str, headers: Mapping[str, str], decision: Decision) -> bool:
    """Whether nginx makes of a request for its file what we decided, so that it may answer.

    It sees the client's headers again and decides anew. It does the same with a GET of the whole file or of
    one plain range, with our tag in If-Range; of preconditions it knows only its own validators, and other
    ranges it reads in its own way (docs/http.md, "Other servers").
    """
    if method != "GET" or not _PRECONDITIONS.isdisjoint(headers):
        return False
    header = headers.get("range")
    if header is None:
        return decision.status == 200
    return decision.status == 206 and _PLAIN_RANGE.fullmatch(header) is not None


def _path_of(descriptor: int) -> bytes | None:
    """The path of an open file as the kernel knows it: nothing is resolved a second time."""
    try:
        path = os.fsencode(Path(f"/proc/self/fd/{descriptor}").readlink())
        # A file may be called so; one without a name is sent by whoever has it open.
        return None if path.endswith(_GONE) and not os.fstat(descriptor).st_nlink else path
    except OSError:
        return None  # No Linux.
