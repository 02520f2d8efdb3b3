"""A step in a process of its own, so that its time and its memory are nobody else's.

On Linux a child's peak begins with that of its parent: whoever measures memory does nothing large itself.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from collections.abc import Callable
from typing import NamedTuple


class Run(NamedTuple):
    """What a step took; the peak is the largest resident set of its process."""

    seconds: float
    cpu_seconds: float
    peak_mib: float


def measure_child(module: str, *arguments: object) -> Run:
    """Run a module with `--child` and these arguments, which ends in `report_child`."""
    command = [sys.executable, "-m", module, "--child", *map(str, arguments)]
    finished = subprocess.run(command, check=True, capture_output=True, text=True)
    return Run(*map(float, finished.stdout.split()))


def report_child(step: Callable[[], object]) -> None:
    """Take the step and print its run for `measure_child`."""
    started, cpu_started = time.perf_counter(), time.process_time()
    step()
    seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu_started
    unit = 1 << 20 if sys.platform == "darwin" else 1 << 10
    print(seconds, cpu_seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit)
