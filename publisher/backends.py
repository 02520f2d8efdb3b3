"""The storage backends: what of them becomes public, and what of them decides what else does.

Invariant: nothing of a configuration but a public base URL becomes public, and no such URL that holds a user
or a password; base paths and the paths of a configuration are places (publisher/places.py), which do not.
"""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from contracts import handles, read_model
from contracts.digests import digest_bytes
from contracts.errors import SourceError
from publisher.metadata import is_private_key
from publisher.places import Places, drop_longer, spellings

# A user or password before the host; browsers take any number of slashes of either kind in front of both.
_USERINFO = re.compile(r"\s*([a-z][a-z0-9+.-]*:)?[/\\]*[^/\\?#]*@", re.IGNORECASE)
# What turns a stored row into a public one. A comment more than is needed makes one refresh slower; a number
# that somebody must raise would be forgotten.
_RULES = (
    *(Path(__file__).with_name(name) for name in ("backends.py", "metadata.py", "places.py", "rows.py")),
    Path(handles.__file__),
    Path(read_model.__file__),  # the type of a column decides how a value is stored in it
)
# A path of two parts or more: "/dav" in a configuration is rather a part of a URL.
_ABSOLUTE = re.compile(r"(?:[A-Za-z]:|[/\\])[/\\]?[^/\\]+[/\\][^/\\].*", re.DOTALL)
_PLACE_KEYS = ("root", "mount", "base", "dir")  # beside those that `is_private_key` knows


class Backend(NamedTuple):
    """What becomes public of a backend; `base_url`, when there is one, ends in one slash."""

    backend_id: int
    type: str | None
    name: str | None
    base_url: str | None


class Backends(NamedTuple):
    """All backends, and the places that they name, which are not public."""

    public: list[Backend]
    places: Places


def load_backends(connection: sqlite3.Connection) -> Backends:
    """Read the backends of the catalogue attached to `connection` as `source`.

    Raises:
        SourceError: when a public base URL holds a user or a password.
        sqlite3.Error: when the catalogue cannot be read.
    """
    public = []
    for backend_id, *stored, config_json in connection.execute(
        "SELECT id, CAST(backend_type AS BLOB), CAST(name AS BLOB), CAST(config_json AS BLOB)"
        " FROM source.storage_backends ORDER BY id"
    ):
        backend_type, name = map(repair_text, stored)
        base_url = _public_base_url(name, config_json) if backend_type == "object_storage" else None
        public.append(Backend(backend_id, backend_type, name, base_url))
    return Backends(public, load_places(connection, "source"))


def load_places(connection: sqlite3.Connection, schema: str) -> Places:
    """The places that the backends of a catalogue name, none within another that is long enough.

    They are every backend's `base_path`, and every absolute path of two or more parts in its `config_json`
    under a key that names a place.
    Raises:
        sqlite3.Error: when the catalogue cannot be read.
    """
    places: dict[bytes, str] = {}
    for name, base_path, config_json in connection.execute(
        "SELECT CAST(name AS BLOB), CAST(base_path AS BLOB), CAST(config_json AS BLOB)"
        f" FROM {schema}.storage_backends ORDER BY id"
    ):
        owner = f"storage backend {repair_text(name or b'')!r}"
        _add(places, [base_path or b""], f"the base path of {owner}")
        _add(places, _configured_paths(config_json), f"a path in the config_json of {owner}")
    return drop_longer(places)


def _add(places: dict[bytes, str], paths: Iterable[bytes], owner: str) -> None:
    for path in paths:
        for spelling in spellings(path):
            places.setdefault(spelling, owner)


def _configured_paths(config_json: bytes | None) -> Iterator[bytes]:
    """The absolute paths in a backend's configuration, under keys that name a place."""
    try:
        config = json.loads(config_json or b"{}")
    except (ValueError, RecursionError):
        return
    pending: list[tuple[str, Any]] = [("", config)]
    while pending:
        key, value = pending.pop()
        if isinstance(value, dict):
            pending += value.items()
        elif isinstance(value, list):
            pending += [(key, item) for item in value]
        elif isinstance(value, str) and _names_place(key) and _ABSOLUTE.fullmatch(value):
            yield value.encode("utf-8", "replace")


def _names_place(key: str) -> bool:
    return is_private_key(key) or any(part in key.lower() for part in _PLACE_KEYS)


def fingerprint_settings(backends: Backends, metadata_keys: Collection[str] | None) -> str | None:
    """What decides, beside a row itself, what of it is public: equal texts mean equal decisions.

    None when that is not known: a backend's type and name do not tell its base URL, or this package is
    installed without its source.
    """
    base_urls = {(backend.type, backend.name, backend.base_url) for backend in backends.public}
    if len({names[:2] for names in base_urls}) < len(base_urls):
        return None
    try:
        rules = [digest_bytes(path.read_bytes()) for path in _RULES]
    except OSError:
        return None
    settings = (
        msgspec.__version__,  # it decides what is valid JSON
        rules,
        None if metadata_keys is None else sorted(metadata_keys),
        sorted(backends.places),
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
