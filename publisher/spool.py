"""What waits to be uploaded: a plan and the blobs that it names, on disk.

Invariant: a plan is in its place only when it and all its blobs are complete and on disk, and everything is
named by digest, so that what is stale or damaged is noticed. A crash half-way leaves nothing that counts.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Generic, Protocol, TypeVar

import msgspec

from contracts.digests import digest_stream
from contracts.manifest import Blob
from stores.files import replace_file, sync_folder


class Plan(Protocol):
    """A msgspec struct that names blobs."""

    @property
    def blobs(self) -> Iterable[Blob]:
        """All that is to be uploaded, each once."""


P = TypeVar("P", bound=Plan)


class Spool(Generic[P]):
    """A folder that holds one plan, or none."""

    def __init__(self, folder: Path, kind: type[P]) -> None:
        self._folder = folder
        self._kind = kind

    def load(self) -> P | None:
        """The plan that waits, unless it or one of its blobs is missing or damaged."""
        try:
            plan = msgspec.json.decode((self._folder / "plan.json").read_bytes(), type=self._kind)
            for blob in plan.blobs:
                with self.blob_path(blob).open("rb") as stream:
                    if digest_stream(stream) != blob.digest:
                        return None
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
            return None
        return plan

    def store(self, plan: P, scratch: Path) -> None:
        """Keep a plan whose blobs lie, on disk, in `scratch / "blobs"`; the folder `scratch` is taken over.

        Raises:
            OSError: when it cannot be written.
        """
        self.discard()
        replace_file(scratch / "plan.json", msgspec.json.encode(plan))
        sync_folder(scratch / "blobs")
        scratch.replace(self._folder)
        sync_folder(self._folder.parent)

    def add_blob(self, blob: Blob, content: bytes) -> None:
        """Put a blob beside those of the plan, on disk when this returns; for a plan that is to replace it.

        Raises:
            OSError: when it cannot be written.
        """
        replace_file(self.blob_path(blob), content)

    def replace(self, plan: P) -> None:
        """Keep another plan instead of the one that waits; its blobs are there.

        Raises:
            OSError: when it cannot be written.
        """
        replace_file(self._folder / "plan.json", msgspec.json.encode(plan))

    def discard(self) -> None:
        """Forget the plan; a crash half-way leaves one that is damaged, which counts as none."""
        (self._folder / "plan.json").unlink(missing_ok=True)
        shutil.rmtree(self._folder, ignore_errors=True)

    def blob_path(self, blob: Blob) -> Path:
        """Where a blob of the plan lies."""
        return self._folder / "blobs" / blob.digest
