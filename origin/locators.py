"""From what names a file to a root and a path beneath it; decisions only, nothing is opened.

Invariant: the root is one that the operator or the catalogue names, never one that a token names.
Handles are found in the catalogue by `origin.lookup`; `origin.roots` opens what is decided here and refuses
every path that would leave its root.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import NamedTuple

from origin.roots import ON_WINDOWS, LocatorRefused


class Location(NamedTuple):
    """What the catalogue says of an active location."""

    backend_name: str
    backend_type: str
    base_path: str
    locator: str


class Place(NamedTuple):
    """A root, and a path beneath it written with `/`."""

    root: Path
    path: str


def place_of_location(location: Location, bound: Mapping[str, Path], *, windows: bool = ON_WINDOWS) -> Place:
    """Where the file of a location is, beneath its backend's root.

    That is the root bound to the backend's name, otherwise its `base_path`. A locator that spells out the
    root or the `base_path` means the rest of it; any other leading `/` means nothing, as in a public URL.
    Raises:
        LocatorRefused: the backend has no root.
    """
    base = catalogue_root(location.backend_type, location.base_path, windows=windows)
    root = bound.get(location.backend_name, base)
    if root is None:
        raise LocatorRefused(f"the backend {location.backend_name!r} has no root")
    spelled = {str(root), location.base_path} - {""}
    path = _beneath(spelled, location.locator, windows) or _slashed(location.locator, windows).lstrip("/")
    return Place(root, path)


def place_of_path(locator: str, roots: Iterable[Path], *, windows: bool = ON_WINDOWS) -> Place:
    """Where the file of a locator is that a caller wrote as a path, not as a handle.

    It is absolute and beneath one of `roots`, or relative when there is exactly one.
    Raises:
        LocatorRefused: no root, or too many, to resolve it beneath.
    """
    known = sorted(set(roots), key=lambda root: len(str(root)), reverse=True)
    for root in known:
        if path := _beneath((str(root),), locator, windows):
            return Place(root, path)
    if _is_absolute(locator, windows) or len(known) != 1:
        raise LocatorRefused("the locator is beneath no root")
    return Place(known[0], _slashed(locator, windows))


@lru_cache(maxsize=64)  # A catalogue has a handful of backends, and each lookup asks for one.
def catalogue_root(backend_type: str, base_path: str, *, windows: bool = ON_WINDOWS) -> Path | None:
    """The folder that a backend's `base_path` is, or None.

    None for object storage, for what is not absolute (it would depend on the folder we were started in), and
    for the root of a whole file system, which has to be bound by name when it is meant.
    """
    pure = PureWindowsPath(base_path) if windows else PurePosixPath(base_path)
    if backend_type == "object_storage" or "\0" in base_path or not pure.is_absolute() or len(pure.parts) < 2:
        return None
    return Path(base_path)


def _beneath(roots: Iterable[str], locator: str, windows: bool) -> str:
    """The rest of a locator that begins with one of the roots; "" when it begins with none."""
    path = _slashed(locator, windows)
    folded = path.lower() if windows else path
    for root in roots:
        prefix = _slashed(root, windows).rstrip("/") + "/"
        if _is_absolute(root, windows) and folded.startswith(prefix.lower() if windows else prefix):
            return path[len(prefix) :]
    return ""


def _slashed(path: str, windows: bool) -> str:
    return path.replace("\\", "/") if windows else path


def _is_absolute(path: str, windows: bool) -> bool:
    return path.startswith("/") or (windows and bool(PureWindowsPath(path).anchor))
