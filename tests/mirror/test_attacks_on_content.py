"""Attacks by what is sent: too much, too slowly, something else; over memory and over real HTTP.

`Site.attack` says what holds after every one of them; docs/security.md has a row for each. Where the true key
has signed the attack, it is a publisher gone wrong, or a mirror that believes everybody.
"""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from contracts.digests import digest_bytes
from contracts.errors import DigestMismatchError, MalformedError, SignatureError, StoreUnavailable
from contracts.keyframe import encode_segment
from contracts.layout import POINTER_KEY, blob_key
from contracts.manifest import Blob, Database, Delta, Keyframe, Manifest, parse_manifest
from contracts.page_delta import BLOB_MAGIC, format_page_list
from contracts.zstd_api import zstd
from tests.mirror.simulator import A, Site

BOMB_BYTES = 64 << 20
TEBIBYTE = 1 << 40
# What a server has sent before it hears that the client has left: what the sockets between them hold.
BUFFERED_BYTES = 16 << 20
CHECKED: dict[int, int] = {
    zstd.CompressionParameter.content_size_flag: 1,
    zstd.CompressionParameter.checksum_flag: 1,
}


def newest(site: Site) -> Manifest:
    return parse_manifest(site.objects[POINTER_KEY])


def newest_blob(site: Site) -> str:
    """The key of a blob without which nobody gets to the newest database."""
    return blob_key(newest(site).deltas[-1].blobs[0].digest)


def key_of(site: Site, part: str) -> str:
    keys = {"pointer": POINTER_KEY, "signature": site.signature_key(), "blob": newest_blob(site)}
    return keys[part]


def whole(site: Site, content: bytes) -> dict[str, Any]:
    """The fields of a manifest whose database is this content, in one blob."""
    frame = encode_segment(content)
    database = Database(digest_bytes(content), len(content))
    return {
        "database": database,
        "deltas": (),
        "keyframe": Keyframe(database, 16 << 20, (site.chain.put(frame),)),
    }


def test_mix_and_match_of_blobs(attacked: Site) -> None:
    """A true blob of one snapshot in the place of another's."""
    with attacked.attack(DigestMismatchError, "should have the digest"):
        other = attacked.chain.deltas[1].blobs[0].digest
        attacked.objects[newest_blob(attacked)] = attacked.objects[blob_key(other)]


@pytest.mark.parametrize(
    ("part", "error", "alarm"),
    [
        ("pointer", MalformedError, "manifest.json: an object of 1099511627776 bytes; 1048576 are allowed"),
        ("signature", SignatureError, "minisig: an object of 1099511627776 bytes; 10240 are allowed"),
        ("blob", DigestMismatchError, "more bytes"),
    ],
)
def test_endless_data(attacked: Site, part: str, error: type[Exception], alarm: str) -> None:
    before_bytes = attacked.edge.sent_bytes
    with attacked.attack(error, alarm):
        attacked.answer(key_of(attacked, part), announced_bytes=TEBIBYTE, is_endless=True)
    assert attacked.edge.sent_bytes - before_bytes < BUFFERED_BYTES


@pytest.mark.parametrize("part", ["pointer", "signature", "blob"])
def test_slow_retrieval(attacked: Site, part: str) -> None:
    """A byte every ten seconds or more: each answer is given up and asked for again where it broke off, until
    the object is given up."""
    with attacked.attack(StoreUnavailable, r"came too slowly: \d+ bytes in \d+ s"):
        attacked.answer(key_of(attacked, part), piece_bytes=1)
        attacked.clock.step_s = 10


def test_decompression_bomb_in_a_keyframe(attacked: Site) -> None:
    """64 MiB of zeros are 2 KB; what is promised is 50 KB."""
    with attacked.attack(MalformedError, "decompresses to more than its 50000 bytes", republish=True):
        bomb = attacked.chain.put(encode_segment(bytes(BOMB_BYTES), level=1))
        database = Database("d" * 64, 50_000)
        attacked.forge(database=database, deltas=(), keyframe=Keyframe(database, 64 << 10, (bomb,)))


def test_decompression_bomb_in_a_delta(attacked: Site) -> None:
    with attacked.attack(MalformedError, f"a frame of {BOMB_BYTES} bytes; 4096 are allowed", republish=True):
        pages = zstd.compress(format_page_list([0]), options=CHECKED)
        bomb = zstd.compress(bytes(BOMB_BYTES), options=CHECKED)
        blob = attacked.chain.put(BLOB_MAGIC + len(pages).to_bytes(4, "little") + pages + bomb)
        (delta,) = newest(attacked).deltas
        attacked.forge(deltas=(replace(delta, blobs=(blob,)),))


