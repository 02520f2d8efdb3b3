"""Assembly: settings become an application. Everything else in this package is put together here.

Invariant: whatever goes wrong, also in Litestar itself, is answered from the one table of `origin.reply`,
and no exception's text reaches a client or a log: it may hold a path. There is no OpenAPI, no debug page
and no logging middleware, whatever the environment says.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

from litestar import Litestar, MediaType, Request, Response, asgi, route
from litestar.enums import HttpMethod, ScopeType
from litestar.exceptions import HTTPException
from litestar.handlers import ASGIRouteHandler
from litestar.types import ASGIApp, Receive, Scope, Send

from contracts.best_source import LISTEN_PATH, RENEW_PATH, STREAM_PATH
from origin.catalog import CATALOG_PATH, CatalogEndpoint
from origin.direct import DirectLitestar, log_unexpected
from origin.files import Files
from origin.gate import Gate
from origin.key_source import KeySource
from origin.lease import RenewEndpoint
from origin.limits import LinkLimits
from origin.listen import ListenEndpoint, Page
from origin.logs import begin_request
from origin.metrics import Metrics
from origin.monitoring import METRICS_PATH, READY_PATH, MetricsEndpoint, ReadyEndpoint
from origin.readiness import Readiness
from origin.redact import install_redaction
from origin.reply import ERROR_BODIES, error_headers
from origin.settings import OriginSettings
from origin.songs import Songs
from origin.stream import StreamEndpoint


def create_app(
    db_path: Path | str,
    env_file: Path | str | None = None,
    *,
    roots: Mapping[str, Path | str] | None = None,
    catalog: Path | str | None = None,
    max_token_ttl_s: int | None = None,
    trusted_proxies: str | None = None,
    max_connections_per_link: int | None = None,
    max_copies_per_link: int | None = None,
    clock: Callable[[], float] = time.time,
) -> Litestar:
    """An origin for one catalogue, as an ASGI application.

    `db_path` is the authoritative catalogue, `env_file` holds secrets and defaults (`docs/origin.md`); both
    may be missing. The other arguments replace what the env file says: `roots` binds backends by name,
    `catalog` is a folder store to serve, `max_token_ttl_s` the longest life that is left to a token,
    `trusted_proxies` who is believed about a client's address, and of the limits of a link 0 is none. Tokens
    are verified with `app.state.private_origin_secret` (a secret, a list of secrets or a key ring) when that
    is set, at any time, otherwise with the env file's.
    Raises:
        MalformedError: the env file, or one of its values, does not follow its format.
        OSError: the env file is there and cannot be read.
    """
    settings = OriginSettings.load(
        db_path,
        env_file,
        roots=roots,
        catalog=catalog,
        max_token_ttl_s=max_token_ttl_s,
        trusted_proxies=trusted_proxies,
        max_connections_per_link=max_connections_per_link,
        max_copies_per_link=max_copies_per_link,
    )
    return build_app(settings, clock=clock)


def build_app(settings: OriginSettings, *, clock: Callable[[], float] = time.time) -> Litestar:
    """The application for settings that are already known; `clock` gives Unix seconds."""
    install_redaction()
    keys = KeySource(settings.env_file)
    keys.reload()
    gate = Gate(keys, clock, settings.max_token_ttl_s, settings.trusted_proxies)
    limits = LinkLimits(settings.max_connections_per_link, settings.max_copies_per_link)
    files = Files(settings.db_path, settings.roots, follow_mounts=settings.follow_mounts)
    songs = Songs(settings.db_path)
    metrics = Metrics(gate.refusals, clock())
    watched = MetricsEndpoint(metrics, settings.metrics_networks, settings.trusted_proxies)
    readiness = Readiness(settings.db_path, settings.roots.values(), settings.catalog)
    endpoints = {
        STREAM_PATH: metrics.counted("stream", StreamEndpoint(gate, files, limits, accel=settings.accel)),
        RENEW_PATH: metrics.counted("renew", RenewEndpoint(gate)),
        LISTEN_PATH: metrics.counted("listen", ListenEndpoint(gate, songs, Page.load())),
        METRICS_PATH: metrics.counted("metrics", watched),
        READY_PATH: metrics.counted("readyz", ReadyEndpoint(gate, readiness)),
    }
    if settings.catalog is not None:
        catalog = CatalogEndpoint(settings.catalog, files, clock)
        endpoints[CATALOG_PATH] = metrics.counted("catalog", catalog)
    handlers = [health, *(_mounted(path, endpoint) for path, endpoint in endpoints.items())]

    def refuse_unrouted(request: Request[Any, Any, Any], error: HTTPException) -> Response[bytes]:
        begin_request()
        response = _refuse_http(request, error)
        metrics.count_unrouted(request.method, response.status_code or 500)
        return response

    return DirectLitestar(
        handlers,
        # Where requests come in bursts: a player's, and those of a mirror or a CDN.
        direct={path: endpoints[path] for path in (STREAM_PATH, CATALOG_PATH) if path in endpoints},
        on_shutdown=[files.close, songs.close],
        exception_handlers={HTTPException: refuse_unrouted, Exception: _refuse_unexpected},
        # Each given, because their defaults are taken from the environment or serve a page.
        debug=False,
        pdb_on_exception=False,
        logging_config=None,
        openapi_config=None,
    )


@route("/healthz", http_method=[HttpMethod.GET, HttpMethod.HEAD], sync_to_thread=False)
def health() -> Response[str]:
    """The process answers. Whether it can serve depends on the request, so nothing else is looked at."""
    return Response('{"status":"ok"}', media_type=MediaType.JSON, headers={"cache-control": "no-store"})


def _mounted(path: str, endpoint: Callable[..., Any]) -> ASGIRouteHandler:
    """The whole tree below a path, for one endpoint; a mount costs 9 µs a request (Litestar 2.25)."""

    async def mounted(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != ScopeType.HTTP:
            await send({"type": "websocket.close", "code": 1003, "reason": None})  # RFC 6455, 7.4.1
            return
        await endpoint(scope, receive, send)

    return asgi(path.rstrip("/"), is_mount=True, copy_scope=False)(cast("ASGIApp", mounted))


def _refuse_http(_: Request[Any, Any, Any], error: HTTPException) -> Response[bytes]:
    """What Litestar refuses by itself: a path or a method that is not routed, a malformed Host."""
    return _response(error.status_code if error.status_code in ERROR_BODIES else 400)


def _refuse_unexpected(_: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    log_unexpected(error)
    return _response(500)


def _response(status: int) -> Response[bytes]:
    headers = {name.decode(): value.decode() for name, value in error_headers(status)}
    return Response(ERROR_BODIES[status], status_code=status, headers=headers)
