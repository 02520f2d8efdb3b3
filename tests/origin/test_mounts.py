"""What is mounted inside a root: refused with a reason that the operator sees, or followed if he says so."""

from __future__ import annotations

import errno
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner

from music_cloud.origin_commands import origin_command
from origin import OriginSettings, openat2, roots
from origin.roots import LocatorRefused, open_beneath
from tests.origin.asgi import call
from tests.origin.conftest import Nas, link, origin_app

_OPEN = """
import os, sys
from pathlib import Path
from origin import openat2
from origin.roots import LocatorRefused, known_file, open_beneath, open_if_cached
root, way = Path(sys.argv[1]), sys.argv[2]
if way == "by name":
    openat2.is_available = lambda: False
for path in ("a.mp3", "mounted/b.mp3", "single.mp3"):
    for follow in (False, True):
        try:
            descriptor = open_beneath(root, path, follow_mounts=follow)
        except LocatorRefused as refusal:
            print(path, follow, "mount" if "mount" in str(refusal) else refusal)
            continue
        known = known_file(root, path, os.fstat(descriptor))
        again = known and open_if_cached(known)
        print(path, follow, os.read(descriptor, 9).decode(), again and os.read(again[0], 9).decode())
"""


def mounted(tmp_path: Path, kind: str, way: str) -> list[str]:
    """What the program above says where something is mounted on a folder of the root, and on a file of it."""
    root, more = tmp_path / "music", tmp_path / "more"
    (root / "mounted").mkdir(parents=True)
    more.mkdir()
    (root / "a.mp3").write_bytes(b"inside")
    (root / "single.mp3").write_bytes(b"beneath")
    script = {
        "same device": 'mount --bind "$2" "$1/mounted" && printf folder >"$1/mounted/b.mp3"'
        ' && printf file >"$2/c.mp3" && mount --bind "$2/c.mp3" "$1/single.mp3"',
        "another device": 'mount -t tmpfs none "$1/mounted" && printf folder >"$1/mounted/b.mp3"'
        ' && printf file >"$1/mounted/c.mp3" && mount --bind "$1/mounted/c.mp3" "$1/single.mp3"',
    }[kind]
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", f'{script} && exec "$3" - "$1" "$4"', "sh"]
        + [str(each) for each in (root, more, sys.executable, way)],
        cwd=Path(__file__).parents[2],
        input=_OPEN,
        capture_output=True,
        text=True,
    )
    if done.returncode and "Traceback" not in done.stderr:
        pytest.skip("nothing can be mounted here")
    assert done.stderr == ""
    return done.stdout.splitlines()


@pytest.mark.skipif(sys.platform != "linux", reason="unshare(1)")
@pytest.mark.skipif(not openat2.can_ask_cache(), reason="needs Linux 5.12 and no seccomp filter")
@pytest.mark.parametrize("kind", ["same device", "another device"])
def test_kernel_refuses_every_mount_or_follows_it(tmp_path: Path, kind: str) -> None:
    """RESOLVE_NO_XDEV (openat2(2)): bind mounts too. What is followed is opened again without a thread."""
    assert mounted(tmp_path, kind, "by the kernel") == [
        "a.mp3 False inside inside",
        "a.mp3 True inside inside",
        "mounted/b.mp3 False mount",
        "mounted/b.mp3 True folder folder",
        "single.mp3 False mount",
        "single.mp3 True file file",
    ]


@pytest.mark.skipif(sys.platform != "linux", reason="unshare(1)")
def test_without_openat2_another_device_is_a_mount(tmp_path: Path) -> None:
    found = mounted(tmp_path, "another device", "by name")
    assert [line.split()[:3] for line in found] == [
        ["a.mp3", "False", "inside"],
        ["a.mp3", "True", "inside"],
        ["mounted/b.mp3", "False", "mount"],
        ["mounted/b.mp3", "True", "folder"],
        ["single.mp3", "False", "mount"],
        ["single.mp3", "True", "file"],
    ]


@pytest.mark.skipif(not hasattr(os, "O_NOFOLLOW"), reason="POSIX")
@pytest.mark.parametrize("changes_at", [1, 2])
def test_each_component_is_asked_for_its_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes_at: int
) -> None:
    """Where nothing can be mounted: a folder or a file that says it is on another device; nothing leaks."""
    (tmp_path / "artist").mkdir()
    (tmp_path / "artist" / "a.mp3").write_bytes(b"x")
    monkeypatch.setattr(openat2, "is_available", lambda: False)
    real, asked, closed = os.fstat, [], []

    def fstat(descriptor: int) -> Any:
        asked.append(descriptor)
        status = real(descriptor)
        is_other = len(asked) - 1 == changes_at
        return SimpleNamespace(st_dev=status.st_dev + is_other, st_mode=status.st_mode)

    def close(descriptor: int, really: Callable[[int], None] = os.close) -> None:
        closed.append(descriptor)
        really(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fstat", fstat)
        patch.setattr(os, "close", close)
        with pytest.raises(LocatorRefused, match="mount"):
            open_beneath(tmp_path, "artist/a.mp3")
    # The root, its duplicate, the folder, and the file if it came to that.
    assert len(closed) == 2 + changes_at
    os.close(open_beneath(tmp_path, "artist/a.mp3", follow_mounts=True))


@pytest.mark.parametrize("follows", [False, True])
def test_world_is_told_nothing_and_the_operator_why(
    nas: Nas, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, follows: bool
) -> None:
    real, asked = roots._open, []

    def refuse(root: Path, components: list[str], follow_mounts: bool) -> int:
        asked.append(follow_mounts)
        if not follow_mounts:
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), str(root))
        return real(root, components, follow_mounts)

    monkeypatch.setattr(roots, "_open", refuse)
    setting = f"MUSIC_CLOUD_FOLLOW_MOUNTS={str(follows).lower()}\n"
    (nas.folder / "origin.env").write_text(setting)
    path, gone = link(nas.add("a.mp3", b"x")), link(nas.add("b.mp3", b"x"))
    app = origin_app(nas)
    with caplog.at_level(logging.INFO, "origin"):
        answer = call(app, path)
    assert asked == [follows]
    if follows:
        assert (answer.status, answer.body) == (200, b"x")
        return
    (nas.music / "b.mp3").unlink()
    monkeypatch.setattr(roots, "_open", real)
    assert (answer.status, answer.body) == (404, call(app, gone).body)
    assert "--follow-mounts" in caplog.text
    assert "a.mp3" not in caplog.text


@pytest.mark.parametrize(("options", "follows"), [([], False), (["--follow-mounts"], True)])
def test_command_line_says_it(
    nas: Nas, monkeypatch: pytest.MonkeyPatch, options: list[str], follows: bool
) -> None:
    seen: list[OriginSettings] = []

    def stop(settings: OriginSettings) -> None:
        seen.append(settings)
        raise KeyboardInterrupt

    monkeypatch.setattr("origin.build_app", stop)
    CliRunner().invoke(origin_command, ["--db", str(nas.db_path), *options])
    assert [follows] == [settings.follow_mounts for settings in seen]


def test_catalog_on_a_mount_is_not_there_and_the_log_says_why(
    nas: Nas, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> int:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    monkeypatch.setattr(roots, "_open", refuse)
    (nas.folder / "store").mkdir()
    with caplog.at_level(logging.INFO, "origin"):
        answer = call(origin_app(nas, catalog=nas.folder / "store"), "/catalog/manifest.json")
    assert (answer.status, answer.headers["cache-control"]) == (404, "no-store")
    assert "--follow-mounts" in caplog.text
