"""The nginx configurations that we ship, as they stand in docs/nginx, run before a real origin."""

from __future__ import annotations

import os
import socket
import ssl
import subprocess
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from http.client import HTTPConnection, HTTPSConnection
from pathlib import Path
from typing import Any, NamedTuple, cast
from urllib.parse import urlsplit

from localstack.nginx import Nginx
from origin import serving
from tests.origin.conftest import FOREVER, Nas, make_nas
from tests.origin.test_accel import KEY, accel_app
from tests.origin.test_http import CHANGED_S, CONTENT, Answer

# What nginx says of itself and of its connection.
NGINX_SAYS = {"server", "connection", "date", "keep-alive"}
SHIPPED = Path(__file__).parents[2] / "docs/nginx"


def shipped(name: str, changes: dict[str, str]) -> str:
    """A file as it is shipped, with what its first lines say must be changed; each must be there."""
    text = (SHIPPED / name).read_text("utf-8")
    for old, new in changes.items():
        assert old in text, f"{name} has no {old!r}"
        text = text.replace(old, new)
    return text


class Certificate(NamedTuple):
    """A certificate for music.example that only its own clients trust."""

    certificate: Path
    key: Path

    def context(self, protocol: str = "http/1.1") -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=self.certificate)
        context.set_alpn_protocols([protocol])
        return context


def make_certificate(folder: Path) -> Certificate:
    made = Certificate(folder / "certificate.pem", folder / "key.pem")
    options = "-x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=music.example"
    named = "-addext subjectAltName=DNS:music.example"
    files = ["-out", str(made.certificate), "-keyout", str(made.key)]
    subprocess.run(
        ["openssl", "req", *options.split(), *named.split(), *files], check=True, capture_output=True
    )
    return made


class Front(NamedTuple):
    """A running nginx with https.conf: where, who it is, and the folder with all that it writes."""

    port: int
    plain_port: int
    certificate: Certificate
    folder: Path

    def get(
        self,
        path: str,
        headers: dict[str, str] | None = None,
        method: str = "GET",
        *,
        body: bytes | None = None,
        source: str = "127.0.0.1",
    ) -> Answer:
        """One request on a connection of its own, from an address of the loopback network."""
        connection = TlsConnection(self, source)
        try:
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            fields: dict[str, str] = {}
            for name, value in response.getheaders():  # What came twice must be seen: RFC 9110, section 5.3.
                fields[name.lower()] = ", ".join(filter(None, [fields.get(name.lower()), value]))
            return Answer(response.status, fields, response.read())
        finally:
            connection.close()

    def written(self) -> bytes:
        """All that nginx has written into its folder by now, the configuration and the cache left out."""
        logs = [path for path in self.folder.rglob("*") if path.is_file() and path.suffix != ".conf"]
        return b"".join(path.read_bytes() for path in logs)


class TlsConnection(HTTPSConnection):
    """A connection to a front, whose certificate is for another name than its address."""

    def __init__(self, front: Front, source: str = "127.0.0.1") -> None:
        context = front.certificate.context()
        super().__init__("127.0.0.1", front.port, timeout=20, source_address=(source, 0), context=context)

    def connect(self) -> None:
        context: ssl.SSLContext = self._context  # type: ignore[attr-defined]
        super(HTTPSConnection, self).connect()
        self.sock = context.wrap_socket(self.sock, server_hostname="music.example")


@contextmanager
def front(
    folder: Path,
    certificate: Certificate,
    origin_url: str,
    music: Path | None = None,
    changes: dict[str, str] | None = None,
) -> Iterator[Front]:
    """nginx with https.conf before an origin; with origin.conf as well when it is told where the music is."""
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "music-cloud.log"

    def configure(addresses: Sequence[str]) -> str:
        told = {
            "listen 443 ssl": f"listen {addresses[0]} ssl",
            "listen 80;": f"listen {addresses[1]};",
            "server 127.0.0.1:8000;": f"server {urlsplit(origin_url).netloc};",
            "/etc/letsencrypt/live/music.example/fullchain.pem": str(certificate.certificate),
            "/etc/letsencrypt/live/music.example/privkey.pem": str(certificate.key),
            "/var/log/nginx/music-cloud.log": str(log),
        }
        if music is not None:
            accel = {"replace this by a key of your own": KEY, "/volume1/music/": f"{music}/"}
            (folder / "origin.conf").write_text(shipped("origin.conf", accel))
            told["# include /etc/nginx/music-cloud/origin.conf;"] = f"include {folder}/origin.conf;"
        return shipped("https.conf", told | (changes or {}))

    with Nginx(folder, configure, 2) as nginx:
        ports = [int(address.rpartition(":")[2]) for address in nginx.addresses]
        yield Front(ports[0], ports[1], certificate, folder)


class Watched:
    """An ASGI application and what it answered: the status and headers, as they left it.

    `before_answer`, when there is one, runs once, when the application has decided and nobody knows yet.
    """

    def __init__(self, app: Callable[..., Awaitable[Any]]) -> None:
        self.app = app
        self.answers: list[Answer] = []
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.before_answer: Callable[[], object] | None = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            fields = {name.decode(): value.decode("latin-1") for name, value in scope["headers"]}
            self.requests.append((scope["path"], fields))

        async def watched(message: Any) -> None:
            if message["type"] == "http.response.start":
                headers = {name.decode(): value.decode("latin-1") for name, value in message["headers"]}
                self.answers.append(Answer(message["status"], headers, b""))
                act, self.before_answer = self.before_answer, None
                if act is not None:
                    act()
            await send(message)

        await self.app(scope, receive, watched)


class Behind:
    """A NAS, its origin, and two nginx before it."""

    def __init__(self, nas: Nas, origin: Watched, url: str, fronts: dict[str, Front]) -> None:
        self.nas = nas
        self.origin = origin
        self.address = urlsplit(url).netloc
        self.fronts = fronts

    def direct(
        self, path: str, headers: dict[str, str], method: str = "GET", source: str = "127.0.0.1"
    ) -> Answer:
        with closing(HTTPConnection(self.address, timeout=20, source_address=(source, 0))) as connection:
            connection.request(method, path, headers=headers)
            response = connection.getresponse()
            fields = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, fields, response.read())

    def was_handed_over(self) -> bool:
        """Whether the last answer of the origin let nginx send the bytes."""
        return "x-accel-redirect" in self.origin.answers[-1].headers


def comparable(answer: Answer) -> dict[str, str]:
    """The headers that must be the same whoever sends them."""
    fields = {name: value for name, value in answer.headers.items() if name not in NGINX_SAYS}
    if fields.get("content-type", "").startswith("multipart/byteranges"):
        fields["content-type"] = "multipart/byteranges"  # Its boundary is random.
    if "x-request-id" in fields:
        fields["x-request-id"] = "of each request"
    return fields


@contextmanager
def nas_behind_nginx(folder: Path, certificate: Certificate) -> Iterator[Behind]:
    """A NAS with one file, `a.flac`, ten minutes before all of its links are over."""
    nas = make_nas(folder)
    (nas.music / "a.flac").write_bytes(CONTENT)
    os.utime(nas.music / "a.flac", (CHANGED_S, CHANGED_S))
    with ExitStack() as stack:
        origin = Watched(cast("Any", accel_app(nas, now=lambda: FOREVER - 600)))
        url = stack.enter_context(serving(cast("Any", origin)))
        fronts = {
            name: stack.enter_context(front(folder / name, certificate, url, music))
            for name, music in (("proxied", None), ("accel", nas.music))
        }
        yield Behind(nas, origin, url, fronts)


def closed_port() -> int:
    """A port where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])
