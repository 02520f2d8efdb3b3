"""Which keys a mirror trusts: those that it has pinned, and those that they have handed over to.

Invariant: a key that has handed over signs nothing new, and its successor is the one that it named first. No
I/O happens here; keys and what they have signed go in, a proof or an error comes out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from contracts.digests import digest_bytes
from contracts.errors import MalformedError, SignatureError
from contracts.manifest import Digest
from contracts.minisign import PublicKey, Signature, parse_public_key, verify_signature
from contracts.succession import SignedSuccession, verify_succession

MAX_SUCCESSIONS = 64  # a key a year for a working life; only ends a walk that never would


class Followed(msgspec.Struct, frozen=True):
    """A key that has handed over, its successor, and the digest of what it signed to say so.

    Keys are whole lines: an id is chosen by whoever makes a key, and proves nothing.
    """

    old: str
    new: str
    digest: Digest


class Proof(NamedTuple):
    """Who has signed a manifest, whether that key has handed over, and all that have.

    Nobody (None) is who signed for a mirror that does not ask.
    """

    signed_by: PublicKey | None
    is_retired: bool
    followed: tuple[Followed, ...]


class Keys:
    """The pinned keys, and where they lead.

    Raises:
        MalformedError: when two of them have one id, or what was followed leads nowhere.
    """

    def __init__(self, pinned: Sequence[PublicKey], followed: tuple[Followed, ...] = ()) -> None:
        self.pinned = tuple(pinned)
        self.followed = followed
        self._successors = {parse_public_key(step.old): parse_public_key(step.new) for step in followed}
        # Also those that are pinned no more: caches may still have what they signed.
        self._retired = {*self._successors}
        self.current = tuple(dict.fromkeys(self._chain(key)[-1] for key in self.pinned))
        self._by_number = {key.number: key for key in (*self.current, *self._retired)}
        if len(self._by_number) != len({*self.current, *self._retired}):
            raise MalformedError("two different public keys have the same id; pin one of them")

    def find_signer(self, signature: Signature) -> PublicKey | None:
        """The key of ours, trusted or retired, that a signature claims to be by."""
        return self._by_number.get(signature.number)

    def is_current(self, line: str | None) -> bool:
        """Whether this line is a key that may sign what is new."""
        return line in [key.line for key in self.current]

    def follow(self, old: PublicKey, succession: SignedSuccession) -> Keys:
        """The keys after one of the current ones has handed over.

        Raises:
            SignatureError: when that key did not sign this, or hands over in a circle or too often.
            MalformedError: when what it signed names no successor.
        """
        new = verify_succession(succession, old)
        if old in self._chain(new):
            raise SignatureError(f"key {old.key_id} hands over in a circle")
        if len(self.followed) >= MAX_SUCCESSIONS:
            raise SignatureError(
                f"the keys have handed over more than {MAX_SUCCESSIONS} times; pin the newest"
            )
        step = Followed(old.line, new.line, digest_bytes(succession.stored))
        return Keys(self.pinned, (*self.followed, step))

    def prove(self, stored: bytes, signature: Signature) -> Proof:
        """The proof that one of these keys has signed these bytes.

        Raises:
            SignatureError: when none has.
        """
        signer = self.find_signer(signature)
        if signer is None:
            trusted = " or ".join(key.key_id for key in self.current)
            raise SignatureError(f"signed by key {signature.key_id}; this mirror trusts {trusted}")
        verify_signature(stored, signature, signer)
        return Proof(signer, signer in self._retired, self.followed)

    def _chain(self, key: PublicKey) -> list[PublicKey]:
        """A key and those that followed it, in order."""
        chain = [key]
        while chain[-1] in self._successors:
            if len(chain) > len(self.followed):
                raise MalformedError("what this mirror remembers of its keys leads in a circle")
            chain.append(self._successors[chain[-1]])
        return chain
