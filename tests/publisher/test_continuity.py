"""What a publisher goes on from: a manifest of a stranger does not choose the numbers that it signs."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest
from msgspec.structs import replace

from contracts.digests import digest_bytes
from contracts.errors import MalformedError, RollbackError, SignatureError
from contracts.layout import POINTER_KEY, Kind, format_key, manifest_key
from contracts.manifest import format_manifest, parse_manifest
from contracts.minisign import SecretKey
from mirror import Mirror
from publisher import Environment, PublishOptions, PublishResult, publish
from publisher.continuity import LONGEST_LEAP, Published, verify_continues
from publisher.prune import PruneOptions, prune
from publisher.retention import Policy
from publisher.signing import publish_succession, sign_manifest
from stores import MemoryStore
from tests.survival.witness import change_catalogue

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
KEY, NEXT = (SecretKey(letter * 8, letter * 32) for letter in (b"A", b"B"))
LAST = (1 << 53) - 1  # RFC 8259, section 6: beyond it, numbers are not exact everywhere


class Site:
    """A catalogue that is published, and a mirror that pins the key."""

    def __init__(self, catalogue: Path, folder: Path) -> None:
        self.catalogue = catalogue
        self.state = folder / "state"
        self.store = MemoryStore()
        self.mirror = Mirror(folder / "mirror", self.store, public_keys=[KEY.public], now=lambda: NOW)

    def publish(self, key: SecretKey | None = KEY, seed: str = "") -> PublishResult:
        if seed:
            change_catalogue(self.catalogue, seed)
        options = PublishOptions(level=1, signing_key=key)
        return publish(
            self.catalogue, self.store, self.state, options, environment=Environment(now=lambda: NOW)
        )

    def put_pointer(self, stored: bytes) -> None:
        """As whoever can write to the bucket would."""
        self.store.objects[POINTER_KEY] = self.store.objects[manifest_key(digest_bytes(stored))] = stored

    def forge(self, sequence: int, key: SecretKey | None = None) -> None:
        stored = self.store.objects[POINTER_KEY]
        manifest = replace(parse_manifest(stored), sequence=sequence, previous=digest_bytes(stored))
        self.put_pointer(format_manifest(manifest))
        if key is not None:
            name = format_key(Kind.SIGNATURE, digest_bytes(format_manifest(manifest)))
            self.store.objects[name] = sign_manifest(key, manifest)


@pytest.fixture
def site(catalogue: Path, tmp_path: Path) -> Site:
    return Site(catalogue, tmp_path)


@pytest.mark.parametrize("sequence", [LAST, LAST - 1, 2 + LONGEST_LEAP])
@pytest.mark.parametrize("is_lost", [False, True], ids=["state", "no state"])
@pytest.mark.parametrize("forger", [None, SecretKey(b"Z" * 8, b"Z" * 32)], ids=["unsigned", "signed"])
def test_fast_forward_of_a_stranger_is_never_signed(
    site: Site, sequence: int, is_lost: bool, forger: SecretKey | None
) -> None:
    """The last number there is would end the repository, and all that mirrors take for new. A key that the
    stranger made, and lets hand over to ours, is his own nevertheless."""
    site.publish()
    site.mirror.sync()
    true = site.store.objects[POINTER_KEY]
    if forger is not None:
        publish_succession(site.store, forger, KEY.public)
    site.forge(sequence, forger)
    if is_lost:
        shutil.rmtree(site.state)
    before = dict(site.store.objects)
    for seed in ("a ", "b "):
        with pytest.raises(SignatureError, match="somebody else has written to the store") as caught:
            site.publish(seed=seed)
    assert site.store.objects == before
    if not is_lost:  # the way out is in the words of the error
        assert f"copy the newest true manifest, {manifest_key(digest_bytes(true))} or one" in str(
            caught.value
        )
    site.put_pointer(true)
    assert site.publish(seed="c ").manifest.sequence == 2
    assert site.mirror.sync().current.sequence == 2


def test_replay_to_the_publisher_is_never_continued(site: Site) -> None:
    """Else it would sign other manifests of sequences that mirrors have seen, and they refuse those."""
    site.publish()
    first = site.store.objects[POINTER_KEY]
    site.publish(seed="a ")
    site.publish(seed="b ")
    newest = site.store.objects[POINTER_KEY]
    site.mirror.sync()
    site.put_pointer(first)
    before = dict(site.store.objects)
    with pytest.raises(RollbackError, match="serves snapshot 1, although 3 was published from here"):
        site.publish(seed="c ")
    with pytest.raises(RollbackError):
        prune(site.store, site.state, PruneOptions(Policy(keep_last=1), signing_key=KEY))
    assert site.store.objects == before
    site.put_pointer(newest)
    assert site.publish().manifest.sequence == 4
    assert site.mirror.sync().outcome == "updated"


def test_what_another_publisher_of_the_key_has_signed_is_continued(site: Site) -> None:
    """However far it got; nobody can forge that."""
    site.publish()
    site.forge(1 << 40, KEY)
    assert site.publish(seed="a ").manifest.sequence == (1 << 40) + 1
    assert site.mirror.sync().outcome == "updated"


@pytest.mark.parametrize("is_lost", [False, True], ids=["state", "no state"])
def test_first_key_and_the_next_go_on_from_what_others_signed(site: Site, is_lost: bool) -> None:
    """An unsigned repository gets a key, and the key a successor; on this machine, or on a new one."""
    site.publish(None)
    for number, key in enumerate((KEY, NEXT), 2):
        if is_lost:
            shutil.rmtree(site.state)
        if key is NEXT:
            publish_succession(site.store, KEY, NEXT.public)
        assert site.publish(key).manifest.sequence == number
    assert site.mirror.sync().signed_by == NEXT.public.key_id


def test_last_number_is_said_before_anything_is_written(site: Site) -> None:
    """By the true key: nothing can follow it, and nothing that nobody could read is put there."""
    site.publish()
    site.forge(LAST, KEY)
    before = dict(site.store.objects)
    with pytest.raises(MalformedError, match="9007199254740991"):
        site.publish(seed="a ")
    assert {name for name in site.store.objects if not name.startswith("blobs/")} == {
        name for name in before if not name.startswith("blobs/")
    }


def test_what_is_known_counts_only_for_its_repository(site: Site) -> None:
    """Whoever lets a new repository begin says so by deleting the file that names the old one."""
    found = site.publish().manifest
    other = Published("0" * 32, 7, "0" * 64)
    verify_continues(found, other, lambda: False, "x")
    with pytest.raises(RollbackError, match="delete x,"):
        verify_continues(found, replace(other, repository=found.repository), lambda: False, "x")
    far = replace(found, sequence=LONGEST_LEAP + 7)
    verify_continues(far, replace(other, repository=found.repository), lambda: False, "x")
    with pytest.raises(SignatureError):
        verify_continues(far, other, lambda: False, "x")
