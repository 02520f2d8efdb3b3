"""How S3 servers differ, and what the probe, the doctor and a publish make of each: docs/providers.md.

The servers are real, except for two dialects that only an old or a distant server speaks: those are put into
the mouth of a real one by a hook of botocore.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from contracts.errors import ContractError, PreconditionFailed, StoreError, UnsuitableStore
from localstack import Bucket
from mirror import Mirror
from music_cloud.sample import evolve
from publisher import PublishOptions, publish
from publisher.doctor import Diagnosis, examine_store, store_diagnosis
from publisher.probe import Answers, ask_preconditions, suit_store, verify_preconditions
from publisher.state import State
from stores import Backoff, Create, FolderStore, HttpStore, Overwrite, Update
from stores.s3 import S3Store
from tests.faults import FaultyStore
from tests.stores.conftest import HAS_GIVEN, no_sleep, s3_settings
from tests.stores.scripted_server import Request, ScriptedServer, http

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
SOUND = Answers("written", "refused", "refused", "written", None, None, "refused", True)
# What the doctor says of a server that does everything, and whose bucket is public to read and no more.
GOOD = {
    "clock",
    "create an object",
    "create it again",
    "update it",
    "update what has changed",
    "update what is gone",
    "delete it",
    "wrong checksum",
    "race of updates",
    "read from the middle",
    "ask whether it changed",
    "list it",
    "latency",
    "read by anyone",
    "media type and caching",
    "CORS",
    "list by anyone",
    "write by anyone",
}


def speak_ceph(store: S3Store) -> S3Store:
    """Let a real server compare entity tags as Ceph RGW 16.2 does: refused with quotes, right without."""

    def answer(params: dict[str, Any], **_: object) -> object:
        etag = params["headers"].get("If-Match")
        if etag is None:
            return None
        if etag.startswith('"'):
            return _refusal(412, "PreconditionFailed")
        params["headers"]["If-Match"] = f'"{etag}"'
        return None

    store._client.meta.events.register("before-call.s3.PutObject", answer)
    return store


def speak_b2(store: S3Store) -> S3Store:
    """Let a real server answer to conditions as Backblaze B2 does: not implemented."""

    def answer(params: dict[str, Any], **_: object) -> object:
        return (
            _refusal(501, "NotImplemented")
            if {"If-Match", "If-None-Match"} & set(params["headers"])
            else None
        )

    store._client.meta.events.register("before-call.s3.PutObject", answer)
    return store


def _refusal(status: int, code: str) -> tuple[object, Mapping[str, object]]:
    said = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status, "HTTPHeaders": {}}}
    return SimpleNamespace(status_code=status), said


def store_in(bucket: Bucket, prefix: str = "") -> S3Store:
    return S3Store(bucket.bucket, prefix, s3_settings(bucket))


def test_a_sound_server_is_found_sound(bucket: Bucket, moto_bucket: Bucket) -> None:
    """SeaweedFS answers 412 to an update of what is gone, moto 404, as AWS does."""
    for store in (store_in(bucket), store_in(moto_bucket, "probed")):
        assert ask_preconditions(store) == SOUND
        assert store.list_objects() == []


def test_rclones_server_is_refused_but_to_a_single_publisher(
    catalogue: Path, tmp_path: Path, rclone_bucket: Bucket
) -> None:
    """It answers "written" to whatever condition."""
    store = store_in(rclone_bucket, "published")
    with pytest.raises(UnsuitableStore, match="--single-publisher"):
        verify_preconditions(store, NOW)
    for _ in range(2):  # a store that was refused once is not believed the next time
        with pytest.raises(UnsuitableStore, match="--single-publisher"):
            publish(catalogue, store, tmp_path / "state")
    assert store.list_objects() == []
    for sequence in (1, 2):
        options = PublishOptions(single_publisher=True)
        assert publish(catalogue, store, tmp_path / "state", options).manifest.sequence == sequence
        evolve(catalogue, churn="hour", seed=1)


def test_cephs_dialect_is_found_and_remembered(catalogue: Path, tmp_path: Path, bucket: Bucket) -> None:
    """Quoted tags are refused: the first publish finds out, and the second asks no more."""
    store, state = FaultyStore(speak_ceph(store_in(bucket))), tmp_path / "state"
    with pytest.raises(PreconditionFailed):
        store.put("a", b"second", Update(store.put("a", b"first", Create())))
    store.delete("a")
    sequences = []
    for _ in range(2):
        sequences.append(publish(catalogue, store, state).manifest.sequence)
        evolve(catalogue, churn="hour", seed=1)
    profile = State(state).load_profile()
    assert profile is not None
    assert profile.preconditions == "unquoted"
    keys = [key for key in store.puts() if key.startswith("probe-")]
    assert sequences == [1, 2]
    assert len(set(keys)) == 1


def test_a_server_that_implements_no_conditions_is_refused_with_the_way_out(
    catalogue: Path, tmp_path: Path, bucket: Bucket
) -> None:
    store = speak_b2(store_in(bucket))
    with pytest.raises(UnsuitableStore, match="--single-publisher"):
        publish(catalogue, store, tmp_path / "state")
    assert store.list_objects() == []
    for _ in range(2):
        publish(catalogue, store, tmp_path / "state", PublishOptions(single_publisher=True))
    assert store.head("manifest.json").size_bytes > 0


def levels(diagnosis: Diagnosis) -> dict[str, str]:
    return {check.name: check.level for check in diagnosis.checks}


def examine(store: S3Store, **options: Any) -> Diagnosis:
    return examine_store(store, backoff=Backoff(sleep=no_sleep), **options)


def test_the_doctor_finds_nothing_bad_at_seaweed(bucket: Bucket) -> None:
    """And nothing is left behind."""
    store = store_in(bucket, "site")
    diagnosis = examine(store)
    assert dict.fromkeys(GOOD, "good") == levels(diagnosis)
    assert diagnosis.is_usable
    assert diagnosis.profile is not None
    assert (diagnosis.profile.preconditions, diagnosis.profile.deletes) == ("quoted", True)
    assert diagnosis.profile.checks_sums is True
    assert store.list_objects() == []


def test_the_doctor_tells_what_rclone_ignores(rclone_bucket: Bucket) -> None:
    store = store_in(rclone_bucket, "doctor")
    found = levels(examine(store))
    bad = {"create it again", "update what has changed", "update what is gone"}
    assert {name for name, level in found.items() if level == "bad"} == bad
    assert found["wrong checksum"] == "warning"
    diagnosis = examine(store, single_publisher=True)
    assert diagnosis.is_usable
    assert diagnosis.profile is not None
    assert diagnosis.profile.preconditions == "none"
    assert diagnosis.profile.checks_sums is False
    assert store.list_objects() == []


def test_the_doctor_tells_that_anyone_may_write(moto_bucket: Bucket) -> None:
    """moto asks nobody who he is."""
    found = levels(examine(store_in(moto_bucket, "doctor")))
    assert {name for name, level in found.items() if level == "bad"} == {"write by anyone"}
    assert (found["list by anyone"], found["wrong checksum"]) == ("warning", "warning")
    assert found["race of updates"] == found["update what is gone"] == "good"


def test_the_doctor_knows_cephs_dialect_and_its_profile_is_obeyed(
    catalogue: Path, tmp_path: Path, bucket: Bucket
) -> None:
    """A publish after it asks nothing."""
    store, state = speak_ceph(store_in(bucket)), State(tmp_path / "state")
    diagnosis = examine(store)
    assert diagnosis.is_usable
    assert levels(diagnosis)["update it"] == "note"
    assert levels(diagnosis)["race of updates"] == "good"
    assert store_diagnosis(diagnosis, state)
    watched = FaultyStore(store)
    publish(catalogue, watched, state.folder)
    evolve(catalogue, churn="hour", seed=1)
    assert publish(catalogue, watched, state.folder).manifest.sequence == 2
    assert [key for key in watched.puts() if key.startswith("probe-")] == []


def test_a_server_without_conditions_is_bad_or_for_a_single_publisher(bucket: Bucket) -> None:
    store = speak_b2(store_in(bucket))
    assert levels(examine(store))["create an object"] == "bad"
    diagnosis = examine(store, single_publisher=True)
    assert diagnosis.is_usable
    assert "race of updates" not in levels(diagnosis)


def test_what_the_bucket_lets_strangers_do_is_told(seaweed: Any, bucket: Bucket) -> None:
    """Private: a note, because mirrors may have keys."""
    private = seaweed.create_bucket(f"{bucket.bucket}-private", public_read=False)
    try:
        found = levels(examine(store_in(private)))
    finally:
        seaweed.delete_bucket(private.bucket)
    assert found["read by anyone"] == "note"
    unseen = {"media type and caching", "CORS"}
    assert not unseen & set(found)
    assert {found[name] for name in GOOD - unseen - {"read by anyone"}} == {"good"}


def test_wrong_credentials_and_a_missing_bucket_are_findings(bucket: Bucket) -> None:
    """Not tracebacks; and a clock that is a day off is told beside them, because it looks just like that."""
    wrong = replace(s3_settings(bucket), secret_access_key="wrong")
    refused = examine(S3Store(bucket.bucket, "", wrong), now=lambda: datetime.now(UTC) + timedelta(days=1))
    assert levels(refused) == {"clock": "bad", "reach it": "bad"}
    missing = examine(S3Store("test-no-such-bucket", "", s3_settings(bucket)))
    assert levels(missing) == {"reach it": "bad"}
    assert "no such bucket" in missing.checks[0].found
    assert missing.profile is None


def test_the_doctor_sees_an_address_as_a_mirror_does(catalogue: Path, tmp_path: Path, bucket: Bucket) -> None:
    """Empty, then published to, then with a blob lost."""
    store, address = store_in(bucket, "site"), f"{bucket.public_url}/site"
    empty = levels(examine_store(HttpStore(address)))
    assert (empty["the pointer"], empty["what is not there"]) == ("warning", "good")
    manifest = publish(catalogue, store, tmp_path / "state").manifest
    diagnosis = examine_store(HttpStore(address))
    found = levels(diagnosis)
    assert diagnosis.is_usable
    assert {name for name, level in found.items() if level != "good"} == {"TLS"}
    assert {"caching of the pointer", "caching of blobs", "content coding", "blobs", "clock"} <= set(found)
    store.delete(f"blobs/{manifest.keyframe.blobs[0].digest}")
    assert levels(examine_store(HttpStore(address)))["blobs"] == "bad"
    store.put("manifest.json", b"<html>", Overwrite())
    assert levels(examine_store(HttpStore(address)))["the pointer"] == "bad"


def test_a_race_with_many_winners_is_kept_for_publishes(
    tmp_path: Path, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server whose conditions hold only for one request after the other."""
    store, state = store_in(bucket), State(tmp_path / "state")
    monkeypatch.setattr("publisher.doctor.bucket.race", lambda *asked: 8)
    diagnosis = examine(store)
    assert levels(diagnosis)["race of updates"] == "bad"
    assert store_diagnosis(diagnosis, state)
    with pytest.raises(UnsuitableStore, match="run `music-cloud doctor` again"):
        suit_store(store, state, NOW)


