"""A publisher whose clock is wrong by a day: it says so, moves nothing, and publishes when it is right.

The mirror's clock: tests/mirror. A publisher's to the minute: tests/publisher/test_publish.py.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import botocore.auth
import pytest

from contracts.errors import ClockError, StoreError
from publisher import Environment, PublishOptions, PublishResult, publish
from stores import FolderStore, Store
from tests.survival.witness import Witness, change_catalogue, read_folder

_DAY = timedelta(days=1)


def _publish(
    catalogue: Path, store: Store, state: Path, off: timedelta = timedelta(), accept_clock: bool = False
) -> PublishResult:
    def now() -> datetime:
        return datetime.now(UTC).replace(microsecond=0) + off

    options = PublishOptions(level=1, accept_clock=accept_clock)
    return publish(catalogue, store, state, options, environment=Environment(now=now))


@pytest.mark.parametrize("off", [_DAY, -_DAY], ids=["ahead", "behind"])
def test_clock_wrong_by_a_day_is_told_by_the_store(
    off: timedelta, catalogue: Path, tmp_path: Path, s3_store: Store
) -> None:
    """Before the first publish as after it."""
    for number in range(2):
        with pytest.raises(
            ClockError, match=r"this machine's clock says .* and the store's .*; set the clock"
        ):
            _publish(catalogue, s3_store, tmp_path / "state", off)
        assert _publish(catalogue, s3_store, tmp_path / "state").manifest.sequence == number + 1
        change_catalogue(catalogue, f"{number} ")


@pytest.mark.parametrize("off", [_DAY, -_DAY], ids=["ahead", "behind"])
def test_request_signed_by_a_wrong_clock_is_refused_for_that_reason(
    off: timedelta,
    catalogue: Path,
    tmp_path: Path,
    s3_store: Store,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What a machine does whose clock is wrong altogether: the server looks at the date of the signature."""
    right: Callable[..., datetime] = botocore.auth.get_current_datetime

    def wrong(*args: Any, **options: Any) -> datetime:
        return right(*args, **options) + off

    with monkeypatch.context() as patched:
        patched.setattr(botocore.auth, "get_current_datetime", wrong)
        with pytest.raises((StoreError, ClockError), match=re.compile("RequestTimeTooSkewed|clock")):
            _publish(catalogue, s3_store, tmp_path / "state", off)
    assert _publish(catalogue, s3_store, tmp_path / "state").manifest.sequence == 1


def test_clock_that_went_back_a_day_is_told_by_the_last_publish(catalogue: Path, tmp_path: Path) -> None:
    """A folder has no clock of its own, but the pointer in it has a date."""
    store, witness = FolderStore(tmp_path / "bucket"), Witness(read_folder(tmp_path / "bucket"))
    _publish(catalogue, store, tmp_path / "state")
    change_catalogue(catalogue, "changed ")
    with pytest.raises(ClockError, match="before the last publish"):
        _publish(catalogue, store, tmp_path / "state", -_DAY)
    witness.verify()
    assert len(witness.history) == 1
    assert _publish(catalogue, store, tmp_path / "state").outcome == "published"
    witness.verify_all()


def test_clock_that_was_ahead_by_a_day_is_forgiven_when_the_operator_says_so(
    catalogue: Path, tmp_path: Path
) -> None:
    store, witness = FolderStore(tmp_path / "bucket"), Witness(read_folder(tmp_path / "bucket"))
    _publish(catalogue, store, tmp_path / "state", _DAY)
    change_catalogue(catalogue, "changed ")
    with pytest.raises(ClockError, match="--accept-clock"):
        _publish(catalogue, store, tmp_path / "state")
    assert _publish(catalogue, store, tmp_path / "state", accept_clock=True).outcome == "published"
    change_catalogue(catalogue, "changed again ")
    assert _publish(catalogue, store, tmp_path / "state").outcome == "published"
    witness.verify_all()
    assert len(witness.history) == 3
