"""What an origin is told: by its caller, and by an env file.

Invariant: settings are read once, at start; only the secrets are looked at again (`origin.key_source`).
Nothing here reads the environment of the process: the command line does, and passes values on.
`docs/origin.md` lists the keys.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path

from contracts.env_file import parse_env_file
from contracts.errors import MalformedError
from origin.accel import Accel, load_accel
from origin.client_address import NOBODY, TrustedProxies, parse_trusted_proxies
from origin.limits import MAX_CONNECTIONS, MAX_COPIES
from origin.logs import LogFormat
from origin.stall import STALL_LIMIT_S

MAX_TOKEN_TTL_KEY = "MUSIC_CLOUD_MAX_TOKEN_TTL_S"
ROOTS_KEY = "MUSIC_CLOUD_ORIGIN_ROOTS"
CATALOG_KEY = "MUSIC_CLOUD_CATALOG"
TRUSTED_PROXIES_KEY = "MUSIC_CLOUD_TRUSTED_PROXIES"
ACCEL_PREFIX_KEY = "MUSIC_CLOUD_ACCEL_PREFIX"
ACCEL_KEY_KEY = "MUSIC_CLOUD_ACCEL_KEY"
MAX_CONNECTIONS_KEY = "MUSIC_CLOUD_MAX_CONNECTIONS_PER_LINK"
MAX_COPIES_KEY = "MUSIC_CLOUD_MAX_COPIES_PER_LINK"
METRICS_NETWORKS_KEY = "MUSIC_CLOUD_METRICS_NETWORKS"
STALL_LIMIT_KEY = "MUSIC_CLOUD_STALL_LIMIT_S"
LOG_FORMAT_KEY = "MUSIC_CLOUD_LOG_FORMAT"
FOLLOW_MOUNTS_KEY = "MUSIC_CLOUD_FOLLOW_MOUNTS"

LOOPBACK = (ip_network("127.0.0.0/8"), ip_network("::1/128"))  # RFC 6890, sections 2.2.2 and 2.2.3.


@dataclass(frozen=True, slots=True)
class OriginSettings:
    """All that an origin is told.

    `db_path`: the authoritative catalogue; it may be missing for now.
    `env_file`: where the secrets are, looked at for changes while the origin runs; it may be missing too.
    `roots`: the folder for each backend, by the backend's name; others have their `base_path`.
    `follow_mounts`: whether what is mounted inside a root is part of it.
    `catalog`: the folder store that is served at `/catalog/`, if any.
    `max_token_ttl_s`: the longest remaining life of a token that is accepted, in seconds; None: any.
    `trusted_proxies`: who is believed about a client's address.
    `accel`: to whom of them the origin may leave the sending of files, if to any.
    `max_connections_per_link`, `max_copies_per_link`: as in `origin.limits.LinkLimits`; 0: no limit.
    `metrics_networks`: whose clients may read `/metrics`.
    `stall_limit_s`, `log_format`: for whoever runs the server (`origin.serve`, `origin.logs`).
    """

    db_path: Path
    env_file: Path | None = None
    roots: Mapping[str, Path] = field(default_factory=dict)
    follow_mounts: bool = False
    catalog: Path | None = None
    max_token_ttl_s: int | None = None
    trusted_proxies: TrustedProxies = NOBODY
    accel: Accel | None = None
    max_connections_per_link: int = MAX_CONNECTIONS
    max_copies_per_link: int = MAX_COPIES
    metrics_networks: tuple[IPv4Network | IPv6Network, ...] = LOOPBACK
    stall_limit_s: int = int(STALL_LIMIT_S)
    log_format: LogFormat = LogFormat.TEXT

    @classmethod
    def load(
        cls,
        db_path: Path | str,
        env_file: Path | str | None = None,
        *,
        roots: Mapping[str, Path | str] | None = None,
        follow_mounts: bool | None = None,
        catalog: Path | str | None = None,
        max_token_ttl_s: int | None = None,
        trusted_proxies: str | None = None,
        max_connections_per_link: int | None = None,
        max_copies_per_link: int | None = None,
        stall_limit_s: int | None = None,
        log_format: LogFormat | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> OriginSettings:
        """The settings of an env file, each replaced by the argument where one is given.

        `environment` holds keys that replace the env file's and give way to the other arguments.

        Raises:
            MalformedError: the env file, or one of its values, does not follow its format.
            OSError: the env file is there and cannot be read.
        """
        path = None if env_file is None else Path(env_file).absolute()
        values = {**load_env_file(path), **(environment or {})}
        named = parse_roots(values.get(ROOTS_KEY, "")) if roots is None else roots
        folder = catalog or values.get(CATALOG_KEY)
        proxies = values.get(TRUSTED_PROXIES_KEY, "") if trusted_proxies is None else trusted_proxies
        connections = parse_limit(values, MAX_CONNECTIONS_KEY, MAX_CONNECTIONS)
        copies = parse_limit(values, MAX_COPIES_KEY, MAX_COPIES)
        bound = {name: Path(root).absolute() for name, root in named.items()}
        trusted = parse_trusted_proxies(proxies)
        return cls(
            db_path=Path(db_path).absolute(),
            env_file=path,
            roots=bound,
            follow_mounts=(parse_flag(values, FOLLOW_MOUNTS_KEY) if follow_mounts is None else follow_mounts),
            catalog=Path(folder).absolute() if folder else None,
            max_token_ttl_s=max_token_ttl_s or parse_ttl(values.get(MAX_TOKEN_TTL_KEY)),
            trusted_proxies=trusted,
            accel=load_accel(values.get(ACCEL_PREFIX_KEY, ""), values.get(ACCEL_KEY_KEY, ""), trusted, bound),
            max_connections_per_link=(
                connections if max_connections_per_link is None else max_connections_per_link
            ),
            max_copies_per_link=copies if max_copies_per_link is None else max_copies_per_link,
            metrics_networks=parse_networks(values.get(METRICS_NETWORKS_KEY, "")),
            stall_limit_s=stall_limit_s or parse_stall_limit(values.get(STALL_LIMIT_KEY, "")),
            log_format=log_format or parse_log_format(values.get(LOG_FORMAT_KEY, "")),
        )

    def summary(self) -> dict[str, object]:
        """What is in effect, for the log: no secret, no path, no name of a root."""
        return {
            "roots": len(self.roots),
            "follow_mounts": self.follow_mounts,
            "catalog": self.catalog is not None,
            "max_token_ttl_s": self.max_token_ttl_s,
            "trusted_proxies": len(self.trusted_proxies.networks) + self.trusted_proxies.is_unix_trusted,
            "accel": self.accel is not None,
            "max_connections_per_link": self.max_connections_per_link,
            "max_copies_per_link": self.max_copies_per_link,
            "metrics_networks": ",".join(map(str, self.metrics_networks)),
            "stall_limit_s": self.stall_limit_s,
            "log_format": self.log_format.value,
        }


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


def parse_flag(values: Mapping[str, str], key: str) -> bool:
    """`true` or `false`; false when there is nothing.

    Raises:
        MalformedError: it is something else.
    """
    text = values.get(key) or "false"
    if text not in ("true", "false"):
        raise MalformedError(f"{key} must be true or false, found {text!r}")
    return text == "true"


def parse_limit(values: Mapping[str, str], key: str, default: int) -> int:
    """A limit: a whole number, where 0 means none.

    Raises:
        MalformedError: it is something else.
    """
    text = values.get(key, "")
    if not text:
        return default
    if not (text.isascii() and text.isdigit() and len(text) <= 6):
        raise MalformedError(f"{key} must be a whole number, 0 for no limit, found {text!r}")
    return int(text)


def parse_networks(text: str) -> tuple[IPv4Network | IPv6Network, ...]:
    """Networks or addresses separated by commas; this machine alone when there are none; `none` is nobody.

    Raises:
        MalformedError: an entry is none, or has host bits set.
    """
    entries = [entry for entry in map(str.strip, text.split(",")) if entry]
    if entries == ["none"]:
        return ()
    try:
        return tuple(map(ip_network, entries)) or LOOPBACK
    except ValueError as error:
        raise MalformedError(f"{METRICS_NETWORKS_KEY} needs networks such as 10.0.0.0/8: {error}") from None


def parse_stall_limit(text: str) -> int:
    """Seconds; the default when there are none.

    Raises:
        MalformedError: it is not a whole number above 0.
    """
    if not text:
        return int(STALL_LIMIT_S)
    if not (text.isascii() and text.isdigit() and len(text) <= 6 and int(text)):
        raise MalformedError(f"{STALL_LIMIT_KEY} must be a whole number of seconds above 0, found {text!r}")
    return int(text)


def parse_log_format(text: str) -> LogFormat:
    """Raises: MalformedError, for anything but `text`, `json` or nothing."""
    try:
        return LogFormat(text or LogFormat.TEXT)
    except ValueError:
        raise MalformedError(f"{LOG_FORMAT_KEY} must be text or json, found {text!r}") from None
