"""A publisher with a key: what is signed when, what heals, and what is never signed."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from msgspec.structs import replace

from contracts.digests import digest_bytes
from contracts.errors import (
    MalformedError,
    PreconditionFailed,
    SignatureError,
    StoreUnavailable,
    UnsupportedError,
)
from contracts.layout import POINTER_KEY, Kind, format_key, manifest_key
from contracts.manifest import Manifest, format_manifest, parse_manifest
from contracts.minisign import KEY_FILE_MAX_BYTES, SecretKey, parse_signature, verify_signature
from contracts.succession import succession_keys
from mirror import Mirror
from music_cloud.sample import evolve
from publisher import Environment, PublishOptions, PublishResult, publish
from publisher.signing import load_signing_key, publish_succession
from stores import Backoff, FolderStore, MemoryStore
from stores.base import Store
from tests.faults import FaultyStore

NOW = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)
KEY, OTHER, THIRD = (SecretKey(letter * 8, letter * 32) for letter in (b"A", b"B", b"C"))


class Site:
    """A catalogue that is published to a store in memory, and a mirror that pins a key."""

    def __init__(self, catalogue: Path, folder: Path) -> None:
        self.catalogue = catalogue
        self.folder = folder
        self.store = MemoryStore()
        self.now = NOW
        self.mirror = Mirror(folder / "mirror", self.store, public_keys=[KEY.public], now=lambda: self.now)

    def publish(
        self, key: SecretKey | None = KEY, store: Store | None = None, dry_run: bool = False
    ) -> PublishResult:
        return publish(
            self.catalogue,
            store or self.store,
            self.folder / "state",
            PublishOptions(level=1, signing_key=key, dry_run=dry_run),
            environment=Environment(
                now=lambda: self.now,
                backoff=Backoff(attempts=3, sleep=lambda seconds: None, random=random.Random(1)),
            ),
        )

    def pointer(self) -> Manifest:
        return parse_manifest(self.store.objects[POINTER_KEY])

    def signature_key(self) -> str:
        return format_key(Kind.SIGNATURE, digest_bytes(self.store.objects[POINTER_KEY]))

    def verify(self, key: SecretKey = KEY) -> None:
        signature = parse_signature(self.store.objects[self.signature_key()])
        verify_signature(self.store.objects[POINTER_KEY], signature, key.public)


@pytest.fixture
def site(catalogue: Path, tmp_path: Path) -> Site:
    return Site(catalogue, tmp_path)


def test_signature_comes_after_the_manifest_and_before_the_pointer(site: Site) -> None:
    watched = FaultyStore(site.store)
    result = site.publish(store=watched)
    manifest = manifest_key(digest_bytes(site.store.objects[POINTER_KEY]))
    assert watched.puts()[-3:] == [manifest, site.signature_key(), POINTER_KEY]
    site.verify()
    sent = [key for key in watched.puts() if not key.startswith("probe-")]
    assert result.sent_bytes == sum(len(site.store.objects[key]) for key in sent)
    assert result.sent_objects == len(sent)


def test_signature_is_dated_by_the_manifest(site: Site) -> None:
    site.publish()
    digest = digest_bytes(site.store.objects[POINTER_KEY])
    comment = parse_signature(site.store.objects[site.signature_key()]).trusted_comment
    assert comment.decode() == f"timestamp:{int(NOW.timestamp())}\tfile:{digest}.json\thashed"


def test_minisign_verifies_what_was_published(site: Site) -> None:
    """With no software of ours: the pointer, or the manifest under its digest."""
    if shutil.which("minisign") is None:
        pytest.skip("minisign from Debian's packages")
    site.publish()
    (site.folder / "m").write_bytes(site.store.objects[POINTER_KEY])
    (site.folder / "m.minisig").write_bytes(site.store.objects[site.signature_key()])
    subprocess.run(["minisign", "-Vqm", site.folder / "m", "-P", KEY.public.line], check=True)


def test_dry_run_counts_the_signature_and_writes_none(site: Site) -> None:
    planned = site.publish(dry_run=True)
    assert site.store.objects == {}
    published = site.publish()
    assert (planned.sent_bytes, planned.sent_objects) == (published.sent_bytes, published.sent_objects)


def test_every_kind_of_manifest_is_signed(site: Site) -> None:
    site.publish()
    site.verify()
    evolve(site.catalogue, churn="hour", seed=1)
    assert site.publish().manifest.sequence == 2
    site.verify()
    site.now += timedelta(days=8)
    assert site.publish().outcome == "renewed"
    site.verify()
    assert site.mirror.sync().signed_by == KEY.public.key_id


def test_signed_and_fresh_needs_no_renewal(site: Site) -> None:
    site.publish()
    watched = FaultyStore(site.store)
    assert site.publish(store=watched).outcome == "unchanged"
    assert watched.puts() == []


def test_without_a_key_nothing_is_signed_and_nothing_asked(site: Site) -> None:
    site.publish(None)
    watched = FaultyStore(site.store)
    assert site.publish(None, store=watched).outcome == "unchanged"
    assert not [key for key in (*site.store.objects, *dict(watched.operations)) if key.endswith(".minisig")]


@pytest.mark.parametrize("spoil", ["missing", "other key", "damaged", "other date"])
def test_published_manifest_that_is_not_signed_as_it_should_be_is_renewed(site: Site, spoil: str) -> None:
    """Design, section 5: missing, by another key or dated wrongly."""
    site.publish()
    stored, key = site.store.objects[POINTER_KEY], site.signature_key()
    wrong = {
        "other key": OTHER.sign(stored, "timestamp:1"),
        "damaged": site.store.objects[key][:-1],
        "other date": KEY.sign(stored, "timestamp:1"),
    }
    site.store.objects.pop(key)
    if spoil != "missing":
        site.store.objects[key] = wrong[spoil]
    result = site.publish()
    assert (result.outcome, result.manifest.sequence) == ("renewed", 2)
    site.verify()
    assert site.publish().outcome == "unchanged"
    assert site.mirror.sync().signed_by == KEY.public.key_id


def test_configuring_a_key_signs_what_was_published_without(site: Site) -> None:
    site.publish(None)
    with pytest.raises(SignatureError):
        site.mirror.sync()
    assert site.publish().outcome == "renewed"
    assert site.mirror.sync().outcome == "updated"


def test_held_manifest_of_an_unknown_author_is_not_signed(site: Site) -> None:
    """It alone is renewed without a look at the catalogue: we would sign whatever somebody puts there."""
    site.publish()
    held = format_manifest(replace(site.pointer(), held=True))
    site.store.objects[POINTER_KEY] = held
    for days in (0, 8):
        site.now = NOW + timedelta(days=days)
        before = dict(site.store.objects)
        with pytest.raises(SignatureError, match="nobody knows who"):
            site.publish()
        assert site.store.objects == before
    site.store.objects[site.signature_key()] = KEY.sign(
        held, f"timestamp:{int(NOW.timestamp())}\tfile:{digest_bytes(held)}.json\thashed"
    )
    assert site.publish().outcome == "renewed"


def test_forged_database_is_replaced_and_never_signed(site: Site) -> None:
    """Taking the signature away, so that the manifest is renewed, gets no other database signed."""
    site.publish()
    true = site.pointer().database
    forged = replace(site.pointer(), database=replace(true, digest="f" * 64))
    keyframe = replace(forged.keyframe, database=forged.database)
    site.store.objects[POINTER_KEY] = format_manifest(replace(forged, keyframe=keyframe))
    shutil.rmtree(site.folder / "state")
    site.publish()
    site.verify()
    assert site.pointer().database == true
    assert all(node == true for node in site.pointer().nodes)


STEPS = ["manifests/", ".minisig", POINTER_KEY]


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("moment", ["before", "after"])
def test_publisher_that_dies_around_a_signature_heals(site: Site, step: str, moment: str) -> None:
    site.publish()
    site.mirror.sync()
    evolve(site.catalogue, churn="hour", seed=1)

    class Death(BaseException):
        pass

    def die(operation: str, key: str) -> None:
        if operation == "put" and (key.startswith(step) or key.endswith(step)):
            raise Death

    faulty = FaultyStore(site.store)
    setattr(faulty, moment, die)
    with pytest.raises(Death):
        site.publish(store=faulty)
    has_moved = site.pointer().sequence == 2
    assert site.mirror.sync().outcome == ("updated" if has_moved else "unchanged")
    site.verify()
    assert site.publish().manifest.sequence == 2
    site.verify()
    assert site.mirror.sync().current.sequence == 2


def test_repetition_after_a_lost_answer_finds_its_own_signature(site: Site) -> None:
    """Deterministic, so of the same bytes; a retrying store then meets its own object."""

    def refuse(operation: str, key: str) -> None:
        if operation == "put" and key.endswith(".minisig"):
            raise PreconditionFailed("412")

    assert site.publish(store=FaultyStore(site.store, after=refuse)).outcome == "published"
    site.verify()


def test_signature_that_cannot_be_written_leaves_the_pointer(site: Site) -> None:
    def fail(operation: str, key: str) -> None:
        if operation == "put" and key.endswith(".minisig"):
            raise StoreUnavailable("503")

    with pytest.raises(StoreUnavailable):
        site.publish(store=FaultyStore(site.store, before=fail))
    assert POINTER_KEY not in site.store.objects


def test_rotation_is_followed_by_a_mirror_that_pins_the_old_key(site: Site) -> None:
    site.publish()
    site.mirror.sync()
    assert publish_succession(site.store, KEY, OTHER.public)
    assert site.mirror.sync().signed_by == KEY.public.key_id
    assert site.publish(OTHER).outcome == "renewed"
    assert site.mirror.sync().signed_by == OTHER.public.key_id


def test_handover_is_said_once(site: Site) -> None:
    watched = FaultyStore(site.store)
    assert publish_succession(watched, KEY, OTHER.public)
    name, signature_name = succession_keys(KEY.public.key_id)
    assert watched.puts() == [signature_name, name]
    assert not publish_succession(site.store, KEY, OTHER.public)
    before = dict(site.store.objects)
    with pytest.raises(SignatureError, match="named its successor before"):
        publish_succession(site.store, KEY, THIRD.public)
    assert site.store.objects == before


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("number", [0, 1])
def test_handover_that_broke_off_is_finished(site: Site, number: int, moment: str) -> None:
    target = succession_keys(KEY.public.key_id)[1 - number]

    def fail(operation: str, key: str) -> None:
        if (operation, key) == ("put", target):
            raise StoreUnavailable("the line is dead")

    faulty = FaultyStore(site.store)
    setattr(faulty, moment, fail)
    with pytest.raises(StoreUnavailable):
        publish_succession(faulty, KEY, OTHER.public)
    publish_succession(site.store, KEY, OTHER.public)
    site.publish(OTHER)
    assert site.mirror.sync().signed_by == OTHER.public.key_id


def test_key_that_has_handed_over_does_not_publish(site: Site) -> None:
    """A forgotten timer: mirrors would refuse what it signs."""
    site.publish()
    publish_succession(site.store, KEY, OTHER.public)
    before = dict(site.store.objects)
    with pytest.raises(SignatureError, match="handed over to 4242424242424242"):
        site.publish(KEY)
    assert site.store.objects == before


def test_handover_that_somebody_else_wrote_retires_nobody(site: Site) -> None:
    publish_succession(site.store, SecretKey(KEY.public.number, b"!" * 32), OTHER.public)
    assert site.publish().outcome == "published"


def test_handover_to_a_key_that_has_handed_over_is_refused(site: Site) -> None:
    """It would be a circle, or a key that mirrors have retired."""
    publish_succession(site.store, KEY, OTHER.public)
    with pytest.raises(SignatureError, match="make a new one"):
        publish_succession(site.store, OTHER, KEY.public)


def test_objects_of_a_handover_are_served_as_the_layout_says(tmp_path: Path) -> None:
    publish_succession(FolderStore(tmp_path / "bucket"), KEY, OTHER.public)
    stored = json.loads((tmp_path / "bucket" / "keys" / f"{KEY.public.key_id}.json").read_bytes())
    assert stored["new_key"] == OTHER.public.line


@pytest.mark.skipif(os.name == "nt", reason="Windows keeps permissions elsewhere")
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o660, 0o644])
def test_key_that_others_may_use_is_refused(tmp_path: Path, mode: int) -> None:
    """As ssh does."""
    path = tmp_path / "a.key"
    path.write_bytes(KEY.format())
    path.chmod(mode)
    with pytest.raises(SignatureError, match=rf"mode 0{mode:o}.*chmod 600"):
        load_signing_key(path)
    path.chmod(0o400)
    assert load_signing_key(path).public == KEY.public


def test_what_is_no_key_is_refused_by_the_name_of_its_file(tmp_path: Path) -> None:
    path = tmp_path / "a.key"
    vectors = json.loads((Path(__file__).parent.parent / "vectors" / "minisign.json").read_text("utf-8"))
    for content, kind in (
        (b"", MalformedError),
        (b"x" * (KEY_FILE_MAX_BYTES + 1), MalformedError),
        (KEY.public.line.encode(), MalformedError),
        (vectors["encrypted.key"].encode(), UnsupportedError),
    ):
        path.write_bytes(content)
        path.chmod(0o600)
        with pytest.raises(kind, match=r"a\.key"):
            load_signing_key(path)
