"""Settings and secrets: what an env file says, and what happens when it changes."""

from __future__ import annotations

import asyncio
import logging
import os
from ipaddress import ip_network
from pathlib import Path

import pytest

from contracts.errors import MalformedError
from contracts.tokens import create_origin_token
from origin import OriginSettings, create_app, parse_roots
from origin.client_address import NOBODY, parse_trusted_proxies
from origin.key_source import KeySource
from origin.logs import LogFormat
from origin.settings import LOOPBACK
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


def test_limits_and_proxies(env_file: Path) -> None:
    """Arguments before the environment, that before the env file, that before the defaults; 0 is none."""
    plain = OriginSettings.load("/db", env_file)
    assert (plain.trusted_proxies, plain.max_connections_per_link, plain.max_copies_per_link) == (
        NOBODY, 16, 20,
    )  # fmt: skip
    env_file.write_text(
        "MUSIC_CLOUD_TRUSTED_PROXIES=127.0.0.1,unix\n"
        "MUSIC_CLOUD_MAX_CONNECTIONS_PER_LINK=0\nMUSIC_CLOUD_MAX_COPIES_PER_LINK=5\n"
    )
    read = OriginSettings.load("/db", env_file)
    assert read.trusted_proxies == parse_trusted_proxies("unix, 127.0.0.1")
    assert (read.max_connections_per_link, read.max_copies_per_link) == (0, 5)
    environment = {"MUSIC_CLOUD_MAX_COPIES_PER_LINK": "6", "MUSIC_CLOUD_TRUSTED_PROXIES": "10.0.0.0/8"}
    above = OriginSettings.load("/db", env_file, environment=environment)
    assert (above.trusted_proxies, above.max_copies_per_link) == (parse_trusted_proxies("10.0.0.0/8"), 6)
    given = OriginSettings.load(
        "/db", env_file, environment=environment, trusted_proxies="", max_copies_per_link=0
    )
    assert (given.trusted_proxies, given.max_copies_per_link) == (NOBODY, 0)


def test_monitoring_and_the_server(env_file: Path) -> None:
    """Arguments before the environment, that before the env file, that before the defaults."""
    plain = OriginSettings.load("/db", env_file)
    assert (plain.metrics_networks, plain.stall_limit_s, plain.log_format) == (LOOPBACK, 60, LogFormat.TEXT)
    env_file.write_text(
        "MUSIC_CLOUD_METRICS_NETWORKS=10.0.0.0/8, fd00::1\nMUSIC_CLOUD_STALL_LIMIT_S=90\n"
        "MUSIC_CLOUD_LOG_FORMAT=json\n"
    )
    read = OriginSettings.load("/db", env_file)
    assert read.metrics_networks == (ip_network("10.0.0.0/8"), ip_network("fd00::1/128"))
    assert (read.stall_limit_s, read.log_format) == (90, LogFormat.JSON)
    environment = {"MUSIC_CLOUD_METRICS_NETWORKS": "none", "MUSIC_CLOUD_STALL_LIMIT_S": "91"}
    above = OriginSettings.load("/db", env_file, environment=environment)
    assert (above.metrics_networks, above.stall_limit_s) == ((), 91)
    given = OriginSettings.load(
        "/db", env_file, environment=environment, stall_limit_s=5, log_format=LogFormat.TEXT
    )
    assert (given.stall_limit_s, given.log_format) == (5, LogFormat.TEXT)


def test_mounts_are_followed_only_when_it_is_said(env_file: Path) -> None:
    assert not OriginSettings.load("/db", env_file).follow_mounts
    env_file.write_text("MUSIC_CLOUD_FOLLOW_MOUNTS=true\n")
    assert OriginSettings.load("/db", env_file).follow_mounts
    assert not OriginSettings.load("/db", env_file, follow_mounts=False).follow_mounts
    environment = {"MUSIC_CLOUD_FOLLOW_MOUNTS": "false"}
    assert not OriginSettings.load("/db", env_file, environment=environment).follow_mounts
    assert OriginSettings.load("/db", env_file, environment=environment, follow_mounts=True).follow_mounts


def test_missing_env_file_means_defaults(env_file: Path) -> None:
    settings = OriginSettings.load("/db", env_file)
    assert (settings.roots, settings.catalog, settings.max_token_ttl_s) == ({}, None, None)


@pytest.mark.parametrize("text", ["nas-1", "=/a", "nas-1=", "a=/b;a=/c"])
def test_malformed_roots(text: str) -> None:
    with pytest.raises(MalformedError):
        parse_roots(text)


@pytest.mark.parametrize(
    "text",
    [
        "no assignment",
        "MUSIC_CLOUD_MAX_TOKEN_TTL_S=1h",
        "MUSIC_CLOUD_MAX_TOKEN_TTL_S=0",
        "MUSIC_CLOUD_MAX_COPIES_PER_LINK=-1",
        "MUSIC_CLOUD_MAX_CONNECTIONS_PER_LINK=many",
        "MUSIC_CLOUD_TRUSTED_PROXIES=proxy.example",
        "MUSIC_CLOUD_METRICS_NETWORKS=localhost",
        "MUSIC_CLOUD_METRICS_NETWORKS=10.0.0.1/8",
        "MUSIC_CLOUD_METRICS_NETWORKS=none,10.0.0.0/8",
        "MUSIC_CLOUD_STALL_LIMIT_S=0",
        "MUSIC_CLOUD_STALL_LIMIT_S=1m",
        "MUSIC_CLOUD_LOG_FORMAT=JSON",
        "MUSIC_CLOUD_FOLLOW_MOUNTS=yes",
        "A=\udcff",
    ],
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

    monkeypatch.setattr("origin.gate.verify_origin_token", fail)
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
