"""Dies at every line of stores/, and of what it calls in pathlib, while a file is written.

Then it looks at what is left.

    python -m tests.stores.crash_at_every_line FOLDER SCENARIO

A program of its own, because only a process with one thread may fork. For n = 1, 2, 3 … it forks a child
that ends at the nth such line, until a child gets to its end. Prints the number of crashes.
"""

from __future__ import annotations

import itertools
import os
import shutil
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from types import FrameType
from typing import Any

import stores
from contracts.errors import MalformedError, ObjectMissing
from stores import Create, FolderStore, Overwrite, PutMode, Update
from stores.files import replace_file

KEY = "blobs/" + "0" * 64
OLD, NEW = b"old" * 1000, b"new" * 2000
CRASHED, FINISHED = 3, 4
SOURCES = str(Path(stores.__file__).parent)
# Those of pathlib that change the disk: some do it in several steps.
PATH_METHODS = {"write_bytes", "write_text", "open", "mkdir", "replace", "rename", "touch", "unlink"}


def crash_at_line(number: int) -> Callable[[FrameType, str, Any], Any]:
    """A trace function that ends the process, with no clean-up at all, at a line of stores/."""
    left = number

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal left
        code = frame.f_code
        if not code.co_filename.startswith(SOURCES) and code.co_name not in PATH_METHODS:
            return None
        if event == "line":
            left -= 1
            if left == 0:
                os._exit(CRASHED)
        return trace

    return trace


def finishes(write: Callable[[], object], line: int) -> bool:
    """Run `write` in a child that dies at a line; whether it got to its end."""
    child = os.fork()
    if child == 0:
        sys.settrace(crash_at_line(line))
        write()
        os._exit(FINISHED)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (CRASHED, FINISHED), f"line {line}: exit code {status}"
    return status == FINISHED


def read(store: FolderStore) -> bytes | None:
    try:
        with closing(store.get(KEY)) as reading:
            return b"".join(reading)
    except ObjectMissing:
        return None


def verify_names(store: FolderStore) -> None:
    """Whatever lies about cannot be reached by any key."""
    for path in store.root.rglob("*"):
        name = path.relative_to(store.root).as_posix()
        if path.is_file() and name != KEY:
            try:
                store.head(name)
            except MalformedError:
                continue
            raise AssertionError(f"{name} can be read")


def try_put(root: Path, scenario: str, line: int) -> bool:
    """One put that dies at a line; what is there then, and what the next put makes of it."""
    shutil.rmtree(root, ignore_errors=True)
    store = FolderStore(root)
    before = None if scenario == "create" else OLD
    etag = store.put(KEY, OLD, Create()) if before else ""
    modes: dict[str, PutMode] = {"create": Create(), "overwrite": Overwrite(), "update": Update(etag)}
    finished = finishes(lambda: store.put(KEY, NEW, modes[scenario]), line)
    found = read(store)
    assert found == NEW if finished else found in (before, NEW), f"line {line}: {found!r}"
    verify_names(store)
    again = Update(store.head(KEY).etag) if found else Create()
    store.put(KEY, b"the next", again)
    assert read(store) == b"the next", f"line {line}"
    return finished


def try_replace(root: Path, line: int) -> bool:
    """The same for the small files that publisher and mirror keep."""
    path = root / "current"
    if not root.exists():
        root.mkdir()
    path.write_bytes(OLD)
    finished = finishes(lambda: replace_file(path, NEW), line)
    found = path.read_bytes()
    assert found == NEW if finished else found in (OLD, NEW), f"line {line}: {found!r}"
    replace_file(path, b"the next")
    assert [path] == list(root.iterdir()), f"line {line}"
    return finished


def main() -> None:
    os.fsync = lambda fd: None  # what a dead process had written stays; only a dead machine loses it
    root, scenario = Path(sys.argv[1]), sys.argv[2]
    for line in itertools.count(1):
        if try_replace(root, line) if scenario == "replace" else try_put(root, scenario, line):
            sys.stdout.write(f"{line - 1}\n")
            return


if __name__ == "__main__":
    main()
