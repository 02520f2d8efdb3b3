"""`python -m localstack up`: the whole local stack until Ctrl-C, with lines to paste into another shell."""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
from pathlib import Path

from localstack import CachingProxy, LocalStackError, SeaweedFS, find_nginx

BUCKET = "music"


def main() -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m localstack", description="A local S3 server and CDN.")
    commands = parser.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up", help="start SeaweedFS, and nginx in front of it if there is one; wait")
    up.add_argument("--folder", type=Path, default=Path(".localstack"), help="keeps the data (%(default)s)")
    try:
        run_until_told_to_end(parser.parse_args().folder)
    except LocalStackError as error:
        print(f"localstack: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 0
    return 0


def run_until_told_to_end(folder: Path) -> None:
    """Start everything, say how to reach it, and return never: SIGTERM and Ctrl-C raise KeyboardInterrupt."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with contextlib.ExitStack() as stack:
        store = stack.enter_context(SeaweedFS(folder / "seaweedfs", buckets=(BUCKET,)))
        public_url = store.public_url(BUCKET)
        print(f"# SeaweedFS is running; its log is {store.log}")
        print(f"export MUSIC_CLOUD_S3_ENDPOINT={store.endpoint_url}")
        print(f"export AWS_ACCESS_KEY_ID={store.access_key} AWS_SECRET_ACCESS_KEY={store.secret_key}")
        print(f"export AWS_REGION={store.region}")
        if find_nginx():
            public_url = stack.enter_context(CachingProxy(folder / "nginx", public_url)).url
            print(f"# nginx caches the bucket {BUCKET!r} in front of it")
        print("# publish and mirror, in two other shells:")
        print(f"#   music-cloud publish --db catalogsync.db --store s3://{BUCKET}/catalog")
        print(f"#   music-cloud mirror --from {public_url}/catalog --to ./mirror --follow --unsigned")
        print("# Ctrl-C stops everything and keeps the data", flush=True)
        while True:
            signal.pause()


if __name__ == "__main__":
    sys.exit(main())