def _spoil(how: str, is_blob: bool, stored: bytes | None) -> bytes:
    """The answer of a server that serves a folder, with one fault."""
    date = format_datetime(datetime.now(UTC), usegmt=True)
    if stored is None:
        return http("404 Not Found", Date=date)
    if how == "chunked" and not is_blob:
        body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(stored), stored)
        return http("200 OK", body, -1, Transfer_Encoding="chunked", Date=date)
    if how == "coded" and is_blob:
        return http("200 OK", stored, Content_Encoding="gzip", Date=date)
    if how == "other bytes" and is_blob:
        stored = bytes(len(stored))
    if how == "a page" and is_blob:
        stored = b"<html>"
    return http("200 OK", stored, ETag='"1"', Date=date)


@pytest.mark.parametrize("how", ["sound", "chunked", "coded", "other bytes", "a page"])
def test_the_doctor_finds_usable_what_a_mirror_can_read(catalogue: Path, tmp_path: Path, how: str) -> None:
    folder = tmp_path / "bucket"
    publish(catalogue, FolderStore(folder), tmp_path / "state", PublishOptions(level=1))

    def answer(request: Request) -> bytes:
        path = folder / request.path.lstrip("/")
        return _spoil(how, request.path.startswith("/blobs/"), path.read_bytes() if path.is_file() else None)

    with ScriptedServer(answer) as server, closing(HttpStore(server.url)) as store:
        diagnosis = examine_store(store)
        try:
            Mirror(tmp_path / "mirror", store, unsigned=True).sync()
            is_mirrored = True
        except (ContractError, StoreError):
            is_mirrored = False
    assert (diagnosis.is_usable, is_mirrored) == (how == "sound", how == "sound")


if HAS_GIVEN:  # docs/providers.md; without it there is nothing to skip

    def test_the_given_endpoint_is_usable(session_given: S3Store) -> None:
        """Whatever it is: nothing bad, and nothing left behind. What was found is printed by `pytest -rP`."""
        diagnosis = examine_store(session_given)
        for check in diagnosis.checks:
            sys.stdout.write(f"{check.name}: {check.level}: {check.found}\n")
        assert diagnosis.is_usable
        assert session_given.list_objects("probe-") == []
