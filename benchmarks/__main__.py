"""`make bench`: every benchmark, one after the other; each also runs alone as `python -m benchmarks.NAME`."""

from __future__ import annotations

import subprocess
import sys

BENCHMARKS = ("export", "keyframe", "tokens", "origin_portable")

for name in BENCHMARKS:
    print(f"== {name}", flush=True)
    subprocess.run([sys.executable, "-m", f"benchmarks.{name}"], check=True)
