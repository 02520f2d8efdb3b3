"""The server that all other tests rely on does what they rely on: preconditions, credentials, durability.

Statuses are those of the S3 API reference for conditional requests, and of RFC 9110 section 13.1.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import urllib3
from botocore.exceptions import ClientError

from localstack import Bucket, SeaweedFS

GONE_WITHIN_MS = 10_000


@pytest.fixture
def client(seaweed: SeaweedFS) -> Iterator[Any]:
    with contextlib.closing(seaweed.client(attempts=1)) as made:
        yield made


def status_of(call: Callable[..., dict[str, Any]], **arguments: object) -> int:
    """Return the HTTP status of a call, whether boto3 makes an answer or an error of it."""
    try:
        answer: Any = call(**arguments)
    except ClientError as error:
        answer = error.response
    return int(answer["ResponseMetadata"]["HTTPStatusCode"])


def anonymous_get(url: str) -> tuple[int, bytes]:
    with urllib3.PoolManager(retries=False) as pool:
        answer = pool.request("GET", url)
        return answer.status, answer.data


def test_what_was_put_can_be_had(client: Any, bucket: Bucket) -> None:
    client.put_object(Bucket=bucket.bucket, Key="blobs/a", Body=b"bytes")
    assert client.get_object(Bucket=bucket.bucket, Key="blobs/a")["Body"].read() == b"bytes"


def test_create_only_refuses_what_exists(client: Any, bucket: Bucket) -> None:
    """If-None-Match: * succeeds once (RFC 9110 section 13.1.2)."""
    put = {"Bucket": bucket.bucket, "Key": "blobs/a", "Body": b"1", "IfNoneMatch": "*"}
    assert status_of(client.put_object, **put) == 200
    assert status_of(client.put_object, **put) == 412


def test_swap_needs_the_current_etag(client: Any, bucket: Bucket) -> None:
    """If-Match with the current ETag replaces, with any other it does not (RFC 9110 section 13.1.1)."""
    where = {"Bucket": bucket.bucket, "Key": "manifest.json"}
    first = client.put_object(**where, Body=b"1")["ETag"]
    assert status_of(client.put_object, **where, Body=b"2", IfMatch=first) == 200
    assert status_of(client.put_object, **where, Body=b"3", IfMatch=first) == 412
    assert client.get_object(**where)["Body"].read() == b"2"


@pytest.mark.parametrize(("attribute", "value"), [("access_key", "nobody"), ("secret_key", "wrong")])
def test_wrong_credentials_are_refused(
    seaweed: SeaweedFS, bucket: Bucket, monkeypatch: pytest.MonkeyPatch, attribute: str, value: str
) -> None:
    monkeypatch.setattr(seaweed, attribute, value)
    with contextlib.closing(seaweed.client(attempts=1)) as stranger:
        assert status_of(stranger.put_object, Bucket=bucket.bucket, Key="a", Body=b"1") == 403


def test_anyone_may_read_a_public_bucket_and_nothing_more(client: Any, bucket: Bucket) -> None:
    client.put_object(Bucket=bucket.bucket, Key="manifest.json", Body=b"{}")
    assert anonymous_get(f"{bucket.public_url}/manifest.json") == (200, b"{}")
    assert anonymous_get(bucket.public_url)[0] == 403


def test_nobody_reads_a_private_bucket_without_credentials(seaweed: SeaweedFS, client: Any) -> None:
    private = seaweed.create_bucket("test-private", public_read=False)
    client.put_object(Bucket=private.bucket, Key="manifest.json", Body=b"{}")
    assert anonymous_get(f"{private.public_url}/manifest.json")[0] == 403
    seaweed.delete_bucket(private.bucket)


def test_it_keeps_what_it_stored_through_a_crash_and_leaves_nothing_behind(tmp_path: Path) -> None:
    server = SeaweedFS(tmp_path)
    with server, contextlib.closing(server.client()) as client:
        client.put_object(Bucket="music", Key="a", Body=b"kept", Metadata={"colour": "blue"})
        server.kill()
        server.start()
        answer = client.get_object(Bucket="music", Key="a")
        assert (answer["Body"].read(), answer["Metadata"]) == (b"kept", {"colour": "blue"})
        assert anonymous_get(f"{server.public_url('music')}/a") == (200, b"kept")
        pid = server.pid
        assert server.socket_files
    assert not server.socket_files
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_it_ends_when_its_owner_is_killed(tmp_path: Path) -> None:
    """No atexit handler runs after a SIGKILL: the kernel has to end the server."""
    if sys.platform != "linux":
        pytest.skip("only Linux tells a child that its parent was killed")
    program = (
        "import json, localstack, pathlib, sys\n"
        "server = localstack.SeaweedFS(pathlib.Path(sys.argv[1]))\n"
        "server.start()\n"
        "print(json.dumps([server.pid, *map(str, server.socket_files)]), flush=True)\n"
        "sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    root = Path(__file__).parents[2]
    with subprocess.Popen(command, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as owner:
        assert owner.stdout is not None
        pid, *sockets = json.loads(owner.stdout.readline())
        watch = os.pidfd_open(pid)
        owner.kill()
    try:
        poll = select.poll()
        poll.register(watch, select.POLLIN)  # readable when the process has ended, pidfd_open(2)
        assert poll.poll(GONE_WITHIN_MS), "the server outlived its owner"
    finally:
        os.close(watch)
        for path in sockets:  # there was nobody left to do it
            Path(path).unlink(missing_ok=True)
