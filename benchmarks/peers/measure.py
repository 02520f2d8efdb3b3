"""How a command is run and what is kept of it: bytes, seconds and peak memory, on both sides.

Invariant: every command runs in a process of its own, started from `launch.py`, with all earlier writes on
disk; a command that fails ends the benchmark. A result counts only after `verify_same`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import file_digest
from pathlib import Path
from typing import Literal, NamedTuple

_LAUNCHER = Path(__file__).with_name("launch.py")

Basis = Literal["rebuilt", "refreshed"]


class Cost(NamedTuple):
    """Wall-clock time and the largest resident set of one process, or of several, one after the other."""

    seconds: float
    peak_mib: float

    def then(self, other: Cost) -> Cost:
        return Cost(self.seconds + other.seconds, max(self.peak_mib, other.peak_mib))


class Result(NamedTuple):
    """One publish: what the publisher uploads and what a mirror downloads, and what it costs each."""

    uploaded_bytes: int
    publisher: Cost
    downloaded_bytes: int
    mirror: Cost


@dataclass(frozen=True)
class Peer:
    """A way to publish `new` to those who have `old`; `measure(old, new, scratch)` also verifies it.

    On the basis "rebuilt" both files are fresh exports; on "refreshed" they are those that our publisher has.
    """

    name: str
    basis: Basis
    programs: tuple[str, ...]
    measure: Callable[[Path, Path, Path], Result]
    is_slow: bool = False  # minutes for a million songs

    @property
    def missing(self) -> list[str]:
        return [name for name in self.programs if find_program(name) is None]


def find_program(name: str) -> str | None:
    """Its path: beside this Python, where `make bench` installs what comes from PyPI, or in PATH."""
    return shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)


def run(*command: str | Path, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> Cost:
    """Run a command to its end.

    Raises:
        RuntimeError: when it fails; with what it wrote.
    """
    name, *arguments = map(str, command)
    program = find_program(name)
    if program is None:
        raise RuntimeError(f"{name} is not installed")
    os.sync()  # or a command would wait for what the one before it wrote
    finished = subprocess.run(
        [sys.executable, "-I", "-S", _LAUNCHER, program, *arguments],
        cwd=cwd,
        env={**os.environ, **(env or {})},
        capture_output=True,
        text=True,
        errors="replace",
    )
    if finished.returncode:
        raise RuntimeError(f"{name}: {finished.stderr}")
    seconds, peak_kib, exit_code = finished.stdout.split()
    if exit_code != "0":
        raise RuntimeError(f"{' '.join([name, *arguments])}: exit code {exit_code}: {finished.stderr}")
    return Cost(float(seconds), int(peak_kib) / 1024)


def run_python(module: str, *arguments: str | Path) -> Cost:
    """Run a module of this project; the interpreter's start is part of the cost."""
    return run(sys.executable, "-m", module, *arguments)


def digest_of(path: Path) -> str:
    with path.open("rb") as stream:
        return file_digest(stream, "sha256").hexdigest()


def verify_same(restored: Path, expected: Path) -> None:
    """Raises: RuntimeError, when the files differ: a peer without a correct result is not measured."""
    if digest_of(restored) != digest_of(expected):
        raise RuntimeError(f"{restored} is not the file that was published")


def folder_bytes(folder: Path) -> int:
    """The sizes of all files beneath a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
