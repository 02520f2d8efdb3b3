"""A child program that never outlives us.

However this Python ends, the child ends too: `stop` and `kill` on an orderly way out, an exit handler when
those were forgotten, and on Linux the kernel itself when we are killed (PR_SET_PDEATHSIG, prctl(2)). The
request for that signal has to be made in the child, and a `preexec_fn` is unsafe once there are threads. So
this file is also the shim that is started first: it makes the request and becomes the program.

The kernel watches the *thread* that started the child: start children from a thread that lives on.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

PR_SET_PDEATHSIG = 1  # linux/prctl.h


class Tethered:
    """One running child. Its output goes to a file, and the terminal's Ctrl-C is not for it."""

    def __init__(self, command: Sequence[str], *, cwd: Path, env: Mapping[str, str], log: Path) -> None:
        """Start `command`; `log` is appended to."""
        shim = [sys.executable, "-I", "-S", __file__, str(os.getpid())] if sys.platform == "linux" else []
        with log.open("ab") as output:
            self._child = subprocess.Popen(
                [*shim, *command],
                cwd=cwd,
                env=dict(env),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        atexit.register(self.kill)

    @property
    def pid(self) -> int:
        return self._child.pid

    def has_ended(self, within_s: float = 0.0) -> bool:
        """Whether the child is gone; waits for that for `within_s` seconds at most."""
        try:
            self._child.wait(within_s)
        except subprocess.TimeoutExpired:
            return False
        return True

    def stop(self, grace_s: float = 10.0) -> None:
        """Ask the child to end (SIGTERM) and insist (SIGKILL) after `grace_s` seconds; returns when gone."""
        self._child.terminate()
        if not self.has_ended(grace_s):
            self._child.kill()
            self._child.wait()
        atexit.unregister(self.kill)

    def kill(self) -> None:
        """End the child at once, as a power cut would; returns when it is gone."""
        self._child.kill()
        self._child.wait()
        atexit.unregister(self.kill)


def become(parent: int, command: Sequence[str]) -> None:
    """Replace this process by `command`, to be killed when `parent` dies.

    Raises:
        OSError: there is no such program, or the kernel refused.
    """
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent:  # it died before the request: there will be no signal
        sys.exit(1)
    os.execv(command[0], list(command))


if __name__ == "__main__":
    become(int(sys.argv[1]), sys.argv[2:])
