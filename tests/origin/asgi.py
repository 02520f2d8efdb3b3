"""A client in the process: one ASGI request, and what came back. No server, so 20,000 take seconds."""

from __future__ import annotations

import asyncio
from typing import Any, NamedTuple
from urllib.parse import unquote

from litestar import Litestar


class Answer(NamedTuple):
    """A response. `complete` tells whether its end was sent."""

    status: int
    headers: dict[str, str]
    body: bytes
    complete: bool


def call(
    app: Litestar, path: str | bytes, headers: dict[str, str] | None = None, method: str = "GET"
) -> Answer:
    """The answer to one request, in an event loop of its own."""
    return asyncio.run(ask(app, path, headers, method))


async def ask(
    app: Litestar,
    path: str | bytes,
    headers: dict[str, str] | None = None,
    method: str = "GET",
    client: tuple[str, int] | None = ("127.0.0.1", 9),
) -> Answer:
    """The answer to one request. The path is sent as it is, as bytes when it is no valid URL."""
    raw = path.encode("latin-1") if isinstance(path, str) else path
    scope: Any = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": unquote(raw.decode("latin-1")),
        "raw_path": raw,
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"test")]
        + [(name.lower().encode(), value.encode("latin-1")) for name, value in (headers or {}).items()],
        "client": client,
        "server": ("test", 80),
        "state": {},
    }
    sent: list[Any] = []
    asked = False

    async def receive() -> Any:
        nonlocal asked
        if asked:
            await asyncio.Event().wait()  # The client stays.
        asked = True
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    await app(scope, receive, send)
    start, bodies = sent[0], sent[1:]
    return Answer(
        start["status"],
        {name.decode().lower(): value.decode("latin-1") for name, value in start["headers"]},
        b"".join(message["body"] for message in bodies),
        bool(bodies) and not bodies[-1]["more_body"],
    )
