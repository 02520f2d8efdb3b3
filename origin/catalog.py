"""`/catalog/`: a folder store's bucket layout, read-only, for mirrors and for a CDN in front.

Invariant: only names of the layout's grammar exist, and each is served with the entity tag and the caching
header that follow from what it is: what is named by its digest never changes, the pointer's tag is the
digest of its bytes. The Repr-Digest says the same digest. Whoever fetches verifies; this module does not
read a blob to check it.
"""

from __future__ import annotations

import asyncio
import logging
from binascii import b2a_base64
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from contracts.digests import digest_bytes
from contracts.errors import MalformedError
from contracts.layout import Kind, ObjectName, cache_control, content_type, parse_key
from origin.conditions import Validators
from origin.files import Files
from origin.open_file import OpenFile
from origin.reply import answer_method, answer_with_file, path_below, refuse
from origin.roots import LocatorRefused, OutOfDescriptors

if TYPE_CHECKING:
    from litestar.types import HTTPScope, Receive, Send

logger = logging.getLogger("origin")

CATALOG_PATH = "/catalog/"

# Far beyond the pointer, a signature or a key's succession, which are all that is read whole.
_SMALL_BYTES = 1 << 20


class CatalogEndpoint:
    """An ASGI application for the paths below `CATALOG_PATH`; `clock` gives Unix seconds."""

    def __init__(self, folder: Path, files: Files, clock: Callable[[], float]) -> None:
        self._folder = folder
        self._files = files
        self._clock = clock

    async def __call__(self, scope: HTTPScope, receive: Receive, send: Send) -> None:
        key = path_below(scope, CATALOG_PATH)
        try:
            name = parse_key(key or "")
        except MalformedError:
            await refuse(scope, send, 404)
            return
        if await answer_method(scope, send):
            return
        try:
            file = await self._files.open_beneath(self._folder, key or "")
        except LocatorRefused as error:
            logger.info("an object could not be served: %s", error)
            # A mirror takes 404 for "it is not there", which nobody knows when the whole folder is gone.
            await refuse(scope, send, 404 if await asyncio.to_thread(self._folder.is_dir) else 503)
            return
        except OutOfDescriptors as error:
            logger.warning("a request could not be answered: %s", error)
            await refuse(scope, send, 503)
            return
        try:
            digest = await _digest(name, file)
            await answer_with_file(
                scope,
                receive,
                send,
                file,
                Validators(file.stat.st_size, f'"{digest}"'),
                now=self._clock(),
                cache_control=cache_control(name.kind),
                entity_headers=[
                    (b"content-type", content_type(name.kind).encode("ascii")),
                    (b"repr-digest", _repr_digest(digest)),
                ],
            )
        finally:
            file.close()


async def _digest(name: ObjectName, file: OpenFile) -> str:
    """The digest of an object: its name is one, or it is small enough to be read.

    Raises:
        OverflowError: it is larger than anything that belongs there.
    """
    if name.kind in (Kind.BLOB, Kind.MANIFEST):
        return name.name
    size_bytes = file.stat.st_size
    if size_bytes > _SMALL_BYTES:
        raise OverflowError(f"the {name.kind.value} has {size_bytes} bytes")
    content = bytearray()
    while len(content) < size_bytes and (piece := await file.read(len(content), size_bytes - len(content))):
        content += piece
    return digest_bytes(bytes(content))


def _repr_digest(digest: str) -> bytes:
    """A digest as RFC 9530, section 3, writes it: of all of the object, also beside a range of it."""
    return b"sha-256=:%b:" % b2a_base64(bytes.fromhex(digest), newline=False)
