"""A second implementation of tokens, version 1, and the golden vectors that it writes.

Invariant: nothing here is imported from the project. The bytes are put together by hand from docs/format.md,
the msgpack specification and RFC 2104, so a mistake in our codec cannot vouch for itself.

    python -m tests.contracts.token_reference > tests/vectors/tokens.json
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import struct
import sys
from typing import TypedDict

STREAM, LEASE, LISTEN = 1, 2, 3
SECRET = "the vectors' secret, never a real one"
NEWER_SECRET = "another secret, appended later"
COLLIDING_SECRETS = ("collision-10938", "collision-12308")  # Both have the key id 05aaff87; found by trying.
NOW = 1_800_000_000

Value = str | int


class Accepted(TypedDict):
    """A token, and what `verify` must make of it."""

    name: str
    secrets: list[str]
    kind: int
    now: int
    claims: list[Value]
    key_id_hex: str
    claims_hex: str
    mac_hex: str
    token: str


class Refused(TypedDict):
    """A token, and the name of the error that `verify` must raise."""

    name: str
    secrets: list[str]
    kind: int
    now: int
    error: str
    token: str


def msgpack_uint(number: int) -> bytes:
    """Write a whole number in the shortest of msgpack's unsigned forms."""
    if number < 0x80:
        return struct.pack("B", number)
    if number <= 0xFF:
        return b"\xcc" + struct.pack(">B", number)
    if number <= 0xFFFF:
        return b"\xcd" + struct.pack(">H", number)
    if number <= 0xFFFF_FFFF:
        return b"\xce" + struct.pack(">I", number)
    return b"\xcf" + struct.pack(">Q", number)


def msgpack_str(text: str) -> bytes:
    """Write text in the shortest of msgpack's string forms."""
    utf8 = text.encode()
    if len(utf8) <= 31:
        return struct.pack("B", 0xA0 | len(utf8)) + utf8
    if len(utf8) <= 0xFF:
        return b"\xd9" + struct.pack(">B", len(utf8)) + utf8
    return b"\xda" + struct.pack(">H", len(utf8)) + utf8


def msgpack_claims(claims: list[Value]) -> bytes:
    items = [msgpack_str(item) if isinstance(item, str) else msgpack_uint(item) for item in claims]
    return struct.pack("B", 0x90 | len(items)) + b"".join(items)


def key_id(secret: str | bytes) -> bytes:
    return hashlib.sha256(b"music-cloud/kid/1\0" + _bytes(secret)).digest()[:4]


def sign(claims: bytes, secret: str | bytes = SECRET, kind: int = STREAM, version: int = 1) -> bytes:
    """Return the bytes of a token around claims that may be anything."""
    signed = bytes([version, kind]) + key_id(secret) + claims
    return signed + hmac.new(_bytes(secret), signed, "sha256").digest()


def text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def full(locator: str, expires_at: int = NOW + 60, *rest: Value) -> list[Value]:
    """Return the seven claims, the later ones at their defaults."""
    defaults: list[Value] = [locator, expires_at, 0, 0, "", "inline", ""]
    given: list[Value] = [locator, expires_at, *rest]
    return given + defaults[len(given) :]


def _bytes(secret: str | bytes) -> bytes:
    return secret.encode() if isinstance(secret, str) else secret


