"""A catalogue that ages step by step, and for each step the databases that the peers publish.

A fresh export has no room on its pages, so the first refreshes split many of them: the first hour is a step
of its own, and three days, which nobody measures, lie before the steps that are a publisher's everyday ones.
benchmarks/drift.py shows how long the pages take to settle.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.peers.measure import Cost, run_python

_MODULE = "benchmarks.peers.scenario"

CHURNS = ("hour", "day", "growth")
FIRST_HOUR = "first hour after an export"
WARM_UP_DAYS = 3
_WARM_UP_SEED = 100  # so that none of them is the day that is measured


@dataclass(frozen=True)
class Step:
    """One publish. `refreshed` is what our publisher makes; whoever takes the next step has made it."""

    name: str
    source: Path
    old_export: Path
    new_export: Path
    base: Path
    refreshed: Path
    export_cost: Cost  # of the fresh export, which every peer on rebuilt databases needs first


def take_steps(folder: Path, songs: int, churns: Collection[str]) -> Iterator[Step]:
    """The first hour, which is always taken, and then, three days later, a step of each of these churns."""
    source = folder / "catalogue.db"
    old_export, new_export = folder / "old-export.db", folder / "new-export.db"
    base, refreshed = folder / "base.db", folder / "refreshed.db"
    _run_sample("--songs", str(songs), "--out", str(source))
    _export(source, new_export)
    base.hardlink_to(new_export)
    for seed, name in enumerate((FIRST_HOUR, *CHURNS), 1):
        churn = "hour" if name == FIRST_HOUR else name
        if name != FIRST_HOUR and churn not in churns:
            continue
        _age(source, churn, seed)
        new_export.replace(old_export)
        export_cost = _export(source, new_export)
        yield Step(name, source, old_export, new_export, base, refreshed, export_cost)
        refreshed.replace(base)
        if name == FIRST_HOUR:
            for day in range(WARM_UP_DAYS):
                _age(source, "day", _WARM_UP_SEED + day)
                run_python(_MODULE, "refresh", source, base)
            new_export.unlink()
            _export(source, new_export)


def _export(source: Path, database: Path) -> Cost:
    return run_python(_MODULE, "export", source, database)


def _age(source: Path, churn: str, seed: int) -> None:
    _run_sample("--evolve", churn, "--seed", str(seed), "--out", str(source))


def _run_sample(*arguments: str) -> None:
    command = [sys.executable, "-m", "music_cloud.sample", *arguments]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def main() -> None:
    """`export` or `refresh`, from a catalogue into a database: a process of its own for `take_steps`."""
    from benchmarks.peers.ours import refresh_as_a_publisher
    from publisher.export import build_database

    command, source, database = sys.argv[1:]
    if command == "export":
        build_database(Path(source), Path(database))
    else:
        refresh_as_a_publisher(Path(source), Path(database))


if __name__ == "__main__":
    main()
