"""The log: one line an event, as text or JSON, with an id to quote and nothing to find a token by."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from contracts.best_source import LISTEN_PATH, RENEW_PATH
from contracts.tokens import TokenKind, create_origin_token
from origin import STREAM_PATH
from origin.logs import LogFormat, begin_request, event, logging_as, request_id
from origin.redact import REDACTED
from origin.settings import OriginSettings
from tests.origin.asgi import Answer, ask, call
from tests.origin.conftest import NOW, SECRET, Nas, content_of, link, origin_app

TOKEN = create_origin_token(SECRET, "loc:1.00000000", 2_000_000_000)
logger = logging.getLogger("origin")


def written(log_format: LogFormat, act: Callable[[], object]) -> list[str]:
    stream = io.StringIO()
    with logging_as(log_format, stream):
        act()
    return stream.getvalue().splitlines()


def objects(act: Callable[[], object]) -> list[dict[str, object]]:
    return [json.loads(line) for line in written(LogFormat.JSON, act)]


def test_text() -> None:
    (line,) = written(LogFormat.TEXT, lambda: logger.info("it %s", "did", extra=event("done", many=3)))
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z INFO origin: it did \[event=done many=3]", line
    )


def test_json() -> None:
    (line,) = objects(lambda: logger.warning("一 \n\ud800", extra=event("done", many=3, few=None)))
    moment = line.pop("time")
    assert re.fullmatch(r"[\d-]{10}T[\d:.]{12}Z", str(moment))
    assert line == {
        "level": "warning", "logger": "origin", "event": "done", "many": 3, "few": None,
        "message": "一 \n\ud800",
    }  # fmt: skip


def test_what_is_no_event_is_a_line_too() -> None:
    """Other people's warnings, and exceptions; but not their chatter."""

    def act() -> None:
        logging.getLogger("uvicorn.error").warning("Invalid HTTP request received.")
        logging.getLogger("uvicorn.error").info("Started")
        try:
            raise ValueError("wrong")
        except ValueError:
            logging.getLogger("anybody").exception("failed")

    first, second = objects(act)
    assert (first["logger"], first["message"]) == ("uvicorn.error", "Invalid HTTP request received.")
    assert "ValueError: wrong" in str(second["exception"])
    lines = written(LogFormat.TEXT, act)
    assert len(lines) > 3 and lines[-1] == "ValueError: wrong"


@pytest.mark.parametrize("log_format", LogFormat)
def test_tokens_of_any_logger_and_in_any_field_are_redacted(log_format: LogFormat) -> None:
    """Also right behind an escape, where careless redaction makes invalid JSON."""

    def act() -> None:
        log = logging.getLogger("somebody.else")
        log.warning("a\n%s\t%s", TOKEN, f"\\{TOKEN}", extra=event("x", at=f'"{TOKEN}"', where=Path(TOKEN)))
        try:
            raise ValueError(TOKEN) from KeyError(TOKEN)
        except ValueError:
            log.exception("failed")

    lines = written(log_format, act)
    assert TOKEN[3:50] not in "".join(lines)
    assert "".join(lines).count(REDACTED) == 6
    if log_format is LogFormat.JSON:
        assert [json.loads(line)["level"] for line in lines] == ["warning", "error"]


def test_what_was_before_is_again_afterwards() -> None:
    handlers, level = logging.getLogger().handlers[:], logger.level
    written(LogFormat.JSON, lambda: None)
    assert (handlers, level) == (logging.getLogger().handlers, logger.level)


def test_request_id_is_one_for_a_request_and_another_for_the_next() -> None:
    async def two() -> tuple[str, str, str]:
        begin_request()
        first, again = request_id(), request_id()
        begin_request()
        return first, again, request_id()

    first, again, other = asyncio.run(two())
    assert first == again != other
    assert re.fullmatch("[0-9a-f]{16}", first)
    assert event("outside")["request_id"] == ""


