"""What the doctor says: each judgement by its figures, and a folder from end to end.

Buckets and addresses, from end to end, are in tests/stores/test_providers.py.
"""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from contracts.errors import UnsuitableStore
from publisher.doctor import examine_store, store_diagnosis
from publisher.doctor.bucket import (
    check_anonymous_listing,
    check_anonymous_read,
    check_anonymous_write,
    check_headers,
    check_listing,
    check_sums,
)
from publisher.doctor.checks import (
    Check,
    Diagnosis,
    check_clock,
    check_cors,
    check_latency,
    check_preconditions,
    check_race,
)
from publisher.doctor.folder import (
    check_case,
    check_file_system,
    check_locks,
    check_one_file_system,
    check_space,
    examine_folder,
    find_file_system,
)
from publisher.doctor.web import (
    check_absent,
    check_blob,
    check_blob_caching,
    check_coding,
    check_pointer,
    check_pointer_caching,
    check_revalidation,
    check_scheme,
    parse_max_age,
)
from publisher.probe import Answers, suit_store
from publisher.state import State
from stores import FolderStore, HttpStore
from stores.stranger import Answer

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
SOUND = Answers("written", "refused", "refused", "written", None, None, "refused", True)
# proc_pid_mountinfo(5): a root, a network share with a space in its name, and one mounted over another.
MOUNTS = r"""
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
31 22 0:40 / /volume1/my\040music rw,relatime shared:9 master:2 - nfs4 nas:/export rw,vers=4.2
32 22 0:41 / /mnt/usb rw - autofs systemd-1 rw
33 32 8:17 / /mnt/usb rw - exfat /dev/sdb1 rw
"""


def _answer(status: int, body: bytes = b"", **headers: str) -> Answer:
    return Answer(status, {name.replace("_", "-"): value for name, value in headers.items()}, body, 0.1)


