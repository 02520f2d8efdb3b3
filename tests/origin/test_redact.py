"""Tokens in logs: none, in no spelling, under no server that we start or somebody else does."""

from __future__ import annotations

import io
import logging
import os
import re
import subprocess
import sys
import urllib.request
from pathlib import Path
from urllib.parse import quote

import pytest

from contracts.tokens import create_origin_token
from origin.redact import REDACTED, TokenFilter, install_redaction, redact
from tests.origin.conftest import FOREVER, SECRET, Nas, link

TOKEN = create_origin_token(SECRET, "loc:1.00000000", 2_000_000_000, file_name="歌.mp3")
ENCODED = "".join(f"%{ord(letter):02X}" for letter in TOKEN)
SPELLINGS = {
    "plain": TOKEN,
    "some letters encoded": TOKEN.replace("A", "%41").replace("q", "%71"),
    "every letter encoded": ENCODED,
    "lower case": ENCODED.lower(),
    "mixed case": "".join(f"%{ord(letter):02{'xX'[n % 2]}}" for n, letter in enumerate(TOKEN)),
    "twice": quote(ENCODED),
    "twice, in lower case": quote(ENCODED.lower()).lower(),
    "three times": quote(quote(ENCODED)),
    "seven times": ENCODED.replace("%", "%" + "25" * 6),
    "more often than anybody decodes": ENCODED.replace("%", "%" + "25" * 30),
    "cut": TOKEN[:60],
    "with more behind it": TOKEN + "%00A",
    "with more before it": "x" + TOKEN,
}


@pytest.mark.parametrize("spelling", SPELLINGS.values(), ids=SPELLINGS.keys())
def test_every_spelling_is_redacted(spelling: str) -> None:
    assert f"GET /stream/{REDACTED} 200" == redact(f"GET /stream/{spelling} 200")


def test_other_text_stays() -> None:
    for text in ("GET /catalog/blobs/" + "0a" * 32, "音乐 100%", "x" * 200, "%E6%AD%8C" * 20, ""):
        assert text == redact(text)


def test_arguments_exceptions_and_objects(caplog: pytest.LogCaptureFixture) -> None:
    install_redaction()
    logger = logging.getLogger("uvicorn.error")
    with caplog.at_level("DEBUG", "uvicorn.error"):
        logger.info("%s %d", f"/x/{TOKEN}", 200)
        logger.info("%(path)s", {"path": TOKEN})
        logger.info(ValueError(TOKEN))
        logger.info("%r", TOKEN.encode())
        try:
            raise ValueError(f"/x/{TOKEN}")
        except ValueError:
            logger.exception("failed")
    assert len(caplog.records) == 5
    assert TOKEN not in caplog.text
    assert caplog.text.count(REDACTED) == 5


def test_chains_of_exceptions_and_other_peoples_formatters(caplog: pytest.LogCaptureFixture) -> None:
    """Causes, contexts, groups and notes; and a handler that formats the exception by itself."""
    install_redaction()
    logger = logging.getLogger("uvicorn.error")
    seen: list[str] = []

    class Own(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            seen.append(logging.Formatter().formatException(record.exc_info) if record.exc_info else "")

    handler = Own()
    logger.addHandler(handler)
    try:
        try:
            try:
                raise ValueError(f"/x/{TOKEN}")
            except ValueError as error:
                error.add_note(f"in /y/{ENCODED}")
                raise ExceptionGroup("several", [RuntimeError(quote(ENCODED))]) from error
        except ExceptionGroup:
            logger.exception("Exception in ASGI application\n", exc_info=True)
    finally:
        logger.removeHandler(handler)
    assert caplog.text.count(REDACTED) == 3
    for hidden in (TOKEN[3:60], ENCODED[9:60], quote(ENCODED)[9:60]):
        assert hidden not in caplog.text + "".join(seen)


def test_what_uvicorn_logs_of_a_request(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its messages with a path in them, as its modules write them (0.54): access line and trace."""
    install_redaction()
    stream = io.StringIO()
    for name in ("uvicorn.access", "uvicorn.asgi", "uvicorn.error", "asyncio"):
        logger = logging.getLogger(name)  # A server that ran before may have changed any of this.
        monkeypatch.setattr(logger, "handlers", [logging.StreamHandler(stream)])
        monkeypatch.setattr(logger, "propagate", False)
        monkeypatch.setattr(logger, "isEnabledFor", lambda level: True)
    scope = {"type": "http", "path": f"/s/{TOKEN}", "raw_path": f"/s/{ENCODED}".encode()}
    logging.getLogger("uvicorn.access").info(
        '%s - "%s %s HTTP/%s" %d', "127.0.0.1:9", "GET", f"/s/{ENCODED.lower()}?a={TOKEN}", "1.1", 200
    )
    logging.getLogger("uvicorn.asgi").log(5, "%s [%d] Started scope=%s", "127.0.0.1:9", 1, scope)
    logging.getLogger("uvicorn.error").warning(f"Invalid HTTP request received: /s/{TOKEN}")
    logging.getLogger("asyncio").error("Task exception was never retrieved: %s", {"token": TOKEN})
    written = stream.getvalue()
    assert written.count(REDACTED) == 6
    assert TOKEN[3:60] not in written and ENCODED.lower()[9:60] not in written.lower()


def test_a_long_line_takes_no_long_time() -> None:
    """64 KiB, which is all that a server takes, of the worst of each kind."""
    for text in ("%" + "25" * 30_000 + "41", "%25" * 20_000, "%" * 60_000, "AQE" * 20_000, "%2" * 30_000):
        assert len(redact(f"GET /{text}")) <= len(text) + 5


def test_filter_is_installed_once() -> None:
    install_redaction()
    install_redaction()
    filters = logging.getLogger("uvicorn.access").filters
    assert sum(isinstance(each, TokenFilter) for each in filters) == 1


def test_plain_uvicorn_logs_no_token(nas: Nas) -> None:
    """`uvicorn --factory`, access log on, everything at its default."""
    (nas.folder / "nas_site.py").write_text(
        "from origin import create_app\n"
        "def app():\n"
        f"    made = create_app({str(nas.db_path)!r})\n"
        f"    made.state.private_origin_secret = {SECRET!r}\n"
        "    return made\n"
    )
    path = link(nas.add("a.mp3", b"x"), FOREVER)
    token = path.rpartition("/")[2]
    project = Path(__file__).parents[2]
    with subprocess.Popen(
        [
            sys.executable,
            "-m",
            "uvicorn",
            "--factory",
            "--port",
            "0",
            "--app-dir",
            str(nas.folder),
            "nas_site:app",
        ],
        stderr=subprocess.STDOUT,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(project)},
    ) as server:
        assert server.stdout is not None
        log = ""
        while (found := re.search(r"running on (http://\S+)", log)) is None:
            line = server.stdout.readline()
            assert line, log
            log += line
        try:
            for spelling in (token, token.replace("A", "%41")):
                urllib.request.urlopen(f"{found[1]}/api/private-origin/stream/{spelling}", timeout=20).close()
        finally:
            server.terminate()
        log += server.stdout.read()
    assert log.count(REDACTED) == 2
    assert token not in log and token[3:60] not in log
