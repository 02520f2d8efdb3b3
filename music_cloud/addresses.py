"""From the address of a store, as people write it, to the store."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path

from contracts.errors import StoreError
from music_cloud.settings import Settings, SettingsError
from stores.base import ReadableStore, Store
from stores.folder import FolderStore
from stores.http import HttpStore
from stores.retrying import Backoff, RetryingReader, RetryingStore
from stores.s3 import S3Store

# "General purpose bucket naming rules", Amazon S3 User Guide; older buckets also have capitals and "_".
_BUCKET = re.compile(r"s3://([A-Za-z0-9][A-Za-z0-9._-]{2,254})(/[^?#]*)?")

_WEB = ("http://", "https://")


def open_store(address: str, settings: Settings, backoff: Backoff | None = None) -> Store:
    """The store at `s3://bucket/prefix` or in a folder, retrying.

    Raises:
        SettingsError: when the address is of no such form.
        StoreError: when the S3 settings contradict each other.
    """
    if address.startswith(_WEB):
        raise SettingsError(f"{address!r} can only be read; publish to s3://bucket/prefix or a folder")
    store = open_plain_store(address, settings)
    assert not isinstance(store, HttpStore)  # refused above
    return RetryingStore(store, backoff)


def open_readable_store(address: str, settings: Settings, backoff: Backoff | None = None) -> ReadableStore:
    """The store at an address that `open_store` takes, or behind http(s). Raises: as `open_store`."""
    if address.startswith(_WEB):
        return RetryingReader(open_plain_store(address, settings), backoff)
    return open_store(address, settings, backoff)


def open_plain_store(address: str, settings: Settings) -> FolderStore | S3Store | HttpStore:
    """The store at any of these addresses, which does not retry. Raises: as `open_store`."""
    if any("\ud800" <= letter <= "\udfff" for letter in address):
        raise SettingsError(f"the address of a store is not UTF-8: {address!a}")
    scheme, separator, _ = address.partition("://")
    if not separator:
        if not address:
            raise SettingsError("the address of a store is empty")
        return FolderStore(Path(address).absolute())
    if scheme == "s3":
        match = _BUCKET.fullmatch(address)
        if match is None:
            raise SettingsError(f"{address!r} is not of the form s3://bucket/prefix")
        return S3Store(match[1], match[2] or "", settings.s3())
    if scheme in ("http", "https"):
        try:
            return HttpStore(address)
        except StoreError as error:
            raise SettingsError(str(error)) from error
    raise SettingsError(f"{address!r} is no store: give a folder, s3://bucket/prefix or http(s)://…")


def state_folder(settings: Settings, address: str, environment: Mapping[str, str]) -> Path:
    """Where the publisher keeps its state for one store; an own folder for each address.

    Raises:
        SettingsError: when there is no home folder to keep it in.
    """
    name = hashlib.sha256(address.encode()).hexdigest()[:16]
    if settings.state_dir is not None:
        return Path(settings.state_dir) / name
    # The XDG Base Directory Specification, and where Windows keeps what belongs to one machine.
    for variable, below in (("XDG_STATE_HOME", ""), ("LOCALAPPDATA", ""), ("HOME", ".local/state")):
        if environment.get(variable):
            return Path(environment[variable], below, "music-cloud", name)
    raise SettingsError("there is no home folder for the state; set MUSIC_CLOUD_STATE_DIR")
