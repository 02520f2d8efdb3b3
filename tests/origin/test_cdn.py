"""The shipped caching nginx before `/catalog/`: what it asks the NAS for, and what it serves without."""

from __future__ import annotations

import json
import struct
import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import pytest
import urllib3

from contracts.layout import IMMUTABLE_CACHE_CONTROL, POINTER_CACHE_CONTROL
from localstack import find_nginx
from localstack.nginx import Nginx
from mirror import Mirror
from music_cloud.sample import evolve
from origin import create_app, serving
from publisher import PublishOptions, publish
from stores import FolderStore, HttpStore
from tests.origin.file_server import becomes
from tests.origin.shipped_nginx import Watched, shipped

pytestmark = pytest.mark.skipif(find_nginx() is None, reason="there is no nginx")

POINTER = "/catalog/manifest.json"
# ngx_http_file_cache_header_t begins with its version and the second until which it is fresh (nginx 1.22,
# ngx_http_cache.h); how long it may be stale counts from there.
_HEAD = struct.Struct("@Qq")
_HEAD_VERSION = 5


class Cdn:
    """A catalogue that is published into a folder, an origin before it, and nginx before that."""

    def __init__(self, folder: Path, catalogue: Path) -> None:
        self.folder = folder
        self.catalogue = catalogue
        self.store = FolderStore(folder / "store")
        self.origin = Watched(cast("Any", create_app(catalogue, catalog=folder / "store")))
        self._serving: AbstractContextManager[str] = serving(cast("Any", self.origin))
        self._origin_url = self._serving.__enter__()
        self.nginx = Nginx(folder / "nginx", self._configure)
        self.http = urllib3.PoolManager(retries=False)
        self._seeds = iter(range(1, 100))

    @property
    def url(self) -> str:
        return f"http://{self.nginx.addresses[0]}"

    def publish(self) -> None:
        evolve(self.catalogue, churn="hour", seed=next(self._seeds))
        publish(
            self.catalogue, self.store, self.folder / "state", PublishOptions(segment_bytes=64 << 10, level=1)
        )

    def get(self, path: str, headers: dict[str, str] | None = None) -> urllib3.BaseHTTPResponse:
        return self.http.request("GET", self.url + path, headers=headers)

    def status(self, path: str) -> str:
        return self.get(path).headers["X-Cache-Status"]

    def blob(self) -> str:
        """The path of the keyframe's first blob."""
        manifest = json.loads(self.get(POINTER).data)
        return f"/catalog/blobs/{manifest['keyframe']['blobs'][0]['digest']}"

    def age(self, seconds: int) -> None:
        """Let so many seconds pass for all that is in the cache."""
        for path in (self.folder / "cache").rglob("*"):
            if path.is_file():
                with path.open("r+b") as file:
                    version, fresh_until_s = _HEAD.unpack(file.read(_HEAD.size))
                    if version != _HEAD_VERSION:
                        pytest.skip("this nginx writes another cache")
                    file.seek(0)
                    file.write(_HEAD.pack(version, fresh_until_s - seconds))

    def take_origin_down(self) -> None:
        self._serving.__exit__(None, None, None)

    def mirror(self, name: str = "mirror") -> Mirror:
        return Mirror(
            self.folder / name,
            HttpStore(f"{self.url}/catalog"),
            unsigned=True,
        )

    def _configure(self, addresses: Sequence[str]) -> str:
        changes = {
            "listen 80;": f"listen {addresses[0]};",
            "server nas.example:8000;": f"server {urlsplit(self._origin_url).netloc};",
            "/var/cache/nginx/music-cloud": str(self.folder / "cache"),
        }
        return shipped("cdn.conf", changes)


@pytest.fixture
def cdn(tmp_path: Path, catalogue: Path) -> Iterator[Cdn]:
    made = Cdn(tmp_path / "cdn", catalogue)
    made.publish()
    with made.nginx:
        yield made
    made.http.clear()
    made.take_origin_down()


