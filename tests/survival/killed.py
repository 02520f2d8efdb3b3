"""Publishes, prunes and syncs that are killed: `python -m tests.survival.killed` is told what to do.

Invariant: each task runs in a process of its own, forked from one in which all is imported already, so that a
random moment falls into the work and not into the start of Python. A process is let go of only when it was
asked for, so that its number is still its own when it is killed.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
import traceback
from datetime import timedelta
from types import TracebackType
from typing import Literal, Self

import msgspec

from mirror import Mirror
from publisher import PublishOptions, publish
from publisher.prune import PruneOptions, prune
from publisher.retention import Policy
from tests.publisher.killed_publish import Plan

# Small segments: more operations to die between.
OPTIONS = PublishOptions(segment_bytes=64 << 10, level=1)
# As if everything had lain there for long.
AT_ONCE = PruneOptions(Policy(keep_last=2, grace=timedelta(seconds=-60)))

LATER = 1.25  # how much more time the next one gets when this one was at work, and less when it was not


class Task(msgspec.Struct):
    """What to do: publish as the plan says, prune its store, or sync a mirror in `mirror` from it."""

    role: Literal["publish", "prune", "sync"]
    plan: Plan
    mirror: str = ""

    def run(self) -> None:
        """Do it. Raises: as `publish`, `prune` and `Mirror.sync`."""
        if self.role == "publish":
            publish(self.plan.catalogue, self.plan.open_store(), self.plan.state, OPTIONS)
        elif self.role == "prune":
            prune(self.plan.open_store(), self.plan.state, AT_ONCE)
        else:
            Mirror(self.mirror, self.plan.open_store(), unsigned=True).sync()


class Killer:
    """Runs a task again and again, and kills it at random moments.

    `trial` is the same elsewhere, and shows how long it takes when nobody kills it. `kills` counts those that
    were at work when they were killed.
    """

    def __init__(self, task: Task, seed: int, *, trial: Task) -> None:
        self._task = task
        self._trial = trial
        self._dice = random.Random(seed)
        self._longest_s = 0.0
        self.kills = 0

    def __enter__(self) -> Self:
        command = [sys.executable, "-m", "tests.survival.killed"]
        self._nursery = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        try:
            began_s = time.monotonic()
            self._start(self._trial)
            assert self._status() == 0, "the trial failed"
            self._longest_s = time.monotonic() - began_s
        except BaseException:
            self._nursery.communicate()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._nursery.communicate()

    def kill(self) -> None:
        """Start one and kill it, unless it has come to its end by then."""
        number = self._start(self._task)
        threading.Event().wait(self._dice.uniform(0, self._longest_s))
        os.kill(number, signal.SIGKILL)
        status = self._status()
        assert status in (0, -signal.SIGKILL)
        self.kills += status != 0
        # In the long run half of them are at work, so all moments of the work are as likely.
        self._longest_s *= LATER if status else 1 / LATER

    def _start(self, task: Task) -> int:
        """The number of the process that does it."""
        return self._ask(msgspec.json.encode(task))

    def _status(self) -> int:
        """How the last one ended, when it has: an exit code, or less the number of a signal."""
        return self._ask(b"")

    def _ask(self, line: bytes) -> int:
        assert self._nursery.stdin is not None
        assert self._nursery.stdout is not None
        self._nursery.stdin.write(line + b"\n")
        self._nursery.stdin.flush()
        return int(self._nursery.stdout.readline())


def main() -> None:
    """For each line a process that does what it says; for an empty one, how the last one ended."""
    last = 0
    for line in sys.stdin.buffer:
        if line.strip():
            answer = last = os.fork()
            if last == 0:
                _do(msgspec.json.decode(line, type=Task))
        else:
            answer = os.waitstatus_to_exitcode(os.waitpid(last, 0)[1])
        sys.stdout.write(f"{answer}\n")
        sys.stdout.flush()


def _do(task: Task) -> None:
    """Do it and end, without a second copy of what the parent has yet to say."""
    code = 1
    try:
        task.run()
        code = 0
    except Exception:
        traceback.print_exc()
    finally:
        os._exit(code)


if __name__ == "__main__":
    main()
