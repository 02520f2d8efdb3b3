"""Hostile tokens, paths, headers and bodies: no 500, and no byte that the link does not grant.

In-process, from fixed seeds, with the requests and the checks of `tests.fuzz.origin_requests`: a few thousand
each time, 100,000 by `make soak`; tokens and paths by hypothesis; a few hundred over a real socket as raw
bytes.
"""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contracts.best_source import LISTEN_PATH, RENEW_PATH
from contracts.tokens import create_origin_token
from origin import STREAM_PATH
from tests.fuzz.origin_requests import FORMS, LONG, Request, Target, attack, captured_log, send_hostile
from tests.origin.conftest import NOW, SECRET, Nas, content_of, link, make_nas, stream

HERE = ("127.0.0.1", 9)


@pytest.fixture
def target(nas: Nas) -> Target:
    return Target(nas)


def test_a_few_thousand_hostile_requests(target: Target) -> None:
    """Every one is answered, with a status of the table, completely; every endpoint is among them."""
    statuses = attack(target, 20_260_101, lambda number: number < 6000)
    assert sum(statuses.values()) == 6000
    assert {200, 204, 206, 304, 400, 401, 404, 405, 410, 412, 413, 415, 416} <= statuses.keys()


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(4))
def test_a_hundred_thousand_hostile_requests(target: Target, seed: int) -> None:
    """In four, so that each begins with threads and connections of its own."""
    assert sum(attack(target, seed, lambda number: number < 25_000).values()) == 25_000


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Target, asyncio.Runner]]:
    """One origin and one loop for all the examples of hypothesis."""
    with asyncio.Runner() as runner:
        yield Target(make_nas(Path(tmp_path_factory.mktemp("nas")))), runner


GOOD = create_origin_token(SECRET, "loc:1.00000000", NOW + 600)
# Text of any kind; and a good token with text in the place of any part of it.
TOKENS = st.text() | st.builds(
    lambda at, length, text: GOOD[:at] + text + GOOD[at + length :],
    st.integers(0, len(GOOD)),
    st.integers(0, 8),
    st.text(st.characters(codec="latin-1"), max_size=8) | st.text("AQEIMxyz-_=%.0", max_size=8),
)
PATHS = st.builds(
    lambda prefix, parts: prefix + "/".join(parts),
    st.sampled_from(
        [STREAM_PATH, LISTEN_PATH, RENEW_PATH, "/catalog/", "/metrics", "/readyz", "/healthz", "/"]
    ),
    st.lists(
        st.text(max_size=20) | st.sampled_from(["..", ".", "%2e%2e", "%2F", "%00", "secret.txt"]), max_size=5
    ),
)


def attempt(shared: tuple[Target, asyncio.Runner], path: str, method: str = "GET", token: str = "") -> None:
    target, runner = shared
    raw = path.encode("utf-8", "surrogatepass")
    with captured_log() as log:
        runner.run(send_hostile(target, Request(method, raw, {}, b"", HERE, token), log))


@given(TOKENS)
@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_token_but_a_good_one_is_refused(shared: tuple[Target, asyncio.Runner], token: str) -> None:
    attempt(shared, STREAM_PATH + token, token=token)


@given(PATHS, st.sampled_from(["GET", "HEAD", "POST", "OPTIONS", "PROPFIND"]))
@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_path_is_answered_with_nothing(
    shared: tuple[Target, asyncio.Runner], path: str, method: str
) -> None:
    attempt(shared, path, method)


@pytest.mark.soak
@given(TOKENS)
@settings(max_examples=20_000, suppress_health_check=list(HealthCheck))
def test_very_many_tokens(shared: tuple[Target, asyncio.Runner], token: str) -> None:
    attempt(shared, STREAM_PATH + token, token=token)


@pytest.mark.soak
@given(PATHS, st.sampled_from(["GET", "HEAD", "POST", "OPTIONS", "PROPFIND"]))
@settings(max_examples=20_000, suppress_health_check=list(HealthCheck))
def test_very_many_paths(shared: tuple[Target, asyncio.Runner], path: str, method: str) -> None:
    attempt(shared, path, method)


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("a.mp3", 200),
        ("hard.mp3", 200),  # A second link is a file of the root like any other.
        (LONG, 200),
        (FORMS, 200),
        ("link.mp3", 404),
        ("linked/secret.txt", 404),
        ("loop", 404),
        ("pipe.mp3", 404),
        ("zero.mp3", 404),
        ("../secret.txt", 404),
        ("../music/a.mp3", 404),
        (LONG + "x", 404),
        ("n/" * 400 + "n", 404),
        (".", 404),
    ],
)
def test_what_lies_around_a_root(target: Target, name: str, status: int) -> None:
    """Whoever has the secret and signs these gets regular files beneath the root, and nothing else."""
    assert stream(target.app, name).status == status
    assert stream(target.app, f"{target.nas.music}/{name}").status == status


def test_a_fifo_and_a_device_keep_nobody_waiting(target: Target) -> None:
    """More of them than a root has threads: to open one for reading would wait for a writer."""

    async def ask_often() -> None:
        with captured_log() as log:
            for name in ("pipe.mp3", "zero.mp3"):
                path = link(name).encode()
                request = Request("GET", path, {}, b"", HERE, "")
                await asyncio.gather(*(send_hostile(target, request, log) for _ in range(40)))

    asyncio.run(asyncio.wait_for(ask_often(), 20))


def test_raw_bytes_over_a_socket(nas: Nas, base_url: str) -> None:
    """What no client library would send. The server answers 4xx or hangs up, and goes on serving."""
    nas.add("a.mp3", content_of(500))
    rng = random.Random(3)
    parts = urlsplit(base_url)
    address = (parts.hostname or "", parts.port or 0)
    seeds = [
        b"GET %s HTTP/1.1\r\nHost: a\r\nRange: bytes=0-1\r\n\r\n" % (STREAM_PATH + "x" * 90).encode(),
        b"GET /../../../../etc/passwd HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /api/private-origin/stream/%2e%2e%2f%00\xff HTTP/1.1\r\nHost: \xff\r\n\r\n",
        b"HEAD http://other/catalog/manifest.json HTTP/1.0\r\n\r\n",
        b"POST /api/private-origin/renew HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
        b'Content-Length: 13\r\n\r\n{"lease":"x"}',
        b"GET /metrics HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: ::1\r\n\r\n",
    ]
    for _ in range(300):
        request = bytearray(rng.choice(seeds))
        for _ in range(rng.randrange(6)):
            request[rng.randrange(len(request))] = rng.randrange(256)
        with closing(socket.create_connection(address, timeout=20)) as client:
            client.sendall(request)
            client.shutdown(socket.SHUT_WR)
            answer = b""
            try:
                while piece := client.recv(65_536):
                    answer += piece
            except ConnectionResetError:
                pass
        assert not answer or answer[:10] in (b"HTTP/1.1 4", b"HTTP/1.1 2"), answer[:200]
        assert b"root:" not in answer and b" 500 " not in answer.partition(b"\r\n")[0]
    with closing(socket.create_connection(address, timeout=20)) as client:
        client.sendall(b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        assert client.recv(65_536).startswith(b"HTTP/1.1 200")
