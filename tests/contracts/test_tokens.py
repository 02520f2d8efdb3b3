"""Tokens: the golden vectors, what is created, and when it is valid."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts import errors
from contracts.errors import ExpiredToken, MalformedToken, NotYetValid, TokenError, WrongKind
from contracts.keyring import KeyRing
from contracts.tokens import (
    MAX_DURATION_S,
    MAX_TIME_S,
    MAX_TOKEN_CHARS,
    OriginClaims,
    TokenKind,
    create_origin_token,
    verify_origin_token,
)
from tests.contracts.token_reference import Accepted, Refused, accepted_vectors, refused_vectors, vectors_json

VECTORS = Path(__file__).parent.parent / "vectors" / "tokens.json"
SECRET = "a secret for tests"
NOW = 1_800_000_000

NETWORKS = ["", "0.0.0.0/0", "203.0.113.7/32", "::/0", "2001:db8::/32", "fe80::1/128"]
LOCATORS = st.text(min_size=1, max_size=256)  # At most 1,024 bytes.
FILE_NAMES = st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="/\\"), max_size=255)


def test_golden_vectors_are_those_of_the_reference() -> None:
    """The file is what the second implementation writes today: changing the format breaks this on purpose."""
    assert VECTORS.read_text(encoding="ascii") == vectors_json()


@pytest.mark.parametrize("vector", accepted_vectors(), ids=lambda vector: vector["name"])
def test_golden_token_is_created_and_verified(vector: Accepted) -> None:
    """Same claims, same bytes, both ways, as the second implementation has them."""
    claims: Any = vector["claims"]
    locator, expires_at, not_before, duration_s, file_name, disposition, client_network = claims
    signer = next(secret for secret in reversed(vector["secrets"]) if _signs(secret, vector["token"]))
    created = create_origin_token(
        signer,
        locator,
        expires_at,
        kind=TokenKind(vector["kind"]),
        not_before=not_before,
        duration_s=duration_s,
        file_name=file_name,
        disposition=disposition,
        client_network=client_network,
    )
    assert created == vector["token"]

    ring = KeyRing(vector["secrets"])
    verified = verify_origin_token(ring, vector["token"], vector["now"], kind=TokenKind(vector["kind"]))
    assert verified == OriginClaims(*claims)


def _signs(secret: str, token: str) -> bool:
    try:
        verify_origin_token(secret, token, NOW)
    except (WrongKind, NotYetValid):
        return True
    except TokenError:
        return False
    return True


@pytest.mark.parametrize("vector", refused_vectors(), ids=lambda vector: vector["name"])
def test_golden_token_is_refused_by_its_named_error(vector: Refused) -> None:
    """Each way of being wrong has its error, and the first check that fails decides which."""
    with pytest.raises(TokenError) as caught:
        verify_origin_token(vector["secrets"][0], vector["token"], vector["now"])
    assert type(caught.value) is getattr(errors, vector["error"])


@given(
    st.sampled_from(TokenKind),
    LOCATORS,
    st.integers(1, MAX_TIME_S),
    st.integers(0, MAX_DURATION_S),
    FILE_NAMES,
    st.sampled_from(["inline", "attachment"]),
    st.sampled_from(NETWORKS),
)
def test_claims_survive_the_round_trip(
    kind: TokenKind,
    locator: str,
    expires_at: int,
    duration_s: int,
    file_name: str,
    disposition: Any,
    client_network: str,
) -> None:
    """What was asked for is what is read back, for every claim within its bounds."""
    token = create_origin_token(
        SECRET,
        locator,
        expires_at,
        kind=kind,
        not_before=expires_at - 1,
        duration_s=duration_s,
        file_name=file_name,
        disposition=disposition,
        client_network=client_network,
    )
    assert len(token) <= MAX_TOKEN_CHARS
    assert verify_origin_token(SECRET, token, expires_at - 1, kind=kind) == OriginClaims(
        locator, expires_at, expires_at - 1, duration_s, file_name, disposition, client_network
    )


def test_longest_token_has_exactly_the_bounded_length() -> None:
    """The length bound refuses nothing that can be created, and leaves no slack."""
    token = create_origin_token(
        SECRET,
        "x" * 1024,
        MAX_TIME_S,
        not_before=MAX_TIME_S - 1,
        duration_s=MAX_DURATION_S,
        file_name="𝄞" * 255,
        disposition="attachment",
        client_network="2001:1db8:1111:2222:3333:4444:5555:6666/128",
    )
    assert len(token) == MAX_TOKEN_CHARS
    verify_origin_token(SECRET, token, MAX_TIME_S - 1)


@pytest.mark.parametrize("now", [NOW - 10, NOW - 10.0, NOW - 0.001, NOW - 1])
def test_token_is_valid_from_its_first_second_to_its_last(now: float) -> None:
    """Valid while not_before <= now < expires_at."""
    token = create_origin_token(SECRET, "loc:1.00000000", NOW, not_before=NOW - 10)
    assert verify_origin_token(SECRET, token, now).expires_at == NOW


@pytest.mark.parametrize("now", [NOW, NOW + 0.001, NOW + 1, float("inf"), float("nan")])
def test_token_is_expired_from_expires_at_on(now: float) -> None:
    """Expired when now >= expires_at, and whenever now is no number."""
    with pytest.raises(ExpiredToken, match=f"expired at {NOW}"):
        verify_origin_token(SECRET, create_origin_token(SECRET, "loc:1.00000000", NOW), now)


@pytest.mark.parametrize("now", [NOW - 11, NOW - 10.001, 0, -1, float("-inf")])
def test_token_is_not_valid_before_its_first_second(now: float) -> None:
    """Not yet valid when now < not_before."""
    token = create_origin_token(SECRET, "loc:1.00000000", NOW, not_before=NOW - 10)
    with pytest.raises(NotYetValid):
        verify_origin_token(SECRET, token, now)


def test_token_of_one_kind_never_passes_for_another() -> None:
    """A leaked stream link opens no lease and no page, and the reverse."""
    for signed_as in TokenKind:
        token = create_origin_token(SECRET, "loc:1.00000000", NOW, kind=signed_as)
        for wanted in set(TokenKind) - {signed_as}:
            with pytest.raises(WrongKind):
                verify_origin_token(SECRET, token, 0, kind=wanted)


@pytest.mark.parametrize(
    ("claim", "values"),
    [
        ("locator", ["", "x" * 1025, "长" * 342, "\ud800", b"x", None, 1]),
        ("expires_at", [-1, MAX_TIME_S + 1, 2**64, 1.0, True, "1", None]),
        ("not_before", [-1, MAX_TIME_S + 1, 2**64, 1.0, False, "1", None]),
        ("duration_s", [-1, MAX_DURATION_S + 1, 2**64, 1.0, True, "1", None]),
        ("file_name", ["x" * 256, "a/b", "a\\b", "a\0", "a\x7f", "a\x85", "\ud800", b"", None, 0]),
        ("disposition", ["", "Inline", "form-data", None, b"inline", 0]),
        ("client_network", ["203.0.113.7", "10.0.0.1/8", "10.0.0.0/08", "2001:DB8::/32", "::ffff:0:0/96"]),
        ("client_network", ["fe80::%1/128", "١.0.0.0/32", "x", "\ud800", " ", "\0", None, b"", 0, 1]),
    ],
)
def test_claim_outside_its_bounds_is_refused_at_creation(claim: str, values: list[Any]) -> None:
    """What could not be verified is not created, and the sentence names the claim."""
    for value in values:
        arguments: dict[str, Any] = {"locator": "loc:1.00000000", "expires_at": NOW, claim: value}
        with pytest.raises(MalformedToken, match=claim):
            create_origin_token(SECRET, **arguments)


@pytest.mark.parametrize("claim", ["locator", "file_name", "disposition", "client_network"])
def test_subclass_of_str_is_refused_at_creation(claim: str) -> None:
    """The codec writes no subclass of str; it is refused before the codec sees it, whatever its value."""

    class Text(str):
        __slots__ = ()

    value = Text({"locator": "a", "disposition": "inline"}.get(claim, ""))
    arguments: dict[str, Any] = {"locator": "loc:1.00000000", "expires_at": NOW, claim: value}
    with pytest.raises(MalformedToken, match=claim):
        create_origin_token(SECRET, **arguments)


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("secret", 1),
        ("secret", None),
        ("secret", bytearray(b"x")),
        ("secret", ["x"]),
        ("token", b"x"),
        ("token", None),
        ("now", "1"),
        ("now", None),
        ("kind", 1),
        ("kind", "stream"),
    ],
)
def test_argument_of_a_wrong_type_is_a_type_error(argument: str, value: Any) -> None:
    """A mistake in the program is said at once and in words, never as a bad token."""
    token = create_origin_token(SECRET, "loc:1.00000000", NOW)
    arguments: dict[str, Any] = {"secret": SECRET, "token": token, "now": 0, "kind": TokenKind.STREAM}
    with pytest.raises(TypeError, match=argument):
        verify_origin_token(**{**arguments, argument: value})
    if argument in ("secret", "kind"):
        arguments = {"secret": SECRET, "locator": "a", "expires_at": NOW, argument: value}
        with pytest.raises(TypeError, match=argument):
            create_origin_token(**arguments)
