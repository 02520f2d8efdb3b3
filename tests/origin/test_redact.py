"""Tokens in logs: none, in no spelling, under no server that we start or somebody else does."""

from __future__ import annotations

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
    "twice": quote(ENCODED),
    "three times": quote(quote(ENCODED)),
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
