"""`/metrics`: what it says is what a test counted itself, for those who may read it, in the right form."""

from __future__ import annotations

import asyncio
import json
import re
import urllib.request
from contextlib import closing
from ipaddress import ip_network
from typing import Any

import pytest
from litestar import Litestar

from contracts.best_source import LISTEN_PATH, RENEW_PATH
from contracts.tokens import TokenKind, create_origin_token
from origin import STREAM_PATH, create_app, limits, serving
from origin.client_address import parse_trusted_proxies
from origin.monitoring import may_read
from origin.refusals import Reason
from origin.settings import LOOPBACK
from tests.origin.asgi import Answer, ask, call
from tests.origin.conftest import FOREVER, NOW, SECRET, Nas, content_of, link, origin_app
from tests.origin.file_server import becomes, connect, read_exactly, read_head, request

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]

# The grammar of prometheus.io, "Exposition formats", "Text-based format", as far as we use it.
_NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
_LABEL = r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\[\\n"])*)"'
_SAMPLE = re.compile(rf"({_NAME})(?:\{{((?:{_LABEL},)*{_LABEL})\}})? ([0-9.e+-]+|NaN|[+-]Inf)")


def parse(text: str) -> Samples:
    """The samples, after everything that the format demands was checked."""
    assert text.endswith("\n")
    kinds: dict[str, str] = {}
    helped: set[str] = set()
    samples: Samples = {}
    family = ""
    for line in text.splitlines():
        if line.startswith("# HELP "):
            family = line.split(" ", 3)[2]
            assert family not in helped, "one HELP for each, and all lines of a family together"
            helped.add(family)
        elif line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            assert name == family and kind in ("counter", "gauge")
            kinds[name] = kind
        else:
            match = _SAMPLE.fullmatch(line)
            assert match is not None, line
            assert match[1] == family in kinds, "the type comes before the samples"
            assert kinds[family] != "counter" or family.endswith("_total")
            labels = tuple(sorted(re.findall(_LABEL, match[2] or "")))
            assert (family, labels) not in samples, "a sample is unique"
            samples[family, labels] = float(match[match.lastindex or 0])
    return samples


def metrics(app: Litestar) -> Samples:
    answer = call(app, "/metrics")
    assert answer.status == 200
    return parse(answer.body.decode())


def value(samples: Samples, name: str, **labels: str) -> float:
    return samples.get((f"music_cloud_origin_{name}", tuple(sorted(labels.items()))), 0.0)


def answered(samples: Samples, endpoint: str) -> dict[str, int]:
    """The answers of an endpoint by status."""
    return {
        dict(labels)["status"]: int(count)
        for (name, labels), count in samples.items()
        if name == "music_cloud_origin_requests_total" and dict(labels)["endpoint"] == endpoint
    }


def refusals(samples: Samples) -> dict[str, int]:
    """What was refused, by reason."""
    return {
        dict(labels)["reason"]: int(count)
        for (name, labels), count in samples.items()
        if name == "music_cloud_origin_refusals_total" and count
    }


def test_form_and_headers(app: Litestar) -> None:
    answer = call(app, "/metrics")
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert answer.headers["cache-control"] == "no-store"
    assert "access-control-allow-origin" not in answer.headers, "no page of another site may read it"
    samples = parse(answer.body.decode())
    assert samples["process_start_time_seconds", ()] == NOW
    assert {name for name, _ in samples} >= {"music_cloud_origin_build_info"}
    assert {dict(labels).get("reason") for _, labels in samples} - {None} == {each.value for each in Reason}
    head = call(app, "/metrics", method="HEAD")
    assert (head.status, head.body) == (200, b"")


def test_what_was_answered_is_what_is_counted(nas: Nas) -> None:
    """Every kind of answer: whole, range, parts, HEAD, 304, errors, pages, renewals, and nothing at all."""
    store = nas.folder / "store"
    store.mkdir()
    app = origin_app(nas, catalog=store)
    path = link(nas.add("a.flac", content_of(1000)))
    etag = call(app, path).headers["etag"]
    page = LISTEN_PATH + create_origin_token(SECRET, "loc:1.00000000", NOW + 9, kind=TokenKind.LISTEN)
    before = metrics(app)
    wanted: list[tuple[str, str, dict[str, str], str]] = [
        ("stream", path, {}, "GET"),
        ("stream", path, {"Range": "bytes=0-99"}, "GET"),
        ("stream", path, {"Range": "bytes=0-9,500-509"}, "GET"),
        ("stream", path, {}, "HEAD"),
        ("stream", path, {"If-None-Match": etag}, "GET"),
        ("stream", path, {"If-Match": '"x"'}, "GET"),
        ("stream", path, {"Range": "bytes=5000-"}, "GET"),
        ("stream", path, {}, "OPTIONS"),
        ("stream", path, {}, "PUT"),
        ("stream", path + "x", {}, "GET"),
        ("stream", path + "x", {}, "HEAD"),
        ("listen", page, {}, "GET"),
        ("listen", page[:-1], {}, "HEAD"),
        ("renew", RENEW_PATH, {}, "GET"),
        ("renew", RENEW_PATH, {}, "POST"),
        ("catalog", "/catalog/manifest.json", {}, "GET"),
        ("readyz", "/readyz", {}, "GET"),
        ("other", "/nothing", {}, "GET"),
        ("other", "/nothing", {}, "HEAD"),
        ("other", "/healthz", {}, "DELETE"),
    ]
    mine: dict[str, list[Answer]] = {}
    for endpoint, target, headers, method in wanted:
        answer = call(app, target, headers, method)
        # No server sends a body after HEAD (RFC 9110, section 9.3.2), whatever Litestar makes.
        mine.setdefault(endpoint, []).append(answer._replace(body=b"") if method == "HEAD" else answer)
    after = metrics(app)
    for endpoint, answers in mine.items():
        statuses = [str(answer.status) for answer in answers]
        for status in {*statuses, *answered(before, endpoint)}:
            grown = answered(after, endpoint)[status] - answered(before, endpoint).get(status, 0)
            assert (endpoint, status, grown) == (endpoint, status, statuses.count(status))
        sent = sum(len(answer.body) for answer in answers)
        labels = {"endpoint": endpoint}
        assert sent == value(after, "body_bytes_total", **labels) - value(
            before, "body_bytes_total", **labels
        )
        assert value(after, "active_requests", **labels) == 0
    assert value(after, "active_requests", endpoint="metrics") == 1


def test_client_that_leaves_in_the_middle(nas: Nas, app: Litestar) -> None:
    """What the server took was sent, and nothing else; the stream is no longer active."""
    path = link(nas.add("a.flac", content_of(3 << 20)))
    taken = 0

    async def leave_after(pieces: int) -> None:
        gone = asyncio.Event()

        async def leaving(scope: Any, _: Any, send: Any) -> None:
            async def receive() -> Any:
                await gone.wait()
                return {"type": "http.disconnect"}

            async def counted(message: Any) -> None:
                nonlocal taken
                taken += len(message.get("body", b""))
                await send(message)
                if taken >= pieces << 16:
                    gone.set()

            await app(scope, receive, counted)

        await ask(leaving, path)  # type: ignore[arg-type]

    asyncio.run(leave_after(4))
    samples = metrics(app)
    assert 4 << 16 <= taken < 3 << 20
    assert value(samples, "body_bytes_total", endpoint="stream") == taken
    assert answered(samples, "stream") == {"200": 1}
    assert value(samples, "active_requests", endpoint="stream") == 0


def test_over_real_connections(nas: Nas, monkeypatch: pytest.MonkeyPatch) -> None:
    """Zero-copy sends and pipelining are exact; of one that left, as much as went to the kernel."""
    size = 24 << 20
    path = link(nas.add("a.flac", content_of(1 << 20) * 24), FOREVER)
    app = create_app(nas.db_path)
    app.state.private_origin_secret = SECRET
    with serving(app) as base_url:

        def now() -> Samples:
            with urllib.request.urlopen(f"{base_url}/metrics", timeout=20) as answer:
                return parse(answer.read().decode())

        with closing(connect(base_url)) as client:
            client.sendall(request(path) * 2)
            for _ in range(2):
                assert read_head(client) == (200, size)
                assert len(read_exactly(client, size)) == size
        assert becomes(lambda: value(now(), "active_requests", endpoint="stream") == 0)
        assert value(now(), "body_bytes_total", endpoint="stream") == 2 * size
        with closing(connect(base_url, 64 << 10)) as client:
            client.sendall(request(path))
            read_head(client)
            received = len(read_exactly(client, 100_000))
            assert value(now(), "active_requests", endpoint="stream") == 1
        assert becomes(lambda: value(now(), "active_requests", endpoint="stream") == 0)
        samples = now()
        # A piece that was under way counts as a whole: origin.sender.ZERO_COPY_PIECE_BYTES.
        assert received - (1 << 20) <= value(samples, "body_bytes_total", endpoint="stream") - 2 * size < size
        assert answered(samples, "stream") == {"200": 3}
        assert answered(samples, "metrics")["200"] > 2


def lease(expires_at: int = NOW + 9, **claims: Any) -> str:
    return create_origin_token(SECRET, "loc:1.00000000", expires_at, **claims)


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        (STREAM_PATH, "malformed"),
        (STREAM_PATH + "x" * 90, "malformed"),
        (STREAM_PATH + create_origin_token("another secret altogether", "x", NOW + 9), "unknown_key"),
        (link("x")[:-2] + ("AA" if link("x")[-2:] != "AA" else "EA"), "bad_signature"),
        (link("x", kind=TokenKind.LEASE), "wrong_kind"),
        (link("x", not_before=NOW + 1), "not_yet_valid"),
        (link("x", NOW), "expired"),
        (link("x", NOW + 3601), "too_long_life"),
        (link("x", client_network="203.0.113.0/24"), "network"),
        (link("loc:999.00000000"), "not_found"),
        (link("/etc/passwd"), "not_found"),
        (LISTEN_PATH + "x", "malformed"),
        (LISTEN_PATH + lease(kind=TokenKind.LISTEN), "not_found"),
    ],
)
def test_reason_of_a_refusal(nas: Nas, path: str, reason: str) -> None:
    """One refusal, one reason, and no other number."""
    app = origin_app(nas, max_token_ttl_s=3600)
    assert call(app, path).status in (401, 404, 410)
    assert refusals(metrics(app)) == {reason: 1}


