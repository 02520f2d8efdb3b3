"""What the portable sender costs, beside Starlette's FileResponse: whole files, 1 MiB ranges, small answers.

Both run under one uvicorn configuration (httptools, uvloop, no access log), each in a process of its own that
serves one file from the page cache; the client is this process, so both share the machine with the same
client. Rounds alternate. Ratios are medians over the rounds; the CPU is the server's, the memory its peak.
Starlette checks no token and looks nothing up; ours does both for every request.

    python -m benchmarks.origin_portable [--mib 200] [--pieces 64,256,1024]
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import uvicorn

from contracts.handles import format_handle, parse_handle
from contracts.tokens import create_origin_token
from origin import STREAM_PATH, create_app, sender
from origin.lookup import Catalogue

SECRET = "a secret of the benchmark, long enough"
ROUNDS = 5
CONNECTIONS = 8
RANGES = 400
SMALL_ANSWERS = 2000
RANGE_BYTES = 1 << 20
LOOKUPS = 2000
SLOW_PLAYERS = 200
SLOW_BYTES_PER_S = 200_000
SLOW_TENTHS = 40


# tcp(7): the kernel drops what was received. The client shares the machine, so it should cost little.
DISCARD = getattr(socket, "MSG_TRUNC", 0)


class Cost(NamedTuple):
    """What one round took: seconds on the wall, seconds of the server's CPU, bytes of body."""

    wall_s: float
    cpu_s: float
    body_bytes: int

    @property
    def mib_per_s(self) -> float:
        return self.body_bytes / self.wall_s / (1 << 20)

    @property
    def cpu_s_per_gib(self) -> float:
        return self.cpu_s / self.body_bytes * (1 << 30)