def accepted_vectors() -> list[Accepted]:
    long_network = "2001:1db8:1111:2222:3333:4444:5555:6666/128"
    widest = full("长" * 341 + "x", 253402300799, 2**32, 2**31 - 1, "𝄞" * 255, "attachment", long_network)
    everything = full(
        "loc:184467.0a1b2c3d", NOW + 21600, NOW - 5, 243, "夜曲.flac", "attachment", "203.0.113.0/24"
    )
    rows: list[tuple[str, list[str], str, int, list[Value]]] = [
        ("only what is needed", [SECRET], SECRET, STREAM, full("loc:42.9f86d081")),
        ("every claim, a lease", [SECRET], SECRET, LEASE, everything),
        ("a listen token", [SECRET], SECRET, LISTEN, full("loc:42.9f86d081", NOW + 86400)),
        ("the longest token", [SECRET], SECRET, STREAM, widest),
        ("numbers of one and three bytes", [SECRET], SECRET, STREAM, full("a", NOW + 1, 127, 65535)),
        ("numbers of two and five bytes", [SECRET], SECRET, STREAM, full("a", NOW + 1, 128, 65536)),
        ("numbers of three and nine bytes", [SECRET], SECRET, STREAM, full("a", 4294967296, 256, 255)),
        ("text of 31 bytes", [SECRET], SECRET, STREAM, full("x" * 31)),
        ("text of 32 bytes", [SECRET], SECRET, STREAM, full("x" * 32)),
        ("text of 255 bytes", [SECRET], SECRET, STREAM, full("x" * 255)),
        ("text of 256 bytes", [SECRET], SECRET, STREAM, full("x" * 256)),
        (
            "an IPv6 network",
            [SECRET],
            SECRET,
            STREAM,
            full("a", NOW + 1, 0, 0, "", "inline", "2001:db8::/32"),
        ),
        ("a secret of one byte", ["k"], "k", STREAM, full("a")),
        ("a secret of exactly one block", ["k" * 64], "k" * 64, STREAM, full("a")),
        ("a secret longer than one block", ["k" * 65], "k" * 65, STREAM, full("a")),
        ("a secret that is not ASCII", ["密钥🔑"], "密钥🔑", STREAM, full("a")),
        ("an older key of a ring", [SECRET, NEWER_SECRET], SECRET, STREAM, full("a")),
        ("the newest key of a ring", [SECRET, NEWER_SECRET], NEWER_SECRET, STREAM, full("a")),
        ("key ids that collide, the older", [*COLLIDING_SECRETS], COLLIDING_SECRETS[0], STREAM, full("a")),
        ("key ids that collide, the newer", [*COLLIDING_SECRETS], COLLIDING_SECRETS[1], STREAM, full("a")),
    ]
    vectors: list[Accepted] = []
    for name, secrets, signer, kind, claims in rows:
        raw = sign(msgpack_claims(claims), signer, kind)
        vectors.append(
            {
                "name": name,
                "secrets": secrets,
                "kind": kind,
                "now": max(NOW, int(claims[2])),
                "claims": claims,
                "key_id_hex": raw[2:6].hex(),
                "claims_hex": raw[6:-32].hex(),
                "mac_hex": raw[-32:].hex(),
                "token": text(raw),
            }
        )
    return vectors