def test_a_refusal_is_one_line_with_the_id_that_its_client_saw(nas: Nas) -> None:
    """Whatever endpoint, and whatever reason; and nothing of the token, the client or the NAS."""
    app = origin_app(nas)
    gone = nas.add("gone.mp3")
    page = LISTEN_PATH + create_origin_token(SECRET, gone, NOW, kind=TokenKind.LISTEN)
    cases = [
        (STREAM_PATH + "x", "GET", "malformed", 401),
        (link(gone, NOW), "GET", "expired", 410),
        (link(gone), "GET", "not_found", 404),
        (link("/etc/passwd"), "HEAD", "not_found", 404),
        (page, "GET", "expired", 410),
        (RENEW_PATH, "POST", "bad_request", 415),
    ]
    answers: list[Answer] = []
    lines = objects(lambda: answers.extend(call(app, path, None, method) for path, method, _, _ in cases))
    assert len(lines) == len(cases)
    for (path, _, reason, status), line, answer in zip(cases, lines, answers, strict=True):
        assert (line["event"], line["reason"], line["status"]) == ("refused", reason, status)
        assert answer.status == status
        assert answer.headers["x-request-id"] == line["request_id"]
        for hidden in (path[-40:], "gone.mp3", "passwd", str(nas.folder), "127.0.0.1"):
            assert hidden not in json.dumps(line)
    assert len({line["request_id"] for line in lines}) == len(lines)


def test_every_error_has_an_id_and_nothing_else_has(nas: Nas) -> None:
    """Random, so that the same link has another one each time."""
    app = origin_app(nas)
    good = link(nas.add("a.mp3", content_of(100)))
    for path, headers in ((good, {}), (good, {"Range": "bytes=0-1"}), ("/healthz", {}), ("/metrics", {})):
        assert "x-request-id" not in call(app, path, headers).headers

    async def ids() -> list[str]:
        paths = [good + "x"] * 2 + ["/nowhere"] * 2 + [LISTEN_PATH + "x"] * 2
        return [(await ask(app, path)).headers["x-request-id"] for path in paths]

    found = asyncio.run(ids())
    assert len(set(found)) == len(found)
    exposed = call(app, good + "x").headers["access-control-expose-headers"]
    assert "X-Request-Id" in exposed.split(", ")


def test_file_that_is_cut_short_is_an_event(nas: Nas, monkeypatch: pytest.MonkeyPatch) -> None:
    path = link(nas.add("a.mp3", content_of(1000)))
    app = origin_app(nas)

    async def nothing(*_: object) -> bytes:
        return b""

    monkeypatch.setattr("origin.open_file.OpenFile.read", nothing)
    (line,) = objects(lambda: call(app, path))
    assert (line["event"], line["level"]) == ("cut_short", "warning")
    assert len(str(line["request_id"])) == 16


def test_mistake_of_ours_says_where_and_not_what(nas: Nas, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError(str(nas.folder))

    monkeypatch.setattr("origin.gate.verify_origin_token", fail)
    app = origin_app(nas)
    for path in (link("x"), LISTEN_PATH + "x"):
        (line,) = objects(lambda path=path: call(app, path))  # type: ignore[misc]
        assert (line["level"], str(nas.folder) in json.dumps(line)) == ("error", False)
        assert "unexpected RuntimeError in fail" in str(line["message"])


def test_settings_in_the_log_show_no_secret_and_no_path() -> None:
    environment = {
        "MUSIC_CLOUD_PRIVATE_ORIGIN_SECRET": SECRET,
        "MUSIC_CLOUD_ORIGIN_ROOTS": "nas-1=/volume1/music;nas-2=/volume2",
        "MUSIC_CLOUD_CATALOG": "/srv/store",
        "MUSIC_CLOUD_TRUSTED_PROXIES": "10.0.0.1, unix",
    }
    summary = OriginSettings.load("/srv/db", "/srv/env", environment=environment).summary()
    assert (summary["roots"], summary["catalog"], summary["trusted_proxies"]) == (2, True, 2)
    for hidden in (SECRET, "volume", "nas-", "/srv"):
        assert hidden not in str(summary)
