"""Locks that the kernel frees with their holder, however it ends."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from stores.locks import exclusive_lock

ROOT = Path(__file__).parents[2]
HOLDER = """
import sys
from pathlib import Path
from stores.locks import exclusive_lock

with exclusive_lock(Path(sys.argv[1]), 0):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    """A stale lock file that silently stops every cron job is what this is instead of."""
    lock = tmp_path / "lock"
    command = [sys.executable, "-c", HOLDER, str(lock)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n" or sys.platform == "win32"
        with pytest.raises(TimeoutError, match="locked by another process"), exclusive_lock(lock, 0):
            pass
        holder.kill()
    with exclusive_lock(lock, 0):
        pass


def test_lock_is_held_once_in_one_process(tmp_path: Path) -> None:
    """Between threads too: each opens the file for itself."""
    with (
        exclusive_lock(tmp_path / "lock", 0),
        pytest.raises(TimeoutError),
        exclusive_lock(tmp_path / "lock", 0),
    ):
        pass


def test_lock_is_freed_by_an_error_and_its_file_stays(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    with pytest.raises(ZeroDivisionError), exclusive_lock(lock, 0):
        raise ZeroDivisionError
    with exclusive_lock(lock, 0):
        assert lock.exists()
    assert lock.exists()
