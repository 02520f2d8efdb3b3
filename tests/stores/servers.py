"""S3 servers that the suite meets beside SeaweedFS: rclone's, which ignores conditions, and moto's dialect.

Invariant: each runs on the loopback interface, on a free port, with its HOME in one temporary folder, and
ends with this process however that ends (localstack/tether.py).
"""

from __future__ import annotations

import shutil
import sys
import sysconfig
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from localstack import Bucket
from localstack.errors import quote_tail
from localstack.ports import LOOPBACK, find_free_ports
from localstack.tether import Tethered

ACCESS_KEY, SECRET_KEY, REGION = "localstack", "localstack-secret", "us-east-1"
BUCKET = "test-stores"
_ATTEMPTS = 5  # another program may take a port before ours does
_READY_WITHIN_S = 60.0  # rclone takes 0.1 s, moto 2 s
_STOP_WITHIN_S = 10.0


@contextmanager
def serve_rclone(folder: Path) -> Iterator[Bucket]:
    """A bucket on `rclone serve s3`, which answers "written" to whatever condition."""
    (folder / "data").mkdir()
    keys = f"--auth-key={ACCESS_KEY},{SECRET_KEY}"
    with _serve("rclone", ["serve", "s3", keys, "--addr", "{address}", "data"], folder) as bucket:
        yield bucket


@contextmanager
def serve_moto(folder: Path) -> Iterator[Bucket]:
    """A bucket on moto's server, which answers as AWS does: 404 to an update of what is gone."""
    with _serve("moto_server", ["-H", LOOPBACK, "-p", "{port}"], folder) as bucket:
        yield bucket


def client(endpoint_url: str) -> Any:
    """A boto3 client of such a server, for the caller to close."""
    return boto3.session.Session().client(
        "s3",
        endpoint_url=endpoint_url,
        aws_access_key_id=ACCESS_KEY,
        aws_secret_access_key=SECRET_KEY,
        region_name=REGION,
        config=Config(
            s3={"addressing_style": "path"},
            retries={"total_max_attempts": 1},
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            proxies={},
        ),
    )


@contextmanager
def _serve(program: str, arguments: list[str], folder: Path) -> Iterator[Bucket]:
    path = shutil.which(program, path=sysconfig.get_path("scripts")) or shutil.which(
        program, path=str(Path(sys.executable).parent)
    )
    assert path is not None, f"{program} is not installed beside this Python"
    log = folder / "server.log"
    for _ in range(_ATTEMPTS):
        (port,) = find_free_ports(1)
        told = [argument.format(address=f"{LOOPBACK}:{port}", port=port) for argument in arguments]
        env = {"HOME": str(folder), "TMPDIR": str(folder), "RCLONE_CONFIG": str(folder / "rclone.conf")}
        child = Tethered([path, *told], cwd=folder, env=env, log=log)
        try:
            url = f"http://{LOOPBACK}:{port}"
            if not _is_ready(child, url):
                continue
            yield Bucket(url, BUCKET, ACCESS_KEY, SECRET_KEY, REGION, f"{url}/{BUCKET}")
            return
        finally:
            child.stop(_STOP_WITHIN_S)
    raise RuntimeError(f"{program} did not start:\n{quote_tail(log)}")


def _is_ready(child: Tethered, url: str) -> bool:
    """Whether it made the bucket in time; a stranger on its port cannot pass for it: ours ends then."""
    deadline = time.monotonic() + _READY_WITHIN_S
    with closing(client(url)) as made:
        while time.monotonic() < deadline:
            try:
                made.create_bucket(Bucket=BUCKET)
            except (BotoCoreError, ClientError):
                if child.has_ended(within_s=0.05):
                    return False
            else:
                return not child.has_ended()
    return False