def test_decompression_bomb_on_the_way(attacked: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A chain over a database that the disk has no room for, although both of its ends are small."""
    usage = shutil.disk_usage(attacked.folder)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1 << 30))
    with attacked.attack(MalformedError, "that the deltas lead over needs 16384 MiB", republish=True):
        (delta,) = newest(attacked).deltas
        huge = Database("d" * 64, 16 << 30)
        attacked.forge(deltas=(replace(delta, target=huge), replace(delta, base=huge)))


def test_wrong_file(attacked: Site) -> None:
    """The page of a captive portal, say, with status 200."""
    page = b"<!doctype html><title>Please log in</title>"
    with attacked.attack(DigestMismatchError, "should have the digest"):
        attacked.answer(newest_blob(attacked), content=page, announced_bytes=len(page))


def test_wrong_file_in_the_place_of_the_pointer(attacked: Site) -> None:
    page = b"<!doctype html><title>Please log in</title>"
    with attacked.attack(SignatureError, "manifest.json is not signed"):
        attacked.answer(POINTER_KEY, content=page, announced_bytes=len(page))


def test_wrong_file_that_is_signed(attacked: Site) -> None:
    with attacked.attack(MalformedError, "file is not a database", republish=True):
        attacked.forge(**whole(attacked, b"no SQLite database " * 1000))


@pytest.mark.parametrize("lie", [-1, 1])
def test_lying_size_of_a_blob_in_the_manifest(attacked: Site, lie: int) -> None:
    with attacked.attack(DigestMismatchError, "should have the digest", republish=True):
        (delta,) = newest(attacked).deltas
        (blob,) = delta.blobs
        attacked.forge(deltas=(replace(delta, blobs=(Blob(blob.digest, blob.size_bytes + lie),)),))


def test_lying_size_of_the_database_in_the_manifest(attacked: Site) -> None:
    with attacked.attack(MalformedError, "a blob decompresses to more than its", republish=True):
        keyframe = attacked.chain.make_keyframe(1)
        lie = Database(keyframe.database.digest, keyframe.database.size_bytes - 1)
        attacked.forge(database=lie, deltas=(), keyframe=replace(keyframe, database=lie))


def test_lying_size_beyond_what_a_mirror_takes(attacked: Site) -> None:
    """Refused before anything is fetched for it."""
    with attacked.attack(
        MalformedError, "a database of 1099511627776 bytes; this mirror takes", republish=True
    ):
        (delta,) = newest(attacked).deltas
        huge = Delta(Database(delta.base.digest, TEBIBYTE), delta.target, delta.blobs)
        attacked.forge(deltas=(huge,), keyframe=attacked.chain.make_keyframe(1))


def test_lying_content_length_that_is_too_short(attacked: Site) -> None:
    with attacked.attack(DigestMismatchError, "should have the digest"):
        attacked.answer(newest_blob(attacked), announced_bytes=100)


def test_lying_content_length_that_is_too_long(attacked: Site) -> None:
    with attacked.attack(StoreUnavailable, "blobs/"):
        key = newest_blob(attacked)
        attacked.answer(key, announced_bytes=len(attacked.objects[key]) + 1)


HOSTILE = {
    "CREATE TRIGGER evil AFTER INSERT ON catalog_tracks BEGIN SELECT 1; END": "changed: trigger evil",
    "CREATE VIEW evil AS SELECT 1": "changed: view evil",
    "CREATE VIRTUAL TABLE evil USING fts5(x)": "changed: table evil",
    "CREATE TABLE evil(x)": "changed: table evil",
    "CREATE INDEX evil ON catalog_tracks(name)": "changed: index evil",
    "ALTER TABLE catalog_tracks ADD COLUMN evil DEFAULT (1)": "changed: table catalog_tracks",
    "DROP INDEX catalog_tracks_by_remote_id": "missing: index catalog_tracks_by_remote_id",
    "PRAGMA application_id=1": "application id 0x1 and user version 1",
    "PRAGMA user_version=2": "user version 2",
}


@pytest.mark.parametrize("is_signed", [True, False], ids=["signed", "unsigned"])
@pytest.mark.parametrize(("statement", "alarm"), HOSTILE.items(), ids=lambda text: text[:24])
def test_hostile_schema(attacked: Site, tmp_path: Path, statement: str, alarm: str, is_signed: bool) -> None:
    """Signed by the true key, or for a mirror that does not ask: not one statement of it ever runs."""
    evil = Path(shutil.copy(attacked.chain.files[0], tmp_path / "evil.db"))
    with closing(sqlite3.connect(evil)) as connection:
        connection.execute(statement)
        connection.commit()
    if not is_signed:
        attacked.mirror = attacked.open()
    with attacked.attack(MalformedError, alarm, republish=True):
        attacked.forge(A if is_signed else None, **whole(attacked, evil.read_bytes()))
