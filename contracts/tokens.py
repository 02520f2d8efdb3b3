"""Signed, expiring tokens, version 1: the origin's whole authorisation, with no state on any machine.

Invariant: a token has exactly one spelling. What `verify_origin_token` accepts is, byte for byte, what
`create_origin_token` would write for the same key, kind and claims; `docs/format.md` specifies it.
Nothing is decoded before its MAC was good, and no error holds the token, the secret or the locator.

    token   = base64url without padding of: version (1), kind (1), key id (4), claims, MAC (32)
    claims  = the msgpack array of the seven fields of `OriginClaims`, in order, each in its shortest form
    MAC     = HMAC-SHA256 by the key over every byte before it

Secrets and their key ids live in `contracts.keyring`. How long a token may live, and whether `client_network`
matches the client, is the origin's to decide.
"""

from __future__ import annotations

import binascii
import re
from enum import IntEnum
from hmac import compare_digest
from ipaddress import IPv6Network, ip_network
from typing import Any, Literal

import msgspec
from msgspec.structs import astuple

from contracts.errors import BadSignature, ExpiredToken, MalformedToken, NotYetValid, UnknownKey, WrongKind
from contracts.keyring import KID_BYTES, KeyRing, key_ring

VERSION = 1
MAX_TIME_S = 253_402_300_799  # 9999-12-31T23:59:59Z, the last second that RFC 3339 can write.
MAX_DURATION_S = 2**31 - 1  # 68 years: a signed 32-bit integer in every language that reads this.
MAX_LOCATOR_BYTES = 1024  # The longest object key of S3 ("Creating object key names", Amazon S3 User Guide).
MAX_FILE_NAME_CHARS = 255  # The longest name in NTFS, and never less than NAME_MAX of ext4 (255 bytes).
MAX_TOKEN_CHARS = 2891  # The token with every claim at its longest; a test builds that token.

_SECONDS = (int, float)
_CLAIMS_AT = 2 + KID_BYTES  # Behind the version, the kind and the key id.
_MAC_BYTES = 32  # SHA-256's digest, not truncated.

_FROM_URL_ALPHABET = bytes.maketrans(b"-_", b"+/")  # RFC 4648, section 5, to section 4,
_TO_URL_ALPHABET = bytes.maketrans(b"+/", b"-_")  # and back.
_PADDING = (b"", b"=", b"==", b"===")  # By -length mod 4; the last is no base64, and binascii says so.

# Unicode's category Cc, which no later version of Unicode can extend, and both path separators.
_NOT_IN_A_FILE_NAME = re.compile(r"[\x00-\x1f\x7f-\x9f/\\]")

Disposition = Literal["inline", "attachment"]


class TokenKind(IntEnum):
    """What a token is good for; a token of one kind never passes for another."""

    STREAM = 1  # Streams one file.
    LEASE = 2  # Is exchanged for fresh stream tokens.
    LISTEN = 3  # Opens a page that embeds both.


class OriginClaims(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, gc=False):
    """What a token asserts. The order of the fields is the format: never reorder, insert or append.

    `expires_at` and `not_before` are whole Unix seconds, from 0 to `MAX_TIME_S`.
    `duration_s` is the track's length in seconds, 0 when it is not known.
    `client_network` is empty (any client) or a network as `str(ipaddress.ip_network(...))` spells it.
    """

    locator: str
    expires_at: int
    not_before: int = 0
    duration_s: int = 0
    file_name: str = ""
    disposition: Disposition = "inline"
    client_network: str = ""


_HEADERS = {kind: bytes((VERSION, kind)) for kind in TokenKind}
_encode_claims = msgspec.msgpack.Encoder().encode
_decode_claims = msgspec.msgpack.Decoder(OriginClaims).decode


