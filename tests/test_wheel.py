"""The wheel: what is in it, and that it works with nothing of the checkout around."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT],
        check=True,
        capture_output=True,
    )
    (path,) = folder.glob("*.whl")
    return path


def test_wheel_holds_exactly_the_packages(wheel: Path) -> None:
    """Never tests, localstack or benchmarks: LocalStack's own wheel uses that import name."""
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"][
        "wheel"
    ]
    names = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert {name for name in names if not name.endswith(".dist-info")} == set(declared["packages"])
    assert set(declared["packages"]) <= {
        "contracts",
        "stores",
        "publisher",
        "mirror",
        "origin",
        "music_cloud",
    }


def test_wheel_holds_the_listening_page(wheel: Path) -> None:
    """The only file of the packages that is no program."""
    assert zipfile.ZipFile(wheel).read("origin/listen.html") == (ROOT / "origin" / "listen.html").read_bytes()


def test_installed_command_runs_from_another_folder(wheel: Path, tmp_path: Path) -> None:
    """A clean environment that holds the wheel, and borrows only the dependencies of this one."""
    venv.create(tmp_path / "clean", with_pip=False)
    python = tmp_path / "clean" / ("Scripts" if os.name == "nt" else "bin") / "python"
    (site_packages,) = (tmp_path / "clean").rglob("site-packages")
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", site_packages, wheel],
        check=True,
    )
    ours = next(path for path in map(Path, sys.path) if path.name == "site-packages")
    # A .pth file would also run those of that folder, which put this checkout on the path.
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": f"{site_packages}{os.pathsep}{ours}"}
    (tmp_path / "elsewhere").mkdir()

    def run(*arguments: str) -> str:
        return subprocess.run(
            [python, "-m", *arguments],
            cwd=tmp_path / "elsewhere",
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        ).stdout

    assert run("music_cloud", "--version").startswith("music-cloud, version")
    run("music_cloud.sample", "--songs", "100", "--out", "catalogue.db")
    printed = run("music_cloud", "export-snapshot", "--db", "catalogue.db", "--target-dir", "snapshot")
    assert printed.startswith("exported snap-playlists-")
    code = "import publisher; print(publisher.__file__)"
    found = subprocess.run(
        [python, "-c", code], env=environment, cwd=tmp_path, capture_output=True, text=True
    )
    assert found.stdout.startswith(str(site_packages))
