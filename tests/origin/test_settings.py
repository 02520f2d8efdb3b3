"""Settings and secrets: what an env file says, and what happens when it changes."""

from __future__ import annotations

import asyncio
import logging
import os
from pathlib import Path

import pytest

from contracts.errors import MalformedError
from contracts.tokens import create_origin_token
from origin import OriginSettings, create_app, parse_roots
from origin.key_source import KeySource
from tests.origin.asgi import call
from tests.origin.conftest import NOW, Nas, link

LONG, NEXT = "a secret that is long enough", "the next one, long enough too"


def kid(source: KeySource) -> str | None:
    """The key id that signs now, after the files were looked at."""
    source._checked_s = 0.0
    ring = asyncio.run(source.ring())
    return None if ring is None else ring.newest.kid.hex()


@pytest.fixture
def env_file(tmp_path: Path) -> Path:
    return tmp_path / "origin.env"


def test_env_file_and_arguments(env_file: Path) -> None:
    env_file.write_text(
        "MUSIC_CLOUD_ORIGIN_ROOTS = 'nas-1=/volume1/music; nas 2 = /volume2/a=b'\n"
        "MUSIC_CLOUD_CATALOG=/srv/store\nMUSIC_CLOUD_MAX_TOKEN_TTL_S=86400\n"
    )
    settings = OriginSettings.load("/db", env_file)
    assert {"nas-1": Path("/volume1/music"), "nas 2": Path("/volume2/a=b")} == settings.roots
    assert (Path("/srv/store"), 86_400) == (settings.catalog, settings.max_token_ttl_s)
    given = OriginSettings.load("/db", env_file, roots={"x": "/y"}, catalog="/z", max_token_ttl_s=1)
    assert ({"x": Path("/y")}, Path("/z"), 1) == (given.roots, given.catalog, given.max_token_ttl_s)


def test_missing_env_file_means_defaults(env_file: Path) -> None:
    settings = OriginSettings.load("/db", env_file)
    assert (settings.roots, settings.catalog, settings.max_token_ttl_s) == ({}, None, None)


@pytest.mark.parametrize("text", ["nas-1", "=/a", "nas-1=", "a=/b;a=/c"])
def test_malformed_roots(text: str) -> None:
    with pytest.raises(MalformedError):
        parse_roots(text)


@pytest.mark.parametrize(
    "text", ["no assignment", "MUSIC_CLOUD_MAX_TOKEN_TTL_S=1h", "MUSIC_CLOUD_MAX_TOKEN_TTL_S=0", "A=\udcff"]
)
def test_malformed_env_file_is_an_error_at_start(env_file: Path, text: str) -> None:
    env_file.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(MalformedError):
        create_app("/db", env_file)


def test_secret_changes_appears_and_goes(env_file: Path) -> None:
    source = KeySource(env_file)
    assert kid(source) is None
    env_file.write_text(f"PRIVATE_ORIGIN_SECRET={LONG}\n")
    first = kid(source)
    assert first is not None
    env_file.write_text(f"PRIVATE_ORIGIN_SECRET={LONG}\nMUSIC_CLOUD_PRIVATE_ORIGIN_SECRET={NEXT}\n")
    assert kid(source) not in (None, first)
    env_file.unlink()
    assert kid(source) is None


def test_secret_may_stand_in_a_file_of_its_own(env_file: Path, tmp_path: Path) -> None:
    """As the command line reads it (docs/settings.md); relative to the env file, and watched."""
    secret = tmp_path / "secret"
    secret.write_text(f"{LONG}\n")
    env_file.write_text("MUSIC_CLOUD_PRIVATE_ORIGIN_SECRET_FILE=secret\n")
    source = KeySource(env_file)
    first = kid(source)
    assert first is not None
    secret.write_text(f"{NEXT}\n")
    assert kid(source) not in (None, first)
    secret.unlink()
    assert kid(source) is None


def test_ring_file_rotates_and_revokes(env_file: Path, tmp_path: Path) -> None:
    """Relative to the env file; one that is broken or missing means no keys, rather than the old ones."""
    ring = tmp_path / "ring"
    env_file.write_text(f"MUSIC_CLOUD_PRIVATE_ORIGIN_KEY_RING=ring\nPRIVATE_ORIGIN_SECRET={LONG}\n")
    source = KeySource(env_file)
    assert kid(source) is None
    ring.write_text(f"{LONG}\n")
    old = kid(source)
    ring.write_text(f"# rotated\n{LONG}\n{NEXT}\n")
    assert kid(source) not in (None, old)
    ring.write_text("# emptied\n")
    assert kid(source) is None
    ring.write_text(f"{LONG}\n")
    assert old == kid(source)
    ring.unlink()
    assert kid(source) is None


def test_files_are_looked_at_once_a_second(env_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = KeySource(env_file)
    looked: list[int] = []
    monkeypatch.setattr(source, "reload", lambda: looked.append(1))

    async def ask() -> None:
        for _ in range(50):
            await source.ring()

    asyncio.run(ask())
    assert looked == [1]


def test_settled_file_is_not_read_again(env_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    env_file.write_text(f"PRIVATE_ORIGIN_SECRET={LONG}\n")
    os.utime(env_file, (NOW - 10**8, NOW - 10**8))
    source = KeySource(env_file)
    first = kid(source)
    monkeypatch.setattr(source, "_load", lambda: pytest.fail("read again"))
    assert first == kid(source)


def test_short_secret_warns_at_start(env_file: Path, caplog: pytest.LogCaptureFixture) -> None:
    env_file.write_text("PRIVATE_ORIGIN_SECRET=short\n")
    with caplog.at_level(logging.WARNING, "origin"):
        create_app("/db", env_file)
    assert "only 5 bytes" in caplog.text
    assert "short" not in caplog.text


def test_unexpected_error_shows_nothing(
    nas: Nas, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """500 with the one body, and a log line that says where, without the text, which may hold a path."""
    app = create_app(nas.db_path, clock=lambda: NOW)
    app.state.private_origin_secret = LONG

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("/volume1/music/secret.mp3")

    monkeypatch.setattr("origin.stream.verify_origin_token", fail)
    answer = call(app, link("loc:1.00000000"))
    assert (answer.status, answer.headers["cache-control"]) == (500, "no-store")
    assert b"secret.mp3" not in answer.body
    assert "unexpected RuntimeError in fail" in caplog.text
    assert "secret.mp3" not in caplog.text


def test_token_of_the_env_files_secret_is_served(nas: Nas, env_file: Path) -> None:
    env_file.write_text(f"MUSIC_CLOUD_PRIVATE_ORIGIN_SECRET='{LONG}'\n")
    app = create_app(str(nas.db_path), str(env_file), clock=lambda: NOW)
    token = create_origin_token(LONG, nas.add("a.mp3", b"x"), NOW + 1)
    assert call(app, f"/api/private-origin/stream/{token}").body == b"x"
