"""Two hundred players that read at the rate of their music: what the server's memory grows by."""

from __future__ import annotations

import socket
import time
from contextlib import ExitStack, closing

from benchmarks.origin_servers import Server

PLAYERS = 200
BYTES_PER_S = 200_000
TENTHS = 40


def slow_players_mib(server: Server) -> float:
    """The MiB that a server has more, at most, while `PLAYERS` read the file at `BYTES_PER_S`."""
    before = most = server.memory_mib("VmRSS")
    with ExitStack() as stack:
        players = []
        for _ in range(PLAYERS):
            player = stack.enter_context(closing(socket.create_connection(("127.0.0.1", server.port))))
            player.sendall(f"GET {server.path} HTTP/1.1\r\nHost: bench\r\n\r\n".encode())
            players.append(player)
        for _ in range(TENTHS):
            for player in players:
                player.recv(BYTES_PER_S // 10)
            time.sleep(0.1)
            most = max(most, server.memory_mib("VmRSS"))
    return most - before
