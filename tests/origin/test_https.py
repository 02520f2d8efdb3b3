"""https.conf by itself: TLS, what nginx limits, and what it says where the origin says nothing."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, closing
from http.client import HTTPSConnection
from pathlib import Path

import pytest

from localstack import find_nginx
from origin.reply import ERROR_BODIES
from tests.origin.conftest import FOREVER, link
from tests.origin.file_server import becomes
from tests.origin.shipped_nginx import (
    Behind,
    Certificate,
    Front,
    TlsConnection,
    closed_port,
    front,
    make_certificate,
    nas_behind_nginx,
)
from tests.origin.test_http import CONTENT

pytestmark = pytest.mark.skipif(
    find_nginx() is None or shutil.which("openssl") is None, reason="there is no nginx, or no openssl"
)

FRONTS = ["proxied", "accel"]
RENEW = "/api/private-origin/renew"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture(scope="module")
def behind(tmp_path_factory: pytest.TempPathFactory, certificate: Certificate) -> Iterator[Behind]:
    with nas_behind_nginx(tmp_path_factory.mktemp("behind"), certificate) as running:
        yield running


@pytest.fixture(params=FRONTS)
def through(request: pytest.FixtureRequest, behind: Behind) -> Front:
    return behind.fronts[request.param]


def test_client_that_takes_nothing_is_dropped_by_nginx(behind: Behind, certificate: Certificate) -> None:
    """After `send_timeout`, which is an hour as it is shipped; without origin.conf the origin is earlier."""
    with (behind.nas.music / "long.flac").open("wb") as file:
        file.truncate(64 << 20)
    path = link(behind.nas.add("long.flac"), FOREVER)
    soon = {"send_timeout 1h;": "send_timeout 1s;"}
    folder = behind.nas.folder / "soon"
    with (
        front(folder, certificate, f"http://{behind.address}", behind.nas.music, soon) as quick,
        closing(TlsConnection(quick)) as paused,
    ):
        paused.request("GET", path)
        assert paused.getresponse().status == 200
        assert becomes(lambda: b" GET 200 " in quick.written())  # It writes a line when it is done.


def test_origin_that_is_away_is_unavailable_and_says_so_to_pages(
    tmp_path: Path, certificate: Certificate
) -> None:
    with front(tmp_path / "nginx", certificate, f"http://127.0.0.1:{closed_port()}") as away:
        answer = away.get("/listen/x")
    assert (
        answer.status,
        answer.headers["retry-after"],
        answer.headers["cache-control"],
        answer.headers["access-control-allow-origin"],
    ) == (503, "2", "no-store", "*")
    assert json.loads(ERROR_BODIES[503]) == json.loads(answer.body)


def test_what_nginx_says_in_its_own_words(behind: Behind, through: Front) -> None:
    """What remains: its name, and what it refuses before it has read a request."""
    assert through.get("/healthz").headers["server"] == "nginx"
    assert "x-request-id" not in through.get("/nothing").headers
    for path, status in (("/%zz", 400), ("/" + "x" * 9000, 414)):
        answer = through.get(path)
        assert (answer.status, answer.headers["content-type"]) == (status, "text/html")
        assert "access-control-allow-origin" not in answer.headers


def test_link_that_is_used_too_often_at_once(behind: Behind, through: Front) -> None:
    """The 17th: counted by the origin, or by nginx where the origin does not see the end."""
    with (behind.nas.music / "long.flac").open("wb") as file:
        file.truncate(64 << 20)
    path = link(behind.nas.add("long.flac"), FOREVER, file_name=through.folder.name)
    with ExitStack() as stack:
        for _ in range(16):
            connection = stack.enter_context(closing(TlsConnection(through)))
            connection.request("GET", path)
            assert connection.getresponse().status == 200
        answer = through.get(path)
        assert (
            answer.status,
            answer.headers["retry-after"],
            answer.headers["access-control-allow-origin"],
        ) == (429, "2", "*")
        assert json.loads(ERROR_BODIES[429]) == json.loads(answer.body)
        # Another link to the same file is another link.
        assert through.get(link("a.flac", FOREVER)).status == 200


def test_too_many_pages_and_renewals_and_too_long_ones(behind: Behind, certificate: Certificate) -> None:
    with front(behind.nas.folder / "limited", certificate, f"http://{behind.address}") as limited:
        large = limited.get(RENEW, {"Content-Type": "application/json"}, "POST", body=b"x" * 9000)
        assert (413, json.loads(ERROR_BODIES[413])) == (large.status, json.loads(large.body))
        statuses = [limited.get("/listen/x", source="127.0.0.9").status for _ in range(40)]
        assert {401, 429} == set(statuses) and statuses[:20] == [401] * 20
        assert limited.get("/listen/x", source="127.0.0.10").status == 401


def test_hsts_is_an_option(behind: Behind, certificate: Certificate) -> None:
    path = link("a.flac", FOREVER)
    assert all("strict-transport-security" not in one.get(path).headers for one in behind.fronts.values())
    hsts = {'set $music_cloud_hsts "";': 'set $music_cloud_hsts "max-age=60";'}
    with front(
        behind.nas.folder / "hsts", certificate, f"http://{behind.address}", behind.nas.music, hsts
    ) as strict:
        for asked in (path, path[:-1], "/_music/", "/healthz"):
            assert strict.get(asked).headers["strict-transport-security"] == "max-age=60"


def test_http_2(behind: Behind, through: Front) -> None:
    curl = shutil.which("curl")
    if curl is None or "HTTP2" not in subprocess.run([curl, "-V"], capture_output=True, text=True).stdout:
        pytest.skip("there is no curl with HTTP/2")
    command = [curl, "-sS", "--http2", "-r", "100-199", "-o", "-", "-D", "/dev/stderr"]
    command += ["--cacert", str(through.certificate.certificate)]
    command += ["--resolve", f"music.example:{through.port}:127.0.0.1"]
    found = subprocess.run(
        [*command, f"https://music.example:{through.port}{link('a.flac', FOREVER)}"], capture_output=True
    )
    assert found.stdout == CONTENT[100:200]
    assert found.stderr.startswith(b"HTTP/2 206") and b"content-range: bytes 100-199/10000" in found.stderr


def test_certificate_of_nobody_is_not_believed(through: Front) -> None:
    """So that the other tests here are about TLS."""
    with (
        closing(HTTPSConnection("127.0.0.1", through.port, timeout=20)) as connection,
        pytest.raises(OSError),
    ):
        connection.request("GET", "/healthz")
