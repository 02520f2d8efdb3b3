"""The player that `docs/tokens.md` shows, on a page of another site than the origin's."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

from contracts.best_source import LEASE_LIFE_S, PAUSE_S, STREAM_PATH
from contracts.tokens import TokenKind, create_origin_token
from tests.browser.conftest import Origin, add_recording, audio, until
from tests.origin.conftest import NOW, SECRET

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

DOCUMENT = Path(__file__).parents[2] / "docs" / "tokens.md"
LONG_S = 30 * 60


@contextmanager
def website(page: str) -> Iterator[str]:
    """A server with one page; gives its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = page.encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()


def page_of_the_docs(origin: Origin, handle: str) -> str:
    """The block of the document, with a link and a lease as the website's server would make them."""
    blocks: list[str] = re.findall(r"```html\n(.*?)```", DOCUMENT.read_text("utf-8"), re.DOTALL)
    (block,) = blocks
    stream = create_origin_token(SECRET, handle, NOW + LONG_S + PAUSE_S, duration_s=LONG_S)
    lease = create_origin_token(SECRET, handle, NOW + LEASE_LIFE_S, kind=TokenKind.LEASE, duration_s=LONG_S)
    url = origin.url + STREAM_PATH + stream
    return (
        block.replace("https://music.example", origin.url)
        .replace('url = "…"', f'url = "{url}"')
        .replace('lease = "…"', f'lease = "{lease}"')
    )


def test_it_plays_and_goes_on_after_a_pause_that_outlived_the_link(chromium: Chrome, origin: Origin) -> None:
    handle = add_recording(origin.nas, "long.wav", LONG_S)

    def plays(at_s: int) -> object:
        return audio(chromium, f"!a.paused && a.currentTime > {at_s}")

    with website(page_of_the_docs(origin, handle)) as address:
        chromium.get(address)
        audio(chromium, "a.play()")
        until(chromium, lambda: plays(0), "it does not play")
        audio(chromium, "a.pause()")
        first = audio(chromium, "a.src")
        origin.clock.now += LONG_S + PAUSE_S
        audio(chromium, "a.play()")
        audio(chromium, "a.currentTime = 1200")
        until(chromium, lambda: plays(1200), "it does not go on there")
        assert audio(chromium, "a.src") != first
        assert origin.ranges(410)
        chromium.get("about:blank")
