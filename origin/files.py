"""From a token's locator to an open file, in threads, with a limit on the part that must be quick.

Invariant: the event loop waits for no database and no disk; a lookup is given up after `LOOKUP_LIMIT_S`, an
open never, because a disk that spins up takes seconds; every root has threads of its own, so that a
sleeping disk keeps only its own listeners waiting. Nothing is left open when a request is cancelled.

A player asks for one file several times within a second, and each visit to a thread costs more than all the
rest of a small answer: some 110 µs, where a 304 takes 62 with none. So what a thread found is
remembered for a second: where a location is, for as long as nothing was committed to the catalogue
(`origin.catalogue_version`); and that a file could be opened, which lets the event loop open it again where
the kernel does it without the disk. The file is opened anew each time, and the path to it walked anew.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from contracts.errors import MalformedError
from contracts.handles import Handle, parse_handle
from origin.catalogue_version import CatalogueVersion, Version
from origin.locators import Place, catalogue_root, place_of_location, place_of_path
from origin.lookup import LOOKUP_LIMIT_S, Catalogue, CatalogueUnavailable
from origin.media import extension
from origin.open_file import OpenFile
from origin.patience import Patience
from origin.remembered import Remembered
from origin.roots import KnownFile, LocatorRefused, known_file, open_beneath, open_if_cached

# A lookup takes 0.2 ms; the rest are for lookups that wait for a lock.
_LOOKUP_THREADS = 8
# How long a connection to the catalogue is kept without a request, and at most twice that.
_IDLE_S = 5.0
# Reads that one disk may be asked for at once; more only makes a spinning disk seek more.
_THREADS_PER_ROOT = 16
# Longer than between the requests with which a player begins, and the longest that a mistake could last.
_REMEMBERED_S = 1.0
_REMEMBERED = 4096  # A few MB. Only what is in the catalogue, and asked for with a link of ours, counts.


class Track(NamedTuple):
    """An open file, the `file_locations.id` when a handle named it, and the extension of its name."""

    file: OpenFile
    location_id: int | None
    extension: str


class _Found(NamedTuple):
    """What a locator names."""

    place: Place
    location_id: int | None
    extension: str


class Files:
    """The files that locators name. One object for the life of the application; `close` it at the end."""

    def __init__(
        self, db_path: Path, bound_roots: Mapping[str, Path], *, follow_mounts: bool = False
    ) -> None:
        self._catalogue = Catalogue(db_path)
        self._version = CatalogueVersion(db_path)
        self._bound = dict(bound_roots)
        self._follow_mounts = follow_mounts
        self._lookups = ThreadPoolExecutor(_LOOKUP_THREADS, "origin-lookup")
        self._patience = Patience(LOOKUP_LIMIT_S)
        self._disks: dict[Path, ThreadPoolExecutor] = {}
        self._tidying = False
        self._is_asked = False
        self._asked: Version | None = None
        self._found: Remembered[str, _Found] = Remembered(_REMEMBERED, _REMEMBERED_S)
        self._opened: Remembered[tuple[Path, str], KnownFile] = Remembered(_REMEMBERED, _REMEMBERED_S)

    async def open(self, locator: str) -> Track:
        """Open the file that a locator names; the caller closes it.

        Raises:
            LocatorRefused: it is refused, unknown or gone.
            CatalogueUnavailable: the catalogue is missing, busy or unreadable, so nobody knows.
            OutOfDescriptors: no file can be opened at all now.
        """
        version = self._version_now()
        found = None if version is None else self._found.get(locator, version, time.monotonic())
        if found is None:
            found = await self._find(locator, version)
        place = found.place
        return Track(await self.open_beneath(place.root, place.path), found.location_id, found.extension)

    async def open_beneath(self, root: Path, path: str) -> OpenFile:
        """Open a file beneath a root. Raises: LocatorRefused, OutOfDescriptors."""
        disk = self._disks.get(root)
        if disk is None:
            disk = self._disks[root] = ThreadPoolExecutor(_THREADS_PER_ROOT, "origin-disk")
        now = time.monotonic()
        known = self._opened.get((root, path), None, now)
        if known is not None and (again := open_if_cached(known)) is not None:
            return OpenFile(again[0], disk, again[1])
        opening = disk.submit(_open, root, path, self._follow_mounts, disk)
        try:
            file, known = await asyncio.wrap_future(opening)
        except asyncio.CancelledError:
            opening.add_done_callback(_close_unwanted)
            raise
        if known is not None:
            self._opened.put((root, path), known, None, now)
        return file

    def _version_now(self) -> Version | None:
        """The version, asked for once in a turn of the event loop: all of its requests had been read by then.

        With 16 clients that saves 17 of the 77 µs of a 304, with 4 clients 12, and with one it costs nothing.
        """
        if not self._is_asked:
            self._is_asked = True
            self._asked = self._version.now()
            asyncio.get_running_loop().call_soon(self._ask_anew)
        return self._asked

    def _ask_anew(self) -> None:
        self._is_asked = False

    async def _find(self, locator: str, version: Version | None) -> _Found:
        """What a locator names; remembered for the version, which must have been asked for before."""
        handle = _handle_of(locator)
        asked_at = time.monotonic()
        lookup = self._lookups.submit(self._place, locator, handle)
        self._tidy_later()
        try:
            place = await self._patience.wait(lookup)
        except TimeoutError:
            raise CatalogueUnavailable(f"the catalogue did not answer in {LOOKUP_LIMIT_S} s") from None
        found = _Found(place, handle and handle.location_id, extension(place.path))
        if handle is not None and version is not None:
            self._found.put(locator, found, version, asked_at)
        return found

    def close(self) -> None:
        """Let the threads go; a read that is under way ends first."""
        for threads in (self._lookups, *self._disks.values()):
            threads.shutdown(wait=False, cancel_futures=True)
        self._catalogue.close()
        self._version.close()

    def _tidy_later(self) -> None:
        """See to it that the catalogue's connections are closed when there are no more requests."""
        if not self._tidying:
            self._tidying = True
            asyncio.get_running_loop().call_later(_IDLE_S, self._tidy)

    def _tidy(self) -> None:
        self._tidying = False
        # Here and not in a thread: closing a connection that only read costs a few microseconds.
        if self._catalogue.close_unused():
            self._tidy_later()
        else:
            self._version.close()

    def _place(self, locator: str, handle: Handle | None) -> Place:
        if handle is not None:
            place = place_of_location(self._catalogue.find_location(handle), self._bound)
            self._version.open()
            return place
        try:
            return place_of_path(locator, self._bound.values())
        except LocatorRefused:
            if not self._catalogue.db_path.exists() or (self._bound and not Path(locator).is_absolute()):
                raise
        found = (
            catalogue_root(backend_type, base_path)
            for name, backend_type, base_path in self._catalogue.find_backends()
            if name not in self._bound
        )
        return place_of_path(locator, [root for root in found if root is not None])


def _handle_of(locator: str) -> Handle | None:
    """The handle that a locator is; one that only begins like a handle names nothing.

    Raises:
        LocatorRefused: it is no handle, and no path should look like one.
    """
    if not locator.startswith("loc:"):
        return None
    try:
        return parse_handle(locator)
    except MalformedError:
        raise LocatorRefused("the locator is no handle") from None


def _open(root: Path, path: str, follow_mounts: bool, threads: Executor) -> tuple[OpenFile, KnownFile | None]:
    file = OpenFile(open_beneath(root, path, follow_mounts=follow_mounts), threads)
    return file, known_file(root, path, file.stat) if file.is_local() else None


def _close_unwanted(opening: Future[tuple[OpenFile, KnownFile | None]]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        opening.result()[0].close()
