"""history, rollback, status and verify as a person, a timer or a monitoring system meets them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from contracts.manifest import parse_manifest
from localstack import Bucket
from music_cloud.cli import run
from music_cloud.sample import evolve
from tests.stores.scripted_server import Request, ScriptedServer, http


class Nas:
    """A catalogue and a folder store, and the commands on them."""

    def __init__(self, catalogue: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.catalogue = catalogue
        self.bucket = folder / "bucket"
        self.mirror = folder / "mirror"
        self.store = str(self.bucket)
        self.error = ""
        self._capsys = capsys
        self._seed = 0

    def run(self, command: str, *arguments: str, code: int = 0) -> str:
        """The output of a command on this store."""
        store = ["--from" if command == "mirror" else "--store", self.store]
        found = run([command, *store, *arguments])
        printed = self._capsys.readouterr()
        self.error = printed.err
        assert (found, printed.err) == (code, printed.err)
        assert "Traceback" not in printed.err
        return printed.out

    def json(self, command: str, *arguments: str, code: int = 0) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(self.run(command, *arguments, "--json", code=code))
        return answer

    def publish(self, *arguments: str) -> dict[str, Any]:
        """Publish what an hour has changed."""
        self._seed += 1
        evolve(self.catalogue, churn="hour", seed=self._seed)
        return self.json("publish", "--db", str(self.catalogue), *arguments)

    def sync(self, *arguments: str) -> dict[str, Any]:
        return self.json("mirror", "--to", str(self.mirror), *(arguments or ["--unsigned"]))


@pytest.fixture
def nas(
    catalogue: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Nas]:
    for name in ("MUSIC_CLOUD_ENV_FILE", "MUSIC_CLOUD_STATE_DIR", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "xdg-state"))
    yield Nas(catalogue, tmp_path, capsys)


def use_bucket(monkeypatch: pytest.MonkeyPatch, bucket: Bucket) -> None:
    monkeypatch.setenv("MUSIC_CLOUD_S3_ENDPOINT", bucket.endpoint_url)
    monkeypatch.setenv("MUSIC_CLOUD_S3_ACCESS_KEY_ID", bucket.access_key)
    monkeypatch.setenv("MUSIC_CLOUD_S3_SECRET_ACCESS_KEY", bucket.secret_key)


def walk_the_road(nas: Nas, public: str | None = None) -> None:
    """Publish three times, go back, be held, go on; a mirror follows, and what is there is said of it all."""
    databases = [nas.publish()["snapshot_id"] for _ in range(3)]
    nas.sync()
    back = nas.json("rollback", "--to", "2")
    assert (back["outcome"], back["sequence"], back["snapshot_id"]) == ("published", 4, databases[1])
    assert nas.sync()["snapshot_id"] == databases[1]
    assert nas.publish()["outcome"] == "unchanged"
    status = nas.json("status", "--mirror", str(nas.mirror))
    assert (status["sequence"], status["is_good"], status["mirrors"][0]["behind"]) == (4, True, 0)
    assert status["held_since"] == back["held_since"]
    snapshots = nas.json("history")["snapshots"]
    assert [each["sequence"] for each in snapshots] == [4, 3, 2, 1]
    assert [each["snapshot_id"] for each in snapshots] == [databases[1], *reversed(databases)]
    assert [each["is_rollback"] for each in snapshots] == [True, False, False, False]
    assert [each["has_keyframe"] for each in snapshots][-1]
    resumed = nas.publish("--resume")
    assert (resumed["outcome"], resumed["sequence"], resumed["held_since"]) == ("published", 5, None)
    assert nas.sync()["snapshot_id"] == resumed["snapshot_id"]
    verified = nas.json("verify")
    assert (verified["is_good"], verified["manifests"], verified["orphans"]) == (True, 5, 0)


def test_the_road_in_a_folder(nas: Nas) -> None:
    walk_the_road(nas)


def test_the_road_on_a_real_s3_server_and_its_status_over_http(
    nas: Nas, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_bucket(monkeypatch, bucket)
    nas.store = f"s3://{bucket.bucket}/site"
    walk_the_road(nas)
    nas.store = f"{bucket.public_url}/site"
    assert nas.json("status", "--mirror", str(nas.mirror))["sequence"] == 5
    assert [each["sequence"] for each in nas.json("history", "--limit", "2")["snapshots"]] == [5, 4]
    nas.run("verify", code=2)  # what cannot be listed cannot be verified
    nas.run("rollback", "--to", "1", code=2)


def test_people_read_the_same(nas: Nas) -> None:
    nas.publish()
    nas.publish()
    nas.sync()
    assert nas.run("status", "--mirror", str(nas.mirror)).startswith("OK: snapshot 2, snap-playlists-")
    head, newest, oldest = nas.run("history").splitlines()
    assert head.split() == [
        *("sequence", "published", "snapshot", "playlists", "tracks", "files", "database", "delta")
    ]
    assert (newest.split()[0], oldest.split()[0]) == ("2", "1")
    assert "keyframe of" in oldest
    assert nas.run("verify", "--quick").startswith("OK: ")
    assert "would publish: snapshot 3" in nas.run("rollback", "--to", "1", "--dry-run")
    output = nas.run("rollback", "--to", "1")
    assert output.startswith("published: snapshot 3")
    assert "`music-cloud publish --resume` goes on" in output
    output = nas.run("publish", "--db", str(nas.catalogue))
    assert "held by a rollback since 20" in output
    assert "`music-cloud publish --resume` goes on" in output
    assert "rollback, held" in nas.run("history").splitlines()[1]
    assert "held by a rollback since" in nas.run("status")


@pytest.mark.parametrize("command", [["status"], ["history"], ["verify"], ["rollback", "--to", "1"]])
def test_a_store_that_was_never_published_to_is_a_sentence(nas: Nas, command: list[str]) -> None:
    nas.run(*command, code=1)
    assert nas.error.count("\n") == 1
    assert "nothing was ever published" in nas.error


@pytest.mark.parametrize(
    "command", [["rollback"], ["status", "--max-lag", "soon"], ["history", "--limit", "0"]]
)
def test_wrong_usage_is_exit_code_2(nas: Nas, command: list[str]) -> None:
    nas.run(*command, code=2)


def test_repair_and_dry_run_exclude_each_other(nas: Nas) -> None:
    nas.run("publish", "--db", str(nas.catalogue), "--repair", "--dry-run", code=2)


def test_an_unknown_snapshot_is_a_sentence_that_says_what_is_there(nas: Nas) -> None:
    nas.publish()
    nas.run("rollback", "--to", "7", code=1)
    assert nas.error.endswith("the store has 1 to 1, and `music-cloud history` lists them\n")


def test_history_lists_what_it_read_before_a_broken_link(nas: Nas) -> None:
    for _ in range(3):
        nas.publish()
    newest = parse_manifest((nas.bucket / "manifest.json").read_bytes())
    second = parse_manifest((nas.bucket / "manifests" / f"{newest.previous}.json").read_bytes())
    (nas.bucket / "manifests" / f"{second.previous}.json").unlink()
    answer = nas.json("history", code=1)
    assert [each["sequence"] for each in answer["snapshots"]] == [3, 2]
    assert second.previous in answer["broken"]
    assert f"{second.previous}" in nas.error


def test_status_says_how_far_a_mirror_is_behind_and_fails_when_it_is_too_long(nas: Nas) -> None:
    nas.publish()
    nas.sync()
    nas.publish()
    status = nas.json("status", "--mirror", str(nas.mirror))
    assert (status["is_good"], status["mirrors"][0]["behind"]) == (True, 1)
    missing = str(nas.bucket.parent / "no-mirror")
    status = nas.json("status", "--mirror", str(nas.mirror), "--mirror", missing, code=1)
    assert [missing in problem for problem in status["problems"]] == [True]
    assert nas.run("status", "--mirror", missing, code=1).startswith("ATTENTION: mirror")


def make_key(nas: Nas, name: str) -> tuple[str, str]:
    """A key: its secret file, and its public line."""
    path = nas.bucket.parent / f"{name}.key"
    run(["keygen", "--out", str(path), "--json"])
    return str(path), json.loads(nas._capsys.readouterr().out)["public_key"]


def test_signatures_are_judged_as_mirrors_do(nas: Nas) -> None:
    """Also after a key has handed over: what it signed before is known, and its successor may sign."""
    old, old_public = make_key(nas, "old")
    new, _ = make_key(nas, "new")
    _, stranger = make_key(nas, "stranger")
    nas.publish("--signing-key", old)
    assert nas.json("status")["signature"] == "unchecked"
    assert nas.json("status", "--public-key", old_public)["signature"] == "good"
    status = nas.json("status", "--public-key", stranger, code=1)
    assert (status["signature"], len(status["problems"])) == ("bad", 1)
    assert run(["rotate-key", "--store", nas.store, "--old", old, "--new", new]) == 0
    nas._capsys.readouterr()
    nas.publish("--signing-key", new)
    assert nas.json("status", "--public-key", old_public)["signature"] == "good"
    verified = nas.json("verify", "--public-key", old_public)
    assert (verified["signed"], verified["manifests"]) == (2, 2)
    verified = nas.json("verify", "--public-key", stranger, code=1)
    assert len(verified["findings"]) == 1
    nas.run("rollback", "--to", "1", "--signing-key", new, code=1)
    assert "not by" in nas.error
    back = nas.json("rollback", "--to", "1", "--signing-key", new, "--public-key", old_public)
    assert back["outcome"] == "published"
    assert nas.sync("--public-key", old_public)["sequence"] == 3


def test_an_unsigned_store_is_a_fault_only_for_whoever_names_a_key(nas: Nas) -> None:
    _, public = make_key(nas, "key")
    nas.publish()
    assert nas.json("status")["signature"] == "none"
    assert nas.json("status", "--public-key", public, code=1)["signature"] == "bad"


def _delete(blob: Path) -> None:
    blob.unlink()


def _damage(blob: Path) -> None:
    content = blob.read_bytes()
    blob.chmod(0o600)
    blob.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


@pytest.mark.parametrize("damage", [_delete, _damage])
def test_verify_names_what_is_wrong_and_publish_repairs_it(nas: Nas, damage: Callable[[Path], None]) -> None:
    nas.publish()
    digest = parse_manifest((nas.bucket / "manifest.json").read_bytes()).keyframe.blobs[0].digest
    damage(nas.bucket / "blobs" / digest)
    (finding,) = nas.json("verify", code=1)["findings"]
    assert (finding["key"], "publish --repair" in finding["advice"]) == (f"blobs/{digest}", True)
    first, second = nas.run("verify", code=1).splitlines()
    assert first.startswith("DAMAGED: 1 fault")
    assert digest in second
    output = nas.run("publish", "--db", str(nas.catalogue), "--repair")
    assert "repaired: 1 object" in output
    assert nas.json("verify")["is_good"]
    nas.sync()


def test_verify_wants_room_only_where_it_is_told(nas: Nas, tmp_path: Path) -> None:
    nas.publish()
    scratch = tmp_path / "scratch"
    nas.run("verify", "--scratch", str(scratch), code=2)
    scratch.mkdir()
    assert nas.json("verify", "--scratch", str(scratch))["is_whole"]
    assert list(scratch.iterdir()) == []


def test_a_rollback_asks_the_catalogue_for_places_when_it_is_given(nas: Nas) -> None:
    nas.publish()
    nas.publish()
    nas.run("rollback", "--to", "1", "--db", str(nas.catalogue) + ".missing", code=1)
    assert nas.json("rollback", "--to", "1", "--db", str(nas.catalogue))["outcome"] == "published"


def test_a_lost_state_folder_does_not_stand_in_the_way(nas: Nas, tmp_path: Path) -> None:
    nas.publish()
    nas.publish()
    shutil.rmtree(tmp_path / "xdg-state")
    assert nas.json("rollback", "--to", "1")["outcome"] == "published"


def test_unsigned_store_that_forbids_what_is_missing_is_no_failure(nas: Nas) -> None:
    """S3 answers 403 for a missing key where nobody may list the bucket: also for a signature."""
    nas.publish()

    def answer(request: Request) -> bytes:
        path = nas.bucket / request.path.lstrip("/")
        return http("200 OK", path.read_bytes()) if path.is_file() else http("403 Forbidden")

    with ScriptedServer(answer) as server:
        nas.store = server.url
        assert nas.json("status")["signature"] == "none"
        nas.store = f"{server.url}/elsewhere"  # of the pointer itself, 403 stays a refusal
        nas.run("status", code=1)
        assert "a missing object may look so too" in nas.error


def test_mirror_whose_folder_is_not_utf8_is_told_of(nas: Nas) -> None:
    """Names of files are bytes; JSON is not."""
    nas.publish()
    assert "was never synced" in nas.json("status", "--mirror", "/tmp/\udcff", code=1)["problems"][0]
    assert "was never synced" in nas.run("status", "--mirror", "/tmp/\udcff", code=1)
