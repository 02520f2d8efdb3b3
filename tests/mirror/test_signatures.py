"""Signatures as a mirror meets them: cut, damaged, too late, and by another key; forged: test_attacks.py."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path

import pytest

from contracts.errors import (
    AccessDenied,
    MalformedError,
    ObjectMissing,
    SignatureError,
    StoreUnavailable,
)
from contracts.layout import POINTER_KEY, blob_key
from contracts.minisign import SecretKey
from localstack import Bucket
from mirror import Mirror
from stores import HttpStore, MemoryStore, Overwrite
from stores.s3 import S3Settings, S3Store
from tests.mirror.chain import NOW, Chain, serves
from tests.mirror.simulator import EVIL, A, B, C, Site


@pytest.fixture
def site(chain: Chain, tmp_path: Path) -> Site:
    return Site(chain, tmp_path)


def test_signed_snapshot_is_served_and_its_key_named(site: Site) -> None:
    site.publish(0)
    assert site.sync().signed_by == A.public.key_id
    site.publish(1)
    assert (site.sync().outcome, site.sync().outcome) == ("updated", "unchanged")
    assert site.serves(1)


def test_mirror_must_say_whom_it_believes(tmp_path: Path) -> None:
    for wrong in ({}, {"public_keys": [A.public], "unsigned": True}):
        with pytest.raises(SignatureError, match="one of the two"):
            Mirror(tmp_path, MemoryStore(), **wrong)  # type: ignore[arg-type]  # of two types
    with pytest.raises(MalformedError):
        Mirror(tmp_path, MemoryStore(), public_keys=["RWsomething"])
    with pytest.raises(MalformedError, match="same id"):
        Mirror(tmp_path, MemoryStore(), public_keys=[A.public, EVIL.public]).sync()


def test_one_line_of_text_is_one_key(site: Site) -> None:
    site.publish(0)
    assert Mirror(site.folder, site.watched, public_keys=A.public.line, now=lambda: NOW).sync().signed_by


def truncate_signature(site: Site) -> None:
    site.objects[site.signature_key()] = site.objects[site.signature_key()][:-20]


def damage_signature(site: Site) -> None:
    site.objects[site.signature_key()] = site.objects[site.signature_key()].replace(b"=\n", b"?\n", 1)


def swap_comment(site: Site) -> None:
    signature = site.objects[site.signature_key()]
    site.objects[site.signature_key()] = signature.replace(b"timestamp:1", b"timestamp:2")


def sign_in_the_legacy_format(site: Site) -> None:
    lines = site.objects[site.signature_key()].split(b"\n")
    lines[1] = base64.b64encode(b"Ed" + base64.b64decode(lines[1])[2:])
    site.objects[site.signature_key()] = b"\n".join(lines)


def truncate_pointer(site: Site) -> None:
    site.objects[POINTER_KEY] = site.objects[POINTER_KEY][:-1]


FAULTS = {
    truncate_signature: "four lines",
    damage_signature: "not in base64",
    swap_comment: "another trusted comment",
    sign_in_the_legacy_format: "legacy",
    truncate_pointer: "is not signed",
}


@pytest.mark.parametrize(
    ("attack", "alarm"), FAULTS.items(), ids=lambda part: getattr(part, "__name__", None)
)
def test_signature_of_another_form_is_refused_by_its_fault(
    site: Site, attack: Callable[[Site], None], alarm: str
) -> None:
    site.publish(0)
    site.sync()
    site.publish(1)
    good = dict(site.objects)
    attack(site)
    site.watched.operations.clear()
    with pytest.raises(SignatureError, match=alarm):
        site.sync()
    assert site.serves(0)
    assert not [key for _, key in site.watched.operations if key.startswith("blobs/")]
    site.objects.clear()
    site.objects.update(good)
    assert site.sync().outcome == "updated"
    assert site.serves(1)


def test_nothing_is_decoded_before_it_is_signed(site: Site) -> None:
    site.objects[POINTER_KEY] = b"\xff no manifest at all"
    with pytest.raises(SignatureError):
        site.sync()
    site.sign(A)
    with pytest.raises(MalformedError):
        site.sync()


def test_signature_that_comes_late_is_waited_for(site: Site) -> None:
    """A cache may serve the new pointer a moment before it has the signature."""
    site.publish(0, key=None)

    def publish_signature(operation: str, key: str) -> None:
        if key.endswith(".minisig"):
            site.watched.before = lambda operation, key: None
            try:
                site.watched.get(key)
            except ObjectMissing:
                site.sign(A)
                raise

    site.watched.before = publish_signature
    assert site.sync().outcome == "updated"


def test_pointer_that_moves_on_is_read_again_for_its_signature(site: Site) -> None:
    """The old one and its signature were pruned while a cache still had the pointer."""
    site.publish(0)
    del site.objects[site.signature_key()]

    def refresh_cache(operation: str, key: str) -> None:
        if key.endswith(".minisig"):
            site.watched.before = lambda operation, key: None
            site.publish(1)

    site.watched.before = refresh_cache
    assert site.sync().current.sequence == 2


def test_signature_that_is_forbidden_is_a_missing_one(site: Site) -> None:
    """What S3 says where nobody may list the bucket."""
    site.publish(0)

    def forbid(operation: str, key: str) -> None:
        if key.endswith(".minisig"):
            raise AccessDenied("403")

    site.watched.before = forbid
    with pytest.raises(SignatureError, match="is not signed"):
        site.sync()


def test_store_that_fails_is_no_attack(site: Site) -> None:
    site.publish(0)

    def fail(operation: str, key: str) -> None:
        if key.endswith(".minisig"):
            raise StoreUnavailable("503")

    site.watched.before = fail
    with pytest.raises(StoreUnavailable):
        site.sync()


def test_polling_asks_for_each_signature_once(site: Site) -> None:
    site.publish(0)
    site.sync()
    site.watched.operations.clear()
    site.sync()
    (site.folder / "current").unlink()  # now the pointer is read again, and its bytes are known
    site.sync()
    assert not [key for _, key in site.watched.operations if not key.startswith(("manifest.json", "blobs/"))]


def test_pinning_a_key_later_checks_what_is_served_already(site: Site) -> None:
    """Although the pointer has not changed since."""
    site.publish(0, key=None)
    assert site.open().sync().signed_by is None
    with pytest.raises(SignatureError, match="is not signed"):
        site.sync()
    assert site.serves(0)
    site.sign(A)
    result = site.sync()
    assert (result.outcome, result.signed_by) == ("unchanged", A.public.key_id)


def test_pinning_another_key_is_recovery_from_a_lost_one(site: Site) -> None:
    """docs/security.md: the publisher has a new key, and each mirror is told so by hand."""
    site.publish(0)
    site.sync()
    site.mirror = site.open(B)
    with pytest.raises(SignatureError, match="signed by key 4141414141414141"):
        site.sync()
    assert site.serves(0)
    site.publish(1, key=B)
    assert site.sync().signed_by == B.public.key_id


@pytest.mark.parametrize("key", [A, B])
def test_any_of_several_pinned_keys_will_do(site: Site, key: SecretKey) -> None:
    site.mirror = site.open(A, B)
    site.publish(0, key)
    assert site.sync().signed_by == key.public.key_id


def test_signatures_and_handovers_over_plain_http(chain: Chain, tmp_path: Path, bucket: Bucket) -> None:
    """On a real server, with its own idea of what a missing object is."""
    settings = S3Settings(
        endpoint_url=bucket.endpoint_url,
        access_key_id=bucket.access_key,
        secret_access_key=bucket.secret_key,
    )
    s3 = S3Store(bucket.bucket, "music", settings)
    site = Site(chain, tmp_path)
    mirror = Mirror(
        site.folder, HttpStore(f"{bucket.public_url}/music"), public_keys=[A.public.line], now=lambda: NOW
    )
    manifest = site.publish(0, key=C)
    keys = [blob_key(blob.digest) for blob in manifest.keyframe.blobs]
    for key in (*keys, POINTER_KEY):
        s3.put(key, site.objects[key], Overwrite())
    with pytest.raises(SignatureError, match="is not signed"):
        mirror.sync()
    s3.put(site.signature_key(), site.objects[site.signature_key()], Overwrite())
    with pytest.raises(SignatureError, match="signed by key 4343434343434343"):
        mirror.sync()
    site.hand_over(A, B)
    site.hand_over(B, C)
    for key in [key for key in site.objects if key.startswith("keys/")]:
        s3.put(key, site.objects[key], Overwrite())
    assert mirror.sync().signed_by == C.public.key_id
    assert serves(mirror, chain.files[0])
