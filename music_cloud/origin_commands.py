"""The commands of the private origin: serve, and make or read tokens.

Invariant: what is minted here names a handle, never a path; and a secret is read from a file or the
environment, never from an argument.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import msgspec

from contracts.best_source import STREAM_PATH, link_life_s
from contracts.errors import ExpiredToken, MalformedError, TokenError
from contracts.handles import parse_handle
from contracts.keyring import KeyRing, key_ring
from contracts.tokens import MAX_TIME_S, OriginClaims, TokenKind, create_origin_token, verify_origin_token
from music_cloud.options import Duration, db_option, env_file_option, json_option, print_json
from music_cloud.settings import SettingsError, find_setting, load_env_file

SECRET_KEYS = ("MUSIC_CLOUD_PRIVATE_ORIGIN_SECRET", "PRIVATE_ORIGIN_SECRET")
KEY_RING_KEY = "MUSIC_CLOUD_PRIVATE_ORIGIN_KEY_RING"
KINDS = {kind.name.lower(): kind for kind in TokenKind}


@click.command("origin")
@db_option
@click.option(
    "--root",
    "roots",
    multiple=True,
    metavar="NAME=PATH",
    help="Folder of the storage backend with that name; otherwise its base_path. May be repeated.",
)
@click.option(
    "--catalog",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder store to serve at /catalog/, for mirrors or a CDN.",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=8700, show_default=True, type=click.IntRange(0, 65535))
@env_file_option
def origin_command(
    source_db: Path, roots: tuple[str, ...], catalog: Path | None, host: str, port: int, env_file: Path | None
) -> None:
    """Stream files that exist only on this machine to whoever holds a signed link.

    Without a secret (MUSIC_CLOUD_PRIVATE_ORIGIN_SECRET, or a key ring) every link is answered 503.
    """
    # Litestar is loaded only by the command that serves: it would double the start of all others.
    from origin import create_app, serve
    from origin.settings import CATALOG_KEY, MAX_TOKEN_TTL_KEY, ROOTS_KEY, parse_roots, parse_ttl

    bound = parse_roots(";".join(roots) or os.environ.get(ROOTS_KEY, ""))
    app = create_app(
        source_db,
        env_file,
        roots=bound or None,
        catalog=catalog or os.environ.get(CATALOG_KEY),
        max_token_ttl_s=parse_ttl(os.environ.get(MAX_TOKEN_TTL_KEY)),
    )
    # What the environment says cannot change while the origin runs; the env file can, and is looked at again.
    ring = _load_ring(os.environ, Path())
    if ring is not None:
        app.state.private_origin_secret = ring
    serve(app, host, port, on_listening=lambda url: click.echo(f"listening on {url}", err=True))


@click.group("token")
def token_group() -> None:
    """Make and read the signed tokens of the private origin."""


@token_group.command("create")
@click.argument("handle", metavar="HANDLE")
@click.option("--ttl", type=Duration(), help="Life of the link; otherwise the duration and a pause.")
@click.option("--duration", type=Duration(), default=0, help="Length of the track.")
@click.option("--kind", type=click.Choice(list(KINDS)), default="stream", show_default=True)
@click.option("--file-name", default="", help="What a browser may save the file as.")
@click.option("--download", is_flag=True, help="Offer the file for saving instead of playing it.")
@click.option("--network", default="", help="Only clients of this network, such as 203.0.113.0/24.")
@click.option("--origin-url", help="Print a whole link to the origin at this address.")
@env_file_option
@json_option
def create_command(
    handle: str,
    ttl: int | None,
    duration: int,
    kind: str,
    file_name: str,
    download: bool,
    network: str,
    origin_url: str | None,
    env_file: Path | None,
    as_json: bool,
) -> None:
    """Sign a token for a handle, the loc:… of catalog_track_files."""
    try:
        parse_handle(handle)
    except MalformedError as error:
        raise click.BadParameter("a handle is the loc:<id>.<check> of catalog_track_files") from error
    expires_at = min(int(time.time()) + (ttl or link_life_s(duration)), MAX_TIME_S)
    try:
        token = create_origin_token(
            _ring(env_file),
            handle,
            expires_at,
            kind=KINDS[kind],
            duration_s=duration,
            file_name=file_name,
            disposition="attachment" if download else "inline",
            client_network=network,
        )
    except TokenError as error:
        raise SettingsError(str(error)) from error
    link = f"{origin_url.rstrip('/')}{STREAM_PATH}{token}" if origin_url else token
    if as_json:
        print_json({"link" if origin_url else "token": link, "expires_at": expires_at})
    else:
        click.echo(link)


@token_group.command("inspect")
@click.argument("token", metavar="TOKEN|-")
@click.option("--kind", type=click.Choice(list(KINDS)), default="stream", show_default=True)
@env_file_option
@json_option
def inspect_command(token: str, kind: str, env_file: Path | None, as_json: bool) -> None:
    """Say whether a token is good, and what it asserts; - reads it from standard input.

    A whole link is taken too. Exit code 1 when the origin would refuse it.
    """
    text = sys.stdin.read(65_536).strip() if token == "-" else token
    text = text.rpartition("/")[2]
    ring = _ring(env_file)
    now = time.time()
    try:
        claims = verify_origin_token(ring, text, now, kind=KINDS[kind])
    except ExpiredToken:
        # Only its time is over, so what it asserted can be believed, and shown.
        _show(verify_origin_token(ring, text, 0, kind=KINDS[kind]), "expired", now, as_json)
        raise
    _show(claims, "good", now, as_json)


def _show(claims: OriginClaims, verdict: str, now: float, as_json: bool) -> None:
    fields: dict[str, Any] = {
        "verdict": verdict,
        **msgspec.structs.asdict(claims),
        "remaining_s": max(0, int(claims.expires_at - now)),
    }
    if as_json:
        print_json(fields)
        return
    for name, value in fields.items():
        click.echo(f"{name:<15} {value}")


def _ring(env_file: Path | None) -> KeyRing:
    """The keys that the environment names, else the env file."""
    ring = _load_ring(os.environ, Path())
    if ring is None and env_file is not None:
        ring = _load_ring(load_env_file(env_file), env_file.parent)
    if ring is None:
        raise SettingsError(f"there is no secret; set {SECRET_KEYS[0]} or {KEY_RING_KEY}")
    return ring


def _load_ring(values: Mapping[str, str], folder: Path) -> KeyRing | None:
    """The keys that a source of settings names; a ring file is relative to `folder`."""
    path = values.get(KEY_RING_KEY)
    if path:
        return KeyRing.parse((folder / path).read_text("utf-8", "surrogateescape"))
    secret = find_setting(values, SECRET_KEYS)
    return None if secret is None else key_ring(secret)
