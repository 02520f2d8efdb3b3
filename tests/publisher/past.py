"""A store with a past: some hours of a catalogue, each published an hour after the other."""

from __future__ import annotations

import random
import shutil
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from contracts.digests import digest_bytes
from contracts.layout import POINTER_KEY
from contracts.manifest import Database, Manifest, parse_manifest
from music_cloud.sample import create_catalogue, evolve
from publisher import Environment, PublishOptions, PublishResult, publish
from publisher.history import Link, walk_history
from publisher.pointer import Pointer, fetch_pointer
from publisher.rollback import roll_back
from stores import Backoff, MemoryStore
from stores.base import Store

BEGUN = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)
SMALL = PublishOptions(segment_bytes=64 << 10, level=1)


class Past:
    """A catalogue, a state folder and a store; `databases` are what was published, oldest first."""

    def __init__(self, folder: Path, store: Store | None = None, *, songs: int = 100) -> None:
        self.folder = folder
        self.catalogue = folder / "catalogsync.db"
        self.state = folder / "state"
        self.memory = MemoryStore()
        self.store: Store = store or self.memory
        self.options = SMALL
        self.now, self.step = BEGUN, timedelta(hours=1)
        self.databases: list[Database] = []
        self._seed = 0
        if not self.catalogue.exists():
            create_catalogue(self.catalogue, songs=songs)

    @property
    def objects(self) -> dict[str, bytes]:
        """What is in the store in memory."""
        return self.memory.objects

    def copy(self, folder: Path) -> Past:
        """The same past in a folder and a store of its own."""
        shutil.copytree(self.folder, folder)
        other = Past(folder)
        other.objects.update(self.objects)
        other.now, other.databases, other._seed = self.now, [*self.databases], self._seed
        other.options = self.options
        return other

    def live(self, hours: int = 1, **options: Any) -> PublishResult:
        """Let the catalogue live for so many hours, each followed by a publish."""
        for _ in range(hours):
            self._seed += 1
            evolve(self.catalogue, churn="hour", seed=self._seed)
            result = self.publish(**options)
        return result

    def publish(self, store: Store | None = None, **options: Any) -> PublishResult:
        """Publish the catalogue, an hour after the last time."""
        self.now += self.step
        result = publish(
            self.catalogue,
            store or self.store,
            self.state,
            replace(self.options, **options),
            environment=self.environment(),
        )
        self.databases.append(result.manifest.database)
        return result

    def roll_back(
        self, to: str | int, store: Store | None = None, trusted: Any = (), **options: Any
    ) -> PublishResult:
        """Roll back, an hour after the last time."""
        self.now += self.step
        return roll_back(
            store or self.store,
            self.state,
            str(to),
            replace(self.options, **options),
            trusted=trusted,
            environment=self.environment(),
        )

    def environment(self) -> Environment:
        patient = Backoff(attempts=2, sleep=lambda seconds: None, random=random.Random(1))
        return Environment(now=lambda: self.now, backoff=patient)

    def pointer(self) -> Pointer:
        pointer = fetch_pointer(self.store)
        assert pointer is not None
        return pointer

    def published(self) -> Manifest:
        return self.pointer().manifest

    def links(self) -> list[Link]:
        """The whole history, newest first."""
        return list(walk_history(self.store, self.pointer()))

    def replace_pointer(self, stored: bytes) -> None:
        """Publish these bytes by hand, as somebody with the right to write may."""
        self.objects[f"manifests/{digest_bytes(stored)}.json"] = stored
        self.objects[POINTER_KEY] = stored
        parse_manifest(stored)
