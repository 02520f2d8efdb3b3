"""Tokens under attack: whatever is changed, and whatever is made up, only the named errors come out."""

from __future__ import annotations

import base64
import traceback
from string import ascii_letters, digits
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from contracts.errors import MalformedToken, TokenError
from contracts.tokens import OriginClaims, TokenKind, create_origin_token, verify_origin_token
from tests.contracts.token_reference import full, msgpack_claims, sign, text

SECRET = "a secret for tests"
NOW = 1_800_000_000
# Lengths of 0, 2 and 3 characters over a whole group of base64: each ends in another number of stray bits.
TOKENS = [create_origin_token(SECRET, "x" * size, NOW) for size in (1, 2, 3)]
ALPHABET = ascii_letters + digits + "-_"
FOREIGN = "+/=. \n\r\t\0%~\x7f\x80éА١\ud800\U0001f511"  # The Cyrillic А and the Arabic digit look the part.
ANY_TEXT = st.text(st.characters())  # Lone surrogates and all.


def refused(token: str) -> bool:
    try:
        verify_origin_token(SECRET, token, 0)
    except TokenError:
        return True
    return False


def test_tokens_under_attack_are_good_and_end_in_every_way() -> None:
    """The attacks below begin from tokens that verify."""
    assert {len(token) % 4 for token in TOKENS} == {0, 2, 3}
    assert not any(refused(token) for token in TOKENS)


@pytest.mark.parametrize("token", TOKENS)
def test_every_change_of_one_character_is_refused(token: str) -> None:
    """Every position, every other character of the alphabet, and those that lenient decoders take."""
    for at, original in enumerate(token):
        for character in ALPHABET + FOREIGN:
            if character != original:
                assert refused(token[:at] + character + token[at + 1 :]), (at, character)


@pytest.mark.parametrize("token", TOKENS)
def test_every_truncation_and_extension_is_refused(token: str) -> None:
    """Nothing shorter, and nothing with anything before, inside or behind."""
    for at in range(len(token)):
        assert refused(token[:at]), at
        assert refused(token[at + 1 :]), at
        assert refused(token[:at] + token[at + 1 :]), at
    for character in ALPHABET + FOREIGN:
        assert refused(token + character), character
        assert refused(token + character * 4), character
        assert refused(character + token), character
        assert refused(token[:40] + character + token[40:]), character
    assert refused(token + token)


@pytest.mark.parametrize("token", TOKENS)
def test_every_flipped_bit_is_refused(token: str) -> None:
    """The MAC covers the version, the kind, the key id and the claims."""
    raw = base64.urlsafe_b64decode(token + "==")
    for bit in range(len(raw) * 8):
        flipped = int.from_bytes(raw, "big") ^ 1 << bit
        assert refused(text(flipped.to_bytes(len(raw), "big"))), bit


def test_huge_text_is_refused_before_it_is_read() -> None:
    """The length bound comes first."""
    for character in ("A", "=", "é", "\ud800"):
        with pytest.raises(MalformedToken, match="characters"):
            verify_origin_token(SECRET, character * 10_000_000, 0)


@given(ANY_TEXT | st.text(ALPHABET, max_size=3000) | st.text(ALPHABET + FOREIGN, max_size=200))
@example("\0")
@example("\ud800" * 100)
@example("AQ" + "١" * 100)
def test_text_that_we_did_not_write_raises_a_named_error(token: str) -> None:
    """No other error escapes, for any text at all."""
    assert refused(token)


@given(st.binary(max_size=200))
@example(b"\x91" * 2000)
@example(b"\xdd\xff\xff\xff\xff")
@example(b"\x97\xdb\xff\xff\xff\xff")
@example(b"\x97\xc9\xff\xff\xff\xff\x00")
def test_claims_that_are_any_bytes_raise_a_named_error(claims: bytes) -> None:
    """Even the holder of the key cannot make the verifier fail in a way that has no name."""
    assert refused(text(sign(claims, SECRET)))


