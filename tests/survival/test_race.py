"""Two, five and twenty publishers on one store, each with a catalogue and a state folder of its own.

They meet where it counts: none of them moves the pointer before all of them are about to. So each round has
one winner, and each loser is told so and succeeds with its next publish.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from contracts.errors import ConflictError
from contracts.layout import POINTER_KEY
from mirror import Mirror
from publisher import PublishOptions, PublishResult, publish
from stores import FolderStore, RetryingStore, Store
from tests.faults import FaultyStore
from tests.survival.witness import PlainHttp, Read, Witness, change_catalogue, read_folder

_OPTIONS = PublishOptions(segment_bytes=32 << 10, level=1)
_MEET_WITHIN_S = 120.0  # ends a test in which one of them never comes
_LOST = re.compile(r"another publisher published first .*; nothing was overwritten, run publish again")
_SOAK_ROUNDS = 100


def _race(publishers: int, rounds: int, store: Store, read: Read, catalogue: Path, folder: Path) -> None:
    """Let them race, and then each publish once more, in any order."""
    witness, dice = Witness(read), random.Random(publishers)
    mirror = Mirror(folder / "mirror", store, unsigned=True)
    served = 0
    homes = [folder / f"publisher-{number}" for number in range(publishers)]
    for home in homes:
        home.mkdir()
        shutil.copy(catalogue, home / "catalogsync.db")
    with ThreadPoolExecutor(publishers) as threads:
        for number in range(rounds):
            for home in homes:
                change_catalogue(home / "catalogsync.db", f"{number} of {home.name} ")
            meeting = Barrier(publishers, timeout=_MEET_WITHIN_S)
            results = list(threads.map(lambda home: _publish_together(home, store, meeting), homes))  # noqa: B023
            witness.verify()
            _verify_one_winner(results, witness)
            losers = [home for home, result in zip(homes, results, strict=True) if isinstance(result, str)]
            for home in dice.sample(losers, len(losers)):
                result = publish(home / "catalogsync.db", store, home / "state", _OPTIONS)
                assert result.outcome == "published"
                witness.verify()
                witness.verify_acknowledged(result.manifest)
            mirror.sync()
            served = witness.verify_served(mirror, served)
    witness.verify_all()
    assert len(witness.history) >= publishers * rounds


def _publish_together(home: Path, store: Store, meeting: Barrier) -> PublishResult | str:
    """The result of a publish that moves the pointer when all others do; or why it could not."""
    swaps = 0

    def meet(operation: str, key: str) -> None:
        nonlocal swaps
        if (operation, key) == ("put", POINTER_KEY):
            swaps += 1
            if swaps == 1:
                meeting.wait()

    try:
        return publish(home / "catalogsync.db", FaultyStore(store, before=meet), home / "state", _OPTIONS)
    except ConflictError as error:
        return str(error)


def _verify_one_winner(results: list[PublishResult | str], witness: Witness) -> None:
    """One has published, and the others say that they were too late."""
    winners = [result for result in results if not isinstance(result, str)]
    assert len(winners) == 1
    assert winners[0].outcome == "published"
    witness.verify_acknowledged(winners[0].manifest)
    for loser in results:
        assert not isinstance(loser, str) or _LOST.fullmatch(loser), loser


def _race_on_a_folder(publishers: int, rounds: int, catalogue: Path, tmp_path: Path) -> None:
    store = RetryingStore(FolderStore(tmp_path / "bucket"))
    _race(publishers, rounds, store, read_folder(tmp_path / "bucket"), catalogue, tmp_path)


@pytest.mark.parametrize(("publishers", "rounds"), [(2, 2), (5, 1), (20, 1)])
def test_one_publisher_wins_each_round_on_a_folder(
    publishers: int, rounds: int, tiny_catalogue: Path, tmp_path: Path
) -> None:
    _race_on_a_folder(publishers, rounds, tiny_catalogue, tmp_path)


@pytest.mark.parametrize(("publishers", "rounds"), [(2, 2), (5, 1), (20, 1)])
def test_one_publisher_wins_each_round_on_a_real_s3_server(
    publishers: int, rounds: int, tiny_catalogue: Path, tmp_path: Path, s3_store: Store, behind: PlainHttp
) -> None:
    _race(publishers, rounds, s3_store, behind.read, tiny_catalogue, tmp_path)


@pytest.mark.soak
@pytest.mark.parametrize("publishers", [2, 5, 20])
def test_one_publisher_wins_each_of_a_hundred_rounds_on_a_folder(
    publishers: int, tiny_catalogue: Path, tmp_path: Path
) -> None:
    _race_on_a_folder(publishers, _SOAK_ROUNDS, tiny_catalogue, tmp_path)


@pytest.mark.soak
@pytest.mark.parametrize("publishers", [2, 5, 20])
def test_one_publisher_wins_each_of_a_hundred_rounds_on_a_real_s3_server(
    publishers: int, tiny_catalogue: Path, tmp_path: Path, s3_store: Store, behind: PlainHttp
) -> None:
    _race(publishers, _SOAK_ROUNDS, s3_store, behind.read, tiny_catalogue, tmp_path)


def test_processes_that_race_for_a_folder_are_told_apart(tiny_catalogue: Path, tmp_path: Path) -> None:
    """As people run it: whoever loses says so in one sentence, and ends with exit code 1."""
    commands = []
    for number in range(5):
        catalogue = tmp_path / f"{number}.db"
        shutil.copy(tiny_catalogue, catalogue)
        change_catalogue(catalogue, f"publisher {number} ")
        command = [sys.executable, "-m", "music_cloud", "publish", "--db", str(catalogue)]
        commands.append([*command, "--store", str(tmp_path / "bucket")])
    processes = [
        subprocess.Popen(
            command,
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
            env=os.environ | {"MUSIC_CLOUD_STATE_DIR": str(tmp_path / f"state-{number}")},
        )
        for number, command in enumerate(commands)
    ]
    complaints = [process.communicate(timeout=_MEET_WITHIN_S)[1] for process in processes]
    witness = Witness(read_folder(tmp_path / "bucket"))
    witness.verify_all()
    winners = [process.returncode for process in processes].count(0)
    assert 1 <= winners <= len(witness.history)  # those that came one after the other all won
    for process, complaint in zip(processes, complaints, strict=True):
        if process.returncode != 0:
            assert process.returncode == 1
            assert _LOST.fullmatch(complaint.splitlines()[-1].removeprefix("music-cloud: ")), complaint
