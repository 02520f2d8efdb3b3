"""How fast tokens are created and verified, as ratios to the libraries one would otherwise take.

    python -m benchmarks.tokens

Every contender carries the same two claims, a locator and an expiry, by a secret of 32 bytes, and uses its
documented calls. Before anything is measured each must read its own token back and refuse a changed one.
Rounds are interleaved, so a machine that slows down slows all of them. Figures are medians over the rounds,
and a ratio is the median of the ratios within a round. Peers that are not installed are named and skipped.
"""

from __future__ import annotations

import json
import platform
import ssl
import time
from collections.abc import Callable
from functools import partial
from importlib import import_module
from importlib.metadata import version
from statistics import median
from timeit import Timer
from typing import Any, NamedTuple

from contracts.keyring import KeyRing
from contracts.tokens import create_origin_token, verify_origin_token

ROUNDS = 41  # Odd, so that the median is a measurement.
CALLS = (
    1000  # 2 to 150 ms a turn: far above the clock's resolution, far below a change of the machine's load.
)

SECRET = "0123456789abcdef0123456789abcdef"  # 32 bytes: PyJWT and PASETO ask for that many.
LOCATOR = "loc:184467.0a1b2c3d"
LIFE_S = 3600


class Contender(NamedTuple):
    """One way to sign and check: `create` returns a token, `verify` the locator in it or raises."""

    name: str
    create: Callable[[], Any]
    verify: Callable[[Any], Any]


def ours() -> list[Contender]:
    expires_at = int(time.time()) + LIFE_S
    ring = KeyRing([SECRET])
    return [
        Contender(
            "music-cloud",
            lambda: create_origin_token(SECRET, LOCATOR, expires_at),
            lambda token: verify_origin_token(SECRET, token, time.time()).locator,
        ),
        Contender(
            "music-cloud, a ring",
            lambda: create_origin_token(ring, LOCATOR, expires_at),
            lambda token: verify_origin_token(ring, token, time.time()).locator,
        ),
    ]


def pyjwt() -> Contender:
    jwt = import_module("jwt")
    claims = {"locator": LOCATOR, "exp": int(time.time()) + LIFE_S}
    return Contender(
        f"PyJWT {version('PyJWT')} HS256",
        lambda: jwt.encode(claims, SECRET, algorithm="HS256"),
        lambda token: jwt.decode(token, SECRET, algorithms=["HS256"])["locator"],
    )


def itsdangerous() -> Contender:
    serializer = import_module("itsdangerous").URLSafeTimedSerializer(SECRET)
    claims = {"locator": LOCATOR}  # It signs the time of signing; the age is checked against that.
    return Contender(
        f"itsdangerous {version('itsdangerous')} timed",
        lambda: serializer.dumps(claims),
        lambda token: serializer.loads(token, max_age=LIFE_S)["locator"],
    )


def pyseto() -> Contender:
    library = import_module("pyseto")
    key = library.Key.new(version=4, purpose="local", key=SECRET.encode())
    paseto = library.Paseto.new(exp=LIFE_S)
    claims = {"locator": LOCATOR}  # It adds the expiry.
    return Contender(
        f"pyseto {version('pyseto')} v4.local",
        lambda: paseto.encode(key, claims, serializer=json),
        lambda token: paseto.decode(key, token, deserializer=json).payload["locator"],
    )


def prove(contender: Contender) -> None:
    """Raise unless the contender reads its own token back and refuses it without its middle character."""
    token = contender.create()
    assert contender.verify(token) == LOCATOR, contender.name
    middle = len(token) // 2
    try:
        contender.verify(token[:middle] + token[middle + 1 :])
    except Exception:
        return
    raise AssertionError(f"{contender.name} accepts a token that was changed")


def measure(calls: list[Callable[[], Any]]) -> list[list[float]]:
    """Return for each of `calls` the microseconds it took, round by round."""
    timers = [Timer(call) for call in calls]
    rounds = [[timer.timeit(CALLS) / CALLS * 1e6 for timer in timers] for _ in range(ROUNDS)]
    return [list(column) for column in zip(*rounds, strict=True)]


def show(operation: str, contenders: list[Contender], columns: list[list[float]]) -> None:
    print(f"\n{operation:28}{'µs a call':>12}{'ratio':>8}")
    for contender, column in zip(contenders, columns, strict=True):
        ratio = median(theirs / own for theirs, own in zip(column, columns[0], strict=True))
        print(f"{contender.name:28}{median(column):12.2f}{ratio:8.1f}")


def main() -> None:
    contenders = ours()
    for peer in (pyjwt, itsdangerous, pyseto):
        try:
            contenders.append(peer())
        except ImportError:
            print(f"{peer.__name__}: not installed, skipped")
    for contender in contenders:
        prove(contender)

    print(
        f"{platform.python_implementation()} {platform.python_version()} on {platform.machine()}, "
        f"{ssl.OPENSSL_VERSION}, msgspec {version('msgspec')}; medians of {ROUNDS} rounds of {CALLS} calls"
    )
    show("create", contenders, measure([contender.create for contender in contenders]))
    verify_own = [partial(contender.verify, contender.create()) for contender in contenders]
    show("verify", contenders, measure([*verify_own]))


if __name__ == "__main__":
    main()
