"""The origin beside nginx, Caddy and Starlette: what a byte and a request cost, as ratios from one run.

nginx checks a secure_link and has one worker, because one event loop is what one process of ours has; Caddy
and Starlette's FileResponse check nothing; ours verifies a token and looks the file up in the catalogue for
every request. "portable" is ours under uvicorn's own protocol, as under any other server; "fast" is
`origin.serve`. Everybody serves one file from the page cache, each in processes of its own; one client,
written in C so that it costs next to nothing, asks them in turn. Rounds alternate, figures are medians over
the rounds, CPU is that of the server's processes. What is not installed is named and skipped.

    python -m benchmarks.origin [--mib 200] [--rounds 5] [--only fast,nginx]
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import NamedTuple

from benchmarks.origin_servers import CONTENDERS, Server, Site
from benchmarks.origin_slow import slow_players_mib

LOAD = Path(__file__).with_name("origin_load.c")


class Row(NamedTuple):
    """One kind of request, `requests` of them over so many connections."""

    title: str
    connections: int
    requests: int
    status: int
    headers: str = ""
    range_bytes: int = 0
    is_conditional: bool = False


ROWS = {
    "whole": Row("whole file, 8 connections", 8, 16, 200),
    "ranges": Row("random ranges of 1 MiB, 32 connections", 32, 1500, 206, range_bytes=1 << 20),
    "start": Row("first 64 KiB, 16 connections", 16, 4000, 206, headers="Range: bytes=0-65535\r\n"),
    "byte": Row("one byte, 16 connections", 16, 4000, 206, headers="Range: bytes=0-0\r\n"),
    "304": Row("304, 16 connections", 16, 6000, 304, is_conditional=True),
}
SLOW = "slow"


class Cost(NamedTuple):
    """What one round took."""

    wall_s: float
    cpu_s: float
    requests: int
    body_bytes: int
    p50_ms: float
    p99_ms: float

    @property
    def rate(self) -> float:
        """MiB a second where bodies are large, otherwise requests a second."""
        return self.body_bytes / self.wall_s / (1 << 20) if self.is_large else self.requests / self.wall_s

    @property
    def cpu(self) -> float:
        """CPU seconds for a GB (10^9 bytes), otherwise microseconds for a request."""
        return self.cpu_s / self.body_bytes * 1e9 if self.is_large else self.cpu_s / self.requests * 1e6

    @property
    def is_large(self) -> bool:
        return self.body_bytes > self.requests << 19


Results = dict[tuple[str, str], list[Cost]]
Memory = dict[str, float]


def ask(load: Path, server: Server, row: Row, size_bytes: int, requests: int) -> Cost:
    headers = row.headers
    if row.is_conditional:
        headers += f"If-None-Match: {server.etag()}\r\n"
    command = [
        load,
        server.port,
        row.connections,
        requests,
        server.path,
        headers,
        size_bytes,
        row.range_bytes,
    ]
    cpu_s = server.cpu_s()
    done = subprocess.run([str(each) for each in command], stdout=subprocess.PIPE, text=True, check=True)
    cpu_s = server.cpu_s() - cpu_s
    wall_s, body_bytes, p50_us, p99_us, statuses = done.stdout.split()
    if int(statuses) != row.status * requests:
        raise ValueError(f"{server.name} does not answer {row.status}")
    return Cost(float(wall_s), cpu_s, requests, int(body_bytes), float(p50_us) / 1e3, float(p99_us) / 1e3)


def measure(load: Path, servers: list[Server], size_bytes: int, rounds: int) -> Results:
    results: Results = {}
    for key, row in ROWS.items():
        able = []
        for server in servers:
            try:
                ask(load, server, row, size_bytes, row.connections)  # Warm: page cache, interpreter, threads.
                able.append(server)
            except ValueError as reason:
                print(f"{row.title}: left out, {reason}")
        for _ in range(rounds):
            for server in able:
                results.setdefault((key, server.kind), []).append(
                    ask(load, server, row, size_bytes, row.requests)
                )
    return results


def ratio(results: Results, row: str, field: str, one: str, other: str) -> float:
    """The median over the rounds of one's figure divided by the other's of the same round."""
    pairs = zip(results[row, one], results[row, other], strict=True)
    return median(float(getattr(a, field) / getattr(b, field)) for a, b in pairs)


def print_results(servers: list[Server], results: Results, memory: Memory) -> None:
    for key, row in ROWS.items():
        costs = {server: results[key, server.kind] for server in servers if (key, server.kind) in results}
        large = any(cost.is_large for each in costs.values() for cost in each)
        rate, cpu = ("MiB/s", "CPU s/GB") if large else ("requests/s", "CPU µs")
        titles = f"{rate:>12}{cpu:>10}{'p50 ms':>9}{'p99 ms':>9}{'rate/nginx':>12}{'CPU/nginx':>11}"
        print(f"\n{row.title:42}{titles}")
        for server, each in costs.items():
            figures = [
                median(getattr(cost, name) for cost in each) for name in ("rate", "cpu", "p50_ms", "p99_ms")
            ]
            line = "{:12,.0f}{:10.3f}{:9.2f}{:9.2f}" if large else "{:12,.0f}{:10.0f}{:9.2f}{:9.2f}"
            beside = ""
            if (key, "nginx") in results:
                beside = "".join(
                    f"{ratio(results, key, field, server.kind, 'nginx'):{width}.2f}"
                    for field, width in (("rate", 12), ("cpu", 11))
                )
            print(f"{server.name:42}{line.format(*figures)}{beside}")
    print(f"\n{'memory, MiB':42}{'200 slow players':>18}{'peak over all':>16}")
    for server in servers:
        print(f"{server.name:42}{memory[server.kind]:18.1f}{server.memory_mib('VmHWM'):16.0f}")


def musts(results: Results, memory: Memory) -> list[tuple[str, float, str, float]]:
    """The promises that this run can judge: a sentence, the figure, the comparison, and the limit."""
    lines: list[tuple[str, float, str, float]] = []

    def add(text: str, row: str, field: str, one: str, other: str, sign: str, limit: float) -> None:
        if (row, one) in results and (row, other) in results:
            lines.append((text, ratio(results, row, field, one, other), sign, limit))

    for kind, rate, cpu in (("fast", 0.8, 1.15), ("portable", 0.6, 1.8)):
        add(f"{kind} / nginx, whole file, throughput", "whole", "rate", kind, "nginx", ">=", rate)
        add(f"{kind} / nginx, whole file, CPU per GB", "whole", "cpu", kind, "nginx", "<=", cpu)
    add("fast / nginx, 1 MiB ranges", "ranges", "rate", "fast", "nginx", ">=", 0.6)
    add("fast / nginx, 304", "304", "rate", "fast", "nginx", ">=", 0.18)
    for kind, limit in (("fast", 10.0), ("portable", 50.0)):
        if kind in memory:
            lines.append((f"{kind}, 200 slow players, MB added", memory[kind] * 1.048576, "<=", limit))
    for key, row in ROWS.items():
        add(f"fast / Starlette, {row.title}", key, "rate", "fast", "starlette", ">=", 2.5)
    if "fast" in memory and "starlette" in memory:
        less = memory["starlette"] / max(memory["fast"], 0.1)
        lines.append(("Starlette / fast, memory of 200 slow players", less, ">=", 2.5))
    return lines


def print_musts(results: Results, memory: Memory) -> None:
    print()
    for text, value, sign, limit in musts(results, memory):
        is_reached = value >= limit if sign == ">=" else value <= limit
        print(f"{'reached' if is_reached else 'NOT reached':12}{text:58}{value:8.2f}  {sign} {limit:g}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--mib", type=int, default=200, help="size of the file (default: 200)")
    parser.add_argument("--rounds", type=int, default=5, help="(default: 5)")
    parser.add_argument("--only", default="", help=f"some of {','.join(CONTENDERS)}")
    options = parser.parse_args()
    compiler = shutil.which("cc")
    if compiler is None:
        sys.exit("the client is written in C, and there is no cc here")
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        folder.chmod(0o755)  # nginx's worker is another user when we are root.
        load = folder / "origin_load"
        subprocess.run([compiler, "-O2", "-o", load, LOAD], check=True)
        (folder / "music").mkdir()
        track = folder / "music" / "track.flac"
        track.write_bytes(random.Random(1).randbytes(1 << 20) * options.mib)
        wanted = options.only.split(",") if options.only else list(CONTENDERS)
        servers = []
        for kind in wanted:
            made = CONTENDERS[kind](Site(folder, track))
            if isinstance(made, str):
                print(f"{kind}: skipped, {made}")
            else:
                servers.append(stack.enter_context(made))
        memory = {server.kind: slow_players_mib(server) for server in servers}
        began = os.getloadavg()[0]
        started_s = time.monotonic()
        results = measure(load, servers, options.mib << 20, options.rounds)
        print(
            f"{os.cpu_count()} cores, Python {sys.version.split()[0]}, load {began:.1f} before,"
            f" {os.getloadavg()[0]:.1f} after {time.monotonic() - started_s:.0f} s"
        )
        print_results(servers, results, memory)
        print_musts(results, memory)


if __name__ == "__main__":
    main()