class Contender:
    """A server process, and the path at which it has the file."""

    def __init__(self, name: str, kind: str, folder: Path, path: str, piece_bytes: int = 0) -> None:
        self.name = name
        self.path = path
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.origin_portable", "--serve", kind, "--folder", str(folder)]
            + (["--piece-bytes", str(piece_bytes)] if piece_bytes else []),
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())

    def __enter__(self) -> Contender:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.send_signal(signal.SIGTERM)
        self._process.wait()

    def cpu_s(self) -> float:
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory_mib(self, field: str) -> float:
        """`VmHWM`, the peak, or `VmRSS`, of this moment: proc(5)."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        return int(status.partition(f"{field}:")[2].split()[0]) / 1024

    def measure(self, work: Callable[[Contender], int]) -> Cost:
        """Let every connection do the work at once; `work` returns the bytes that it got."""
        cpu, wall = self.cpu_s(), time.perf_counter()
        with ThreadPoolExecutor(CONNECTIONS) as clients:
            body_bytes = sum(clients.map(work, [self] * CONNECTIONS))
        return Cost(time.perf_counter() - wall, self.cpu_s() - cpu, body_bytes)


def request(client: socket.socket, path: str, buffer: bytearray, headers: str = "") -> tuple[int, int]:
    """Send one request and drop the body; returns its status and the number of its bytes."""
    client.sendall(f"GET {path} HTTP/1.1\r\nHost: bench\r\n{headers}\r\n".encode())
    view = memoryview(buffer)
    filled = 0
    while (end := buffer.find(b"\r\n\r\n", 0, filled)) < 0:
        got = client.recv_into(view[filled:])
        assert got, "the server closed the connection"
        filled += got
    head = bytes(buffer[:end]).decode("latin-1").lower()
    status = int(head.split(" ", 2)[1])
    length = int(head.partition("content-length:")[2].split()[0])
    left = length - (filled - end - 4)
    while left:
        got = client.recv_into(view, min(left, len(view)), DISCARD)
        assert got, "the server closed the connection"
        left -= got
    return status, length


def whole(contender: Contender) -> int:
    with closing(socket.create_connection(("127.0.0.1", contender.port))) as client:
        status, length = request(client, contender.path, bytearray(1 << 20))
    assert status == 200, status
    return length


def ranges(contender: Contender, size_bytes: int) -> int:
    starts = random.Random(7)
    buffer = bytearray(1 << 20)
    total = 0
    with closing(socket.create_connection(("127.0.0.1", contender.port))) as client:
        for _ in range(RANGES // CONNECTIONS):
            first = starts.randrange(size_bytes - RANGE_BYTES)
            header = f"Range: bytes={first}-{first + RANGE_BYTES - 1}\r\n"
            status, length = request(client, contender.path, buffer, header)
            assert (status, length) == (206, RANGE_BYTES), status
            total += length
    return total


def small(contender: Contender) -> int:
    """The first byte of the file, again and again: what a request costs without a body."""
    buffer = bytearray(1 << 16)
    count = SMALL_ANSWERS // CONNECTIONS
    with closing(socket.create_connection(("127.0.0.1", contender.port))) as client:
        for _ in range(count):
            status, _ = request(client, contender.path, buffer, "Range: bytes=0-0\r\n")
            assert status == 206, status
    return count


def slow_players(contender: Contender) -> float:
    """The MiB that the server grows by while `SLOW_PLAYERS` read the whole file at `SLOW_BYTES_PER_S`."""
    before = contender.memory_mib("VmRSS")
    most = before
    with ExitStack() as stack:
        players = []
        for _ in range(SLOW_PLAYERS):
            player = stack.enter_context(closing(socket.create_connection(("127.0.0.1", contender.port))))
            player.sendall(f"GET {contender.path} HTTP/1.1\r\nHost: bench\r\n\r\n".encode())
            players.append(player)
        for _ in range(SLOW_TENTHS):
            for player in players:
                player.recv(SLOW_BYTES_PER_S // 10)
            time.sleep(0.1)
            most = max(most, contender.memory_mib("VmRSS"))
    return most - before


def run_server(kind: str, folder: Path) -> None:
    listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
    app: Any
    if kind == "starlette":
        app = starlette_app(folder / "track.flac")
    else:
        app = create_app(folder / "catalogue.db", max_connections_per_link=0, max_copies_per_link=0)
        app.state.private_origin_secret = SECRET
    config = uvicorn.Config(
        app,
        http="httptools",
        loop="uvloop" if find_spec("uvloop") else "asyncio",
        access_log=False,
        log_level="warning",
    )
    print(listener.getsockname()[1], flush=True)
    uvicorn.Server(config).run(sockets=[listener])


def starlette_app(file: Path) -> Any:
    applications, responses = import_module("starlette.applications"), import_module("starlette.responses")
    routing = import_module("starlette.routing")

    async def track(_: Any) -> Any:
        return responses.FileResponse(file)

    return applications.Starlette(routes=[routing.Route("/track", track)])


def make_catalogue(folder: Path) -> str:
    """A catalogue of one file; returns its handle."""
    with closing(sqlite3.connect(folder / "catalogue.db", isolation_level=None)) as connection:
        connection.executescript(
            "PRAGMA journal_mode=WAL;"
            "CREATE TABLE songs(id INTEGER PRIMARY KEY); INSERT INTO songs VALUES (1);"
            "CREATE TABLE storage_backends(id INTEGER PRIMARY KEY, name, backend_type, base_path);"
            "CREATE TABLE file_assets(id INTEGER PRIMARY KEY, song_id, file_size_bytes);"
            "INSERT INTO file_assets VALUES (1, 1, 1);"
            "CREATE TABLE file_locations(id INTEGER PRIMARY KEY, file_asset_id, backend_id, locator, status);"
            "INSERT INTO file_locations VALUES (1, 1, 1, 'track.flac', 'active');"
        )
        connection.execute("INSERT INTO storage_backends VALUES (1, 'nas-1', 'nas', ?)", (str(folder),))
    return format_handle(1, 1, 1, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--mib", type=int, default=200, help="size of the file (default: 200)")
    parser.add_argument("--pieces", default="", help="also try these piece sizes, in KiB")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--piece-bytes", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        if options.piece_bytes:
            sender.LARGE_PIECE_BYTES = sender.SMALL_PIECE_BYTES = options.piece_bytes
        run_server(options.serve, options.folder)
        return
    with tempfile.TemporaryDirectory() as name, ExitStack() as servers:
        folder = Path(name)
        (folder / "track.flac").write_bytes(random.Random(1).randbytes(1 << 20) * options.mib)
        handle = make_catalogue(folder)
        path = STREAM_PATH + create_origin_token(SECRET, handle, int(time.time()) + 86_400)
        contenders = [servers.enter_context(Contender("ours, portable", "ours", folder, path))]
        for kib in filter(None, options.pieces.split(",")):
            contenders.append(
                servers.enter_context(
                    Contender(f"ours, {kib} KiB pieces", "ours", folder, path, int(kib) << 10)
                )
            )
        if find_spec("starlette"):
            label = f"Starlette {version('starlette')} FileResponse"
            contenders.append(servers.enter_context(Contender(label, "starlette", folder, "/track")))
        else:
            print("starlette: not installed, skipped")
        report_slow(contenders)
        report(contenders, options.mib << 20)
        report_lookup(folder / "catalogue.db", handle)


def report(contenders: list[Contender], size_bytes: int) -> None:
    rows: list[tuple[str, Callable[[Contender], int]]] = [
        (f"whole file, {CONNECTIONS} connections", whole),
        (f"1 MiB ranges, {CONNECTIONS} connections", lambda contender: ranges(contender, size_bytes)),
        (f"1 byte, {CONNECTIONS} connections", small),
    ]
    print(f"uvicorn {version('uvicorn')}, Python {sys.version.split()[0]}, {os.cpu_count()} cores")
    for title, work in rows:
        for contender in contenders:
            contender.measure(work)  # Warm: the page cache, the interpreter.
        rounds = [[contender.measure(work) for contender in contenders] for _ in range(ROUNDS)]
        per = "requests/s" if work is small else "MiB/s"
        print(f"\n{title:36}{per:>12}{'CPU s/GiB':>12}{'we/they':>10}{'peak MiB':>10}")
        for index, contender in enumerate(contenders):
            costs = [row[index] for row in rounds]
            rate = median(
                cost.body_bytes / cost.wall_s if work is small else cost.mib_per_s for cost in costs
            )
            ratio = median(row[index].wall_s / row[0].wall_s for row in rounds)
            cpu = "" if work is small else f"{median(cost.cpu_s_per_gib for cost in costs):.2f}"
            print(
                f"{contender.name:36}{rate:12.0f}{cpu:>12}{ratio:10.2f}{contender.memory_mib('VmHWM'):10.0f}"
            )


def report_slow(contenders: list[Contender]) -> None:
    print(f"\n{f'{SLOW_PLAYERS} players at {SLOW_BYTES_PER_S // 1000} KB/s':36}{'MiB more':>12}")
    for contender in contenders:
        print(f"{contender.name:36}{slow_players(contender):12.0f}")


def report_lookup(db_path: Path, handle: str) -> None:
    parsed, catalogue = parse_handle(handle), Catalogue(db_path)
    print()
    for title, keep in (("connection kept", True), ("connection of its own", False)):
        started = time.perf_counter()
        for _ in range(LOOKUPS):
            catalogue.find_location(parsed)
            if not keep:
                catalogue.close()
        print(f"lookup of a handle, {title}: {(time.perf_counter() - started) / LOOKUPS * 1e6:.0f} µs")
    catalogue.close()
    print(f"client's CPU: {resource.getrusage(resource.RUSAGE_SELF).ru_utime:.0f} s user")


if __name__ == "__main__":
    main()
