"""Publishers and a mirror on seeded schedules of faults: a sample in the suite, 2,000 in `make soak`."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.survival.fault_proxy import Fault
from tests.survival.schedules import Net, Tally, run_schedule

_SOAK = range(10_000, 12_000)


def _run_schedules(seeds: Iterable[int], net: Net, catalogue: Path, tmp_path: Path) -> Tally:
    tally = Tally()
    for seed in seeds:
        folder = tmp_path / f"seed-{seed}"
        folder.mkdir()
        try:
            run_schedule(seed, net, catalogue, folder, tally)
        except BaseException as error:
            error.add_note(f"this was the schedule of seed {seed}")
            raise
        shutil.rmtree(folder)
    return tally


def _tell(tally: Tally, net: Net) -> None:
    """The figures of docs/reliability.md; shown by `pytest -s`, or when the test fails."""
    print(tally)  # noqa: T201 - what a long run is run for
    print(f"{net.proxy.requests} requests, {net.proxy.struck.total()} faults")  # noqa: T201 - as above
    for fault, count in sorted(net.proxy.struck.items()):
        print(f"  {count:>7} {fault}")  # noqa: T201 - as above


# Seeds that found something: a bit that flipped in the pointer became the `previous` of the next manifest.
@pytest.mark.parametrize("seed", [18, 30, 54])
def test_seeds_that_once_failed(seed: int, net: Net, tiny_catalogue: Path, tmp_path: Path) -> None:
    _run_schedules([seed], net, tiny_catalogue, tmp_path)


def test_nothing_is_lost_forked_or_stuck(net: Net, tiny_catalogue: Path, tmp_path: Path) -> None:
    tally = _run_schedules(range(4), net, tiny_catalogue, tmp_path)
    assert tally.acknowledged > tally.schedules
    assert tally.syncs > 0


@pytest.mark.soak
def test_two_thousand_schedules(net: Net, tiny_catalogue: Path, tmp_path: Path) -> None:
    struck = net.proxy.struck.copy()
    tally = _run_schedules(_SOAK, net, tiny_catalogue, tmp_path)
    _tell(tally, net)
    assert tally.schedules == len(_SOAK)
    assert tally.failures, "schedules in which everything succeeds try nothing"
    for fault in Fault:
        assert net.proxy.struck[fault] > struck[fault], f"{fault} never happened"