def create_origin_token(
    secret: str | bytes | KeyRing,
    locator: str,
    expires_at: int,
    *,
    kind: TokenKind = TokenKind.STREAM,
    not_before: int = 0,
    duration_s: int = 0,
    file_name: str = "",
    disposition: Disposition = "inline",
    client_network: str = "",
) -> str:
    """Return a token for `locator`, signed by the newest key of `secret` and refused from `expires_at` on.

    The claims are those of `OriginClaims`. The result is ASCII, safe in a URL, and has at most
    `MAX_TOKEN_CHARS` characters.

    Raises:
        TypeError: `secret` is neither `str`, `bytes` nor a `KeyRing`, or `kind` is no `TokenKind`.
        MalformedError: `secret` is empty, or text that has no UTF-8.
        MalformedToken: a claim is of the wrong type or outside its bounds (a bool is no whole number).
    """
    ring = key_ring(secret)
    if not isinstance(kind, TokenKind):
        raise TypeError(f"kind must be a TokenKind, not {type(kind).__name__}")
    claims = (locator, expires_at, not_before, duration_s, file_name, disposition, client_network)
    if fault := _fault_in(*claims):
        raise MalformedToken(fault)
    key = ring.newest
    signed = _HEADERS[kind] + key.kid + _encode_claims(claims)
    return _format_text(signed + key.mac(signed)).decode("ascii")


def verify_origin_token(
    secret: str | bytes | KeyRing,
    token: str,
    now: float,
    *,
    kind: TokenKind = TokenKind.STREAM,
) -> OriginClaims:
    """Return what `token` asserts, if a key of `secret` signed it for this kind and it is valid at `now`.

    `now` is in Unix seconds, whole or not; one that is not a number (NaN) finds every token expired.
    The checks run in the order of the errors below, so everything after `BadSignature` is said only of tokens
    that we signed. Any text at all may be given: no other error escapes.

    Raises:
        TypeError: `secret`, `token`, `now` or `kind` is not of its type, whatever the token says.
        MalformedError: `secret` is empty, or text that has no UTF-8.
        MalformedToken: the text is too long, not base64url in its one spelling, too short or of another
            version.
        UnknownKey: no key of the ring has the token's key id.
        BadSignature: the MAC is not by that key.
        WrongKind: it was signed for another purpose.
        MalformedToken: the claims do not decode, are outside their bounds or not in their shortest form.
        NotYetValid: `now` is before `not_before`.
        ExpiredToken: `now` is `expires_at` or later.
    """
    ring = key_ring(secret)
    if not isinstance(kind, TokenKind):
        raise TypeError(f"kind must be a TokenKind, not {type(kind).__name__}")
    if not isinstance(token, str):
        raise TypeError(f"a token must be a str, not {type(token).__name__}")
    if not isinstance(now, _SECONDS):
        raise TypeError(f"now must be a number of Unix seconds, not {type(now).__name__}")

    raw = _parse_text(token)
    if raw[0] != VERSION:
        raise MalformedToken(f"the token is of version {raw[0]}; only version {VERSION} is known")
    signed, claims_bytes, mac = raw[:-_MAC_BYTES], raw[_CLAIMS_AT:-_MAC_BYTES], raw[-_MAC_BYTES:]
    keys = ring.with_kid(raw[2:_CLAIMS_AT])
    if not keys:
        raise UnknownKey(f"no key in the ring has the token's key id {raw[2:_CLAIMS_AT].hex()}")
    for key in keys:
        if compare_digest(key.mac(signed), mac):
            break
    else:
        raise BadSignature(f"the token was not signed by the key {raw[2:_CLAIMS_AT].hex()} that it names")

    if raw[1] != kind:
        raise WrongKind(f"the token is of kind {raw[1]}; kind {kind.value} ({kind.name.lower()}) is needed")
    claims = _parse_claims(claims_bytes)
    if now < claims.not_before:
        raise NotYetValid(f"the token is valid from {claims.not_before} on; it is {now} now")
    if not now < claims.expires_at:  # Not `>=`: a NaN must find it expired.
        raise ExpiredToken(f"the token expired at {claims.expires_at}; it is {now} now")
    return claims


def _format_text(raw: bytes) -> bytes:
    return binascii.b2a_base64(raw).translate(_TO_URL_ALPHABET, b"=\n")  # Also drops what b2a appends.