@pytest.mark.parametrize(
    ("check", "level"),
    [
        (check_clock(NOW, NOW + timedelta(seconds=5)), "good"),
        (check_clock(NOW, NOW - timedelta(seconds=6)), "warning"),
        (check_clock(NOW, NOW - timedelta(seconds=300)), "warning"),
        (check_clock(NOW, NOW + timedelta(seconds=301)), "bad"),  # a publish refuses: design, section 5
        (check_clock(NOW, NOW + timedelta(seconds=301), is_asked=False), "warning"),  # by no publish
        (check_clock(NOW, None), "note"),
        (check_latency([0.2, 0.3, 9.0]), "good"),
        (check_latency([0.2, 1.0, 1.1]), "warning"),
        (check_race(1, 8, single_publisher=False), "good"),
        (check_race(2, 8, single_publisher=False), "bad"),
        (check_race(2, 8, single_publisher=True), "warning"),
        (check_race(0, 8, single_publisher=False), "note"),
        (check_sums(True), "good"),
        (check_sums(False), "warning"),
        (check_listing(True), "good"),
        (check_listing(False), "warning"),
        (check_anonymous_read(200), "good"),
        (check_anonymous_read(403), "note"),
        (check_anonymous_listing(403), "good"),
        (check_anonymous_listing(200), "warning"),
        (check_anonymous_write(403), "good"),
        (check_anonymous_write(200), "bad"),
        *(
            (check(status), "good")
            for check in (check_anonymous_listing, check_anonymous_write)
            for status in (400, 401, 404, 405)
        ),
        *(
            (check(status), "warning")
            for check in (check_anonymous_listing, check_anonymous_write)
            for status in (301, 429, 500, 503)
        ),
        (
            check_headers(_answer(200, content_type="application/octet-stream", cache_control="no-store")),
            "good",
        ),
        (check_headers(_answer(200, content_type="application/octet-stream")), "warning"),
        (check_cors(_answer(200, access_control_allow_origin="*")), "good"),
        (check_cors(_answer(200, access_control_allow_origin="https://other.example")), "note"),
        (check_cors(_answer(200)), "note"),
        (check_locks(True, single_publisher=False), "good"),
        (check_locks(False, single_publisher=False), "bad"),
        (check_locks(False, single_publisher=True), "warning"),
        (check_file_system("ext4"), "good"),
        (check_file_system("nfs4"), "note"),
        (check_file_system("fuse.sshfs"), "note"),
        (check_file_system(None), "note"),
        (check_one_file_system([5, 5]), "good"),
        (check_one_file_system([5, 6]), "bad"),
        (check_space(1 << 30), "good"),
        (check_space((1 << 30) - 1), "warning"),
        (check_space((64 << 20) - 1), "bad"),
        (check_case(True), "good"),
        (check_scheme("https://cdn.example"), "good"),
        (check_scheme("http://cdn.example"), "note"),
        (check_coding(None), "good"),
        (check_coding("aws-chunked"), "note"),
        (check_coding("gzip"), "bad"),
        (check_pointer_caching("public, max-age=15, stale-while-revalidate=60"), "good"),
        (check_pointer_caching("no-cache"), "good"),
        (check_pointer_caching("public, max-age=31536000, immutable"), "warning"),
        (check_pointer_caching(None), "warning"),
        (check_blob_caching("public, max-age=31536000, immutable"), "good"),
        (check_blob_caching(None), "note"),
        (check_revalidation('"1"', 304), "good"),
        (check_revalidation('"1"', 200), "note"),
        (check_revalidation("", 200), "note"),
        (check_blob(_answer(206, content_range="bytes 0-0/77"), 77), "good"),
        (check_blob(_answer(206, content_range="bytes 0-0/78"), 77), "bad"),
        (check_blob(_answer(200), 77), "note"),
        (check_blob(_answer(404), 77), "bad"),
        (check_absent(404), "good"),
        (check_absent(403), "note"),
        (check_absent(200), "bad"),  # a page that says "not found" with 200
        (check_absent(500), "warning"),
        (check_pointer(_answer(404), NOW)[0], "warning"),
        (check_pointer(_answer(403), NOW)[0], "bad"),
        (check_pointer(_answer(301, location="https://x.example"), NOW)[0], "bad"),
        (check_pointer(_answer(500), NOW)[0], "bad"),
        (check_pointer(_answer(200, b"<html>"), NOW)[0], "bad"),
    ],
    ids=lambda value: f"{value.name}: {value.found}" if isinstance(value, Check) else value,
)
def test_finding_is_as_good_as_its_figures(check: Check, level: str) -> None:
    """And whatever is not good says what to do, where anything can be done."""
    assert level == check.level
    assert check.advice or level in ("good", "note")


@pytest.mark.parametrize(
    ("cache_control", "seconds"),
    [
        ("max-age=15", 15),
        ("public,s-maxage=60,max-age=15", 60),  # a shared cache goes by s-maxage: RFC 9111, section 5.2.2.10
        ("max-age=15, S-MaxAge=60", 60),
        ("no-store", 0),
        ("private", None),
        (None, None),
    ],
)
def test_age_is_that_of_a_shared_cache(cache_control: str | None, seconds: int | None) -> None:
    assert seconds == parse_max_age(cache_control)


