"""What is remembered of a token: what it asserts, never whether it counts."""

from __future__ import annotations

from typing import Any

import pytest

from contracts.keyring import KeyRing
from contracts.tokens import OriginClaims, TokenKind, create_origin_token, verify_origin_token
from origin import gate as gate_module
from origin.gate import Gate, Refused
from origin.key_source import KeySource
from tests.origin.conftest import NOW, SECRET

RING = KeyRing([SECRET])
LOCATOR = "loc:1.00000000"


def made(**settings: Any) -> Gate:
    return Gate(KeySource(None), lambda: NOW, **settings)


def scope(client: str = "192.0.2.1") -> Any:
    return {"client": (client, 9), "headers": []}


def status(gate: Gate, ring: KeyRing, token: str, now: float = NOW, **asked: Any) -> int:
    """200 when the token is let in."""
    try:
        gate.admit(ring, asked.pop("scope", scope()), token, now, **asked)
    except Refused as refusal:
        return refusal.status
    return 200


@pytest.fixture
def verified(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Each token whose MAC was looked at."""
    seen: list[str] = []

    def noted(ring: KeyRing, token: str, now: float, **kind: Any) -> OriginClaims:
        seen.append(token)
        return verify_origin_token(ring, token, now, **kind)

    monkeypatch.setattr(gate_module, "verify_origin_token", noted)
    return seen


def test_token_is_verified_once(verified: list[str]) -> None:
    gate, token = made(), create_origin_token(SECRET, LOCATOR, NOW + 9)
    first = gate.admit(RING, scope(), token, NOW)
    assert [gate.admit(RING, scope(), token, NOW + n) for n in range(5)] == [first] * 5
    assert verified == [token]


def test_every_other_token_is_verified_each_time(verified: list[str]) -> None:
    """One that is refused is not remembered, and a known one says nothing of one that is nearly the same."""
    gate, token = made(), create_origin_token(SECRET, LOCATOR, NOW + 9)
    assert status(gate, RING, token) == 200
    for forged in (
        token[:-1] + ("A" if token[-1] != "A" else "B"),
        token + "A",
        token[:-1],
        token.swapcase(),
    ):
        assert [status(gate, RING, forged) for _ in range(2)] == [401, 401]
    assert len(verified) == 9


def test_key_that_is_removed_revokes_what_is_remembered() -> None:
    """Another ring, whatever it holds, verifies anew; and the old one may come back."""
    gate, token = made(), create_origin_token(SECRET, LOCATOR, NOW + 9)
    assert status(gate, RING, token) == 200
    assert status(gate, KeyRing(["another secret, long enough"]), token) == 401
    assert status(gate, KeyRing(["another secret, long enough", SECRET]), token) == 200
    assert status(gate, KeyRing(["another secret, long enough"]), token) == 401
    assert status(gate, RING, token) == 200


def test_remembered_token_ends_at_its_second_and_begins_at_its_own() -> None:
    gate, token = made(), create_origin_token(SECRET, LOCATOR, NOW + 9, not_before=NOW)
    assert [status(gate, RING, token, NOW + n) for n in (0, 8.999, 9, 8, -0.001, 0)] == [
        200, 200, 410, 200, 401, 200,
    ]  # fmt: skip
    assert status(gate, RING, token, float("nan")) == 410


@pytest.mark.parametrize("kind", list(TokenKind))
def test_remembered_kind_is_no_other(kind: TokenKind) -> None:
    gate, token = made(), create_origin_token(SECRET, LOCATOR, NOW + 9, kind=kind)
    for _ in range(2):
        for asked in TokenKind:
            assert status(gate, RING, token, kind=asked) == (200 if asked == kind else 401)


def test_client_and_life_are_asked_for_each_time() -> None:
    gate = made(max_token_ttl_s=60)
    token = create_origin_token(SECRET, LOCATOR, NOW + 60, client_network="192.0.2.0/24")
    assert status(gate, RING, token) == 200
    assert status(gate, RING, token, scope=scope("203.0.113.1")) == 401
    assert status(gate, RING, token, NOW - 1) == 401
    assert status(gate, RING, token) == 200


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest is forgotten first, and only verified once more."""
    monkeypatch.setattr(gate_module, "_REMEMBERED", 10)
    gate = made()
    tokens = [create_origin_token(SECRET, LOCATOR, NOW + n) for n in range(1, 40)]
    for token in tokens:
        assert status(gate, RING, token) == 200
        assert len(gate._verified) <= 10
    assert all(status(gate, RING, token) == 200 for token in tokens)
