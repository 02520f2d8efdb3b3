"""Keys and signatures in minisign's format, so that `minisign -V` checks what we sign and we check its.

Invariant: what verifies was signed, whole, by the key that it was held against, and is in the one spelling
of its format. Comments decide nothing. No error and no `repr` of this module shows a secret key.
Signatures are Ed25519 (RFC 8032) over the BLAKE2b-512 of a message, minisign's `ED`; its legacy `Ed`, over
the message itself, is refused. Whom to trust is decided elsewhere (mirror/keys.py); so is reading files.
The formats: https://jedisct1.github.io/minisign/, "Signature format" and the two after it.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from dataclasses import dataclass
from typing import NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from contracts.errors import MalformedError, SignatureError, UnsupportedError

KEY_NUMBER_BYTES = 8
SEED_BYTES = 32  # RFC 8032, section 5.1.5: the private key
# minisign.h: COMMENTMAXBYTES 1,024 and TRUSTEDCOMMENTMAXBYTES 8,192; two lines of base64 and two prefixes.
SIGNATURE_MAX_BYTES = 10_240
KEY_FILE_MAX_BYTES = 4096  # a comment of 1,024 and 212 characters of base64
_TRUSTED_COMMENT_MAX_BYTES = 8000

_KEY_ALGORITHM = b"Ed"
_PREHASHED, _LEGACY = b"ED", b"Ed"
_KDF_NONE, _KDF_SCRYPT = b"\0\0", b"Sc"
_CHECKSUM_ALGORITHM = b"B2"
_UNTRUSTED, _TRUSTED = b"untrusted comment: ", b"trusted comment: "

_POINT_BYTES, _SIGNATURE_BYTES, _CHECKSUM_BYTES = 32, 64, 32
_PUBLIC_BYTES = 2 + KEY_NUMBER_BYTES + _POINT_BYTES
_KDF_BYTES = 32 + 8 + 8  # salt, operations, memory: of no meaning without a password
_SECRET_BYTES = 2 + 2 + 2 + _KDF_BYTES + KEY_NUMBER_BYTES + SEED_BYTES + _POINT_BYTES + _CHECKSUM_BYTES

_FIELD = 2**255 - 19
# The y of every point of order 1, 2, 4 or 8: under a key of these, anyone can sign. libsodium, which minisign
# is built on, refuses the same (ge25519_has_small_order).
_EIGHTH = 0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826
_SMALL_ORDER = frozenset({0, 1, _FIELD - 1, _EIGHTH, _FIELD - _EIGHTH})


@dataclass(frozen=True)
class PublicKey:
    """A public key: the number that names it, as stored, and the encoded point.

    The number is random and no digest of the point: it says which key to try, never whom to believe.
    Raises:
        MalformedError: when these are not the bytes of a key that can be trusted.
    """

    number: bytes
    point: bytes

    def __post_init__(self) -> None:
        if len(self.number) != KEY_NUMBER_BYTES or len(self.point) != _POINT_BYTES:
            raise MalformedError("a public key has a number of 8 bytes and a point of 32")
        y = int.from_bytes(self.point, "little") & (2**255 - 1)
        if y >= _FIELD or y in _SMALL_ORDER:
            raise MalformedError(
                "a public key with which anyone could sign, or in another spelling than its own"
            )

    @property
    def key_id(self) -> str:
        """The number as minisign shows it, with its leading zeros: 16 upper-case hexadecimal digits."""
        return format_key_id(self.number)

    @property
    def line(self) -> str:
        """The one line that mirrors pin: `RW…`."""
        return base64.b64encode(_KEY_ALGORITHM + self.number + self.point).decode()


class SecretKey:
    """A secret key: a number of 8 bytes and a seed of 32, both random.

    Raises:
        MalformedError: when they are not of these lengths.
    """

    __slots__ = ("_private", "public")

    def __init__(self, number: bytes, seed: bytes) -> None:
        if len(seed) != SEED_BYTES:
            raise MalformedError(f"the seed of a secret key has {SEED_BYTES} bytes")
        self._private = Ed25519PrivateKey.from_private_bytes(seed)
        self.public = PublicKey(number, self._private.public_key().public_bytes_raw())

    def sign(self, message: bytes, trusted_comment: str) -> bytes:
        """The signature file of a message; of the same input always the same (RFC 8032, section 5.1.6).

        Raises:
            MalformedError: when the comment is too long or holds a line break or another control but tab.
        """
        comment = trusted_comment.encode()
        if len(comment) > _TRUSTED_COMMENT_MAX_BYTES or not trusted_comment.replace("\t", " ").isprintable():
            raise MalformedError("a trusted comment is one line of printable text")
        signature = self._private.sign(_prehash(message))
        return _join_lines(
            _UNTRUSTED + b"signature by music-cloud, key " + self.public.key_id.encode(),
            base64.b64encode(_PREHASHED + self.public.number + signature),
            _TRUSTED + comment,
            base64.b64encode(self._private.sign(signature + comment)),
        )

    def format(self) -> bytes:
        """The content of an unencrypted secret key file, as `minisign -G -W` writes it, with a checksum."""
        secret = self._private.private_bytes_raw() + self.public.point
        content = _KEY_ALGORITHM + _KDF_NONE + _CHECKSUM_ALGORITHM + bytes(_KDF_BYTES)
        content += self.public.number + secret + _checksum(self.public.number, secret)
        return _join_lines(
            _UNTRUSTED + b"minisign secret key " + self.public.key_id.encode(), base64.b64encode(content)
        )

    def __repr__(self) -> str:
        return f"<SecretKey {self.public.key_id}>"


class Signature(NamedTuple):
    """A signature file, parsed; whether it is good is for `verify_signature` to say."""

    number: bytes
    signature: bytes
    trusted_comment: bytes
    global_signature: bytes

    @property
    def key_id(self) -> str:
        """The id of the key that it claims to be by."""
        return format_key_id(self.number)


def format_key_id(number: bytes) -> str:
    """The number of a key for people: minisign reads it as little-endian."""
    return f"{int.from_bytes(number, 'little'):016X}"


def format_public_key(key: PublicKey) -> bytes:
    """The content of a public key file."""
    return _join_lines(_UNTRUSTED + b"minisign public key " + key.key_id.encode(), key.line.encode())


def parse_public_key(text: str) -> PublicKey:
    """The key in a line `RW…` or in a public key file, which has a comment before that line.

    Raises:
        MalformedError: when it is neither.
    """
    lines = [line.strip() for line in text.strip().split("\n")]
    if len(lines) == 2 and lines[0].startswith(_UNTRUSTED.decode().strip()):
        del lines[0]
    content = _decode(lines[0].encode("utf-8", "replace")) if len(lines) == 1 else None
    if content is not None and len(content) == _SECRET_BYTES:
        raise MalformedError("this is a secret key; it never leaves the publisher: give the public one")
    if content is None or len(content) != _PUBLIC_BYTES or content[:2] != _KEY_ALGORITHM:
        raise MalformedError("this is not a minisign public key: a line of 56 characters that begins with RW")
    return PublicKey(content[2:10], content[10:])


def parse_secret_key(stored: bytes) -> SecretKey:
    """The key in the content of an unencrypted secret key file.

    Raises:
        MalformedError: when it is no secret key file, or a damaged one.
        UnsupportedError: when it is encrypted with a password, or in a way that we do not know.
    """
    lines = stored.replace(b"\r\n", b"\n").removesuffix(b"\n").split(b"\n")
    content = _decode(lines[1]) if len(lines) == 2 and lines[0].startswith(_UNTRUSTED) else None
    if content is None or len(content) != _SECRET_BYTES or content[:2] != _KEY_ALGORITHM:
        raise MalformedError("this is not a minisign secret key file: a comment, then a line of base64")
    kdf = content[2:4]
    if kdf == _KDF_SCRYPT:
        # Opening one takes 1 GiB of memory (libsodium's SENSITIVE limits), half of what a small NAS has.
        raise UnsupportedError(
            "this secret key is encrypted with a password, for which a publisher that runs by itself cannot "
            "ask; remove it by `minisign -C -W -s FILE`, on a machine with 1 GiB of free memory"
        )
    if kdf != _KDF_NONE or content[4:6] != _CHECKSUM_ALGORITHM:
        raise UnsupportedError("this secret key is protected in a way that this program does not know")
    number, rest = content[6 + _KDF_BYTES :][:KEY_NUMBER_BYTES], content[6 + _KDF_BYTES + KEY_NUMBER_BYTES :]
    secret, checksum = rest[:-_CHECKSUM_BYTES], rest[-_CHECKSUM_BYTES:]
    # minisign 0.11 leaves the checksum of a key without a password empty, and does not look at it.
    if any(checksum) and not hmac.compare_digest(checksum, _checksum(number, secret)):
        raise MalformedError("this secret key is damaged: its checksum is wrong")
    key = SecretKey(number, secret[:SEED_BYTES])
    if not hmac.compare_digest(key.public.point, secret[SEED_BYTES:]):
        raise MalformedError("this secret key is damaged: its halves do not belong together")
    return key


def parse_signature(stored: bytes) -> Signature:
    """The parts of a signature file.

    Raises:
        SignatureError: when it is not one, letter for letter, or of the legacy kind.
    """
    if len(stored) > SIGNATURE_MAX_BYTES:
        raise SignatureError(f"a signature of {len(stored)} bytes; {SIGNATURE_MAX_BYTES} are allowed")
    lines = stored.split(b"\n")
    if len(lines) != 5 or lines[4]:
        raise SignatureError("the signature is not four lines: it was cut short, or something was added")
    if not (lines[0].startswith(_UNTRUSTED) and lines[2].startswith(_TRUSTED)):
        raise SignatureError("the signature lacks one of its comments")
    content, global_signature = _decode(lines[1]), _decode(lines[3])
    if content is None or global_signature is None or len(global_signature) != _SIGNATURE_BYTES:
        raise SignatureError("the signature is not in base64, or not as long as one")
    if len(content) != 2 + KEY_NUMBER_BYTES + _SIGNATURE_BYTES:
        raise SignatureError("the signature is not in base64, or not as long as one")
    if content[:2] == _LEGACY:
        raise SignatureError("the signature is of minisign's legacy kind; sign without its option -l")
    if content[:2] != _PREHASHED:
        raise SignatureError("the signature is of a kind that this program does not know")
    return Signature(content[2:10], content[10:], lines[2].removeprefix(_TRUSTED), global_signature)


def verify_signature(message: bytes, signature: Signature, key: PublicKey) -> None:
    """Check that a key has signed this message, and the trusted comment beside it.

    Raises:
        SignatureError: when it has not.
    """
    if signature.number != key.number:
        raise SignatureError(f"signed by key {signature.key_id}, not by {key.key_id}")
    public = Ed25519PublicKey.from_public_bytes(key.point)
    try:
        public.verify(signature.signature, _prehash(message))
    except InvalidSignature as error:
        raise SignatureError(f"not what key {key.key_id} has signed") from error
    try:
        public.verify(signature.global_signature, signature.signature + signature.trusted_comment)
    except InvalidSignature as error:
        raise SignatureError(f"key {key.key_id} has signed it with another trusted comment") from error


def _prehash(message: bytes) -> bytes:
    return hashlib.blake2b(message).digest()


def _checksum(number: bytes, secret: bytes) -> bytes:
    return hashlib.blake2b(_KEY_ALGORITHM + number + secret, digest_size=_CHECKSUM_BYTES).digest()


def _join_lines(*lines: bytes) -> bytes:
    return b"".join(line + b"\n" for line in lines)


def _decode(line: bytes) -> bytes | None:
    """What a line of base64 holds; None when it is not in its one spelling: Python takes several."""
    try:
        content = base64.b64decode(line, validate=True)
    except ValueError:
        return None
    return content if base64.b64encode(content) == line else None
