"""`make bench`: every benchmark, one after the other; each also runs alone as `python -m benchmarks.NAME`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PLOT = Path(__file__).parent.parent / "docs" / "deltas.png"
BENCHMARKS = (
    ("export",),
    ("keyframe",),
    ("tokens",),
    ("proof",),
    ("origin_portable",),
    ("drift",),
    ("peers", "--plot", str(PLOT)),
)

for name, *arguments in BENCHMARKS:
    print(f"== {name}", flush=True)
    subprocess.run([sys.executable, "-m", f"benchmarks.{name}", *arguments], check=True)
