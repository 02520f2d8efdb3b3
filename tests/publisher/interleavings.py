"""Publishers, prunes and mirrors at once, in an order that one seed decides.

Every actor is a thread, and only one of them ever runs: each stops before every operation on the store, and
the schedule says who goes on. The clock jumps in between, actors die, and requests to delete arrive a second
time, up to days late, as a retry after a lost answer does. Publishers and prunes are the real ones; only
their catalogues are made up, of pages that come back again and again, so that the same blobs are made again.
After each operation the bucket keeps count: whatever is kept or within the grace has all its objects.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from pathlib import Path
from threading import Semaphore, Thread
from typing import BinaryIO, NamedTuple

from contracts.digests import digest_bytes, verify_pieces
from contracts.errors import ConflictError, ExpiredError, ObjectMissing, StoreUnavailable
from contracts.keyframe import EMPTY_SKIPPABLE_FRAME
from contracts.layout import POINTER_KEY, blob_key
from contracts.manifest import Database, Manifest, parse_manifest
from contracts.route import plan_route
from publisher import Environment
from publisher.pointer import fetch_pointer
from publisher.prune import PruneOptions, prune
from publisher.retention import GRACE, Policy, required_keys
from stores import Backoff, MemoryStore
from stores.base import ListedObject, ObjectInfo, PutMode, Reading
from tests.publisher.made_up import PAGES, START, VARIANTS, MadeUpCandidates, MadeUpPublish, prepared

LATE = timedelta(days=6)  # publisher/prune.py remembers for a week what may still be deleted


class Violation(AssertionError):
    """Something that somebody may still need is gone."""


class Killed(BaseException):
    """The actor dies here."""


class Moved(NamedTuple):
    """A manifest, and when the pointer moved to it."""

    digest: str
    manifest: Manifest
    keys: frozenset[str]
    at: datetime


class Simulated:
    """The bucket, its clock, and what must not be lost."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.now = START
        self.store = MemoryStore(lambda: self.now)
        self.history: list[Moved] = []
        self.late: list[tuple[datetime, str]] = []
        self.counts: Counter[str] = Counter()

    def environment(self) -> Environment:
        return Environment(
            now=lambda: self.now,
            random_id=lambda: f"{self.random.getrandbits(128):032x}",
            backoff=Backoff(attempts=2, sleep=lambda seconds: None, random=self.random),
        )

    def protected(self) -> Iterator[Moved]:
        """What is published, what is kept, and what was superseded within the grace."""
        oldest_kept = self.history[-1].manifest.oldest_kept if self.history else 0
        superseded_at = self.now
        for moved in reversed(self.history):
            is_lately = self.now - superseded_at < GRACE
            if moved.manifest.sequence >= oldest_kept or is_lately:
                yield moved
            superseded_at = moved.at

    def is_protected(self, digest: str) -> bool:
        return any(moved.digest == digest for moved in self.protected())

    def after_delete(self, key: str) -> None:
        """No object that is needed was deleted."""
        for moved in self.protected():
            if key in moved.keys:
                raise Violation(f"{key} of manifest {moved.manifest.sequence} was deleted at {self.now}")

    def after_move(self) -> None:
        """The pointer has moved by one, and everything that is needed is there."""
        stored = self.store.objects[POINTER_KEY]
        manifest, digest = parse_manifest(stored), digest_bytes(stored)
        before = self.history[-1] if self.history else None
        if (before and before.digest) != manifest.previous:
            raise Violation(f"manifest {manifest.sequence} is a fork")
        keys = {*required_keys(digest, manifest)}
        if manifest.condemned is not None:
            keys.add(blob_key(manifest.condemned))
        self.history.append(Moved(digest, manifest, frozenset(keys), self.now))
        for moved in self.protected():
            missing = moved.keys - self.store.objects.keys()
            if missing:
                raise Violation(
                    f"manifest {moved.manifest.sequence} lacks {min(missing)} after {manifest.sequence}"
                )

    def delete(self, key: str) -> None:
        self.counts["deleted"] += key in self.store.objects
        self.store.delete(key)
        self.after_delete(key)

    def pass_time(self) -> None:
        """Seconds, mostly; sometimes days. No request is on its way for a week."""
        kind = self.random.random()
        longest_s = 2 if kind < 0.94 else 3600 if kind < 0.955 else 40_000 if kind < 0.97 else 6 * 86_400
        self.now += timedelta(seconds=self.random.randrange(longest_s + 1))
        late, self.late = self.late, []
        for sent_at, key in late:
            if self.now - sent_at > LATE:
                continue
            if self.random.random() < 0.01:
                self.delete(key)
            else:
                self.late.append((sent_at, key))


