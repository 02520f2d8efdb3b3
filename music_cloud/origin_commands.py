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
from contracts.keyring import KEY_RING_NAME, SECRET_NAMES, KeyRing, select_key_material
from contracts.tokens import MAX_TIME_S, OriginClaims, TokenKind, create_origin_token, verify_origin_token
from music_cloud.options import Duration, db_option, env_file_option, json_option, print_json
from music_cloud.settings import SettingsError, load_env_file

ROOTS_NAME = "MUSIC_CLOUD_ORIGIN_ROOTS"
CATALOG_NAME = "MUSIC_CLOUD_CATALOG"
MAX_TOKEN_TTL_NAME = "MUSIC_CLOUD_MAX_TOKEN_TTL_S"
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
    # Litestar is loaded only by the commands that need it: it would double the start of all others.
    from origin import create_app, parse_roots, serve
    from origin.key_source import load_key_ring, warn_if_short

    settings = _load_settings(env_file, must_exist=False)
    try:
        bound = parse_roots(";".join(roots) or settings.get(ROOTS_NAME, ""))
    except MalformedError as error:
        raise SettingsError(f"--root: {error}") from error
    app = create_app(
        source_db,
        env_file,
        roots=bound,
        catalog=catalog or settings.get(CATALOG_NAME),
        max_token_ttl_s=_max_token_ttl_s(settings),
    )
    # What the environment says cannot change while the origin runs; the env file can, and is looked at again.
    material = select_key_material(os.environ)
    if material is not None:
        ring = load_key_ring(material, Path())
        warn_if_short(ring)
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
@click.option(
    "--network",
    default="",
    help="Only clients of this network, such as 203.0.113.0/24. Behind a proxy every client is the proxy.",
)
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
    settings = _load_settings(env_file)
    longest_s = _max_token_ttl_s(settings)
    if ttl is not None and longest_s is not None and ttl > longest_s:
        raise click.BadParameter(f"the origin refuses links that live longer than {longest_s} s")
    expires_at = min(int(time.time()) + (ttl or link_life_s(duration, longest_s)), MAX_TIME_S)
    try:
        token = create_origin_token(
            _ring(settings, env_file),
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
    settings = _load_settings(env_file)
    ring = _ring(settings, env_file)
    now = time.time()
    try:
        claims = verify_origin_token(ring, text, now, kind=KINDS[kind])
    except ExpiredToken:
        # Only its time is over, so what it asserted can be believed, and shown.
        _show(verify_origin_token(ring, text, 0, kind=KINDS[kind]), "expired", now, as_json)
        raise
    longest_s = _max_token_ttl_s(settings)
    is_too_long = longest_s is not None and claims.expires_at - now > longest_s
    _show(claims, "too long a life" if is_too_long else "good", now, as_json)
    if is_too_long:
        raise TokenError(f"the token lives longer than the {longest_s} s that the origin accepts")


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


def _load_settings(env_file: Path | None, *, must_exist: bool = True) -> dict[str, str]:
    """What the env file says and, above it, the environment.

    An origin may be started before its env file is there; it looks at it again for secrets.
    """
    if env_file is not None and not env_file.exists() and not must_exist:
        click.echo(f"music-cloud: {env_file} is not there yet", err=True)
        env_file = None
    in_file = load_env_file(env_file) if env_file is not None else {}
    return {**in_file, **{name: value for name, value in os.environ.items() if value}}


def _ring(settings: Mapping[str, str], env_file: Path | None) -> KeyRing:
    """The keys that the environment names, else the env file."""
    from origin.key_source import load_key_ring

    in_environment = select_key_material(os.environ)
    material = in_environment or select_key_material(settings)
    if material is None:
        raise SettingsError(f"there is no secret; set {SECRET_NAMES[0]} or {KEY_RING_NAME}")
    return load_key_ring(material, Path() if in_environment or env_file is None else env_file.parent)


def _max_token_ttl_s(settings: Mapping[str, str]) -> int | None:
    from origin.settings import parse_ttl

    try:
        return parse_ttl(settings.get(MAX_TOKEN_TTL_NAME))
    except MalformedError as error:
        raise SettingsError(str(error)) from error
