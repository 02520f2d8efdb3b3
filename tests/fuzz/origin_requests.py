"""Sends hostile requests: `python -m tests.fuzz.origin_requests [--seconds N] [--requests N] [--seed N]`.

Every endpoint, in-process: damaged tokens, signed locators that should not be, paths, headers, bodies.
After each it is checked that nothing got out: no 500, no byte of a file that was not granted, and no path,
secret or token in the response or in the log. What breaks that ends it with a traceback and the request.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple
from unicodedata import normalize
from urllib.parse import quote

from litestar import Litestar

from contracts.best_source import LISTEN_PATH, RENEW_PATH
from contracts.errors import TokenError
from contracts.tokens import TokenKind, create_origin_token
from origin import STREAM_PATH
from origin.logs import JsonFormatter
from tests.origin.asgi import Answer, ask
from tests.origin.conftest import NOW, SECRET, Nas, content_of, make_nas, origin_app

CONTENT = content_of(500)
# Beneath the root under another name, in another form of Unicode, or as a second link: all of it may be read
# by whoever has the secret and signs its path.
GRANTED = frozenset({CONTENT, content_of(300, seed=2), content_of(200, seed=3), b""})
MARKER = b"MARKER-never-to-be-served"
STATUSES = {200, 204, 206, 304, 400, 401, 404, 405, 410, 412, 413, 415, 416, 429, 503}
LONG = "n" * 251 + ".mp3"  # 255 bytes: NAME_MAX.
FORMS = "Beyonc\u00e9 \uac00.mp3"

_URL = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
_NASTY = [
    "..", ".", "", "/", "\\", "\0", "%2e%2e", "%2F", "~", "a.mp3", "A.MP3", "music", "secret.txt", "linked",
    "link.mp3", "hard.mp3", "pipe.mp3", "zero.mp3", LONG, LONG + "x", "n" * 5000, FORMS,
    normalize("NFD", FORMS), FORMS.upper(), "etc", "passwd", "proc", "self", "fd", "loc:", "loc:1.00000000",
    "loc:-1.0", "C:", "CON", "：",
    "\ud800", "\U0001f3b5", " ", "a.mp3\n", "file:", "//", "*", "\u202e", "catalogsync.db", "origin.env",
]  # fmt: skip
_HEADER_PIECES = [
    "bytes", "items", "=", "-", ",", " ", "\t", "0", "1", "499", "500", "501", "9" * 30, "9" * 5000, "*", '"',
    "W/", '"x"', "Sun, 06 Nov 1994 08:49:37 GMT", "é", ";", "a", "bytes=", "0-0", "-1", "-0", "1-",
    "*", "*", "*",
]  # fmt: skip
_RANGE_ENDS = ["", "0", "1", "49", "499", "500", " ", "9" * 30]
_HEADERS = [
    "Range", "If-Range", "If-Match", "If-None-Match", "If-Modified-Since", "If-Unmodified-Since",
    "Content-Type", "X-Forwarded-For", "Forwarded", "Via", "Origin", "Content-Length", "X-Music-Cloud-Accel",
]  # fmt: skip
_PREFIXES = [
    STREAM_PATH, LISTEN_PATH, RENEW_PATH, "/catalog/", "/catalog/blobs/", "/metrics", "/readyz",
    "/healthz/", "/api/private-origin/", "/", "//", "/x/../",
]  # fmt: skip
_METHODS = ["GET", "GET", "GET", "HEAD", "POST", "OPTIONS", "PUT", "TRACE"]


class Request(NamedTuple):
    """`token` is what must not come back, in the answer or the log."""

    method: str
    path: bytes
    headers: dict[str, str]
    body: bytes
    client: tuple[str, int] | None
    token: str


class Target:
    """An origin, with everything beside and beneath its root that should not be reached."""

    def __init__(self, nas: Nas) -> None:
        self.nas = nas
        self.handle = nas.add("a.mp3", CONTENT)
        for name in (
            "link.mp3",
            "hard.mp3",
            "pipe.mp3",
            "zero.mp3",
            "../secret.txt",
            "linked/secret.txt",
            LONG,
        ):
            nas.add(name)
        self.store = nas.folder / "store"
        plant(nas, self.store)
        self.app: Litestar = origin_app(nas, catalog=self.store, max_token_ttl_s=86_400)
        self.roots = [str(nas.music), str(nas.folder), "/etc/passwd", "/dev", "/proc/self/environ"]

    def handles(self) -> list[str]:
        """Of every location of the catalogue, also of those that lead astray."""
        rows = self.nas.connect()
        try:
            ids = [row[0] for row in rows.execute("SELECT id FROM file_locations")]
        finally:
            rows.close()
        return [self.handle, *(f"loc:{number}.00000000" for number in ids)]


def plant(nas: Nas, store: Path) -> None:
    """A secret beside the root, and ways that seem to lead to it, or to what cannot be read to its end."""
    (nas.folder / "secret.txt").write_bytes(MARKER)
    (nas.folder / "origin.env").write_bytes(b"# " + MARKER + b"\n")
    (nas.folder / "beside.mp3").write_bytes(content_of(200, seed=3))
    (nas.music / FORMS).write_bytes(content_of(300, seed=2))
    (nas.music / LONG).write_bytes(b"")
    (nas.music / "link.mp3").symlink_to(nas.folder / "secret.txt")
    (nas.music / "linked").symlink_to(nas.folder)
    (nas.music / "loop").symlink_to("loop")
    os.link(nas.folder / "beside.mp3", nas.music / "hard.mp3")
    if hasattr(os, "mkfifo"):
        os.mkfifo(nas.music / "pipe.mp3")
        with suppress(PermissionError):
            os.mknod(nas.music / "zero.mp3", 0o20666, os.makedev(1, 5))
    store.mkdir()
    (store / "secret.txt").write_bytes(MARKER)
    (store / "manifest.json").symlink_to(nas.folder / "secret.txt")


def hostile_request(dice: random.Random, target: Target) -> Request:
    """One request, of a kind that the dice choose."""
    kind = dice.choice((_damaged_token, _signed_locator, _odd_headers, _odd_path, _renewal, _odd_path))
    return kind(dice, target)


def damaged(dice: random.Random, good: str) -> str:
    """A good token with something changed, or text that never was one."""
    text = list(good)
    whim, at = dice.randrange(7), dice.randrange(len(text))
    if whim == 0:
        text[at] = dice.choice(_URL.replace(text[at], ""))
    elif whim == 1:
        del text[at:]
    elif whim == 2:
        text.insert(at, dice.choice(_URL + "=+/%.~ "))
    elif whim == 3:
        text[at] = chr((ord(text[at]) + dice.randrange(1, 256)) % 256)
        if text[at] == "%":  # A percent sign may spell what was there.
            text[at] = "%%"
    elif whim == 4:
        text = [dice.choice(_URL) for _ in range(dice.randrange(3000))]
    elif whim == 5:
        text = [chr(dice.randrange(1, 256)) for _ in range(dice.randrange(200))]
    else:
        text += dice.choice(("A", "=", "%00", "/", "/..", "?x", "%3F"))
    return "".join(text)


def _token(dice: random.Random, target: Target, kind: TokenKind) -> str:
    expires_at = NOW + dice.choice((600, 600, 600, 0, -1, 86_401, 10**9))
    return create_origin_token(SECRET, target.handle, expires_at, kind=kind)


def _damaged_token(dice: random.Random, target: Target) -> Request:
    token = _token(dice, target, dice.choice(list(TokenKind)))
    if dice.random() < 0.9:  # Otherwise of another kind, expired, or living too long.
        token = damaged(dice, token)
    path = dice.choice((STREAM_PATH, STREAM_PATH, LISTEN_PATH)) + token
    return _request(dice, path.encode("latin-1", "replace"), token=token, method="GET")


def _signed_locator(dice: random.Random, target: Target) -> Request:
    """What a caller with the secret might sign: the token is good, the locator is not."""
    parts = [dice.choice((*_NASTY, *target.roots)) for _ in range(dice.randrange(1, 7))]
    locator = dice.choice(("/", "", "\\")).join(parts).encode("utf-8", "ignore").decode()[:1000]
    kind, prefix = dice.choice(((TokenKind.STREAM, STREAM_PATH), (TokenKind.LISTEN, LISTEN_PATH)))
    try:
        token = create_origin_token(
            SECRET, dice.choice((locator, locator, *target.handles())), NOW + 600, kind=kind
        )
    except TokenError:
        token = _token(dice, target, kind)
    return _request(dice, (prefix + token).encode(), token=token, method=dice.choice(("GET", "HEAD")))


def _odd_headers(dice: random.Random, target: Target) -> Request:
    token = create_origin_token(SECRET, target.handle, NOW + 600)
    good = STREAM_PATH + token
    path = dice.choice((good, good, good, good, "/metrics", "/readyz", "/catalog/manifest.json"))
    headers = {
        name: "".join(dice.choice(_HEADER_PIECES) for _ in range(dice.choice((1, 1, 2, 4, 8))))
        for name in dice.sample(_HEADERS, dice.randrange(4))
    }
    if dice.random() < 0.5:
        sets = (
            dice.choice(_RANGE_ENDS) + dice.choice("----- x") + dice.choice(_RANGE_ENDS)
            for _ in range(dice.randrange(1, 4))
        )
        headers["Range"] = "bytes=" + ",".join(sets)
    if dice.random() < 0.1:
        headers["Host"] = "".join(dice.choice(_HEADER_PIECES) for _ in range(3))
    method = dice.choice(("GET", "GET", dice.choice(_METHODS)))
    return _request(dice, path.encode(), token=token, headers=headers, method=method)


def _odd_path(dice: random.Random, target: Target) -> Request:
    parts = [dice.choice(_NASTY) for _ in range(dice.randrange(6))]
    path = dice.choice(_PREFIXES) + "/".join(parts)
    safe = dice.choice(("/", "/%", "/%.:"))
    return _request(dice, quote(path.encode("utf-8", "ignore"), safe=safe).encode())


def _renewal(dice: random.Random, target: Target) -> Request:
    token = _token(dice, target, dice.choice(list(TokenKind)))
    if dice.random() < 0.7:
        token = damaged(dice, token)
    body = dice.choice(
        (
            json.dumps({"lease": token}).encode(),
            json.dumps({"lease": token, "more": [token]}).encode(),
            json.dumps([token]).encode(),
            b'{"lease":' * dice.randrange(600),
            dice.randbytes(dice.randrange(300)),
            b" " * dice.randrange(5000),
        )
    )
    types = ("application/json", "application/json", "Application/JSON; charset=utf-8", "text/plain", "é")
    headers = {"Content-Type": dice.choice(types)}
    method = "POST" if dice.random() < 0.9 else dice.choice(_METHODS)
    return _request(dice, RENEW_PATH.encode(), token=token, headers=headers, body=body, method=method)


def _request(
    dice: random.Random,
    path: bytes,
    *,
    token: str = "",
    headers: dict[str, str] | None = None,
    body: bytes = b"",
    method: str = "",
) -> Request:
    client = dice.choice((("127.0.0.1", 9), ("203.0.113.7", 9), ("::1", 9), ("", 0), None))
    return Request(method or dice.choice(_METHODS), path, headers or {}, body, client, token)


async def send_hostile(target: Target, request: Request, log: list[str]) -> Answer:
    """Send it, and check what came of it; `log` is what `captured_log` gave.

    Raises:
        AssertionError: something got out, or something broke.
    """

    async def with_body(scope: Any, _: Any, send: Any) -> None:
        pieces = [request.body[:100], request.body[100:]]

        async def receive() -> Any:
            if not pieces:
                return {"type": "http.disconnect"}
            return {"type": "http.request", "body": pieces.pop(0), "more_body": bool(pieces)}

        await target.app(scope, receive if request.method == "POST" else _, send)

    log.clear()
    answer = await ask(
        with_body,  # type: ignore[arg-type]
        request.path,
        request.headers,
        request.method,
        request.client,
    )
    assert answer.status in STATUSES, answer
    assert answer.complete, answer
    shown = b"\n".join((answer.body, str(answer.headers).encode(), *(line.encode() for line in log)))
    for hidden in (MARKER, SECRET.encode(), str(target.nas.folder).encode(), b"root:x:"):
        assert hidden not in shown, (hidden, shown)
    # The tokens that a page or a renewal gives out name the same file; only what signs them is another.
    pieces = range(0, len(request.token) - 40, 20) if answer.status >= 400 else (-40,)
    for at in pieces:
        piece = request.token[at:][:40].encode("latin-1", "replace")
        assert len(piece) < 40 or piece not in shown, (piece, shown)
    _check_body(request, answer)
    return answer


def _check_body(request: Request, answer: Answer) -> None:
    """Bytes of a file only where one was granted, and as many as the headers say."""
    is_stream = request.path.startswith(STREAM_PATH.encode())
    if is_stream and answer.status == 200 and request.method == "GET":
        assert answer.body in GRANTED
    elif is_stream and answer.status == 206 and "content-range" in answer.headers:
        first, _, rest = answer.headers["content-range"].removeprefix("bytes ").partition("-")
        stretch = slice(int(first), int(rest.partition("/")[0]) + 1)
        assert any(content[stretch] == answer.body for content in GRANTED)
    elif not (is_stream and answer.status == 206):
        assert not any(content and content[:10] in answer.body for content in GRANTED)
    if request.method != "HEAD" and "content-length" in answer.headers:
        assert str(len(answer.body)) == answer.headers["content-length"]


@contextmanager
def captured_log() -> Iterator[list[str]]:
    """Everything that is logged while the block runs, as it is written, and as others may write it."""
    lines: list[str] = []

    class Kept(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            own = JsonFormatter().format(record)
            lines.append(f"{own}\n{record.getMessage() if record.name == 'origin' else ''}")

    handler, root = Kept(), logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        yield lines
    finally:
        root.setLevel(level)
        root.removeHandler(handler)


def attack(target: Target, seed: int, goes_on: Callable[[int], bool]) -> dict[int, int]:
    """Send requests while `goes_on` says so of their number; tells how often there was which status."""
    dice = random.Random(seed)
    statuses: dict[int, int] = {}

    async def send_all() -> None:
        number = 0
        while goes_on(number):
            request = hostile_request(dice, target)
            try:
                answer = await send_hostile(target, request, log)
            except BaseException:
                print(f"seed {seed}, request {number}: {request}", file=sys.stderr)  # noqa: T201
                raise
            statuses[answer.status] = statuses.get(answer.status, 0) + 1
            number += 1

    with captured_log() as log:
        asyncio.run(send_all())
    return statuses


def main() -> None:
    """Run until the time is over, or so many requests were sent."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--requests", type=int, default=sys.maxsize)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        target = Target(make_nas(Path(folder)))
        end = time.monotonic() + options.seconds
        statuses = attack(target, options.seed, lambda n: n < options.requests and time.monotonic() < end)
    print(f"{sum(statuses.values()):,} hostile requests, by status: {dict(sorted(statuses.items()))}")  # noqa: T201


if __name__ == "__main__":
    main()
