"""Probing a store: what its answers mean, and what is made of them and of a profile."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from contracts.errors import (
    AccessDenied,
    ObjectMissing,
    PreconditionFailed,
    StoreUnavailable,
    UnsuitableStore,
)
from publisher.probe import Answers, ask_preconditions, judge, suit_store, verify_preconditions
from publisher.profile import Profile, program_version
from publisher.state import State
from stores import Create, MemoryStore, Update
from stores.base import PutMode, Store
from stores.single_publisher import SinglePublisherStore
from stores.unquoted import UnquotedStore
from tests.faults import FaultyStore

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
# docs/providers.md: what a server does that does all of it, and how those differ that do not.
SOUND = Answers("written", "refused", "refused", "written", None, None, "refused", True)
CEPH = replace(SOUND, update="refused", unquoted_other="refused", unquoted="written")


@pytest.mark.parametrize(
    ("answers", "preconditions", "fault"),
    [
        (SOUND, "quoted", None),
        (CEPH, "unquoted", None),
        (replace(SOUND, is_gone=False), "quoted", "does not delete"),
        (replace(SOUND, create="unsupported"), "none", "does not take a write"),
        (replace(SOUND, create_again="written"), "none", "only be created"),
        (replace(SOUND, create_again="unsupported"), "none", "only be created"),
        (replace(SOUND, update_other="written"), "none", "has changed"),
        (replace(SOUND, update_absent="written"), "none", "is gone"),
        # What a server without If-Match for writes says, with quotes or without.
        (replace(CEPH, unquoted="refused"), "none", "has not changed"),
        # It cannot parse a tag without quotes and ignores it: the one case in which trying is dangerous.
        (replace(CEPH, unquoted_other="written"), "none", "has not changed"),
        (replace(SOUND, update="refused"), "none", "has not changed"),
    ],
)
def test_answers_are_judged(answers: Answers, preconditions: str, fault: str | None) -> None:
    verdict = judge(answers)
    assert preconditions == verdict.preconditions
    assert (fault is None and verdict.fault is None) or (fault or "-") in (verdict.fault or "")


def test_an_update_that_came_twice_is_no_refusal() -> None:
    """A line that repeats a request answers with the refusal of its own second write."""
    store = MemoryStore()

    class Twice(FaultyStore):
        def put(self, key: str, body: bytes | BinaryIO, mode: PutMode) -> str:
            etag = store.put(key, body, mode)
            if isinstance(mode, Update):
                store.put(key, body, mode)
            return etag

    assert ask_preconditions(Twice(store)) == SOUND


def test_a_store_that_does_not_answer_is_not_called_unsuitable() -> None:
    """It is asked again by the next publish."""
    for error in (StoreUnavailable("503"), AccessDenied("403")):

        def fail(operation: str, key: str, error: Exception = error) -> None:
            if operation == "put":
                raise error

        with pytest.raises(type(error)):
            verify_preconditions(FaultyStore(MemoryStore(), before=fail), NOW)


def test_an_object_that_stays_is_a_store_that_does_not_delete() -> None:
    class Keeps(MemoryStore):
        def delete(self, key: str) -> None:
            pass

    assert not ask_preconditions(Keeps()).is_gone


def test_a_lost_answer_to_the_first_write_is_no_refusal() -> None:
    """A retry then meets our own object."""
    first: list[str] = []

    def lose(operation: str, key: str) -> None:
        if operation == "put" and not first:
            first.append(key)
            raise PreconditionFailed("412 for one's own write")

    assert ask_preconditions(FaultyStore(MemoryStore(), after=lose)) == SOUND


def _profile(**changes: Any) -> Profile:
    profile = Profile(
        store="memory:", probed_at=NOW, program=program_version(), preconditions="quoted", deletes=True
    )
    return Profile(**{**{name: getattr(profile, name) for name in profile.__struct_fields__}, **changes})


@pytest.mark.parametrize(
    ("known", "kind", "is_asked"),
    [
        (None, MemoryStore, True),
        (_profile(), MemoryStore, False),
        (_profile(preconditions="unquoted"), UnquotedStore, False),
        (_profile(store="s3://other"), MemoryStore, True),
        (_profile(program="0.0.1"), MemoryStore, True),
        (_profile(preconditions="none"), MemoryStore, True),
        (_profile(deletes=False), MemoryStore, True),
    ],
    ids=["none", "sound", "unquoted", "of another store", "by another version", "unsuitable", "no deletion"],
)
def test_a_profile_is_obeyed_only_where_it_counts(
    tmp_path: Path, known: Profile | None, kind: type[Store], is_asked: bool
) -> None:
    """And a store is refused for what it does now, not for what it once did."""
    state, store = State(tmp_path), FaultyStore(MemoryStore())
    if known is not None:
        state.store_profile(known)
    suited = suit_store(store, state, NOW)
    assert bool(store.operations) == is_asked
    assert isinstance(suited, UnquotedStore) == (kind is UnquotedStore)
    profile = state.load_profile()
    assert profile is not None
    assert profile.is_believed("memory:", program_version())


def test_a_race_that_the_doctor_saw_is_refused_until_he_asks_again(tmp_path: Path) -> None:
    """A publish asks one write after the other, and would find such a store sound."""
    state, store = State(tmp_path), FaultyStore(MemoryStore())
    state.store_profile(_profile(excludes=False))
    for _ in range(2):
        with pytest.raises(
            UnsuitableStore, match=r"as doctor found on 2026-11-22.*run `music-cloud doctor` again"
        ):
            suit_store(store, state, NOW)
    assert store.operations == []
    assert isinstance(suit_store(store, state, NOW, single_publisher=True), SinglePublisherStore)
    state.store_profile(_profile(excludes=True))
    assert suit_store(store, state, NOW) is store


@pytest.mark.parametrize("change", [{"store": "s3://other"}, {"program": "0.0.1"}])
def test_a_race_elsewhere_says_nothing(tmp_path: Path, change: dict[str, str]) -> None:
    state = State(tmp_path)
    state.store_profile(_profile(excludes=False, **change))
    suit_store(MemoryStore(), state, NOW)


def test_a_damaged_profile_is_none(tmp_path: Path) -> None:
    (tmp_path / "profile").write_bytes(b'{"store":')
    assert State(tmp_path).load_profile() is None


def test_a_single_publisher_asks_nothing(tmp_path: Path) -> None:
    store = FaultyStore(MemoryStore())
    assert isinstance(suit_store(store, State(tmp_path), NOW, single_publisher=True), SinglePublisherStore)
    assert store.operations == []


def test_only_the_condition_of_an_update_loses_its_quotes() -> None:
    memory = MemoryStore()
    store = UnquotedStore(memory)
    etag = store.put("a", b"first", Create())
    store.put("a", b"second", Update(f'"{etag}"'))
    assert memory.objects == {"a": b"second"}
    store.delete("a")
    with pytest.raises(ObjectMissing):
        store.head("a")
