"""A signed bucket that anybody may change, and a mirror of it that pins a key."""

from __future__ import annotations

from pathlib import Path

from contracts.digests import digest_bytes
from contracts.layout import POINTER_KEY, Kind, format_key
from contracts.manifest import Manifest
from contracts.minisign import SecretKey
from contracts.succession import sign_succession, succession_keys
from mirror import Mirror, SyncResult
from tests.faults import FaultyStore
from tests.mirror.chain import NOW, Chain, serves

A, B, C, D = (SecretKey(letter * 8, letter * 32) for letter in (b"A", b"B", b"C", b"D"))
EVIL = SecretKey(A.public.number, b"!" * 32)  # anybody can take the number of a key for his own
COMMENT = "timestamp:1\tfile:m\thashed"


class Site:
    """A bucket that anybody may change, and a mirror of it."""

    def __init__(self, chain: Chain, folder: Path) -> None:
        self.chain = chain
        self.objects = chain.store.objects
        self.watched = FaultyStore(chain.store)
        self.folder = folder / "mirror"
        self.mirror = self.open(A)

    def open(self, *pinned: SecretKey) -> Mirror:
        """The mirror, started again with these keys; without one it believes everything."""
        keys = [key.public for key in pinned]
        return Mirror(self.folder, self.watched, public_keys=keys, unsigned=not keys, now=lambda: NOW)

    def publish(self, last: int, key: SecretKey | None = A) -> Manifest:
        """Publish a database of the chain, signed."""
        manifest = self.chain.point(last)
        if key is not None:
            self.sign(key)
        return manifest

    def sign(self, key: SecretKey) -> None:
        """Put a signature of what the pointer is now, whatever was there."""
        self.objects[self.signature_key()] = key.sign(self.objects[POINTER_KEY], COMMENT)

    def signature_key(self) -> str:
        return format_key(Kind.SIGNATURE, digest_bytes(self.objects[POINTER_KEY]))

    def hand_over(self, old: SecretKey, new: SecretKey) -> None:
        succession = sign_succession(old, new.public)
        name, signature_name = succession_keys(old.public.key_id)
        self.objects[name], self.objects[signature_name] = succession.stored, succession.signature

    def sync(self) -> SyncResult:
        return self.mirror.sync()

    def serves(self, number: int) -> bool:
        return serves(self.mirror, self.chain.files[number])