Job = Callable[["Actor | Alone"], None]


class Actor(Thread):
    """Does its job over and over, an operation at a time; dies when it is told to, and begins anew."""

    def __init__(self, name: str, job: Job, bucket: Simulated) -> None:
        super().__init__(name=name, daemon=True)
        self._job = job
        self.bucket = bucket
        self._mine, self._others = Semaphore(0), Semaphore(0)
        self._is_killed = self._is_over = self.is_deleting = False
        self.failure: BaseException | None = None
        self.start()

    def go_on(self, *, kill: bool = False, end: bool = False) -> None:
        """Let it do one operation; called by the schedule."""
        self._is_killed, self._is_over = kill or end, end
        self._mine.release()
        self._others.acquire()
        if self.failure is not None:
            raise self.failure

    def pause(self) -> None:
        """Wait for one's turn; called by the actor, before each operation."""
        self._others.release()
        self._mine.acquire()
        if self._is_killed:
            self._is_killed = False
            raise Killed

    def run(self) -> None:
        self._mine.acquire()
        while not self._is_over and self.failure is None:
            try:
                self._job(self)
                self.pause()
            except Killed:
                pass
            except BaseException as error:
                self.failure = error
        self._others.release()


class Alone:
    """Somebody whose turn it always is: before the schedule begins."""

    is_deleting = False

    def __init__(self, bucket: Simulated) -> None:
        self.bucket = bucket

    def pause(self) -> None:
        pass


class ActorStore:
    """The bucket as one actor sees it: its turn comes before each operation."""

    address = "memory:"

    def __init__(self, actor: Actor | Alone) -> None:
        self._actor = actor
        self._bucket = actor.bucket
        self._store = actor.bucket.store

    def head(self, key: str) -> ObjectInfo:
        self._actor.pause()
        return self._store.head(key)

    def get(self, key: str, start: int = 0) -> Reading:
        self._actor.pause()
        return self._store.get(key, start)

    def get_if_changed(self, key: str, etag: str) -> Reading | None:
        self._actor.pause()
        return self._store.get_if_changed(key, etag)

    def put(self, key: str, body: bytes | BinaryIO, mode: PutMode) -> str:
        self._actor.pause()
        etag = self._store.put(key, body, mode)
        self._bucket.counts["renamed"] += self._store.objects[key].endswith(EMPTY_SKIPPABLE_FRAME)
        if key == POINTER_KEY:
            self._bucket.after_move()
        return etag

    def delete(self, key: str) -> None:
        sent_at = self._bucket.now
        self._actor.is_deleting = True
        self._actor.pause()
        self._actor.is_deleting = False
        if self._bucket.now - sent_at > LATE:
            raise StoreUnavailable("a request that has been on its way for a week is refused")
        if self._bucket.random.random() < 0.5:
            self._bucket.late.append((self._bucket.now, key))
        self._bucket.delete(key)

    def list_objects(self, prefix: str = "") -> list[ListedObject]:
        self._actor.pause()
        return self._store.list_objects(prefix)

    def now(self) -> datetime | None:
        return self._bucket.now


def publishing(bucket: Simulated, folder: Path, known: dict[str, tuple[int, ...]]) -> Job:
    candidates = MadeUpCandidates(prepared(folder), known)

    def job(actor: Actor | Alone) -> None:
        variants = [*candidates.wanted]
        for _ in range(bucket.random.randint(0, 2)):
            variants[bucket.random.randrange(PAGES)] = bucket.random.randrange(VARIANTS)
        candidates.wanted = tuple(variants)
        if known and bucket.random.random() < 0.3:  # as it was before, perhaps long ago
            candidates.wanted = bucket.random.choice([*known.values()])
        with counted(bucket):
            MadeUpPublish(ActorStore(actor), candidates, bucket.environment()).run()

    return job


