"""Where the origin's keys come from while it runs: `app.state`, or files that may change under it.

Invariant: what is set in `app.state` counts, at once; otherwise the files as they were at most a second
ago. A file that is missing or broken means no keys, never old ones: removing a key must revoke what it
signed.
"""

from __future__ import annotations

import asyncio
import logging
import time
from pathlib import Path
from typing import Any

from contracts.errors import ContractError
from contracts.keyring import SHORT_SECRET_BYTES, KeyMaterial, KeyRing, key_ring, select_key_material
from origin.settings import load_env_file

logger = logging.getLogger("origin")

CHECK_INTERVAL_S = 1.0  # Design: looked at for changes at most once a second.
# A file system may give two changes within a tick one time stamp; none has ticks longer than FAT's 2 s.
_SETTLED_S = 2.0

_Signature = tuple[tuple[int, int, int, int] | None, ...]


class KeySource:
    """The key ring of the moment. `reload` does I/O; the constructor and `ring` do not."""

    def __init__(self, env_file: Path | None) -> None:
        self._env_file = env_file
        self._ring: KeyRing | None = None
        self._watched: tuple[Path, ...] = () if env_file is None else (env_file,)
        self._seen: _Signature | None = None
        self._checked_s = 0.0

    async def ring(self, override: Any = None) -> KeyRing | None:
        """The keys that tokens are verified with now, or None when there are none.

        `override` is what `app.state` holds: a secret, a list of secrets or a key ring; None: nothing.
        """
        if override is not None:
            return _ring_of(override)
        now = time.monotonic()
        if now - self._checked_s >= CHECK_INTERVAL_S:
            self._checked_s = now  # First, so that requests at the same moment do not look as well.
            await asyncio.get_running_loop().run_in_executor(None, self.reload)
        return self._ring

    def reload(self) -> None:
        """Read the files again if they have changed. Raises nothing: what is wrong is logged."""
        self._checked_s = time.monotonic()
        # Taken before the files are read: a change in between is then seen the next time.
        signature = _signature(self._watched)
        if signature == self._seen:
            return
        try:
            self._ring = self._load()
        except (ContractError, OSError) as error:
            self._ring = None
            reason = error.strerror if isinstance(error, OSError) else str(error)
            logger.error("no tokens are accepted, because the secrets cannot be read: %s", reason)
        self._seen = _settled(signature)

    def _load(self) -> KeyRing | None:
        if self._env_file is None:
            return None
        self._watched = (self._env_file,)
        material = select_key_material(load_env_file(self._env_file))
        if material is None:
            return None
        if named := material.ring_file or material.secret_file:
            self._watched += (self._env_file.parent / named,)
        ring = load_key_ring(material, self._env_file.parent)
        warn_if_short(ring)
        return ring


def load_key_ring(material: KeyMaterial, folder: Path) -> KeyRing:
    """The keys that settings name; a file is relative to `folder`, that of the settings.

    Raises:
        MalformedError: there is no secret in the file.
        OSError: it cannot be read.
    """
    if material.secret:
        return key_ring(material.secret)
    text = (folder / (material.ring_file or material.secret_file)).read_text("utf-8", "surrogateescape")
    return KeyRing.parse(text) if material.ring_file else key_ring(text.strip())


def warn_if_short(ring: KeyRing) -> None:
    """Say so when a secret is shorter than one should be; it is used all the same."""
    if ring.shortest_secret_bytes < SHORT_SECRET_BYTES:
        logger.warning(
            "a secret has only %d bytes: whoever sees one token can guess it; "
            "python3 -c 'import secrets; print(secrets.token_urlsafe(32))' makes a good one",
            ring.shortest_secret_bytes,
        )


def _ring_of(override: Any) -> KeyRing | None:
    try:
        return KeyRing(override) if isinstance(override, list | tuple) else key_ring(override)
    except (ContractError, TypeError):
        return None  # Empty, or no secret at all.


def _signature(paths: tuple[Path, ...]) -> _Signature:
    found: list[tuple[int, int, int, int] | None] = []
    for path in paths:
        try:
            status = path.stat()
        except OSError:
            found.append(None)
        else:
            found.append((status.st_mtime_ns, status.st_size, status.st_ino, status.st_dev))
    return tuple(found)


def _settled(signature: _Signature) -> _Signature | None:
    """The signature, or None while a file is so young that it may change again and look the same."""
    newest_ns = max((entry[0] for entry in signature if entry is not None), default=0)
    return None if abs(time.time() - newest_ns / 1e9) < _SETTLED_S else signature
