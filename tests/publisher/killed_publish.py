"""A publish that kills itself: `python -m tests.publisher.killed_publish PLAN.json`, for test_crash.py."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import msgspec

from contracts.layout import POINTER_KEY
from publisher import PublishOptions, publish
from stores.base import Store
from stores.folder import FolderStore
from stores.s3 import S3Settings, S3Store
from tests.faults import FaultyStore


class Plan(msgspec.Struct):
    """What to publish where, and at which store operation to die (0: not at all)."""

    catalogue: str
    state: str = ""
    die_at: int = 0
    prefix: str = ""
    folder: str = ""
    bucket: str = ""
    endpoint_url: str = ""
    access_key: str = ""
    secret_key: str = ""

    def open_store(self) -> Store:
        """The store that the plan names."""
        if self.folder:
            return FolderStore(Path(self.folder, self.prefix))
        settings = S3Settings(
            endpoint_url=self.endpoint_url,
            access_key_id=self.access_key,
            secret_access_key=self.secret_key,
        )
        return S3Store(self.bucket, self.prefix, settings)


OPTIONS = PublishOptions(segment_bytes=128 << 10, level=1)


def main() -> None:
    """Publish, and count; exit code 0 means that no operation was left to die at."""
    plan = msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=Plan)
    done = 0

    def count(operation: str, key: str) -> None:
        nonlocal done
        done += 1
        if done == plan.die_at:
            os.kill(os.getpid(), signal.SIGKILL)

    def count_swap(operation: str, key: str) -> None:
        if (operation, key) == ("put", POINTER_KEY):
            count(operation, key)

    # Before an operation is after the one before it, whether that was refused or not; the swap is the last.
    store = FaultyStore(plan.open_store(), before=count, after=count_swap)
    publish(plan.catalogue, store, plan.state, OPTIONS)


if __name__ == "__main__":
    main()
