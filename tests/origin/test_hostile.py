"""20,000 hostile tokens, paths and headers: no 500, and no byte that the link does not grant.

In-process, in one event loop, from a fixed seed; a few hundred go over a real socket as raw bytes.
"""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import Iterator
from contextlib import closing
from urllib.parse import quote, urlsplit

from contracts.tokens import create_origin_token
from origin import STREAM_PATH
from tests.origin.asgi import Answer, ask
from tests.origin.conftest import NOW, SECRET, Nas, content_of, link, origin_app

CONTENT = content_of(500)
OUTSIDE = b"never to be served, neither this nor any part of it"
ALLOWED = {200, 204, 206, 304, 400, 401, 404, 405, 410, 412, 416}
TOKENS, LOCATORS, HEADERS, PATHS = 6_000, 5_000, 7_000, 2_000

_URL = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
_NASTY = [
    "..", ".", "", "/", "\\", "\0", "%2e%2e", "%2F", "~", "a.mp3", "music", "outside.txt", "linked",
    "link.mp3",
    "etc", "passwd", "proc", "self", "loc:", "loc:1.00000000", "C:", "CON", "：", "\ud800", "\U0001f3b5", " ",
    "a.mp3\n", "file:", "//", "*",
]  # fmt: skip


def hostile_tokens(rng: random.Random, good: str) -> Iterator[bytes]:
    """Good tokens with something changed, and text that never was one."""
    for _ in range(TOKENS):
        text = list(good)
        whim = rng.randrange(6)
        at = rng.randrange(len(text))
        if whim == 0:
            text[at] = rng.choice(_URL.replace(text[at], ""))
        elif whim == 1:
            del text[at:]
        elif whim == 2:
            text.insert(at, rng.choice(_URL + "=+/%.~ "))
        elif whim == 3:
            text[at] = chr(rng.randrange(256))
            if "".join(text) == good:
                continue
        elif whim == 4:
            text = [rng.choice(_URL) for _ in range(rng.randrange(3000))]
        else:
            text = [chr(rng.randrange(1, 256)) for _ in range(rng.randrange(200))]
        yield (STREAM_PATH + "".join(text)).encode("latin-1")


def hostile_locators(rng: random.Random, roots: list[str]) -> Iterator[str]:
    """What a caller with the secret might sign: the token is good, the locator is not."""
    for _ in range(LOCATORS):
        parts = [rng.choice([*_NASTY, *roots]) for _ in range(rng.randrange(1, 7))]
        locator = rng.choice(["/", "", "\\"]).join(parts)
        locator = locator.encode("utf-8", "ignore").decode()[:300]
        if locator:
            yield locator


def hostile_headers(rng: random.Random, etag: str) -> Iterator[dict[str, str]]:
    pieces = [
        "bytes", "items", "=", "-", ",", " ", "\t", "0", "1", "499", "500", "501", "9" * 30, "9" * 5000, "*",
        '"', "W/", etag, "Sun, 06 Nov 1994 08:49:37 GMT", "é", ";", "a", "bytes=", "0-0", "-1", "-0", "1-",
    ]  # fmt: skip
    names = ["Range", "If-Range", "If-Match", "If-None-Match", "If-Modified-Since", "If-Unmodified-Since"]
    for _ in range(HEADERS):
        yield {
            name: "".join(rng.choice(pieces) for _ in range(rng.randrange(1, 9)))
            for name in rng.sample(names, rng.randrange(1, 4))
        } | (
            {"Range": "bytes=" + "".join(rng.choice(pieces) for _ in range(5))} if rng.random() < 0.5 else {}
        )


def hostile_paths(rng: random.Random) -> Iterator[bytes]:
    prefixes = [STREAM_PATH, "/catalog/", "/api/private-origin/", "/", "//", "/healthz/", "/catalog/blobs/"]
    for _ in range(PATHS):
        parts = [rng.choice(_NASTY) for _ in range(rng.randrange(6))]
        path = rng.choice(prefixes) + "/".join(parts)
        yield quote(path.encode("utf-8", "ignore"), safe=rng.choice(["/", "/%", "/%.:"])).encode()


def refused(answer: Answer) -> None:
    assert answer.status in ALLOWED - {200, 206}, answer
    assert OUTSIDE[:10] not in answer.body
    assert CONTENT[:10] not in answer.body


def granted(answer: Answer) -> None:
    """Only bytes of the one file, and as many as the headers say."""
    assert answer.status in ALLOWED, answer
    if answer.status == 206:
        first, _, rest = answer.headers["content-range"].removeprefix("bytes ").partition("-")
        assert CONTENT[int(first) : int(rest.partition("/")[0]) + 1] == answer.body
    elif answer.status == 200:
        assert answer.body == CONTENT
    else:
        assert CONTENT[:10] not in answer.body
    if answer.status != 304:
        assert str(len(answer.body)) == answer.headers["content-length"]


def test_twenty_thousand_hostile_requests(nas: Nas) -> None:
    """Every one is answered, with a status of the table, completely."""
    handle = nas.add("a.mp3", CONTENT)
    (nas.folder / "outside.txt").write_bytes(OUTSIDE)
    (nas.music / "link.mp3").symlink_to(nas.folder / "outside.txt")
    (nas.music / "linked").symlink_to(nas.folder)
    (nas.folder / "store").mkdir()
    app = origin_app(nas, catalog=nas.folder / "store")
    rng = random.Random(20_260_101)
    good = create_origin_token(SECRET, handle, NOW + 600)

    async def attack() -> int:
        answered = 0
        etag = (await ask(app, link(handle))).headers["etag"]
        for path in hostile_tokens(rng, good):
            refused(await ask(app, path))
            answered += 1
        for locator in hostile_locators(rng, [str(nas.music), str(nas.folder), "/etc/passwd"]):
            answer = await ask(app, link(locator))
            assert answer.status in (200, 404), (locator, answer)
            assert answer.body == CONTENT or answer.status == 404
            answered += 1
        for headers in hostile_headers(rng, etag):
            granted(await ask(app, link(handle), headers))
            answered += 1
        for path in hostile_paths(rng):
            answer = await ask(app, path, method=rng.choice(["GET", "HEAD", "OPTIONS", "POST"]))
            assert answer.complete and answer.status in ALLOWED, (path, answer)
            assert answer.status != 200 or answer.body in (b"", b'{"status":"ok"}'), (path, answer)
            answered += 1
        return answered

    assert asyncio.run(attack()) > 19_900


def test_raw_bytes_over_a_socket(nas: Nas, base_url: str) -> None:
    """What no client library would send. The server answers 4xx or hangs up, and goes on serving."""
    nas.add("a.mp3", CONTENT)
    rng = random.Random(3)
    parts = urlsplit(base_url)
    address = (parts.hostname or "", parts.port or 0)
    seeds = [
        b"GET %s HTTP/1.1\r\nHost: a\r\nRange: bytes=0-1\r\n\r\n" % (STREAM_PATH + "x" * 90).encode(),
        b"GET /../../../../etc/passwd HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /api/private-origin/stream/%2e%2e%2f%00\xff HTTP/1.1\r\nHost: \xff\r\n\r\n",
        b"HEAD http://other/catalog/manifest.json HTTP/1.0\r\n\r\n",
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