def _parse_text(token: str) -> bytes:
    """Return the bytes of a token, at least a header and a MAC of them, or raise `MalformedToken`."""
    if len(token) > MAX_TOKEN_CHARS:
        raise MalformedToken(f"the token has {len(token)} characters; at most {MAX_TOKEN_CHARS} are allowed")
    if not token.isascii():  # Asked here: the codec's error would carry the token.
        raise MalformedToken("the token is not base64url without padding")
    text = token.encode("ascii")
    try:
        raw = binascii.a2b_base64(text.translate(_FROM_URL_ALPHABET) + _PADDING[-len(text) % 4])
    except binascii.Error:
        raw = b""
    # binascii skips what is not base64 and ignores the stray bits of the last character. Writing the bytes
    # again and comparing refuses those, the other alphabet, padding and white space at once.
    if _format_text(raw) != text:
        raise MalformedToken("the token is not base64url without padding")
    if len(raw) < _CLAIMS_AT + _MAC_BYTES:
        raise MalformedToken("the token is too short")
    return raw


def _parse_claims(claims_bytes: bytes) -> OriginClaims:
    """Return the claims if they are within bounds and in their one spelling, or raise `MalformedToken`."""
    try:
        claims = _decode_claims(claims_bytes)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        claims = None  # Raised below and not from here: the codec's error would carry the locator.
    if claims is None:
        raise MalformedToken("the token's claims are not the seven values of version 1")
    if fault := _fault_in(*astuple(claims)):
        raise MalformedToken(fault)
    if _encode_claims(claims) != claims_bytes:
        raise MalformedToken("the token's claims are not written in their shortest form")
    return claims


def _fault_in(
    locator: Any,
    expires_at: Any,
    not_before: Any,
    duration_s: Any,
    file_name: Any,
    disposition: Any,
    client_network: Any,
) -> str | None:
    """Return what is wrong with the claims as a sentence that names no value, or None.

    The one statement of the bounds: what is created passes it, and so does what is verified.
    Types are exact, because `bool` is an `int` and msgspec writes no subclass of `str`.
    """
    if type(locator) is not str or not 0 < _utf8_size(locator) <= MAX_LOCATOR_BYTES:
        return f"locator must be text of 1 to {MAX_LOCATOR_BYTES} bytes in UTF-8"
    if type(expires_at) is not int or not 0 <= expires_at <= MAX_TIME_S:
        return f"expires_at must be a whole number of Unix seconds from 0 to {MAX_TIME_S}"
    if type(not_before) is not int or not 0 <= not_before <= MAX_TIME_S:
        return f"not_before must be a whole number of Unix seconds from 0 to {MAX_TIME_S}"
    if type(duration_s) is not int or not 0 <= duration_s <= MAX_DURATION_S:
        return f"duration_s must be a whole number of seconds from 0 to {MAX_DURATION_S}"
    if type(file_name) is not str or (file_name and not _is_file_name(file_name)):
        return f"file_name must have at most {MAX_FILE_NAME_CHARS} characters, no control or path separator"
    if type(disposition) is not str or disposition not in ("inline", "attachment"):
        return "disposition must be inline or attachment"
    if type(client_network) is not str or (client_network and not _is_network(client_network)):
        return "client_network must be empty or a network in its one spelling, such as 203.0.113.7/32"
    return None


def _utf8_size(text: str) -> int:
    """Return the length of `text` in UTF-8, or -1 when a lone surrogate leaves it without."""
    try:
        return len(text.encode("utf-8"))
    except UnicodeEncodeError:
        return -1


def _is_file_name(text: str) -> bool:
    return _utf8_size(text) >= 0 and len(text) <= MAX_FILE_NAME_CHARS and not _NOT_IN_A_FILE_NAME.search(text)


def _is_network(text: str) -> bool:
    """Tell whether `text` is an IPv4 or IPv6 network, the latter as RFC 5952 spells it."""
    if "%" in text:  # A zone (RFC 4007) means something to one machine only.
        return False
    try:
        network = ip_network(text)
    except ValueError:
        return False
    # Python 3.13 began to spell ::ffff:102:304 as ::ffff:1.2.3.4; such a network is written as IPv4.
    if isinstance(network, IPv6Network) and network.network_address.ipv4_mapped is not None:
        return False
    return str(network) == text
