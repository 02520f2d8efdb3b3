"""The threat model names the tests that hold it, and every attack that is played has its row."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parent.parent
MODEL = (TESTS.parent / "docs" / "security.md").read_text("utf-8")
PLAYED = ("test_attacks.py", "test_attacks_on_content.py", "test_clocks_and_disks.py")
# It counts what another test tries, and is no attack.
NOT_PLAYED = {"test_every_moment_at_which_a_disk_fills_up_is_tried"}


def names_in(path: Path) -> set[str]:
    tree = ast.parse(path.read_text("utf-8"))
    return {
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }


def rows() -> list[list[str]]:
    """The cells of each row of the three tables of attacks, but for their headings."""
    attacks = MODEL.partition("\n## Attacks\n")[2].partition("\n## ")[0]
    lines = [line for line in attacks.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [row for row in cells if row[-1] not in ("test", "---")]


def test_every_row_names_a_test_that_exists() -> None:
    there = {name for path in TESTS.rglob("test_*.py") for name in names_in(path)}
    assert len(rows()) > 40
    for row in rows():
        named = re.findall(r"`([^`]+)`", row[-1])
        assert named, row
        for name in named:
            assert name in there or (TESTS.parent / name).is_file(), name


@pytest.mark.parametrize("played", PLAYED)
def test_every_attack_that_is_played_has_its_row(played: str) -> None:
    named = {name for row in rows() for name in re.findall(r"`(test_[a-z0-9_]+)`", row[-1])}
    assert names_in(Path(__file__).parent / played) - named - NOT_PLAYED == set()


# Of issue "Trust and survival": what must be here, whatever else is.
@pytest.mark.parametrize(
    "attack",
    [
        "arbitrary manifest",
        "rollback",
        "fast-forward",
        "freeze",
        "equivocation",
        "another repository",
        "mix-and-match",
        "endless data",
        "slow retrieval",
        "decompression bomb",
        "wrong file",
        "lying size",
        "key that was retired",
        "hostile schema",
    ],
)
def test_attack_that_mirrors_must_survive_has_a_row(attack: str) -> None:
    assert [row for row in rows() if attack in row[0]]
