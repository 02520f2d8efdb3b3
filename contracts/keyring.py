"""The secrets that sign tokens: the newest signs, and every one in the ring still verifies.

Invariant: no error and no `repr` of this module shows a secret, so a ring may be logged.
Rotation is appending a secret; revoking everything that a secret signed is removing it.
The bytes of a token are the business of `contracts.tokens`; reading a ring file is the caller's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

from contracts.errors import MalformedError

# docs/format.md, tokens. A key id only selects the keys to try: a collision costs one more HMAC, no security.
KID_BYTES = 4
SECRET_NAMES = ("MUSIC_CLOUD_PRIVATE_ORIGIN_SECRET", "PRIVATE_ORIGIN_SECRET")  # the first that is not empty
KEY_RING_NAME = "MUSIC_CLOUD_PRIVATE_ORIGIN_KEY_RING"
SHORT_SECRET_BYTES = (
    16  # 128 bits: what is shorter can be guessed by whoever has one token (design, section 3)
)
_KID_CONTEXT = b"music-cloud/kid/1\0"

_BLOCK_BYTES = 64  # The block of SHA-256: FIPS 180-4, section 1, table 1.
_INNER_PAD = bytes(byte ^ 0x36 for byte in range(256))  # ipad and opad of RFC 2104, section 2, as
_OUTER_PAD = bytes(byte ^ 0x5C for byte in range(256))  # tables for bytes.translate.

_PLAIN_SECRETS_KEPT = 16  # Callers with a plain secret have one or two; the bound is for tests and tools.


class SigningKey:
    """One secret, ready to authenticate: HMAC-SHA256 (RFC 2104) with both padded blocks hashed in advance.

    Copying two hash states takes 0.65 µs a message, `hmac.new(key).copy()` 1.1, `hmac.digest` 1.6
    (CPython 3.11, OpenSSL 3.0); the tests hold the result against `hmac`.
    """

    __slots__ = ("_inner", "_outer", "kid")

    def __init__(self, secret: bytes) -> None:
        self.kid = hashlib.sha256(_KID_CONTEXT + secret).digest()[:KID_BYTES]
        short = secret if len(secret) <= _BLOCK_BYTES else hashlib.sha256(secret).digest()
        block = short.ljust(_BLOCK_BYTES, b"\0")
        self._inner = hashlib.sha256(block.translate(_INNER_PAD))
        self._outer = hashlib.sha256(block.translate(_OUTER_PAD))

    def mac(self, message: bytes) -> bytes:
        """Return the 32 bytes of HMAC-SHA256 over `message`."""
        inner = self._inner.copy()
        inner.update(message)
        outer = self._outer.copy()
        outer.update(inner.digest())
        return outer.digest()


class KeyRing:
    """Secrets, oldest first; immutable, and safe to share between threads.

    Each secret is a non-empty `str` (taken as UTF-8) or `bytes`, of any length.
    `newest` is the key that signs; `shortest_secret_bytes` lets a caller warn of a secret that is too short.

    Raises:
        TypeError: `secrets` is itself one secret, or holds something that is neither `str` nor `bytes`.
        MalformedError: there is no secret, one is empty, or one is text that has no UTF-8.
    """

    __slots__ = ("_by_kid", "newest", "shortest_secret_bytes")

    def __init__(self, secrets: Sequence[str | bytes]) -> None:
        if isinstance(secrets, (str, bytes)):
            # A str is a sequence of str: its last letter would become the secret.
            raise TypeError("a key ring takes a list of secrets, not one secret")
        encoded = [_secret_bytes(secret) for secret in secrets]
        if not encoded:
            raise MalformedError("a key ring needs at least one secret")
        keys = [SigningKey(secret) for secret in encoded]
        self.newest = keys[-1]
        self.shortest_secret_bytes = min(map(len, encoded))
        self._by_kid = {key.kid: tuple(other for other in keys if other.kid == key.kid) for key in keys}

    @classmethod
    def parse(cls, text: str) -> KeyRing:
        """Return the ring that the text of a ring file describes: one secret a line, oldest first.

        White space around a secret, blank lines, lines that start with `#` and a byte order mark are ignored.

        Raises:
            MalformedError: no line holds a secret, or one is text that has no UTF-8.
        """
        # Editors on Windows begin a file with U+FEFF, which would turn a first comment into a secret.
        lines = (line.strip() for line in text.removeprefix("\ufeff").split("\n"))
        return cls([line for line in lines if line and not line.startswith("#")])

    def with_kid(self, kid: bytes) -> tuple[SigningKey, ...]:
        """Return every key that has this key id: none, one or, by collision, several."""
        return self._by_kid.get(kid, ())

    def __repr__(self) -> str:
        return f"<KeyRing of {sum(map(len, self._by_kid.values()))}, signing with {self.newest.kid.hex()}>"


class KeyMaterial(NamedTuple):
    """Where settings say the keys are: a ring file, a file with one secret, or the secret itself."""

    ring_file: str = ""
    secret_file: str = ""
    secret: str = ""


def select_key_material(settings: Mapping[str, str]) -> KeyMaterial | None:
    """What names of `settings` give the keys; None when none does. A ring comes before a single secret."""
    if settings.get(KEY_RING_NAME):
        return KeyMaterial(ring_file=settings[KEY_RING_NAME])
    for name in SECRET_NAMES:
        if settings.get(name):
            return KeyMaterial(secret=settings[name])
        if settings.get(f"{name}_FILE"):
            return KeyMaterial(secret_file=settings[f"{name}_FILE"])
    return None


def key_ring(secret: str | bytes | KeyRing) -> KeyRing:
    """Return the ring that `secret` is, or a ring of just that secret, remembered for the next call.

    Raises:
        TypeError: `secret` is neither `str`, `bytes` nor a `KeyRing`.
        MalformedError: `secret` is empty, or text that has no UTF-8.
    """
    if isinstance(secret, KeyRing):
        return secret
    if not isinstance(secret, (str, bytes)):  # Asked here: the cache would only complain of hashing.
        raise TypeError(f"a secret must be str, bytes or a KeyRing, not {type(secret).__name__}")
    return _ring_of_one(secret)


@lru_cache(maxsize=_PLAIN_SECRETS_KEPT)
def _ring_of_one(secret: str | bytes) -> KeyRing:
    return KeyRing([secret])


def _secret_bytes(secret: str | bytes) -> bytes:
    if isinstance(secret, str):
        encoded = _encode(secret)
    elif isinstance(secret, bytes):
        encoded = secret
    else:
        raise TypeError(f"a secret must be str or bytes, not {type(secret).__name__}")
    if encoded is None:
        raise MalformedError("a secret must be text that can be written as UTF-8")
    if not encoded:
        raise MalformedError("a secret must not be empty")
    return encoded


def _encode(text: str) -> bytes | None:
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError:
        # The codec's error carries the whole secret: the caller raises its own, outside of this handler.
        return None
