"""Our own way to run a server: quiet, and ended by a signal."""

from __future__ import annotations

import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from origin import create_app, serving
from tests.origin.conftest import FOREVER, Nas, link


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM to catch")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_ends_it_with_success(number: signal.Signals) -> None:
    program = (
        "from functools import partial\n"
        "from origin import create_app, serve\n"
        "serve(create_app('/missing.db'), '127.0.0.1', 0, partial(print, flush=True))\n"
        "print('returned')"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as server:
        assert server.stdout is not None
        url = server.stdout.readline().strip()
        with urllib.request.urlopen(f"{url}/healthz", timeout=20) as response:
            assert response.status == 200
        server.send_signal(number)
        assert server.stdout.read() == "returned\n"
    assert server.returncode == 0


def test_taken_address_is_an_error(nas: Nas, base_url: str) -> None:
    port = int(base_url.rpartition(":")[2])
    with pytest.raises(OSError), serving(create_app(nas.db_path), port=port):
        pass


def test_server_is_quiet(nas: Nas, base_url: str, capfd: pytest.CaptureFixture[str]) -> None:
    """No access log, no Server header, and X-Forwarded-For is nobody's word."""
    path = link(nas.add("a.mp3", b"x"), FOREVER, client_network="203.0.113.0/24")
    request = urllib.request.Request(base_url + path, headers={"X-Forwarded-For": "203.0.113.7"})
    with pytest.raises(urllib.error.HTTPError) as refusal:
        urllib.request.urlopen(request, timeout=20)
    with refusal.value as answer:
        assert (answer.code, answer.headers["Server"]) == (401, None)
    printed = capfd.readouterr()
    assert (printed.out, printed.err) == ("", "")
