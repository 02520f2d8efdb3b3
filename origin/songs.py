"""What a listener is told of a track, off the event loop and within the limit of a lookup.

Invariant: a page is worth less than a stream: its lookups have threads and connections of their own, few of
them, and a busy catalogue only costs the page its title. No connection outlives its lookup.
"""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from contracts.errors import MalformedError
from contracts.handles import Handle, parse_handle
from origin.lookup import LOOKUP_LIMIT_S, Catalogue, CatalogueUnavailable, Song
from origin.patience import Patience

logger = logging.getLogger("origin")

_THREADS = 2  # A lookup takes less than a millisecond; the second is for when one waits for a lock.


class Songs:
    """The songs that locators name. One object for the life of the application; `close` it at the end."""

    def __init__(self, db_path: Path) -> None:
        self._catalogue = Catalogue(db_path)
        self._threads = ThreadPoolExecutor(_THREADS, "origin-songs")
        self._patience = Patience(LOOKUP_LIMIT_S)

    async def find(self, locator: str) -> Song | None:
        """The song of a handle; None when nobody knows now, or the locator is no handle.

        Raises:
            LocatorRefused: there is no such song, or no longer.
        """
        try:
            handle = parse_handle(locator)
        except MalformedError:
            return None
        try:
            return await self._patience.wait(self._threads.submit(self._find, handle))
        except (CatalogueUnavailable, TimeoutError) as error:
            logger.warning("a page has no title: %s", error)
            return None

    def close(self) -> None:
        """Let the threads go; a lookup that is under way ends first."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _find(self, handle: Handle) -> Song:
        try:
            return self._catalogue.find_song(handle)
        finally:
            self._catalogue.close()
