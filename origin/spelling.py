"""A file has one name: what a file system would also find under another spelling is not there.

Invariant: a path is answered alike whether the file system tells `a.mp3` from `A.mp3` (and one Unicode form
from the other) or not, so that a link that works on one machine works on all, and an ETag has one address.
Folding is found out for each name by asking for it in another spelling: exFAT and NTFS fold under Linux,
APFS folds by default, ext4 in single folders.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath, PureWindowsPath
from unicodedata import normalize

_ASCII = "abcdefghijklmnopqrstuvwxyz"
_SWAPPED = str.maketrans(_ASCII + _ASCII.upper(), _ASCII.upper() + _ASCII)


def other_spellings(name: str) -> Iterator[str]:
    """Names that are another to most file systems, and the same to those that fold case or Unicode forms."""
    # ASCII alone where there is any: how the rest folds differs from one file system to the next.
    swapped = name.translate(_SWAPPED)
    spellings = (
        swapped if swapped != name else name.swapcase(),
        normalize("NFC", name),
        normalize("NFD", name),
    )
    yield from dict.fromkeys(each for each in spellings if each != name)


def is_real_path(real_root: str, components: Sequence[str], real: str, *, windows: bool) -> bool:
    """Whether the real path of what was opened spells each component as it was asked for."""
    pure = PureWindowsPath if windows else PurePosixPath
    # As text: paths of Windows are equal when only their case differs.
    return str(pure(real_root, *components)) == str(pure(real))


def is_misspelled(root: int, components: Sequence[str]) -> bool:
    """Whether a component beneath the folder with that descriptor is found only because its name is folded.

    A folder that must not be listed counts as well spelled: nobody can say.
    """
    for index, component in enumerate(components):
        before = components[:index]
        if _is_folded(root, before, component) and component not in _names(root, before, component):
            return True
    return False


def _is_folded(root: int, before: Sequence[str], component: str) -> bool:
    for other in other_spellings(component):
        try:
            found = os.stat("/".join((*before, other)), dir_fd=root, follow_symlinks=False)
            meant = os.stat("/".join((*before, component)), dir_fd=root, follow_symlinks=False)
        except (OSError, UnicodeEncodeError):
            continue
        if os.path.samestat(found, meant):
            return True
    return False


def _names(root: int, before: Sequence[str], component: str) -> Sequence[str]:
    try:
        folder = os.open("/".join(before) or ".", os.O_RDONLY | os.O_DIRECTORY, dir_fd=root)
    except OSError:
        return (component,)
    try:
        with os.scandir(folder) as entries:
            return [entry.name for entry in entries]
    finally:
        os.close(folder)
