"""`/catalog/`: only the layout's names, each with its digest as entity tag and its caching header."""

from __future__ import annotations

from base64 import b64decode
from hashlib import sha256
from pathlib import Path

import pytest
from litestar import Litestar

from contracts.layout import IMMUTABLE_CACHE_CONTROL, POINTER_CACHE_CONTROL, blob_key, manifest_key
from tests.origin.asgi import call
from tests.origin.conftest import Nas, content_of, origin_app

BLOB = content_of(400_000)
MANIFEST = b'{"sequence": 1}'


@pytest.fixture
def store(tmp_path: Path) -> Path:
    folder = tmp_path / "store"
    for key, content in (
        ("manifest.json", MANIFEST),
        (manifest_key(sha256(MANIFEST).hexdigest()), MANIFEST),
        (blob_key(sha256(BLOB).hexdigest()), BLOB),
        (f"manifests/{sha256(MANIFEST).hexdigest()}.minisig", b"signature"),
        ("keys/0123456789ABCDEF.json", b"{}"),
        ("secret.txt", b"no name of the layout"),
        (".lock", b""),
    ):
        path = folder / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


@pytest.fixture
def app(nas: Nas, store: Path) -> Litestar:
    return origin_app(nas, catalog=store)


def test_blob_is_immutable_and_named_by_its_digest(app: Litestar) -> None:
    digest = sha256(BLOB).hexdigest()
    answer = call(app, f"/catalog/blobs/{digest}")
    assert (answer.status, answer.body) == (200, BLOB)
    assert (f'"{digest}"', IMMUTABLE_CACHE_CONTROL) == (
        answer.headers["etag"],
        answer.headers["cache-control"],
    )
    assert answer.headers["content-type"] == "application/zstd"
    part = call(app, f"/catalog/blobs/{digest}", {"Range": "bytes=100-"})
    assert (206, BLOB[100:]) == (part.status, part.body)
    assert call(app, f"/catalog/blobs/{digest}", {"If-None-Match": f'"{digest}"'}).status == 304
    head = call(app, f"/catalog/blobs/{digest}", method="HEAD")
    assert (head.status, head.body, head.headers["content-length"]) == (200, b"", "400000")


def test_pointer_revalidates_by_the_digest_of_its_bytes(app: Litestar, store: Path) -> None:
    answer = call(app, "/catalog/manifest.json")
    etag = f'"{sha256(MANIFEST).hexdigest()}"'
    assert (200, MANIFEST, etag) == (answer.status, answer.body, answer.headers["etag"])
    assert answer.headers["cache-control"] == POINTER_CACHE_CONTROL
    assert call(app, "/catalog/manifest.json", {"If-None-Match": etag}).status == 304
    (store / "manifest.json").write_bytes(MANIFEST + b" ")
    assert call(app, "/catalog/manifest.json", {"If-None-Match": etag}).status == 200


@pytest.mark.parametrize(
    ("method", "headers", "status"),
    [
        ("GET", {}, 200),
        ("HEAD", {}, 200),
        ("GET", {"Range": "bytes=10-18"}, 206),
        ("GET", {"Range": "bytes=0-0,-1"}, 206),
    ],
)
def test_digest_is_of_the_whole_blob(
    app: Litestar, store: Path, method: str, headers: dict[str, str], status: int
) -> None:
    """RFC 9530, appendices B.1 to B.3, have this content and this digest, with a range and with HEAD."""
    content = b'{"hello": "world"}\n'
    key = blob_key(sha256(content).hexdigest())
    (store / key).write_bytes(content)
    answer = call(app, f"/catalog/{key}", headers, method)
    expected = "sha-256=:RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg=:"
    assert (status, expected) == (answer.status, answer.headers["repr-digest"])


def test_every_object_has_its_digest(app: Litestar) -> None:
    digest = sha256(MANIFEST).hexdigest()
    for key in ("manifest.json", f"manifests/{digest}.json"):
        answer = call(app, f"/catalog/{key}", {"Want-Repr-Digest": "sha-512=10"})
        assert digest == b64decode(answer.headers["repr-digest"].split(":")[1]).hex()


@pytest.mark.parametrize(
    ("headers", "status"),
    [({"If-None-Match": "*"}, 304), ({"If-Match": '"x"'}, 412), ({"Range": "bytes=-0"}, 416)],
)
def test_no_digest_of_what_is_not_sent(app: Litestar, headers: dict[str, str], status: int) -> None:
    """RFC 9110, section 15.4.5: 304 SHOULD NOT have it; and an error's body is another representation."""
    answer = call(app, "/catalog/manifest.json", headers)
    assert (status, False) == (answer.status, "repr-digest" in answer.headers)


def test_other_names_of_the_layout(app: Litestar) -> None:
    digest = sha256(MANIFEST).hexdigest()
    for key in (f"manifests/{digest}.json", f"manifests/{digest}.minisig", "keys/0123456789ABCDEF.json"):
        answer = call(app, f"/catalog/{key}")
        assert (answer.status, answer.headers["cache-control"]) == (200, IMMUTABLE_CACHE_CONTROL)


@pytest.mark.parametrize(
    "key",
    [
        "", "secret.txt", ".lock", "blobs", "blobs/", "blobs/x", "manifest.json/", "./manifest.json",
        "blobs/../manifest.json", "Manifest.json", "blobs/" + "0" * 64, "manifest.json%00",
        "..%2fstore/manifest.json",
    ],
)  # fmt: skip
def test_nothing_else_exists(app: Litestar, key: str) -> None:
    answer = call(app, f"/catalog/{key}")
    assert (answer.status, answer.headers["cache-control"]) == (404, "no-store")


def test_link_in_the_store_is_refused(app: Litestar, store: Path) -> None:
    (store / "manifest.json").rename(store / "real.json")
    (store / "manifest.json").symlink_to("real.json")
    assert call(app, "/catalog/manifest.json").status == 404


def test_store_that_is_away_is_unavailable_not_empty(app: Litestar, store: Path) -> None:
    """A mirror takes 404 for an answer."""
    store.rename(store.with_name("unmounted"))
    assert call(app, "/catalog/manifest.json").status == 503


def test_methods(app: Litestar) -> None:
    assert call(app, "/catalog/manifest.json", method="OPTIONS").status == 204
    assert call(app, "/catalog/manifest.json", method="PUT").status == 405
