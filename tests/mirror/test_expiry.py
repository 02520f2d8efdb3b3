"""What is past its time: served on, said aloud, and taken by a fresh mirror only when it was told to."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from contracts.errors import ExpiredError, RollbackError, SignatureError, StoreUnavailable
from contracts.layout import POINTER_KEY
from music_cloud.cli import run
from tests.mirror.chain import Chain, served_file
from tests.mirror.simulator import EVIL, A, Site, later


@pytest.fixture
def expired(attacked: Site, tmp_path: Path) -> Site:
    """A site whose newest snapshot is past its time, and a fresh mirror of it that is told to take it."""
    attacked.folder = tmp_path / "fresh"
    attacked.clock.now = later(days=14)
    attacked.mirror = attacked.open(A, accept_expired=True)
    return attacked


def test_fresh_mirror_refuses_an_expired_snapshot_and_says_what_can_be_done(expired: Site) -> None:
    with pytest.raises(ExpiredError, match=r"serves nothing yet.*--accept-expired"):
        expired.open(A).sync()
    assert expired.open(A).current() is None


def test_fresh_mirror_takes_an_expired_snapshot_when_told_to_and_says_so(expired: Site) -> None:
    result = expired.sync()
    assert result.outcome == "updated"
    assert "snapshot 2 expired at 2026-12-06 12:00:00 UTC" in str(result.expired)
    assert expired.serves(1)


def test_mirror_that_was_told_to_take_one_complains_from_then_on(expired: Site) -> None:
    """Once it serves something it is a mirror like any other."""
    expired.sync()
    for mirror in (expired.mirror, expired.open(A)):
        with pytest.raises(ExpiredError, match=r"the publisher has not renewed it$"):
            mirror.sync()
    assert expired.serves(1)


def test_only_the_first_expired_snapshot_is_taken(expired: Site) -> None:
    expired.sync()
    expired.clock.now = later(days=1)
    expired.publish(2)
    expired.clock.now = later(days=16)
    with pytest.raises(ExpiredError):
        expired.sync()
    assert expired.serves(1)
    expired.publish(3)
    result = expired.sync()
    assert (result.outcome, result.expired) == ("updated", None)
    assert expired.serves(3)


def test_download_that_broke_off_is_taken_up_again(expired: Site) -> None:
    """The mirror serves nothing yet, although it has seen the snapshot."""

    def fail(operation: str, key: str) -> None:
        if key.startswith("blobs/"):
            raise StoreUnavailable("the line is dead")

    expired.watched.before = fail
    with pytest.raises(StoreUnavailable):
        expired.sync()
    expired.watched.before = lambda operation, key: None
    assert expired.sync().outcome == "updated"


def test_accepting_expired_ones_accepts_nothing_else(expired: Site) -> None:
    """Neither a forged one nor an older one than was seen."""
    expired.forge(EVIL)
    with pytest.raises(SignatureError):
        expired.sync()
    expired.publish(2)
    seen = expired.objects[POINTER_KEY]
    (expired.folder / "seen.json").unlink(missing_ok=True)
    expired.sync()
    (expired.folder / "current").unlink()
    expired.objects[POINTER_KEY] = expired.history[0]
    expired.clock.now = later(days=30)
    with pytest.raises(RollbackError):
        expired.sync()
    expired.objects[POINTER_KEY] = seen
    assert "expired" in str(expired.sync().expired)


def test_lost_database_of_an_expired_snapshot_is_fetched_again_when_told_to(expired: Site) -> None:
    expired.sync()
    served_file(expired.mirror).unlink()
    with pytest.raises(ExpiredError):
        expired.open(A).sync()
    assert expired.sync().outcome == "updated"
    assert expired.serves(1)


def test_command_line_takes_an_expired_snapshot_only_when_told_to(
    chain: Chain, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And says so, once in its result and from then on as an error."""
    chain.point(0, now=later(days=-3650))
    for key, content in chain.store.objects.items():
        (tmp_path / "bucket" / key).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "bucket" / key).write_bytes(content)
    command = ["mirror", "--from", f"{tmp_path}/bucket", "--to", f"{tmp_path}/to", "--unsigned", "--json"]
    assert run(command) == 1
    assert "--accept-expired" in capsys.readouterr().err
    assert run([*command, "--accept-expired"]) == 0
    said = capsys.readouterr()
    assert "snapshot 1 expired" in json.loads(said.out)["expired"]
    assert "snapshot 1 expired" in said.err
    assert run([*command, "--accept-expired"]) == 1
    assert "has not renewed it" in capsys.readouterr().err