def test_blob_is_asked_for_once(cdn: Cdn) -> None:
    path = cdn.blob()
    first, second = cdn.get(path), cdn.get(path)
    assert (first.headers["X-Cache-Status"], second.headers["X-Cache-Status"]) == ("MISS", "HIT")
    assert first.data == second.data == (cdn.folder / "store" / path.removeprefix("/catalog/")).read_bytes()
    assert [asked for asked, _ in cdn.origin.requests].count(path) == 1
    for name in ("ETag", "Cache-Control", "Content-Type", "Repr-Digest", "Access-Control-Allow-Origin"):
        assert first.headers[name] == second.headers[name] == cdn.origin.answers[-1].headers[name.lower()]
    assert second.headers["Cache-Control"] == IMMUTABLE_CACHE_CONTROL
    # A year later it is asked whether it is still the same, and not fetched again.
    cdn.age(31_536_001)
    assert cdn.status(path) == "REVALIDATED"
    assert cdn.origin.answers[-1].status == 304


def test_many_who_ask_at_once_are_one_to_the_nas(cdn: Cdn) -> None:
    path = cdn.blob()
    threads = [threading.Thread(target=cdn.get, args=(path,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [asked for asked, _ in cdn.origin.requests].count(path) == 1


def test_query_is_no_other_object(cdn: Cdn) -> None:
    path = cdn.blob()
    cdn.get(path)
    assert cdn.status(f"{path}?{path}") == "HIT"


def test_range_of_a_cached_blob_is_cut_by_the_cdn(cdn: Cdn) -> None:
    path = cdn.blob()
    whole = cdn.get(path)
    for header, expected in (
        ("bytes=100-", whole.data[100:]),
        ("bytes=5-9", whole.data[5:10]),
        ("bytes=-7", whole.data[-7:]),
    ):
        part = cdn.get(path, {"Range": header})
        assert (206, expected, "HIT") == (part.status, part.data, part.headers["X-Cache-Status"])
        assert part.headers["Repr-Digest"] == whole.headers["Repr-Digest"]
    etag = whole.headers["ETag"]
    assert cdn.get(path, {"Range": "bytes=5-9", "If-Range": etag}).status == 206
    assert cdn.get(path, {"Range": "bytes=5-9", "If-Range": '"x"'}).status == 200
    assert cdn.get(path, {"If-None-Match": etag}).status == 304
    assert [asked for asked, _ in cdn.origin.requests].count(path) == 1


def test_range_of_a_blob_that_is_not_cached_fetches_all_of_it(cdn: Cdn) -> None:
    path = cdn.blob()
    part = cdn.get(path, {"Range": "bytes=5-9"})
    assert (part.status, len(part.data), part.headers["X-Cache-Status"]) == (206, 5, "MISS")
    assert cdn.status(path) == "HIT"
    assert cdn.origin.answers[-1].status == 200


def test_pointer_is_fresh_for_its_max_age_and_then_revalidates(cdn: Cdn) -> None:
    assert cdn.status(POINTER) == "MISS"
    answer = cdn.get(POINTER)
    assert (
        answer.headers["X-Cache-Status"],
        answer.headers["Cache-Control"],
    ) == ("HIT", POINTER_CACHE_CONTROL)
    cdn.age(15 + 60 + 1)  # max-age and stale-while-revalidate are over.
    assert cdn.status(POINTER) == "REVALIDATED"
    path, headers = cdn.origin.requests[-1]
    assert (POINTER, answer.headers["ETag"], 304) == (
        path,
        headers["if-none-match"],
        cdn.origin.answers[-1].status,
    )
    assert cdn.status(POINTER) == "HIT"


def test_pointer_that_changed_is_fetched(cdn: Cdn) -> None:
    old = cdn.get(POINTER).data
    cdn.publish()
    assert cdn.get(POINTER).data == old
    cdn.age(15 + 60 + 1)
    assert cdn.get(POINTER).data == (cdn.folder / "store/manifest.json").read_bytes() != old


def test_stale_pointer_is_served_while_it_is_renewed(cdn: Cdn) -> None:
    """RFC 5861, section 3: whoever asks does not wait for the NAS."""
    old = cdn.get(POINTER).data
    cdn.publish()
    cdn.age(15 + 1)
    stale = cdn.get(POINTER)
    assert (old, "STALE") == (stale.data, stale.headers["X-Cache-Status"])
    assert becomes(lambda: cdn.get(POINTER).data != old)


@pytest.mark.parametrize(("age_s", "expected"), [(86_000, 200), (86_400 + 15 + 60 + 1, 502)])
def test_stale_pointer_is_served_for_a_day_while_the_nas_is_away(cdn: Cdn, age_s: int, expected: int) -> None:
    """RFC 5861, section 4, and not longer: mirrors raise an alarm after that."""
    cdn.get(POINTER)
    cdn.take_origin_down()
    cdn.age(age_s)
    assert expected == cdn.get(POINTER).status


def test_store_that_is_not_mounted_is_unavailable_through_the_cdn_too(cdn: Cdn) -> None:
    """nginx takes a status that the origin chose for an answer (1.22): a mirror tries again later."""
    cdn.get(POINTER)
    cdn.age(15 + 60 + 1)
    (cdn.folder / "store").rename(cdn.folder / "unmounted")
    assert cdn.get(POINTER).status == 503
    (cdn.folder / "unmounted").rename(cdn.folder / "store")
    assert cdn.status(POINTER) == "REVALIDATED"


def test_error_is_not_kept(cdn: Cdn) -> None:
    path = f"/catalog/blobs/{'0' * 64}"
    assert (cdn.get(path).status, cdn.get(path).status) == (404, 404)
    assert [asked for asked, _ in cdn.origin.requests].count(path) == 2


def test_only_reads_of_the_catalogue_get_through(cdn: Cdn) -> None:
    asked = len(cdn.origin.requests)
    assert cdn.http.request("PUT", f"{cdn.url}{POINTER}", body=b"mine").status == 403
    for path in ("/healthz", "/api/private-origin/stream/x", "/listen/x", "/metrics"):
        assert cdn.get(path).status == 404
    assert asked == len(cdn.origin.requests)


def test_mirror_follows_through_the_cdn(cdn: Cdn) -> None:
    mirror = cdn.mirror()
    assert mirror.sync().outcome == "updated"
    cdn.publish()
    assert mirror.sync().outcome == "unchanged"  # Its pointer is not 15 seconds old.
    cdn.age(15 + 60 + 1)
    followed = mirror.sync()
    assert (followed.outcome, followed.fallback) == ("updated", None)
    # Another mirror costs the NAS nothing but the blobs that the first did not need.
    blobs = {path for path, _ in cdn.origin.requests if "/blobs/" in path}
    assert cdn.mirror("another").sync().outcome == "updated"
    paths = [path for path, _ in cdn.origin.requests if "/blobs/" in path]
    assert blobs <= set(paths) and len(paths) == len(set(paths))


def test_mirror_goes_on_while_the_nas_is_away(cdn: Cdn) -> None:
    """No alarm; and a mirror that is made meanwhile gets all that the CDN has."""
    mirror = cdn.mirror()
    assert mirror.sync().outcome == "updated"
    cdn.take_origin_down()
    cdn.age(3600)
    assert mirror.sync().outcome == "unchanged"
    assert cdn.mirror("another").sync().outcome == "updated"


def test_mirror_that_has_seen_more_than_the_cdn_calls_it_stale(cdn: Cdn) -> None:
    edge = cdn.mirror()
    edge.sync()
    cdn.publish()
    direct = Mirror(cdn.folder / "mirror", cdn.store, unsigned=True)
    assert direct.sync().outcome == "updated"
    cdn.take_origin_down()
    cdn.age(3600)
    assert edge.sync().outcome == "stale"
