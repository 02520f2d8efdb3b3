"""Real clients, byte for byte: they know more about HTTP than any client that we would write."""

from __future__ import annotations

import json
import shutil
import subprocess
import wave
from pathlib import Path

import pytest

from tests.origin.conftest import FOREVER, Nas, content_of, link

CONTENT = content_of(5_000_003)


def run(*command: str | Path) -> str:
    """Run a client, which must exist and succeed; returns what it printed."""
    tool = str(command[0])
    if shutil.which(tool) is None:
        pytest.skip(f"{tool} is not installed")
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


@pytest.fixture
def song(nas: Nas) -> str:
    """The handle of two seconds of noise that every player can play."""
    with wave.open(str(nas.folder / "noise.wav"), "wb") as recording:
        recording.setparams((2, 2, 44_100, 0, "NONE", "not compressed"))
        recording.writeframes(content_of(2 * 44_100 * 4))
    return nas.add("艺人/noise.wav", (nas.folder / "noise.wav").read_bytes())


def test_curl(nas: Nas, base_url: str, tmp_path: Path) -> None:
    url, target = base_url + link(nas.add("a.flac", CONTENT), FOREVER), tmp_path / "got"
    run("curl", "--fail", "--silent", "--show-error", "--output", target, url)
    assert target.read_bytes() == CONTENT


def test_curl_resumes(nas: Nas, base_url: str, tmp_path: Path) -> None:
    url, target = base_url + link(nas.add("a.flac", CONTENT), FOREVER), tmp_path / "got"
    target.write_bytes(CONTENT[:1_234_567])
    printed = run(
        "curl", "--fail", "--silent", "--show-error", "-C", "-",
        "--write-out", "%{http_code} %{size_download}", "--output", target, url,
    )  # fmt: skip
    assert f"206 {len(CONTENT) - 1_234_567}" == printed
    assert target.read_bytes() == CONTENT


def test_aria2_with_four_connections(nas: Nas, base_url: str, tmp_path: Path) -> None:
    url = base_url + link(nas.add("a.flac", CONTENT), FOREVER)
    run(
        "aria2c", "--split=4", "--max-connection-per-server=4", "--min-split-size=1M",
        "--file-allocation=none", "--no-conf", "--quiet", f"--dir={tmp_path}", "--out=got", url,
    )  # fmt: skip
    assert (tmp_path / "got").read_bytes() == CONTENT


def test_ffprobe(song: str, base_url: str) -> None:
    printed = run(
        "ffprobe", "-v", "error", "-show_entries", "format=duration,format_name", "-of", "json",
        base_url + link(song, FOREVER),
    )  # fmt: skip
    found = json.loads(printed)["format"]
    assert (found["format_name"], float(found["duration"])) == ("wav", 2.0)


def test_mpv_plays_and_seeks(song: str, base_url: str) -> None:
    run(
        "mpv", "--no-config", "--no-video", "--ao=null", "--ao-null-untimed=yes", "--start=1",
        "--really-quiet", base_url + link(song, FOREVER),
    )  # fmt: skip


def test_curl_of_a_refused_link(song: str, base_url: str) -> None:
    """An error is read as easily as a file: small JSON."""
    printed = run("curl", "--silent", base_url + link(song, FOREVER)[:-1])
    assert json.loads(printed)["error"] == "unauthorized"
