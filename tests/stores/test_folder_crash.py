"""A folder store survives a crash at any line, and so does a replaced file."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# Fewer lines would mean that the crashes missed what they are for.
FEWEST_LINES = {"create": 60, "overwrite": 50, "update": 60, "replace": 15}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork, which Windows lacks")
@pytest.mark.parametrize("scenario", FEWEST_LINES)
def test_crash_at_any_line_leaves_the_old_state_or_the_new_one(scenario: str, tmp_path: Path) -> None:
    """Whole, with nothing beside it that can be read; and the next write works."""
    command = [sys.executable, "-m", "tests.stores.crash_at_every_line", str(tmp_path / "store"), scenario]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert int(run.stdout) >= FEWEST_LINES[scenario]
