"""The shipped nginx configurations before a real origin: what comes out is what the origin alone answers.

`proxied` is https.conf alone, `accel` has origin.conf as well. `docs/http.md`, "Behind nginx", lists what
remains different; each is asserted here.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from contracts.tokens import TokenKind, create_origin_token
from localstack import find_nginx
from origin.reply import ERROR_BODIES
from tests.origin.conftest import FOREVER, SECRET, content_of, link
from tests.origin.shipped_nginx import (
    Behind,
    Certificate,
    Front,
    closed_port,
    comparable,
    front,
    make_certificate,
    nas_behind_nginx,
)
from tests.origin.test_accel import KEY, TOLD
from tests.origin.test_http import CASES, CONTENT, Case, outcome, ranged

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


@pytest.mark.parametrize("case", [pytest.param(c, id=f"{c.section} {c.gist}") for c in CASES])
def test_every_case_is_answered_as_by_the_origin(behind: Behind, through: Front, case: Case) -> None:
    """The same status, bytes and headers: nginx is trusted with nothing that it would read differently."""
    path = link("a.flac", FOREVER)
    etag = behind.direct(path, {}).headers["etag"]
    headers = {name: value.replace("{etag}", etag) for name, value in case.headers.items()}
    direct, answer = behind.direct(path, headers, case.method), through.get(path, headers, case.method)
    assert case.expected == outcome(answer)
    assert comparable(direct) == comparable(answer)


@pytest.mark.parametrize(
    ("headers", "method", "expected"),
    [
        ({}, "GET", True),
        (ranged("bytes=0-"), "GET", True),
        (ranged("bytes=100-199"), "GET", True),
        (ranged("bytes=-5"), "GET", True),
        (ranged("bytes=100-199", If_Range="{etag}"), "GET", True),
        (ranged("bytes=0-0,-1"), "GET", False),
        ({"If-None-Match": '"other"'}, "GET", False),
        ({}, "HEAD", False),
    ],
)
def test_nginx_sends_what_players_ask_for(
    behind: Behind, headers: dict[str, str], method: str, expected: bool
) -> None:
    path = link("a.flac", FOREVER)
    etag = behind.direct(path, {}).headers["etag"]
    filled = {name: value.replace("{etag}", etag) for name, value in headers.items()}
    assert behind.fronts["accel"].get(path, filled, method).status in (200, 206)
    assert expected == behind.was_handed_over()
    behind.fronts["proxied"].get(path, filled, method)
    assert not behind.was_handed_over()


def test_nobody_but_our_nginx_is_told_a_path(behind: Behind, through: Front) -> None:
    """A stranger who knows the name of the header, and even one who knows the key."""
    path = link("a.flac", FOREVER)
    for answer in (
        behind.direct(path, {"X-Music-Cloud-Accel": "1"}),
        behind.direct(path, TOLD | {"X-Forwarded-For": "127.0.0.1"}, source="127.0.0.2"),
        behind.fronts["proxied"].get(path, TOLD),
    ):
        assert (answer.status, answer.body) == (200, CONTENT)
        assert not behind.was_handed_over()
    assert "x-accel-redirect" not in through.get(path, TOLD).headers


def test_what_is_not_for_the_world(through: Front) -> None:
    """The internal location; and what the origin tells only to whoever asks from beside it."""
    for path in (
        "/metrics",
        "/readyz",
        "/",
        "/_music/nas-1/a.flac",
        "/_music/",
        "//_music/nas-1/a.flac",
        "/%5fmusic/nas-1/a.flac",
    ):
        answer = through.get(path)
        assert (answer.status, answer.headers["cache-control"]) == (404, "no-store")
        assert json.loads(ERROR_BODIES[404]) == json.loads(answer.body)


@pytest.mark.parametrize(
    "name",
    [
        "a b.flac",
        "100%.flac",
        "%41%2f%00.flac",
        "what?is=this.flac",
        "#1.flac",
        "a+b&c=d;e.flac",
        "七里香 (周杰倫).flac",
        "😀.flac",
        "\"double\" 'single'.flac",
        "back\\slash.flac",
        "..hidden..flac",
        "...",
        "  two  .flac",
        "$uri {x} ~ [1] `id` |.flac",
        "line\nbreak\ttab.flac",
        "a.flac (deleted)",
        "深/い/ところ/a.flac",
        "x" * 250 + ".ogg",
    ],
)
def test_every_file_name_is_served(behind: Behind, through: Front, name: str) -> None:
    content = content_of(500, len(name))
    handle = behind.nas.add(name, content)
    answer = through.get(link(handle, FOREVER))
    assert (200, content) == (answer.status, answer.body)
    assert comparable(behind.direct(link(handle, FOREVER), {})) == comparable(answer)


def test_large_file_by_ranges(behind: Behind, through: Front) -> None:
    size_bytes, marks = 200 << 20, (0, 4095, 100 << 20, (200 << 20) - 1000)
    path = behind.nas.music / "large.flac"
    with path.open("wb") as file:
        file.truncate(size_bytes)
        for at in marks:
            file.seek(at)
            file.write(content_of(1000, at))
    handle = behind.nas.add("large.flac")
    for at in marks:
        answer = through.get(link(handle, FOREVER), ranged(f"bytes={at}-{at + 999}"))
        assert (206, f"bytes {at}-{at + 999}/{size_bytes}") == (
            answer.status,
            answer.headers["content-range"],
        )
        assert path.read_bytes()[at : at + 1000] == answer.body
    rest = through.get(link(handle, FOREVER), ranged(f"bytes={100 << 20}-"))
    assert rest.body == path.read_bytes()[100 << 20 :]


def _to_link(path: Path) -> None:
    path.rename(path.with_suffix(".real"))
    path.symlink_to(path.with_suffix(".real").name)


def _to_outside(path: Path) -> None:
    path.unlink()
    path.symlink_to("/etc/passwd")


def _to_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _to_folder_link(path: Path) -> None:
    path.parent.rename(path.parent.with_name("moved"))
    path.parent.symlink_to("moved")


@pytest.mark.parametrize("change", [_to_link, _to_outside, _to_folder, _to_folder_link, Path.unlink])
def test_what_is_planted_after_our_check_is_refused_by_nginx(behind: Behind, change: Any) -> None:
    """No byte, no redirect and no name: the origin says of such a file that it is not there."""
    name = f"{change.__name__}/planted.flac"
    handle = behind.nas.add(name, CONTENT)
    behind.origin.before_answer = lambda: change(behind.nas.music / name)
    answer = behind.fronts["accel"].get(link(handle, FOREVER))
    assert behind.was_handed_over()
    assert (404, json.loads(ERROR_BODIES[404])) == (answer.status, json.loads(answer.body))
    assert "location" not in answer.headers and "etag" not in answer.headers
    assert answer.headers["cache-control"] == "private, max-age=600, no-store"
    assert behind.fronts["proxied"].get(link(handle, FOREVER)).status == 404


def test_deleted_file_is_gone(behind: Behind, through: Front) -> None:
    handle = behind.nas.add("deleted.flac", CONTENT)
    assert through.get(link(handle, FOREVER)).status == 200
    (behind.nas.music / "deleted.flac").unlink()
    assert through.get(link(handle, FOREVER)).status == 404


def test_file_replaced_after_our_check_has_the_old_tag(behind: Behind) -> None:
    """What remains: nginx opens by name. The next answer has the new tag, and a resumed one starts again."""
    handle = behind.nas.add("replaced.flac", CONTENT)
    new = CONTENT[::-1]
    old_tag = behind.direct(link(handle, FOREVER), {}).headers["etag"]

    def replace() -> None:
        (behind.nas.music / "new").write_bytes(new)
        (behind.nas.music / "new").rename(behind.nas.music / "replaced.flac")

    behind.origin.before_answer = replace
    answer = behind.fronts["accel"].get(link(handle, FOREVER))
    assert (old_tag, new) == (answer.headers["etag"], answer.body)
    again = behind.fronts["accel"].get(link(handle, FOREVER), ranged("bytes=5000-", If_Range=old_tag))
    assert (200, new) == (again.status, again.body)
    assert old_tag != again.headers["etag"]


def test_file_that_goes_after_our_check_is_sent_to_its_end_by_the_origin(behind: Behind) -> None:
    """It has the file open; so it is only with X-Accel-Redirect that such a file is 404."""
    handle = behind.nas.add("going.flac", CONTENT)
    behind.origin.before_answer = (behind.nas.music / "going.flac").unlink
    answer = behind.fronts["proxied"].get(link(handle, FOREVER))
    assert (answer.status, answer.body) == (200, CONTENT)


def test_nothing_that_is_written_holds_a_token_or_a_path(behind: Behind, certificate: Certificate) -> None:
    """Also where nginx has something to complain about, which it does with the request line or a path."""
    nas = behind.nas
    folder = nas.folder / "quiet"
    with front(folder, certificate, f"http://{behind.address}", nas.music) as quiet:
        handle = nas.add("secret folder/secret name.flac", CONTENT)
        path = link(handle, FOREVER)
        for headers in ({}, ranged("bytes=5-9"), ranged("bytes=20000-"), {"If-None-Match": "*"}):
            quiet.get(path, headers)
        behind.origin.before_answer = (nas.music / "secret folder/secret name.flac").unlink
        assert quiet.get(path).status == 404
        assert quiet.get(path[:-1] + "%zz").status == 400
        lease = create_origin_token(SECRET, handle, FOREVER, kind=TokenKind.LEASE)
        body = json.dumps({"lease": lease}).encode()
        assert quiet.get(RENEW, {"Content-Type": "application/json"}, "POST", body=body).status == 200
        with closing(HTTPConnection("127.0.0.1", quiet.plain_port, timeout=20)) as plain:
            plain.request("GET", path)
            redirected = plain.getresponse()
            assert (308, f"https://music.example{path}") == (
                redirected.status,
                redirected.getheader("location"),
            )
    with front(folder, certificate, f"http://127.0.0.1:{closed_port()}", nas.music) as cut_off:
        assert cut_off.get(path).status == 503
    written = cut_off.written()
    assert b" GET 206 " in written and b" POST 200 " in written and b" GET 503 " in written
    for secret in (path.rpartition("/")[2], lease, "secret", "private-origin", str(nas.music), "_music"):
        assert secret.encode() not in written


def test_client_network_is_that_of_the_client(behind: Behind, through: Front) -> None:
    """Of the whole loopback network only 127.0.0.1, where nginx is, is the proxy's."""
    path = link("a.flac", FOREVER, client_network="127.0.0.2/32")
    assert through.get(path, source="127.0.0.2").status == 200
    assert through.get(path, source="127.0.0.3").status == 401
    assert through.get(path).status == 401


@pytest.mark.parametrize("name", ["X-Forwarded-For", "Forwarded", "X-Real-IP", "x_forwarded_for"])
def test_spoofed_client_network_is_refused(behind: Behind, through: Front, name: str) -> None:
    path = link("a.flac", FOREVER, client_network="203.0.113.0/24")
    for value in ("203.0.113.7", "203.0.113.7, 127.0.0.1", "for=203.0.113.7"):
        assert through.get(path, {name: value}, source="127.0.0.2").status == 401


def test_key_reaches_nobody(behind: Behind, through: Front) -> None:
    through.get(link("a.flac", FOREVER))
    assert KEY not in str(behind.origin.answers[-1])
    assert KEY.encode() not in through.written()
