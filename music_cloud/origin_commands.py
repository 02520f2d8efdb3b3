"""The commands of the private origin: serve, and make or read tokens.

Invariant: what is minted here names a handle, never a path; and a secret is read from a file or the
environment, never from an argument.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import msgspec

from contracts.best_source import LEASE_LIFE_S, LISTEN_PATH, STREAM_PATH, link_life_s
from contracts.errors import ExpiredToken, MalformedError, TokenError, WrongKind
from contracts.handles import parse_handle
from contracts.keyring import KEY_RING_NAME, SECRET_NAMES, KeyRing, select_key_material
from contracts.tokens import MAX_TIME_S, OriginClaims, TokenKind, create_origin_token, verify_origin_token
from music_cloud.options import Duration, db_option, env_file_option, json_option, print_json
from music_cloud.settings import SettingsError, load_env_file

MAX_TOKEN_TTL_NAME = "MUSIC_CLOUD_MAX_TOKEN_TTL_S"
KINDS = {kind.name.lower(): kind for kind in TokenKind}
_PATHS = {TokenKind.STREAM: STREAM_PATH, TokenKind.LISTEN: LISTEN_PATH}


@click.command("origin")
@db_option
@click.option(
    "--root",
    "roots",
    multiple=True,
    metavar="NAME=PATH",
    help="Folder of the storage backend with that name; otherwise its base_path. May be repeated.",
)
@click.option("--follow-mounts", is_flag=True, help="What is mounted inside such a folder is part of it.")
@click.option(
    "--catalog",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder store to serve at /catalog/, for mirrors or a CDN.",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=8700, show_default=True, type=click.IntRange(0, 65535))
@click.option("--stall-limit", type=Duration(), help="Drop a client that takes no byte for so long.")
@click.option("--log-format", type=click.Choice(["text", "json"]), help="How the log on stderr is written.")
@env_file_option
def origin_command(
    source_db: Path,
    roots: tuple[str, ...],
    follow_mounts: bool,
    catalog: Path | None,
    host: str,
    port: int,
    stall_limit: int | None,
    log_format: str | None,
    env_file: Path | None,
) -> None:
    """Stream files that exist only on this machine to whoever holds a signed link.

    Without a secret (MUSIC_CLOUD_PRIVATE_ORIGIN_SECRET, or a key ring) every link is answered 503.
    """
    # Litestar is loaded only by the commands that need it: it would double the start of all others.
    from origin import OriginSettings, build_app, parse_roots, serve
    from origin.key_source import load_key_ring, warn_if_short
    from origin.logs import LogFormat, event, logging_as

    _load_settings(env_file, must_exist=False)
    try:
        bound = parse_roots(";".join(roots)) if roots else None
        settings = OriginSettings.load(
            source_db,
            env_file,
            roots=bound,
            follow_mounts=follow_mounts or None,
            catalog=catalog,
            stall_limit_s=stall_limit,
            log_format=LogFormat(log_format) if log_format else None,
            environment={name: value for name, value in os.environ.items() if value},
        )
    except MalformedError as error:
        raise SettingsError(str(error)) from error
    logger = logging.getLogger("origin")

    def tell(url: str) -> None:
        if settings.log_format is LogFormat.TEXT:
            click.echo(f"listening on {url}", err=True)
        logger.info("the origin started", extra=event("started", url=url, **settings.summary()))

    with logging_as(settings.log_format):
        app = build_app(settings)
        # What the environment says cannot change while the origin runs; the env file can, and is looked at.
        material = select_key_material(os.environ)
        if material is not None:
            ring = load_key_ring(material, Path())
            warn_if_short(ring)
            app.state.private_origin_secret = ring
        serve(app, host, port, tell, stall_limit_s=settings.stall_limit_s)
        logger.info("the origin stopped", extra=event("stopped"))


@click.group("token")
def token_group() -> None:
    """Make and read the signed tokens of the private origin."""


@token_group.command("create")
@click.argument("handle", metavar="HANDLE")
@click.option(
    "--ttl", type=Duration(), help="Life; otherwise the duration and a pause, 6h for a lease, 1d for a page."
)
@click.option("--duration", type=Duration(), default=0, help="Length of the track.")
@click.option(
    "--kind",
    "kind_name",
    type=click.Choice(list(KINDS)),
    default="stream",
    show_default=True,
    help="stream: the file; lease: renews streams; listen: a page with a player.",
)
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
    kind_name: str,
    file_name: str,
    download: bool,
    network: str,
    origin_url: str | None,
    env_file: Path | None,
    as_json: bool,
) -> None:
    """Sign a token for a handle, the loc:… of catalog_track_files.

    Of a lease no link can be printed: it is posted in the body of a request (docs/tokens.md).
    """
    kind = KINDS[kind_name]
    try:
        parse_handle(handle)
    except MalformedError as error:
        raise click.BadParameter("a handle is the loc:<id>.<check> of catalog_track_files") from error
    settings = _load_settings(env_file)
    longest_s = _max_token_ttl_s(settings)
    if ttl is not None and longest_s is not None and ttl > longest_s:
        raise click.BadParameter(f"the origin refuses links that live longer than {longest_s} s")
    if ttl is not None and kind is TokenKind.LEASE and ttl > LEASE_LIFE_S:
        raise click.BadParameter(f"a lease lives at most {LEASE_LIFE_S} s")
    if origin_url and kind not in _PATHS:
        raise click.BadParameter(f"a {kind_name} stands in no link; leave out --origin-url")
    expires_at = min(int(time.time()) + (ttl or link_life_s(duration, longest_s, kind)), MAX_TIME_S)
    try:
        token = create_origin_token(
            _ring(settings, env_file),
            handle,
            expires_at,
            kind=kind,
            duration_s=duration,
            file_name=file_name,
            disposition="attachment" if download else "inline",
            client_network=network,
        )
    except TokenError as error:
        raise SettingsError(str(error)) from error
    link = f"{origin_url.rstrip('/')}{_PATHS[kind]}{token}" if origin_url else token
    if as_json:
        print_json({"link" if origin_url else "token": link, "kind": kind_name, "expires_at": expires_at})
    else:
        click.echo(link)


@token_group.command("inspect")
@click.argument("token", metavar="TOKEN|-")
@click.option("--kind", "kind_name", type=click.Choice(list(KINDS)), help="Take no other kind for good.")
@env_file_option
@json_option
def inspect_command(token: str, kind_name: str | None, env_file: Path | None, as_json: bool) -> None:
    """Say whether a token is good, of which kind it is, and what it asserts; - reads it from standard input.

    A whole link is taken too. Exit code 1 when the origin would refuse it.
    """
    text = sys.stdin.read(65_536).strip() if token == "-" else token
    text = text.rpartition("/")[2]
    settings = _load_settings(env_file)
    ring = _ring(settings, env_file)
    now = time.time()
    kind = KINDS[kind_name] if kind_name else _kind_of(ring, text)
    try:
        claims = verify_origin_token(ring, text, now, kind=kind)
    except ExpiredToken:
        # Only its time is over, so what it asserted can be believed, and shown.
        _show(verify_origin_token(ring, text, 0, kind=kind), kind, "expired", now, as_json)
        raise
    longest_s = _max_token_ttl_s(settings)
    is_too_long = longest_s is not None and claims.expires_at - now > longest_s
    _show(claims, kind, "too long a life" if is_too_long else "good", now, as_json)
    if is_too_long:
        raise TokenError(f"the token lives longer than the {longest_s} s that the origin accepts")


def _kind_of(ring: KeyRing, token: str) -> TokenKind:
    """The kind that a token was signed for; of one that is not ours, any."""
    for kind in TokenKind:
        try:
            verify_origin_token(ring, token, 0, kind=kind)
        except WrongKind:
            continue
        except TokenError:
            pass
        return kind
    return TokenKind.STREAM


def _show(claims: OriginClaims, kind: TokenKind, verdict: str, now: float, as_json: bool) -> None:
    fields: dict[str, Any] = {
        "verdict": verdict,
        "kind": kind.name.lower(),
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
