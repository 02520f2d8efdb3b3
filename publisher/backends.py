"""The storage backends: what of them becomes public, and what of them decides what else does.

Invariant: no base path and nothing of a configuration but a public base URL leaves this module, and no such
URL that holds a user or a password.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

import msgspec

from contracts.digests import digest_bytes
from contracts.errors import SourceError

# A user or password before the host; browsers take any number of slashes of either kind in front of both.
_USERINFO = re.compile(r"\s*([a-z][a-z0-9+.-]*:)?[/\\]*[^/\\?#]*@", re.IGNORECASE)
# What turns a stored row into a public one. A comment more than is needed makes one refresh slower; a number
# that somebody must raise would be forgotten.
_RULES = ("backends.py", "metadata.py", "rows.py")


class Backend(NamedTuple):
    """What becomes public of a backend; `base_url`, when there is one, ends in one slash."""

    backend_id: int
    type: str | None
    name: str | None
    base_url: str | None


class Backends(NamedTuple):
    """All backends, and the folders in which they keep files, which are not public."""

    public: list[Backend]
    base_paths: list[str]


def load_backends(connection: sqlite3.Connection) -> Backends:
    """Read the backends of the catalogue attached to `connection` as `source`.

    Raises:
        SourceError: when a public base URL holds a user or a password.
        sqlite3.Error: when the catalogue cannot be read.
    """
    found = Backends([], [])
    for backend_id, *stored, config_json in connection.execute(
        "SELECT id, CAST(backend_type AS BLOB), CAST(name AS BLOB), CAST(base_path AS BLOB),"
        " CAST(config_json AS BLOB) FROM source.storage_backends ORDER BY id"
    ):
        backend_type, name, base_path = map(repair_text, stored)
        base_url = _public_base_url(name, config_json) if backend_type == "object_storage" else None
        found.public.append(Backend(backend_id, backend_type, name, base_url))
        if base_path:
            found.base_paths.append(base_path.rstrip("/\\"))
    return found


def fingerprint_settings(backends: Backends, metadata_keys: Collection[str] | None) -> str | None:
    """What decides, beside a row itself, what of it is public: equal texts mean equal decisions.

    None when that is not known: a backend's type and name do not tell its base URL, or this package is
    installed without its source.
    """
    base_urls = {(backend.type, backend.name, backend.base_url) for backend in backends.public}
    if len({names[:2] for names in base_urls}) < len(base_urls):
        return None
    try:
        rules = [digest_bytes(Path(__file__).with_name(name).read_bytes()) for name in _RULES]
    except OSError:
        return None
    settings = (
        msgspec.__version__,  # it decides what is valid JSON
        rules,
        None if metadata_keys is None else sorted(metadata_keys),
        sorted(backends.base_paths),
        sorted(base_urls, key=repr),
    )
    return digest_bytes(msgspec.json.encode(settings))


def repair_text(stored: bytes | None) -> str | None:
    """Text as it becomes public: what is not UTF-8 is replaced."""
    return None if stored is None else stored.decode("utf-8", "replace")


def _public_base_url(backend_name: str | None, config_json: bytes | None) -> str | None:
    try:
        config = msgspec.json.decode(config_json or b"{}", type=_BackendConfig)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    base_url = (config.public_base_url or "").strip()
    if not base_url:
        return None
    if _USERINFO.match(base_url):
        raise SourceError(
            f"storage backend {backend_name!r}: its public_base_url holds a user name or a password, "
            "which would become public; remove it"
        )
    return base_url.rstrip("/") + "/"


class _BackendConfig(msgspec.Struct):
    public_base_url: str | None = None
