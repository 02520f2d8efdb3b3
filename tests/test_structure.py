"""The rules of the house, held against the syntax tree."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# Each package and the packages of ours that it may import; imports only run downwards.
FLOORS = {
    "contracts": set[str](),
    "stores": {"contracts"},
    "publisher": {"contracts", "stores"},
    "mirror": {"contracts", "stores"},
    "origin": {"contracts", "stores"},
    "music_cloud": {"contracts", "stores", "publisher", "mirror", "origin"},
}
# Where a library may be imported: these files or packages and no others.
LIBRARIES = {
    "boto3": {"stores/s3.py"},
    "botocore": {"stores/s3.py"},
    "urllib3": {"stores/s3.py", "stores/http.py"},
    "tenacity": {"stores/retrying.py", "mirror/follow.py"},
    "litestar": {"origin"},
    "uvicorn": {"origin"},
    "click": {"music_cloud"},
    "rich": {"music_cloud"},
    "sqlite3": {"contracts/read_model.py", "publisher", "mirror", "origin", "music_cloud"},
}
# What the contracts may build on besides the standard library.
CONTRACTS_BUILD_ON = {"contracts", "msgspec", "compression", "backports", "cryptography"}
MAX_LINES = 400


def modules() -> list[Path]:
    return sorted(path for package in FLOORS for path in (ROOT / package).rglob("*.py"))


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module


def place(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", modules(), ids=place)
def test_imports_only_run_downwards(path: Path) -> None:
    package = place(path).split("/")[0]
    ours = {name.split(".")[0] for name in imports(path)} & set(FLOORS)
    assert ours <= FLOORS[package] | {package}
    assert not {name.split(".")[0] for name in imports(path)} & {"tests", "localstack", "benchmarks"}


@pytest.mark.parametrize("path", modules(), ids=place)
def test_a_library_is_imported_only_where_it_belongs(path: Path) -> None:
    here = place(path)
    for name in {name.split(".")[0] for name in imports(path)} & set(LIBRARIES):
        assert any(here == room or here.startswith(room + "/") for room in LIBRARIES[name]), name


def test_contracts_build_on_little() -> None:
    import sys

    used = {name.split(".")[0] for path in (ROOT / "contracts").rglob("*.py") for name in imports(path)}
    assert used - set(sys.stdlib_module_names) <= CONTRACTS_BUILD_ON


@pytest.mark.parametrize("path", modules(), ids=place)
def test_only_the_composition_root_reads_the_environment(path: Path) -> None:
    if place(path).startswith("music_cloud/"):
        return
    names = {
        node.attr for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.Attribute)
    }
    assert not names & {"environ", "getenv"}


@pytest.mark.parametrize("path", modules(), ids=place)
def test_files_are_small_and_say_what_they_keep(path: Path) -> None:
    text = path.read_text("utf-8")
    assert text.count("\n") <= MAX_LINES
    assert ast.get_docstring(ast.parse(text)), "a module says what it is for"