@pytest.mark.parametrize(
    ("answers", "single", "bad"),
    [
        (SOUND, False, set[str]()),
        (replace(SOUND, update="refused", unquoted_other="refused", unquoted="written"), False, set()),
        (replace(SOUND, create_again="written"), False, {"create it again"}),
        (replace(SOUND, update_other="unsupported"), False, {"update what has changed"}),
        (replace(SOUND, update_absent="written", is_gone=False), False, {"update what is gone", "delete it"}),
        (replace(SOUND, create="unsupported"), False, {"create an object"}),
        (replace(SOUND, create_again="written"), True, set()),
        (Answers("unsupported"), True, set()),
    ],
)
def test_each_condition_is_a_finding(answers: Answers, single: bool, bad: set[str]) -> None:
    """A single publisher can live without any of them."""
    checks = check_preconditions(answers, single_publisher=single)
    assert bad == {check.name for check in checks if check.level == "bad"}


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/home", "ext4"),
        ("/volume1/my music/store", "nfs4"),
        ("/volume1/my music2", "ext4"),
        ("/mnt/usb/store", "exfat"),
    ],
)
def test_file_system_is_that_of_the_nearest_mount(path: str, name: str) -> None:
    assert name == find_file_system(MOUNTS, Path(path))
    assert find_file_system("garbage\n1 2 - 3", Path(path)) is None


def _levels(diagnosis: Diagnosis) -> dict[str, str]:
    return {check.name: check.level for check in diagnosis.checks}


def test_a_folder_is_found_sound_and_left_as_it_was(tmp_path: Path) -> None:
    """But for what any publish makes there."""
    diagnosis = examine_store(FolderStore(tmp_path))
    assert diagnosis.is_usable
    assert _levels(diagnosis)["locks"] == _levels(diagnosis)["same file system"] == "good"
    assert diagnosis.profile is not None
    assert diagnosis.profile.preconditions == "quoted"
    assert sorted(path.name for path in tmp_path.iterdir()) == [".incoming", ".lock"]
    assert list((tmp_path / ".incoming").iterdir()) == []


def test_a_folder_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    """A disk that is not mounted looks just so."""
    diagnosis = examine_store(FolderStore(tmp_path / "absent"))
    assert _levels(diagnosis) == {"the folder": "bad"}
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name == "nt", reason="folders have no modes there")
def test_a_folder_without_the_right_to_write_is_bad(unprivileged: Path) -> None:
    folder = unprivileged / "store"
    folder.mkdir()
    folder.chmod(0o500)
    diagnosis = examine_store(FolderStore(folder))
    assert _levels(diagnosis)["write in it"] == "bad"
    assert diagnosis.profile is None
    folder.chmod(0o700)


def test_locks_that_nobody_honours_are_bad(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a network drive that says yes to everyone."""
    monkeypatch.setattr("stores.locks._try_lock", lambda descriptor: True)
    store = FolderStore(tmp_path)
    assert _levels(examine_store(store))["locks"] == "bad"
    assert _levels(examine_store(store, single_publisher=True))["locks"] == "warning"
    diagnosis, state = examine_store(store), State(tmp_path / "state")
    store_diagnosis(diagnosis, state)
    monkeypatch.undo()
    with pytest.raises(UnsuitableStore, match="run `music-cloud doctor` again"):
        suit_store(store, state, NOW)
    store_diagnosis(examine_store(store), state)
    assert suit_store(store, state, NOW) is store


def test_a_drive_whose_clock_is_off_is_told(tmp_path: Path) -> None:
    late = examine_folder(
        FolderStore(tmp_path),
        lambda: datetime.now(UTC) + timedelta(hours=1),
        lambda: 0.0,
        single_publisher=False,
    )
    assert _levels(late)["clock"] == "warning"
    assert late.is_usable
    assert not [check for check in late.checks if "refuses" in check.advice]


def test_an_address_that_nobody_answers_at_is_bad() -> None:
    """RFC 6761, section 6.4: `invalid` never resolves."""
    diagnosis = examine_store(HttpStore("http://store.invalid/site"))
    assert _levels(diagnosis) == {"reach it": "bad"}


def test_only_what_one_can_publish_to_has_a_profile_to_keep(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    state = State(tmp_path / "state")
    assert not store_diagnosis(Diagnosis("http://x.example", "web", NOW, "1", ()), state)
    assert not state.folder.exists()
    diagnosis = examine_store(FolderStore(tmp_path / "store"))
    assert store_diagnosis(diagnosis, state)
    assert state.load_profile() == diagnosis.profile
