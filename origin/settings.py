"""What an origin is told: by its caller, and by an env file.

Invariant: settings are read once, at start; only the secrets are looked at again (`origin.key_source`).
Nothing here reads the environment of the process: the command line does, and passes values on.
`docs/origin.md` lists the keys.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from contracts.env_file import parse_env_file
from contracts.errors import MalformedError

MAX_TOKEN_TTL_KEY = "MUSIC_CLOUD_MAX_TOKEN_TTL_S"
ROOTS_KEY = "MUSIC_CLOUD_ORIGIN_ROOTS"
CATALOG_KEY = "MUSIC_CLOUD_CATALOG"


@dataclass(frozen=True, slots=True)
class OriginSettings:
    """All that an origin is told.

    `db_path`: the authoritative catalogue; it may be missing for now.
    `env_file`: where the secrets are, looked at for changes while the origin runs; it may be missing too.
    `roots`: the folder for each backend, by the backend's name; others have their `base_path`.
    `catalog`: the folder store that is served at `/catalog/`, if any.
    `max_token_ttl_s`: the longest remaining life of a token that is accepted, in seconds; None: any.
    """

    db_path: Path
    env_file: Path | None = None
    roots: Mapping[str, Path] = field(default_factory=dict)
    catalog: Path | None = None
    max_token_ttl_s: int | None = None

    @classmethod
    def load(
        cls,
        db_path: Path | str,
        env_file: Path | str | None = None,
        *,
        roots: Mapping[str, Path | str] | None = None,
        catalog: Path | str | None = None,
        max_token_ttl_s: int | None = None,
    ) -> OriginSettings:
        """The settings of an env file, each replaced by the argument where one is given.

        Raises:
            MalformedError: the env file, or one of its values, does not follow its format.
            OSError: the env file is there and cannot be read.
        """
        path = None if env_file is None else Path(env_file).absolute()
        values = load_env_file(path)
        named = parse_roots(values.get(ROOTS_KEY, "")) if roots is None else roots
        folder = catalog or values.get(CATALOG_KEY)
        return cls(
            db_path=Path(db_path).absolute(),
            env_file=path,
            roots={name: Path(root).absolute() for name, root in named.items()},
            catalog=Path(folder).absolute() if folder else None,
            max_token_ttl_s=max_token_ttl_s or parse_ttl(values.get(MAX_TOKEN_TTL_KEY)),
        )


def load_env_file(path: Path | None) -> dict[str, str]:
    """The assignments of an env file; none when it is missing.

    Raises:
        MalformedError: it is no env file, or not UTF-8.
        OSError: it is there and cannot be read.
    """
    try:
        text = path.read_bytes() if path is not None else b""
    except FileNotFoundError:
        return {}
    try:
        return parse_env_file(text.decode("utf-8"))
    except UnicodeDecodeError:
        # Not chained: the codec's error holds the content.
        raise MalformedError("the env file is not UTF-8") from None


def parse_roots(text: str) -> dict[str, Path]:
    """Roots as `NAME=PATH`, separated by `;`, as in `nas-1=/volume1/music;nas-2=/volume2/music`.

    Raises:
        MalformedError: an entry has no name or no path, or a name stands there twice.
    """
    roots: dict[str, Path] = {}
    for entry in filter(None, map(str.strip, text.split(";"))):
        name, _, path = (part.strip() for part in entry.partition("="))
        if not name or not path:
            raise MalformedError(f"a root is written NAME=PATH, found {entry!r}")
        if name in roots:
            raise MalformedError(f"the root {name!r} is bound twice")
        roots[name] = Path(path)
    return roots


def parse_ttl(text: str | None) -> int | None:
    """A life in seconds; None when there is none.

    Raises:
        MalformedError: it is not a whole number above 0.
    """
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 12 and int(text)):
        raise MalformedError(f"{MAX_TOKEN_TTL_KEY} must be a whole number of seconds above 0, found {text!r}")
    return int(text)
