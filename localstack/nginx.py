"""nginx on this machine: any configuration of it, and the caching CDN in front of a public bucket.

Each runs from one folder, needs no rights, and goes with us (see `tether.py`).
"""

from __future__ import annotations

import shutil
import socket
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from localstack.errors import LocalStackError, quote_tail
from localstack.ports import LOOPBACK, find_free_ports
from localstack.tether import Tethered

START_ATTEMPTS = 5
READY_WITHIN_S = 20.0

# One process: workers would outlive a master that is killed, and those of root would become a user who may
# not enter the folder.
MAIN = """\
daemon off;
master_process off;
pid nginx.pid;
error_log error.log;
worker_processes 1;
events {{}}
http {{
    access_log access.log;
    client_body_temp_path temp/body;
    proxy_temp_path temp/proxy;
    fastcgi_temp_path temp/fastcgi;
    uwsgi_temp_path temp/uwsgi;
    scgi_temp_path temp/scgi;
{http}
}}
"""
# It obeys the Cache-Control of the objects as a CDN does: immutable blobs once fetched are never fetched
# again, and the pointer is served stale while it is renewed and while the store is down.
CACHING = """\
    proxy_cache_path cache keys_zone=catalog:10m max_size=4g inactive=30d use_temp_path=off;
    server {{
        listen {listen};
        location / {{
            limit_except GET {{ deny all; }}
            proxy_pass {upstream}/;
            proxy_http_version 1.1;
            proxy_set_header Authorization "";
            proxy_cache catalog;
            proxy_cache_lock on;
            proxy_cache_revalidate on;
            proxy_cache_background_update on;
            proxy_cache_use_stale updating;
            add_header X-Cache-Status $upstream_cache_status always;
        }}
    }}
"""


class Nginx:
    """One nginx. A context manager; or `start` and `stop`."""

    def __init__(self, folder: Path, configure: Callable[[Sequence[str]], str], listeners: int = 1) -> None:
        """Describe a server that is run from `folder`.

        `configure` gets as many addresses to listen on as there are `listeners`, and returns what stands in
        the `http` block.
        """
        self._folder = folder.absolute()
        self._configure = configure
        self._ports = [0] * listeners
        self._child: Tethered | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def addresses(self) -> list[str]:
        """What it listens on, as HOST:PORT."""
        return [f"{LOOPBACK}:{port}" for port in self._ports]

    def start(self) -> None:
        """Start nginx; returns when it accepts connections.

        Raises:
            LocalStackError: there is no nginx, or it does not start; quotes the end of its log.
        """
        if self._child is not None:
            return
        nginx = find_nginx()
        if nginx is None:
            raise LocalStackError("there is no nginx: apt-get install nginx")
        for part in ("temp", "cache"):
            (self._folder / part).mkdir(parents=True, exist_ok=True)
        for _ in range(START_ATTEMPTS):
            self._ports = find_free_ports(len(self._ports), self._ports if all(self._ports) else [])
            configuration = MAIN.format(http=self._configure(self.addresses))
            (self._folder / "nginx.conf").write_text(configuration, encoding="utf-8")
            command = [str(nginx), "-p", f"{self._folder}/", "-e", "error.log", "-c", "nginx.conf"]
            self._child = Tethered(command, cwd=self._folder, env={}, log=self._folder / "nginx.log")
            if self._is_accepting(self._child):
                return
            self.stop()
            self._ports = [0] * len(self._ports)
        raise LocalStackError(f"nginx does not start:\n{quote_tail(self._folder / 'nginx.log')}")

    def stop(self) -> None:
        """End nginx; no error when it is not running."""
        if self._child is not None:
            self._child.stop()
            self._child = None

    def _is_accepting(self, child: Tethered) -> bool:
        deadline = time.monotonic() + READY_WITHIN_S
        while time.monotonic() < deadline:
            try:
                socket.create_connection((LOOPBACK, self._ports[0]), timeout=1.0).close()
            except OSError:
                if child.has_ended(within_s=0.02):
                    return False
            else:
                return not child.has_ended(within_s=0.02)
        return False


class CachingProxy(Nginx):
    """nginx in front of one address, as the caching CDN that a bucket has."""

    def __init__(self, folder: Path, upstream_url: str) -> None:
        """Describe a server for what is beneath `upstream_url` (no slash at its end), run from `folder`."""
        super().__init__(folder, lambda addresses: CACHING.format(listen=addresses[0], upstream=upstream_url))

    @property
    def url(self) -> str:
        """The address that stands for the upstream's, with no slash at its end."""
        return f"http://{self.addresses[0]}"


def find_nginx() -> Path | None:
    """Return the nginx of this machine, if there is one; Debian keeps it where only root's PATH looks."""
    found = shutil.which("nginx") or shutil.which("nginx", path="/usr/local/sbin:/usr/sbin:/opt/homebrew/bin")
    return Path(found) if found else None
