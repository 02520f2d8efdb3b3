"""REDbot, which knows HTTP better than most servers, finds no error that it can be shown to be right about.

REDbot checks a response by itself, and asks again for a range, for a compressed form and with each
validator. It runs in a process of its own, because its event loop belongs to the whole process.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from time import time
from typing import Any
from urllib.request import urlopen

import pytest

from contracts.layout import blob_key
from origin import create_app, serving
from tests.origin.conftest import SECRET, content_of, link, make_nas

pytestmark = pytest.mark.skipif(not find_spec("redbot"), reason="REDbot (PyPI: redbot) is not installed")

# Asks for everything at once, and writes the names of the notes at the level "bad", with the subject.
_PROGRAM = """
import json, sys
import thor
from configparser import ConfigParser
from redbot.resource import HttpResource

config = ConfigParser()
config.read_dict({"redbot": {"enable_local_access": "True"}})
resources = {}
for name, (method, url, headers) in json.load(sys.stdin).items():
    resources[name] = HttpResource(config["redbot"])
    resources[name].set_request(url, method=method, headers=list(headers.items()))
waiting = set(resources)

def done(name):
    waiting.discard(name)
    if not waiting:
        thor.stop()

for name, resource in resources.items():
    resource.on("check_done", lambda name=name: done(name))
for resource in resources.values():
    resource.check()
thor.run()
found = {}
for name, resource in resources.items():
    fetched = [resource, *resource.subreqs.values()]
    notes = [note for one in fetched for note in one.response.notes]
    found[name] = {
        "status": resource.response.status_code,
        "supported": [resource.partial_support, resource.inm_support, resource.ims_support],
        "errors": sorted({type(note).__name__ for note in notes if note.level.value == "bad"}),
        "failed": [str(one.fetch_error) for one in fetched if one.fetch_error],
    }
json.dump(found, sys.stdout)
"""

# What REDbot 2.7.1 is wrong about, by resource, and why.
_MISTAKEN = {
    # "A server MUST NOT generate a Content-Range header field in the header section of a multiple part
    # response": RFC 9110, section 15.3.7.2.
    "several ranges": ["PARTIAL_WITHOUT_RANGE"],
    # It takes this answer for one to something else than a preflight, because it does not tell its linter
    # what the request was.
    "a preflight": ["CORS_PREFLIGHT_ONLY"],
}
_STATUSES = {
    "an audio file": 200,
    "a file with a name": 200,
    "HEAD": 200,
    "one range": 206,
    "several ranges": 206,
    "not modified": 304,
    "a preflight": 204,
    "a token that is none": 401,
    "an unknown path": 404,
    "another method": 405,
    "an expired token": 410,
    "a precondition that fails": 412,
    "a range beyond the end": 416,
    "a blob": 200,
    "the pointer": 200,
    "no blob": 404,
    "health": 200,
}


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("redbot")
    nas = make_nas(folder)
    # The bytes of a FLAC file's beginning, because REDbot sniffs: RFC 9639, section 8.
    (nas.music / "a.flac").write_bytes(b"fLaC" + content_of(20_000))
    os.utime(nas.music / "a.flac", (784_111_777, 784_111_777))
    blob = b"\x28\xb5\x2f\xfd" + content_of(5000)  # RFC 8878, section 3.1.1
    blob_path = _written(folder / "store", blob_key(sha256(blob).hexdigest()), blob)
    _written(folder / "store", "manifest.json", b'{"sequence": 1}' + b" " * 1000)
    app = create_app(nas.db_path, catalog=folder / "store")
    app.state.private_origin_secret = SECRET
    with serving(app) as url:
        audio = url + link("a.flac", int(time()) + 600)
        named = url + link(
            "a.flac", int(time()) + 600, file_name='周 "x" 100%.flac', disposition="attachment"
        )
        with urlopen(audio) as response:
            etag = response.headers["etag"]
        preflight = {
            "Origin": "https://player.example",
            "Access-Control-Request-Method": "GET",
            "Access-Control-Request-Headers": "range",
        }
        requests = {
            "an audio file": ("GET", audio, {}),
            "a file with a name": ("GET", named, {}),
            "HEAD": ("HEAD", audio, {}),
            "one range": ("GET", audio, {"Range": "bytes=0-99"}),
            "several ranges": ("GET", audio, {"Range": "bytes=0-9,900-909"}),
            "not modified": ("GET", audio, {"If-None-Match": etag}),
            "a preflight": ("OPTIONS", audio, preflight),
            "a token that is none": ("GET", audio + "A", {}),
            "an unknown path": ("GET", url + "/nothing", {}),
            "another method": ("DELETE", audio, {}),
            "an expired token": ("GET", url + link("a.flac", 1), {}),
            "a precondition that fails": ("GET", audio, {"If-Match": '"x"'}),
            "a range beyond the end": ("GET", audio, {"Range": "bytes=90000-"}),
            "a blob": ("GET", f"{url}/catalog/{blob_path}", {}),
            "the pointer": ("GET", f"{url}/catalog/manifest.json", {}),
            "no blob": ("GET", f"{url}/catalog/{blob_key('0' * 64)}", {}),
            "health": ("GET", f"{url}/healthz", {}),
        }
        run = subprocess.run(
            [sys.executable, "-c", _PROGRAM],
            input=json.dumps(requests),
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert run.returncode == 0, run.stderr
    yield json.loads(run.stdout)


def _written(store: Path, key: str, content: bytes) -> str:
    path = store / key
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return key


@pytest.mark.parametrize("resource", list(_STATUSES))
def test_no_error(found: dict[str, Any], resource: str) -> None:
    """None but those that `_MISTAKEN` refutes; and none that it no longer finds is refuted."""
    assert found[resource]["failed"] == []
    assert _STATUSES[resource] == found[resource]["status"]
    assert _MISTAKEN.get(resource, []) == found[resource]["errors"]


@pytest.mark.parametrize("resource", ["an audio file", "a file with a name"])
def test_ranges_and_both_validators_work(found: dict[str, Any], resource: str) -> None:
    assert found[resource]["supported"] == [True, True, True]


def test_range_and_tag_of_a_blob_work(found: dict[str, Any]) -> None:
    """The catalogue sends no dates: two publications within a second would share one."""
    assert found["a blob"]["supported"] == [True, True, False]
