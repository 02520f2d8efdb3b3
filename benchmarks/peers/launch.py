"""Runs one command and prints its seconds, its largest resident set in KiB, and its exit code.

It imports next to nothing, because on Linux the peak of a process begins with that of the process it was
spawned from: what is measured through here is at least these some 10 MiB, and not at least the benchmark's.
"""

import os
import sys
import time

started = time.perf_counter()
child = os.posix_spawnp(sys.argv[1], sys.argv[1:], os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, 2, 1)])
_, status, usage = os.wait4(child, 0)
seconds = time.perf_counter() - started
print(
    seconds, usage.ru_maxrss // (1024 if sys.platform == "darwin" else 1), os.waitstatus_to_exitcode(status)
)
