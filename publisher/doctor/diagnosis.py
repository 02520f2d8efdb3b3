"""Examines a store, whatever kind it is, and keeps what a publisher has to know of it.

Invariant: what is found is told, never raised; only a state folder that cannot be written is an error. What
is asked of each kind of store is in the files beside this one.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from publisher.doctor.bucket import examine_bucket
from publisher.doctor.checks import Diagnosis
from publisher.doctor.folder import examine_folder
from publisher.doctor.web import examine_web
from publisher.state import State
from stores.folder import FolderStore
from stores.http import HttpStore
from stores.retrying import Backoff
from stores.s3 import S3Store

_MOUNTS = Path("/proc/self/mountinfo")


def examine_store(
    store: S3Store | FolderStore | HttpStore,
    *,
    single_publisher: bool = False,
    backoff: Backoff | None = None,
    now: Callable[[], datetime] = lambda: datetime.now(UTC).replace(microsecond=0),
    monotonic: Callable[[], float] = time.monotonic,
) -> Diagnosis:
    """All findings about a store that does not retry by itself: what it answers is what is wanted.

    `single_publisher`: nobody else publishes to it, so that conditions that do not hold are no obstacle.
    """
    if isinstance(store, S3Store):
        return examine_bucket(store, now, monotonic, single_publisher=single_publisher, backoff=backoff)
    if isinstance(store, FolderStore):
        mounts = ""
        with suppress(OSError):  # other systems than Linux have no such file
            mounts = _MOUNTS.read_text("utf-8", "surrogateescape")
        return examine_folder(store, now, monotonic, single_publisher=single_publisher, mounts=mounts)
    return examine_web(store, now, monotonic)


def store_diagnosis(diagnosis: Diagnosis, state: State) -> bool:
    """Let the publisher with this state folder go by what was found; whether there was anything to keep.

    Raises:
        ConflictError: when a publish is running with it.
        OSError: when the folder cannot be written.
    """
    if diagnosis.profile is None:
        return False
    with state.locked():
        state.store_profile(diagnosis.profile)
    return True