# Good values and bad ones, in their shortest form and in longer ones.
MSGPACK_TEXT = [b"\xa1a", b"\xd9\x01a", b"\xa0", b"\xa6inline", b"\xaa0.0.0.0/32", b"\xa3\xed\xa0\x80"]
MSGPACK_NUMBERS = [
    b"\x00",
    b"\x7f",
    b"\xcc\x7f",
    b"\xcc\x80",
    b"\xce\x6b\x49\xd2\x00",
    b"\xff",
    b"\xcf" + b"\xff" * 8,
]
MSGPACK_OTHERS = [
    b"\xc0",
    b"\xc1",
    b"\xc3",
    b"\xcb" + bytes(8),
    b"\x80",
    b"\x90",
    b"\xc4\x00",
    b"\xd6\xff" + bytes(4),
]
MSGPACK_ITEMS = st.sampled_from([*MSGPACK_TEXT, *MSGPACK_NUMBERS, *MSGPACK_OTHERS])


@given(st.integers(0, 15), st.lists(MSGPACK_ITEMS, max_size=9))
def test_signed_claims_are_refused_or_in_their_one_spelling(count: int, items: list[bytes]) -> None:
    """Whatever verifies is, byte for byte, what the second implementation writes for the same claims."""
    claims_bytes = bytes([0x90 | count]) + b"".join(items)
    try:
        claims = verify_origin_token(SECRET, text(sign(claims_bytes, SECRET)), 0)
    except TokenError:
        return
    assert claims_bytes == msgpack_claims([getattr(claims, name) for name in OriginClaims.__struct_fields__])


@given(
    locator=ANY_TEXT | st.none() | st.integers(),
    expires_at=st.integers() | st.floats() | st.booleans(),
    file_name=ANY_TEXT | st.binary(),
    client_network=ANY_TEXT | st.ip_addresses().map(str) | st.integers(),
)
def test_any_claims_are_created_or_refused_by_name(**claims: Any) -> None:
    """Creation raises `MalformedToken` or returns what verifies."""
    try:
        token = create_origin_token(SECRET, **claims)
    except MalformedToken:
        return
    if claims["expires_at"] > 0:
        assert verify_origin_token(SECRET, token, 0).locator == claims["locator"]


def test_errors_hold_neither_token_nor_secret_nor_locator() -> None:
    """Nothing of the three is in the text of any error or of one that it is chained to."""
    locator = "PRIVATE-LOCATOR"
    good = create_origin_token(SECRET, locator, NOW, not_before=1)
    not_utf8 = b"\x97\xb0" + locator.encode() + b"\xff" + msgpack_claims(full("", NOW))[2:]
    tokens = [
        good,
        good[:-1],
        good + "=",
        good + "é",
        good + "A" * 3000,
        text(sign(msgpack_claims(full(locator, NOW)), SECRET, kind=2)),
        text(sign(msgpack_claims(full(locator, NOW))[:-1], SECRET)),
        text(sign(not_utf8, SECRET)),
        text(sign(msgpack_claims(full(locator * 100, NOW)), SECRET)),
        text(sign(msgpack_claims(full(locator, NOW)), "another")),
    ]
    for token in tokens:
        for now in (0, NOW):
            with pytest.raises(TokenError) as caught:
                verify_origin_token(SECRET, token, now)
            _assert_silent(caught.value, token, SECRET, locator)
    with pytest.raises(MalformedToken) as caught_at_creation:
        create_origin_token(SECRET, locator + "\ud800", NOW, kind=TokenKind.LEASE)
    _assert_silent(caught_at_creation.value, SECRET, locator)


def _assert_silent(error: BaseException, *forbidden: str) -> None:
    chain: BaseException | None = error
    while chain is not None:
        said = "".join(traceback.format_exception_only(chain)) + repr(chain.args)
        assert not [word for word in forbidden if word in said]
        chain = chain.__cause__ or chain.__context__
