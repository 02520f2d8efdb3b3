"""Publishers, prunes and mirrors at once, by many seeds: what anybody may still need is never deleted.

`interleavings.py` says what happens in a schedule and what is checked after each operation.
"""

from __future__ import annotations

import os
import shutil
from collections import Counter
from pathlib import Path

import pytest

from tests.publisher.interleavings import run_schedule

_SEEDS = 100
_SOAK_SEEDS = 5000


@pytest.fixture(autouse=True)
def _no_power_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever dies here leaves the kernel alive, so nothing has to be on disk."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


def run_schedules(seeds: range, folder: Path, steps: int) -> Counter[str]:
    """Run a schedule for each seed, and sum up what happened in them."""
    counts: Counter[str] = Counter()
    for seed in seeds:
        bucket = run_schedule(seed, folder / f"{seed}", steps)
        shutil.rmtree(folder / f"{seed}")
        counts.update(bucket.counts, manifests=len(bucket.history))
    return counts


def test_nothing_that_is_needed_is_deleted(tmp_path: Path) -> None:
    counts = run_schedules(range(_SEEDS), tmp_path, 500)
    # A schedule in which nothing happens proves nothing.
    assert counts["manifests"] > 5 * _SEEDS
    for event in ("deleted", "pruned", "conflicts", "synced", "renamed"):
        assert counts[event] > _SEEDS / 10, event


@pytest.mark.soak
def test_nothing_that_is_needed_is_deleted_in_thousands_of_schedules(tmp_path: Path) -> None:
    counts = run_schedules(range(_SEEDS, _SEEDS + _SOAK_SEEDS), tmp_path, 1200)
    assert counts["deleted"] > _SOAK_SEEDS
