"""The key ring: rotation, revocation, the ring file, and HMAC against the standard library's."""

from __future__ import annotations

import hmac
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from contracts.errors import BadSignature, MalformedError, UnknownKey
from contracts.keyring import KeyRing, SigningKey, key_ring
from contracts.tokens import create_origin_token, verify_origin_token
from tests.contracts.token_reference import COLLIDING_SECRETS, key_id, sign, text

OLD, NEW = "the old secret", b"the new secret"


@given(st.binary(min_size=1, max_size=200), st.binary(max_size=300))
@example(b"k" * 63, b"")
@example(b"k" * 64, b"")
@example(b"k" * 65, b"")
def test_mac_is_that_of_the_standard_library(secret: bytes, message: bytes) -> None:
    """Pads that were hashed in advance change nothing, also when a key signs twice."""
    key = SigningKey(secret)
    assert hmac.digest(secret, message, "sha256") == key.mac(message) == key.mac(message)
    assert key_id(secret) == key.kid


def test_text_is_a_secret_as_utf8() -> None:
    """`str` and its UTF-8 `bytes` are one secret."""
    token = create_origin_token("密钥", "a", 2)
    assert verify_origin_token("密钥".encode(), token, 1).locator == "a"


def test_newest_key_signs_and_older_ones_still_verify() -> None:
    """Rotation: append a secret, and links that are out in the world go on working."""
    old_link = create_origin_token(OLD, "old", 2)
    ring = KeyRing([OLD, NEW])
    new_link = create_origin_token(ring, "new", 2)
    assert verify_origin_token(ring, old_link, 1).locator == "old"
    assert verify_origin_token(NEW, new_link, 1).locator == "new"
    with pytest.raises(UnknownKey):
        verify_origin_token(OLD, new_link, 1)


def test_removing_a_key_revokes_what_it_signed() -> None:
    """The only revocation there is."""
    old_link = create_origin_token(KeyRing([OLD]), "old", 2)
    with pytest.raises(UnknownKey):
        verify_origin_token(KeyRing([NEW]), old_link, 1)


def test_keys_with_one_key_id_are_all_tried() -> None:
    """A collision of key ids costs an HMAC, not a listener; a third key's MAC still passes for neither."""
    older, newer = COLLIDING_SECRETS
    assert SigningKey(older.encode()).kid == SigningKey(newer.encode()).kid
    ring = KeyRing([older, newer])
    for secret in COLLIDING_SECRETS:
        assert verify_origin_token(ring, create_origin_token(secret, "a", 2), 1).locator == "a"
    with pytest.raises(BadSignature):
        verify_origin_token(newer, create_origin_token(older, "a", 2), 1)
    forged = sign(b"", older)[:-32] + bytes(32)
    with pytest.raises(BadSignature):
        verify_origin_token(ring, text(forged), 1)


def test_ring_file_is_one_secret_a_line_oldest_first() -> None:
    """Blank lines, comments, white space, Windows line ends and a byte order mark are not secrets."""
    ring = KeyRing.parse("\ufeff# 2026\r\n\r\n  the old secret\t\r\n   # the current one\r\nthe new secret")
    assert ring.newest.kid == key_id(NEW)
    assert ring.shortest_secret_bytes == 14
    assert verify_origin_token(ring, create_origin_token(OLD, "a", 2), 1).locator == "a"
    with pytest.raises(UnknownKey):
        verify_origin_token(ring, create_origin_token("# 2026", "a", 2), 1)


def test_secret_in_a_ring_file_may_hold_spaces_and_number_signs() -> None:
    """Only white space around a secret is ignored, and `#` only where the line starts."""
    assert KeyRing.parse("a # b").newest.kid == key_id("a # b")


@pytest.mark.parametrize("content", ["", "\n", " \r\n\t", "# only a comment", "\ufeff", "\ufeff#"], ids=ascii)
def test_ring_file_without_a_secret_is_malformed(content: str) -> None:
    """An emptied file is an error, never a ring that nothing can pass or everything can."""
    with pytest.raises(MalformedError, match="at least one secret"):
        KeyRing.parse(content)


@pytest.mark.parametrize("secret", ["", b"", "\ud800secret"], ids=["no text", "no bytes", "no UTF-8"])
def test_secret_that_is_none_is_malformed(secret: str | bytes) -> None:
    """Said at once by everything that takes a secret, and without the secret."""
    for refuse in (key_ring, lambda secret: KeyRing(["good", secret])):
        with pytest.raises(MalformedError, match="secret must") as caught:
            refuse(secret)
        assert caught.value.__context__ is None
    with pytest.raises(ValueError, match="secret must"):
        create_origin_token(secret, "a", 2)
    with pytest.raises(ValueError, match="secret must"):
        verify_origin_token(secret, "not even a token", 1)


@pytest.mark.parametrize("secrets", ["secret", b"secret", [1], [None], [bytearray(b"x")], None, 5], ids=repr)
def test_ring_of_something_else_is_a_type_error(secrets: Any) -> None:
    """Most of all for one bare secret, whose last letter would otherwise sign."""
    with pytest.raises(TypeError):
        KeyRing(secrets)


def test_ring_shows_no_secret() -> None:
    """A ring may end up in a log."""
    shown = repr(KeyRing([OLD, NEW]))
    assert shown == f"<KeyRing of 2, signing with {key_id(NEW).hex()}>"