def refused_vectors() -> list[Refused]:
    claims = msgpack_claims(full("loc:42.9f86d081"))
    good = text(sign(claims))
    tail = msgpack_claims(full("a"))[
        3 + 5 :
    ]  # What follows the array, the locator "a" and five bytes of time.
    head = b"\x97" + msgpack_str("a")
    time = msgpack_uint(NOW + 60)
    dashed = next(t for n in range(99) if "-" in (t := text(sign(msgpack_claims(full(f"a{n}"))))))
    scored = next(t for n in range(99) if "_" in (t := text(sign(msgpack_claims(full(f"a{n}"))))))
    ragged = next(t for n in range(9) if len(t := text(sign(msgpack_claims(full("a" * (n + 1)))))) % 4)

    def with_claim(at: int, value: Value) -> bytes:
        changed = full("a")
        changed[at] = value
        return msgpack_claims(changed)

    spelled = [
        ("no text", ""),
        ("only a header and a MAC cut short", good[:50]),
        ("padding", ragged + "=" * (-len(ragged) % 4)),
        ("stray bits in the last character", ragged[:-1] + chr(ord(ragged[-1]) + 1)),
        ("the other alphabet, +", dashed.replace("-", "+")),
        ("the other alphabet, /", scored.replace("_", "/")),
        ("a line feed at the end", good + "\n"),
        ("a space in the middle", good[:40] + " " + good[40:]),
        ("one character more than base64 has", good + "A" * (1 + -len(good) % 4)),
        ("a letter that is not ASCII", good[:-1] + "é"),
        ("longer than any token", "A" * 2892),
        ("version 0", text(sign(claims, version=0))),
        ("version 2", text(sign(claims, version=2))),
    ]
    encoded = [
        ("no claims", b""),
        ("not an array", msgpack_str("a")),
        ("six claims", b"\x96" + msgpack_claims(full("loc:42.9f86d081"))[1:-1]),
        ("two claims", b"\x92" + msgpack_str("a") + time),
        ("eight claims", b"\x98" + claims[1:] + b"\xc0"),
        ("a byte behind the claims", claims + b"\0"),
        ("the array in a long form", b"\xdc\0\x07" + claims[1:]),
        ("text in a long form", b"\x97\xd9\x01a" + time + tail),
        ("a number in a long form", head + b"\xcf" + struct.pack(">Q", NOW + 60) + tail),
        ("a number in a signed form", head + b"\xd2" + struct.pack(">i", NOW + 60) + tail),
        ("a fraction for a time", head + b"\xcb" + struct.pack(">d", NOW + 60) + tail),
        ("true for a time", head + b"\xc3" + tail),
        ("nil for a time", head + b"\xc0" + tail),
        ("a negative time", head + b"\xff" + tail),
        ("a time after the year 9999", head + msgpack_uint(253402300800) + tail),
        ("the largest number of msgpack for a time", head + msgpack_uint(2**64 - 1) + tail),
        ("bytes for the locator", b"\x97\xc4\x01a" + time + tail),
        ("text that is not UTF-8", b"\x97\xa1\xff" + time + tail),
        ("a surrogate in UTF-8", b"\x97\xa3\xed\xa0\x80" + time + tail),
        ("arrays nested to the end", head + time + b"\x91" * 2000),
        ("no locator", with_claim(0, "")),
        ("a locator of 1025 bytes", with_claim(0, "x" * 1025)),
        ("a start after the year 9999", with_claim(2, 253402300800)),
        ("a duration of 2**31", with_claim(3, 2**31)),
        ("a file name of 256 characters", with_claim(4, "x" * 256)),
        ("a line break in the file name", with_claim(4, "a\r\nb")),
        ("a slash in the file name", with_claim(4, "a/b")),
        ("a backslash in the file name", with_claim(4, "a\\b")),
        ("a disposition that does not exist", with_claim(5, "form-data")),
        ("an address for a network", with_claim(6, "203.0.113.7")),
        ("a network with host bits", with_claim(6, "203.0.113.7/24")),
        ("a network with a netmask", with_claim(6, "203.0.113.0/255.255.255.0")),
        ("an IPv6 network not in RFC 5952", with_claim(6, "2001:DB8::/32")),
        ("an IPv4-mapped network", with_claim(6, "::ffff:cb00:7100/120")),
        ("a network with a zone", with_claim(6, "fe80::1%eth0/128")),
    ]
    early = msgpack_claims(full("a", NOW + 60, NOW + 1))
    said = [
        ("an unknown key", "UnknownKey", sign(claims, "a stranger")),
        ("a MAC by another key", "BadSignature", sign(claims)[:-32] + sign(claims, "a stranger")[-32:]),
        ("an unknown key, and expired", "UnknownKey", sign(msgpack_claims(full("a", 1)), "a stranger")),
        ("expired, and its MAC is wrong", "BadSignature", sign(msgpack_claims(full("a", 1)))[:-1] + b"\0"),
        ("a lease for a stream", "WrongKind", sign(claims, kind=LEASE)),
        ("a kind that does not exist", "WrongKind", sign(claims, kind=9)),
        ("before its first second", "NotYetValid", sign(early)),
        ("at its last second", "ExpiredToken", sign(msgpack_claims(full("a", NOW)))),
        ("expired at the epoch", "ExpiredToken", sign(msgpack_claims(full("a", 0)))),
    ]
    rows = [(name, "MalformedToken", token) for name, token in spelled]
    rows += [(name, "MalformedToken", text(sign(encoding))) for name, encoding in encoded]
    rows += [(name, error, text(raw)) for name, error, raw in said]
    return [
        {"name": name, "secrets": [SECRET], "kind": STREAM, "now": NOW, "error": error, "token": token}
        for name, error, token in rows
    ]


def vectors_json() -> str:
    vectors = {"accepted": accepted_vectors(), "refused": refused_vectors()}
    return json.dumps(vectors, ensure_ascii=True, indent=1) + "\n"


if __name__ == "__main__":
    sys.stdout.write(vectors_json())
