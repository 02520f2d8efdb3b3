"""Running the application under uvicorn, as it was measured: our protocol, uvloop where there is one, quiet.

Invariant: no access log (it would cost 40 % of a small request, and show who listened to what), no Server
header, and no proxy's word on who the client is. An application may run under any other ASGI server as
well.
"""

from __future__ import annotations

import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from typing import Any, cast

import uvicorn
from litestar.types import ASGIApp

from origin.http_protocol import OriginProtocol, bound_kernel_buffers
from origin.stall import STALL_LIMIT_S

# A player that is cut off asks again for the rest; systemd kills after 90 s, Docker after 10.
_SHUTDOWN_S = 5
# Longer than the idle minute of common proxies, so that they close first (RFC 9112, section 9.5).
_KEEP_ALIVE_S = 75
_BACKLOG = 2048  # uvicorn's default; the kernel caps it at somaxconn.


def serve(
    app: ASGIApp,
    host: str,
    port: int,
    on_listening: Callable[[str], object] = lambda base_url: None,
    *,
    stall_limit_s: float = STALL_LIMIT_S,
) -> None:
    """Serve until SIGTERM or SIGINT, and return when the last response is done or `_SHUTDOWN_S` are over.

    Port 0 takes a free one. `on_listening` is called with the base URL when requests can be sent to it.
    `stall_limit_s`: a client that takes no byte for so long is dropped.
    Only the main thread may call this: Python gives signals to no other.
    Raises:
        OSError: the address is not ours, or taken.
    """
    listener = _listen(host, port)
    # uvicorn raises a signal again when it is done: as an interrupt, which ends here.
    previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        on_listening(_base_url(listener))
        with suppress(KeyboardInterrupt):
            uvicorn.Server(_config(app, _SHUTDOWN_S, stall_limit_s)).run(sockets=[listener])
    finally:
        signal.signal(signal.SIGTERM, previous)
        listener.close()


@contextmanager
def serving(
    app: ASGIApp,
    host: str = "127.0.0.1",
    port: int = 0,
    *,
    stall_limit_s: float = STALL_LIMIT_S,
    shutdown_s: int = 1,
) -> Iterator[str]:
    """Serve in a thread while the block runs; gives the base URL, to which requests can be sent at once.

    For demonstrations and tests. Raises: OSError as `serve`.
    """
    listener = _listen(host, port)
    server = uvicorn.Server(_config(app, shutdown_s, stall_limit_s))
    thread = threading.Thread(target=server.run, args=([listener],), name="origin", daemon=True)
    thread.start()
    try:
        # The socket listens already: what comes before the server is up waits in its backlog.
        yield _base_url(listener)
    finally:
        server.should_exit = True
        thread.join()


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, port), family=family, backlog=_BACKLOG)
    bound_kernel_buffers(listener)
    return listener


def _base_url(listener: socket.socket) -> str:
    address, port = listener.getsockname()[:2]
    return f"http://[{address}]:{port}" if ":" in address else f"http://{address}:{port}"


def _config(app: ASGIApp, shutdown_s: int, stall_limit_s: float) -> uvicorn.Config:
    limit_s = stall_limit_s

    class Protocol(OriginProtocol):
        stall_limit_s = limit_s

    return uvicorn.Config(
        cast("Any", app),
        http=Protocol,
        loop="uvloop" if find_spec("uvloop") else "asyncio",
        ws="none",
        log_config=None,  # Its warnings go where everybody's go: origin.logs, or whatever the caller has.
        access_log=False,
        log_level="warning",
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=shutdown_s,
    )
