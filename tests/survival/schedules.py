"""One seeded schedule: publishers and a mirror work through a network that fails, then it stops failing.

Invariant: after every step the witness looks at the bucket behind the network; whatever a publish or a sync
raises is an error of the two families, and when the faults stop, one publish and one sync are enough.
"""

from __future__ import annotations

import copy
import random
import shutil
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import urllib3

from contracts.errors import ContractError, StoreError
from contracts.minisign import SecretKey
from localstack import Bucket
from mirror import Mirror
from music_cloud.sample import evolve
from publisher import Environment, PublishOptions, publish
from stores import Backoff, HttpStore, RetryingReader, RetryingStore, Store
from stores.s3 import S3Settings, S3Store
from tests.survival.fault_proxy import FaultProxy, seeded
from tests.survival.witness import PlainHttp, Witness, change_catalogue

KEY = SecretKey(b"A" * 8, b"A" * 32)
_PATIENCE_S = 0.4  # of a client, for a server that needs 5 ms
_ATTEMPTS = 4
_STEPS = 14
_RATES = (0.03, 0.1, 0.25, 0.4)  # how many requests something befalls
# What a step is, and how often.
_STEPS_BY_WEIGHT = {"publish": 6, "change": 5, "sync": 4, "other publishes": 2, "large change": 1, "lose": 1}


@dataclass
class Tally:
    """What all schedules together have gone through."""

    schedules: int = 0
    acknowledged: int = 0
    snapshots: int = 0
    syncs: int = 0
    failures: Counter[str] = field(default_factory=Counter)


class Net:
    """A bucket that is reached through a proxy; each schedule has a prefix of its own in it."""

    def __init__(self, proxy: FaultProxy, bucket: Bucket) -> None:
        self.proxy = proxy
        self.bucket = bucket
        settings = S3Settings(
            endpoint_url=proxy.url,
            region=bucket.region,
            access_key_id=bucket.access_key,
            secret_access_key=bucket.secret_key,
            addressing_style="path",
            connect_timeout_s=_PATIENCE_S,
            read_timeout_s=_PATIENCE_S,
        )
        self._s3 = S3Store(bucket.bucket, "", settings)

    def s3_store(self, prefix: str) -> S3Store:
        """A store that asks once. They share a client: to make one takes longer than a publish."""
        store = copy.copy(self._s3)
        store._prefix = prefix
        store.address += f"/{prefix}"
        return store

    def http_store(self, prefix: str) -> HttpStore:
        """A mirror's store."""
        timeout = urllib3.Timeout(connect=_PATIENCE_S, read=_PATIENCE_S)
        return HttpStore(f"{self.proxy.url}/{self.bucket.bucket}/{prefix}", timeout=timeout)


def run_schedule(seed: int, net: Net, catalogue: Path, folder: Path, tally: Tally) -> None:
    """Work through one schedule; `catalogue` is copied.

    Raises: AssertionError, when something is lost, forked, or does not converge.
    """
    schedule = _Schedule(seed, net, catalogue, folder, tally)
    prefix = f"seed-{seed}"
    with (
        closing(PlainHttp(f"{net.bucket.public_url}/{prefix}")) as plain,
        closing(net.http_store(prefix)) as http,
    ):
        schedule.run(RetryingStore(net.s3_store(prefix), _backoff()), Witness(plain.read, KEY.public), http)


class _Schedule:
    def __init__(self, seed: int, net: Net, catalogue: Path, folder: Path, tally: Tally) -> None:
        self._dice = random.Random(seed)
        self._seed = seed
        self._proxy = net.proxy
        self._folder = folder
        self._tally = tally
        self._catalogue = Path(shutil.copy(catalogue, folder / "catalogsync.db"))
        self._served = 0

    def run(self, store: Store, witness: Witness, http: HttpStore) -> None:
        mirror = self._mirror("mirror", http)
        self._proxy.begin(seeded(self._seed, self._dice.choice(_RATES)))
        steps = self._dice.choices([*_STEPS_BY_WEIGHT], [*_STEPS_BY_WEIGHT.values()], k=_STEPS)
        for number, step in enumerate(steps):
            self._step(step, number, store, witness, mirror)
            witness.verify()
            self._served = witness.verify_served(mirror, self._served)
        self._proxy.calm_down()
        self._converge(store, witness, mirror, self._mirror("fresh", http))
        self._tally.schedules += 1
        self._tally.snapshots += len(witness.history)

    def _step(self, step: str, number: int, store: Store, witness: Witness, mirror: Mirror) -> None:
        if step == "change":
            evolve(self._catalogue, churn="hour", seed=self._seed * 100 + number)
        elif step == "large change":
            change_catalogue(self._catalogue, f"{self._dice.random()}", songs=60)
        elif step == "lose":
            shutil.rmtree(self._folder / "state", ignore_errors=True)
        elif step == "sync":
            try:
                mirror.sync()
            except (ContractError, StoreError) as error:
                self._tally.failures[type(error).__name__] += 1
            else:
                self._tally.syncs += 1
        else:
            self._publish("state" if step == "publish" else "other-state", store, witness)

    def _publish(self, state: str, store: Store, witness: Witness) -> None:
        try:
            result = publish(
                self._catalogue, store, self._folder / state, _OPTIONS, environment=self._environment()
            )
        except (ContractError, StoreError) as error:
            self._tally.failures[type(error).__name__] += 1
            return
        witness.verify()
        witness.verify_acknowledged(result.manifest)
        self._tally.acknowledged += result.outcome == "published"

    def _converge(self, store: Store, witness: Witness, mirror: Mirror, fresh: Mirror) -> None:
        result = publish(
            self._catalogue, store, self._folder / "state", _OPTIONS, environment=self._environment()
        )
        witness.verify_all()
        witness.verify_acknowledged(result.manifest)
        assert witness.history[-1][1] == result.manifest
        for each in (mirror, fresh):
            assert each.sync().current.database == result.manifest.database
        self._served = witness.verify_served(mirror, self._served)
        assert self._served == result.manifest.sequence
        again = publish(
            self._catalogue, store, self._folder / "other-state", _OPTIONS, environment=self._environment()
        )
        assert (again.outcome, again.manifest) == ("unchanged", result.manifest)

    def _mirror(self, name: str, http: HttpStore) -> Mirror:
        return Mirror(self._folder / name, RetryingReader(http, _backoff()), public_keys=[KEY.public])

    def _environment(self) -> Environment:
        return Environment(random_id=lambda: f"{self._dice.getrandbits(128):032x}", backoff=_backoff())


_OPTIONS = PublishOptions(segment_bytes=32 << 10, level=1, signing_key=KEY)


def _backoff() -> Backoff:
    return Backoff(attempts=_ATTEMPTS, sleep=lambda seconds: None)