def pruning(bucket: Simulated, folder: Path) -> Job:
    prepared(folder)

    def job(actor: Actor | Alone) -> None:
        chance = bucket.random
        within = timedelta(days=chance.randint(1, 20))
        policy = Policy(
            chance.choice([None, 1, 2, 5]),
            chance.choice([None, None, within]),
            GRACE * chance.choice([1, 1, 2]),
        )
        if fetch_pointer(ActorStore(actor)) is None:
            return
        with counted(bucket):
            prune(
                ActorStore(actor),
                folder,
                PruneOptions(policy),
                environment=bucket.environment(),
                clock_s=lambda: (bucket.now - START).total_seconds(),
                deletes_at_once=1,
            )
            bucket.counts["pruned"] += 1

    return job


def mirroring(bucket: Simulated, *, stale: bool) -> Job:
    held: list[Database] = []

    def job(actor: Actor | Alone) -> None:
        store = ActorStore(actor)
        pointer = fetch_pointer(store)
        if pointer is None:
            return
        seen = Moved(pointer.digest, pointer.manifest, frozenset(), bucket.now)
        if stale:  # what an edge cache still has
            seen = bucket.random.choice([*bucket.protected()])
        sync(store, bucket, seen, held[-1] if held else None)
        held[:] = [seen.manifest.database]

    return job


def sync(store: ActorStore | MemoryStore, bucket: Simulated, seen: Moved, held: Database | None) -> None:
    """Fetch what a mirror fetches; a blob may be missing only when the manifest is not protected any more."""
    route = plan_route(seen.manifest, held)
    parts = [part.blobs for part in (route.keyframe, *route.deltas) if part is not None]
    for blob in (blob for blobs in parts for blob in blobs):
        try:
            reading = store.get(blob_key(blob.digest))
        except ObjectMissing as error:
            if bucket.is_protected(seen.digest):
                raise Violation(f"a mirror of manifest {seen.manifest.sequence} misses a blob") from error
            return
        for _ in verify_pieces(reading, blob.digest, blob.digest, blob.size_bytes):
            pass
    bucket.counts["synced"] += 1


@contextmanager
def counted(bucket: Simulated) -> Iterator[None]:
    """What may happen to one of several publishers; anything else is a failure of the test."""
    try:
        yield
    except ConflictError:
        bucket.counts["conflicts"] += 1
    except (ExpiredError, ObjectMissing, StoreUnavailable):
        pass


def run_schedule(seed: int, folder: Path, steps: int = 1200) -> Simulated:
    """Run one schedule; raises what any actor raised. At the end everybody comes to rest, and syncs."""
    bucket = Simulated(seed)
    chance = bucket.random
    known: dict[str, tuple[int, ...]] = {}
    jobs: list[Job] = [
        publishing(bucket, folder / "publisher-1", known),
        pruning(bucket, folder / "pruner-1"),
    ]
    for _ in range(8):  # something that is old
        jobs[0](Alone(bucket))
        bucket.now += timedelta(days=chance.randrange(4))
    if chance.random() < 0.5:
        jobs.append(publishing(bucket, folder / "publisher-2", known))
    if chance.random() < 0.6:
        jobs.append(pruning(bucket, folder / "pruner-2"))
    jobs += [mirroring(bucket, stale=False), mirroring(bucket, stale=True)]
    actors = [Actor(f"actor {number}", job, bucket) for number, job in enumerate(jobs)]
    weights = [chance.uniform(0.2, 1) for _ in jobs[:-2]] + [0.15, 0.15]
    try:
        asleep = dict.fromkeys(actors, 0)
        for step in range(steps):
            actor = chance.choices(actors, weights)[0]
            if asleep[actor] <= step:
                actor.go_on(kill=chance.random() < 0.005)
                bucket.pass_time()
            # A machine that is suspended: most interesting between two deletions.
            if chance.random() < (0.1 if actor.is_deleting else 0.005):
                asleep[actor] = step + chance.randrange(500)
    except BaseException as error:
        error.add_note(f"seed {seed}, {len(bucket.history)} manifests, {bucket.now}")
        raise
    finally:
        for actor in actors:
            with suppress(BaseException):
                if actor.failure is None:
                    actor.go_on(end=True)
    for moved in [*bucket.protected()]:  # a fresh mirror of each, and so a stale one as well
        sync(bucket.store, bucket, moved, None)
    return bucket
