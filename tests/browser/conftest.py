"""A headless Chromium, and an origin whose clock a test moves."""

from __future__ import annotations

import json
import os
import shutil
import wave
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from contracts.tokens import TokenKind, create_origin_token
from origin import build_app, serving
from origin.settings import OriginSettings
from origin.stream import StreamEndpoint
from tests.origin.conftest import NOW, SECRET, Nas, make_nas

if TYPE_CHECKING:
    from litestar.types import HTTPScope, Receive, Send
    from selenium.webdriver import Chrome

PATIENCE_S = 20
_TOOLS = ("chromium", "chromedriver")
_BYTES_PER_S = 44_100 * 2 * 2


class MovableClock:
    """Seconds since 1970, when a test says that they are over."""

    def __init__(self) -> None:
        self.now = float(NOW)

    def __call__(self) -> float:
        return self.now


@dataclass
class Origin:
    """A NAS with a running origin, and what its stream endpoint was asked: method, range, status."""

    nas: Nas
    clock: MovableClock
    url: str = ""
    asked: list[tuple[str, str, int]] = field(default_factory=list)

    def page(self, handle: str, expires_at: int = NOW + 3600, **claims: Any) -> str:
        """The address of the listening page for a handle."""
        token = create_origin_token(SECRET, handle, expires_at, kind=TokenKind.LISTEN, **claims)
        return f"{self.url}/listen/{token}"

    def ranges(self, status: int) -> list[str]:
        """The ranges of the requests that were answered so."""
        return [asked for method, asked, answered in self.asked if method == "GET" and answered == status]


@pytest.fixture
def origin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Origin]:
    made = Origin(make_nas(tmp_path), MovableClock())

    class Recorded(StreamEndpoint):
        async def __call__(self, scope: HTTPScope, receive: Receive, send: Send) -> None:
            headers = dict(scope["headers"])

            async def recorded(message: Any) -> None:
                if message["type"] == "http.response.start":
                    asked = headers.get(b"range", b"").decode()
                    made.asked.append((scope["method"], asked, message["status"]))
                await send(message)

            await super().__call__(scope, receive, recorded)

    monkeypatch.setattr("origin.app.StreamEndpoint", Recorded)
    app = build_app(OriginSettings(made.nas.db_path), clock=made.clock)
    app.state.private_origin_secret = SECRET
    with serving(app) as made.url:
        yield made


def add_recording(nas: Nas, locator: str, duration_s: int, name: str = "", singers: str = "") -> str:
    """Catalogue silence of any length, which takes no room on the disk; returns its handle."""
    nas.add("placeholder", b"")
    path = nas.music / locator
    with wave.open(str(path), "wb") as recording:
        recording.setparams((2, 2, 44_100, duration_s * 44_100, "NONE", "not compressed"))
        recording._ensure_header_written(0)  # type: ignore[attr-defined]
    with path.open("r+b") as file:
        file.truncate(44 + duration_s * _BYTES_PER_S)
    handle = nas.add(locator)
    nas.execute("UPDATE songs SET name = ?, singers = ?", name, singers)
    return handle


def until(browser: Chrome, condition: Callable[[], object], what: str) -> None:
    """Wait for a condition."""
    from selenium.webdriver.support.wait import WebDriverWait

    WebDriverWait(browser, PATIENCE_S, poll_frequency=0.05).until(lambda _: condition(), what)


def audio(browser: Chrome, expression: str) -> Any:
    """The value of a JavaScript expression about `a`, the audio element."""
    return browser.execute_script(f"const a = document.querySelector('audio'); return {expression}")


@contextmanager
def _chromium(folder: Path, *arguments: str) -> Iterator[Chrome]:
    from selenium.webdriver import Chrome, ChromeOptions
    from selenium.webdriver.chrome.service import Service

    chromium, driver = map(shutil.which, _TOOLS)
    options = ChromeOptions()
    options.binary_location = chromium or ""
    for argument in (
        "--headless=new",
        "--autoplay-policy=no-user-gesture-required",
        "--disable-dev-shm-usage",
        "--mute-audio",
        "--window-size=900,900",
        f"--user-data-dir={folder}",
        # Its sandbox needs another user than root, whom containers often have.
        *(["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []),
        *arguments,
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    browser = Chrome(options=options, service=Service(driver))
    try:
        browser.set_page_load_timeout(PATIENCE_S)
        yield browser
    finally:
        browser.quit()


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    """One browser for all tests; starting it takes a second."""
    pytest.importorskip("selenium", reason="selenium is not installed")
    missing = [tool for tool in _TOOLS if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"{' and '.join(missing)} not installed (Debian: chromium, chromium-driver)")
    with _chromium(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture
def browser(chromium: Chrome, origin: Origin) -> Iterator[Chrome]:
    """The browser; after each test, nothing may have been requested but from the origin, nor refused by the
    page's own policy."""
    chromium.get("about:blank")
    for log in ("browser", "performance"):
        chromium.get_log(log)  # type: ignore[no-untyped-call]
    yield chromium
    chromium.get("about:blank")  # What it is still reading ends before the origin does.
    complaints = [entry["message"] for entry in _log(chromium, "browser")]
    assert not [text for text in complaints if "Content Security Policy" in text or "Uncaught" in text]
    requested = [
        message["params"]["request"]["url"]
        for message in (json.loads(entry["message"])["message"] for entry in _log(chromium, "performance"))
        if message["method"] == "Network.requestWillBeSent"
    ]
    assert requested
    assert not [url for url in requested if not url.startswith((origin.url + "/", "data:"))]


def _log(browser: Chrome, name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = browser.get_log(name)  # type: ignore[no-untyped-call]
    return found
