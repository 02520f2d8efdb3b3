"""From a token's locator to an open file, in threads, with a limit on the part that must be quick.

Invariant: the event loop waits for no database and no disk; a lookup is given up after `LOOKUP_LIMIT_S`, an
open never, because a disk that spins up takes seconds; every root has threads of its own, so that a
sleeping disk keeps only its own listeners waiting. Nothing is left open when a request is cancelled.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from contracts.errors import MalformedError
from contracts.handles import Handle, parse_handle
from origin.locators import Place, catalogue_root, place_of_location, place_of_path
from origin.lookup import LOOKUP_LIMIT_S, Catalogue, CatalogueUnavailable
from origin.media import extension
from origin.open_file import OpenFile
from origin.patience import Patience
from origin.roots import LocatorRefused, open_beneath

# A lookup takes 0.2 ms; the rest are for lookups that wait for a lock.
_LOOKUP_THREADS = 8
# How long a connection to the catalogue is kept without a request, and at most twice that.
_IDLE_S = 5.0
# Reads that one disk may be asked for at once; more only makes a spinning disk seek more.
_THREADS_PER_ROOT = 16


class Track(NamedTuple):
    """An open file, the `file_locations.id` when a handle named it, and the extension of its name."""

    file: OpenFile
    location_id: int | None
    extension: str


class Files:
    """The files that locators name. One object for the life of the application; `close` it at the end."""

    def __init__(self, db_path: Path, bound_roots: Mapping[str, Path]) -> None:
        self._catalogue = Catalogue(db_path)
        self._bound = dict(bound_roots)
        self._lookups = ThreadPoolExecutor(_LOOKUP_THREADS, "origin-lookup")
        self._patience = Patience(LOOKUP_LIMIT_S)
        self._disks: dict[Path, ThreadPoolExecutor] = {}
        self._tidying = False

    async def open(self, locator: str) -> Track:
        """Open the file that a locator names; the caller closes it.

        Raises:
            LocatorRefused: it is refused, unknown or gone.
            CatalogueUnavailable: the catalogue is missing, busy or unreadable, so nobody knows.
            OutOfDescriptors: no file can be opened at all now.
        """
        handle = _handle_of(locator)
        lookup = self._lookups.submit(self._place, locator, handle)
        self._tidy_later()
        try:
            place = await self._patience.wait(lookup)
        except TimeoutError:
            raise CatalogueUnavailable(f"the catalogue did not answer in {LOOKUP_LIMIT_S} s") from None
        file = await self.open_beneath(place.root, place.path)
        return Track(file, handle and handle.location_id, extension(place.path))

    async def open_beneath(self, root: Path, path: str) -> OpenFile:
        """Open a file beneath a root. Raises: LocatorRefused, OutOfDescriptors."""
        disk = self._disks.get(root)
        if disk is None:
            disk = self._disks[root] = ThreadPoolExecutor(_THREADS_PER_ROOT, "origin-disk")
        opening = disk.submit(_open, root, path, disk)
        try:
            return await asyncio.wrap_future(opening)
        except asyncio.CancelledError:
            opening.add_done_callback(_close_unwanted)
            raise

    def close(self) -> None:
        """Let the threads go; a read that is under way ends first."""
        for threads in (self._lookups, *self._disks.values()):
            threads.shutdown(wait=False, cancel_futures=True)
        self._catalogue.close()

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

    def _place(self, locator: str, handle: Handle | None) -> Place:
        if handle is not None:
            return place_of_location(self._catalogue.find_location(handle), self._bound)
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


def _open(root: Path, path: str, threads: Executor) -> OpenFile:
    return OpenFile(open_beneath(root, path), threads)


def _close_unwanted(opening: Future[OpenFile]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        opening.result().close()
