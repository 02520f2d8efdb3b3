"""The commands of the publisher's key: make one, and hand over from one to the next.

Invariant: a secret key is in a file that only its owner may read from its first byte on, is printed nowhere,
and is overwritten only by --force. docs/security.md says how to keep it.
"""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from pathlib import Path

import click

from contracts.minisign import KEY_NUMBER_BYTES, SEED_BYTES, SecretKey, format_public_key
from music_cloud.addresses import open_store
from music_cloud.options import json_option, print_json, settings_options
from music_cloud.settings import load_settings
from publisher.signing import load_signing_key, publish_succession
from stores.files import sync_folder

_SECRET_MODE, _PUBLIC_MODE = 0o600, 0o644


@click.command("keygen")
@click.option(
    "--out",
    "path",
    default="music-cloud.key",
    show_default=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="File for the secret key; the public key goes beside it, as .pub.",
)
@click.option(
    "--force", is_flag=True, help="Overwrite a key that is there. Mirrors that pin it follow no other."
)
@json_option
def keygen_command(path: Path, force: bool, as_json: bool) -> None:
    """Make the key that signs what is published.

    The format is minisign's, without a password: minisign can verify with it, and sign.
    """
    public_path = path.with_suffix(".pub")
    if public_path == path:
        raise click.BadParameter("--out names the secret key; .pub is for the public one")
    key = SecretKey(secrets.token_bytes(KEY_NUMBER_BYTES), secrets.token_bytes(SEED_BYTES))
    write_key_pair(key, path, public_path, overwrite=force)
    public = key.public
    if as_json:
        print_json(
            {
                "key_id": public.key_id,
                "public_key": public.line,
                "secret_key_file": str(path.absolute()),
                "public_key_file": str(public_path.absolute()),
            }
        )
        return
    click.echo(f"key {public.key_id}")
    click.echo(f"  secret: {path.absolute()}, for `music-cloud publish --signing-key`; keep a copy offline")
    click.echo(f"  public: {public_path.absolute()}")
    click.echo(f"  on every mirror: --public-key {public.line}")


@click.command("rotate-key")
@click.option("--store", "address", required=True, help="s3://bucket/prefix or a folder.")
@click.option(
    "--old", "old_path", required=True, type=click.Path(path_type=Path), help="Secret key until now."
)
@click.option(
    "--new", "new_path", required=True, type=click.Path(path_type=Path), help="Secret key from now on."
)
@settings_options
@json_option
def rotate_key_command(
    address: str,
    old_path: Path,
    new_path: Path,
    env_file: Path | None,
    as_json: bool,
    **options: str | None,
) -> None:
    """Let a key name its successor, once and for all. Then publish with the new key.

    Mirrors that pin the old key follow by themselves, also those that are away now.
    """
    old, new = load_signing_key(old_path), load_signing_key(new_path)
    store = open_store(address, load_settings(os.environ, env_file, options))
    is_new = publish_succession(store, old, new.public)
    fields = {"old_key_id": old.public.key_id, "new_key_id": new.public.key_id, "public_key": new.public.line}
    if as_json:
        print_json({"outcome": "published" if is_new else "unchanged", **fields})
        return
    click.echo(f"key {old.public.key_id} hands over to {new.public.key_id}{'' if is_new else ', as before'}")
    click.echo(f"  next: music-cloud publish --signing-key {new_path}; only that makes mirrors follow")
    click.echo(f"  new mirrors: --public-key {new.public.line}")


def write_key_pair(key: SecretKey, path: Path, public_path: Path, *, overwrite: bool = False) -> None:
    """Write both files, on disk when this returns.

    Raises:
        FileExistsError: when one of them is there, unless they are to be overwritten.
        OSError: when one cannot be written.
    """
    if not overwrite:
        for existing in (path, public_path):
            if existing.exists():
                raise FileExistsError(f"{existing} is there already; --out names another file")
    _write(path, key.format(), _SECRET_MODE, overwrite)
    _write(public_path, format_public_key(key.public), _PUBLIC_MODE, overwrite)
    sync_folder(path.absolute().parent)


def _write(path: Path, content: bytes, mode: int, overwrite: bool) -> None:
    """Write a file with this mode from the beginning on: there is no moment when others may read it."""
    target = path.with_name(f".{path.name}.new") if overwrite else path
    if overwrite:
        target.unlink(missing_ok=True)
    # O_EXCL also refuses a symbolic link that somebody has put there (open(2)).
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    descriptor = os.open(target, flags, mode)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        if overwrite:
            target.replace(path)
    except BaseException:
        with suppress(OSError):  # half a key is worse than none
            target.unlink()
        raise