def test_reasons_that_are_not_the_links(nas: Nas, app: Litestar, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "LEAST_BYTES", 0)
    small = origin_app(nas, max_copies_per_link=1)
    path = link(nas.add("a.mp3", b"x"))
    assert [call(small, path).status for _ in range(3)] == [200, 429, 429]
    assert refusals(metrics(small)) == {"link_limited": 2}
    assert call(app, RENEW_PATH, method="POST").status == 415
    nas.db_path.rename(nas.folder / "elsewhere.db")
    assert call(app, path).status == 503
    app.state.private_origin_secret = ""
    assert call(app, path).status == 503
    assert call(app, RENEW_PATH, method="POST").status == 503
    expected = {"bad_request": 1, "catalogue_unavailable": 1, "no_secret": 2}
    assert refusals(metrics(app)) == expected


def test_mistake_of_ours_is_counted_once(app: Litestar, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError

    monkeypatch.setattr("origin.gate.verify_origin_token", fail)
    answer = call(app, link("x"))
    samples = metrics(app)
    assert (answer.status, answered(samples, "stream")) == (500, {"500": 1})
    assert answered(samples, "other") == {}
    assert value(samples, "body_bytes_total", endpoint="stream") == len(answer.body)
    assert value(samples, "active_requests", endpoint="stream") == 0


def test_nothing_in_it_is_anybodys(nas: Nas, app: Litestar) -> None:
    """After requests with tokens, paths, names and clients of all kinds."""
    path = link(nas.add("geheim.flac", b"x"), file_name="周.flac")
    for target in (path, path[:-1], "/geheim/\u00fc", "/metrics/geheim"):
        call(app, target, {"User-Agent": "geheim", "X-Forwarded-For": "203.0.113.7"})
    text = call(app, "/metrics").body.decode()
    for hidden in ("geheim", "flac", path[-20:], str(nas.folder), "203.0.113.7", "127.0.0.1", SECRET):
        assert hidden not in text


FORWARDED = [(b"x-forwarded-for", b"127.0.0.1")]


@pytest.mark.parametrize(
    ("peer", "headers", "networks", "trusted", "expected"),
    [
        ("127.0.0.1", [], "", "", True),
        ("127.9.9.9", [], "", "", True),
        ("::1", [], "", "", True),
        ("::ffff:127.0.0.1", [], "", "", True),
        ("192.168.1.2", [], "", "", False),
        ("", [], "", "", False),
        ("", [], "", "unix", False),
        ("nonsense", [], "", "", False),
        # A proxy on this machine of which nobody told us.
        ("127.0.0.1", FORWARDED, "", "", False),
        ("127.0.0.1", [(b"forwarded", b"for=127.0.0.1")], "", "", False),
        ("127.0.0.1", [(b"via", b"1.1 x")], "", "", False),
        ("192.168.1.2", FORWARDED, "", "", False),
        # One of which somebody told us: it is believed, and never the reader itself.
        ("127.0.0.1", [], "", "127.0.0.1", False),
        ("127.0.0.1", FORWARDED, "", "127.0.0.1", False),
        ("127.0.0.1", [(b"x-forwarded-for", b"203.0.113.7")], "", "127.0.0.1", False),
        ("127.0.0.1", [(b"x-forwarded-for", b"127.0.0.1, 203.0.113.7")], "", "127.0.0.1", False),
        ("127.0.0.1", [(b"x-forwarded-for", b"192.168.1.2")], "192.168.1.0/24", "127.0.0.1", True),
        ("", [(b"x-forwarded-for", b"192.168.1.2")], "192.168.1.0/24", "unix", True),
        # Networks replace the loopback.
        ("192.168.1.2", [], "192.168.1.0/24", "", True),
        ("127.0.0.1", [], "192.168.1.0/24", "", False),
        ("192.168.1.2", FORWARDED, "192.168.1.0/24", "", False),
    ],
)
def test_who_may_read(
    peer: str, headers: list[tuple[bytes, bytes]], networks: str, trusted: str, expected: bool
) -> None:
    allowed = tuple(map(ip_network, networks.split())) or LOOPBACK
    found = may_read((peer, 9) if peer else None, headers, allowed, parse_trusted_proxies(trusted))
    assert expected == found


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "OPTIONS", "PUT"])
def test_whoever_may_not_sees_what_is_nowhere(app: Litestar, method: str) -> None:
    """Nothing tells the address of the metrics from one that nobody ever thought of."""

    def seen(path: str) -> tuple[object, ...]:
        answer = asyncio.run(ask(app, path, {"X-Forwarded-For": "::1"}, method))
        headers = {name: text for name, text in answer.headers.items() if name != "x-request-id"}
        # As it is sent: no server sends a body after HEAD.
        return answer.status, headers, b"" if method == "HEAD" else answer.body

    assert seen("/metrics") == seen("/metricz")
    assert seen("/metrics/x") == seen("/metricz/x")
    assert seen("/metrics")[0] == 404


def test_setting_says_who_may_read(nas: Nas) -> None:
    (nas.folder / "origin.env").write_text("MUSIC_CLOUD_METRICS_NETWORKS=192.168.1.0/24\n")
    app = origin_app(nas)
    statuses = [
        asyncio.run(ask(app, "/metrics", client=(address, 1))).status
        for address in ("192.168.1.9", "127.0.0.1", "192.168.2.9")
    ]
    assert statuses == [200, 404, 404]


def test_other_methods_are_405(app: Litestar) -> None:
    for path in ("/metrics", "/readyz"):
        for method in ("POST", "OPTIONS", "DELETE"):
            answer = call(app, path, method=method)
            assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD")
            assert "access-control-allow-origin" not in answer.headers
            assert json.loads(answer.body)["error"] == "method_not_allowed"
