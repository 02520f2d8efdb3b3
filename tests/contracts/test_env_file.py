"""Env files: what systemd, Docker and shells all read in one way, and nothing that only one of them does."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.env_file import parse_env_file
from contracts.errors import MalformedError

KEYS = st.from_regex("[A-Za-z_][A-Za-z0-9_]*", fullmatch=True)
VALUES = st.text(st.characters(exclude_characters="\n", exclude_categories=["Cs"]))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", {}),
        ("\n \n# comment\n  # another\n", {}),
        ("A=1", {"A": "1"}),
        ("A=1\r\nB=2\r\n", {"A": "1", "B": "2"}),
        ("\ufeffA=1", {"A": "1"}),
        ("export A=1\nexport  B=2", {"A": "1", "B": "2"}),
        ("export=1", {"export": "1"}),
        ("  A = 1  ", {"A": "1"}),
        ("A=", {"A": ""}),
        ("A=''", {"A": ""}),
        ("A='1 2 '", {"A": "1 2 "}),
        ('A="it\'s"', {"A": "it's"}),
        ("A=a=b", {"A": "a=b"}),
        ("A=secret#1 # kept", {"A": "secret#1 # kept"}),
        ("A=$HOME `id` \\n", {"A": "$HOME `id` \\n"}),
        ("A=1\nA=2", {"A": "2"}),
        ("A=密钥", {"A": "密钥"}),
        ("A=a\u2028b\x85c\x0bd", {"A": "a\u2028b\x85c\x0bd"}),
    ],
    ids=ascii,
)
def test_assignments_are_read_as_they_stand(text: str, expected: dict[str, str]) -> None:
    """Nothing is expanded; only a line feed ends a line."""
    assert expected == parse_env_file(text)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("just words", 1),
        ("A=1\n\nhunter2", 3),
        ("1A=hunter2", 1),
        ("A-B=hunter2", 1),
        ("=hunter2", 1),
        ("A='hunter2", 1),
        ("#\nA=\"hunter2'", 2),
        ("A='", 1),
        ("A='hunter2' # comment", 1),
        ("É=hunter2", 1),
        ("set A=hunter2", 1),
    ],
)
def test_other_line_is_named_by_number_and_never_quoted(text: str, line: int) -> None:
    """A line that we do not understand may be a secret with a typing error before it."""
    with pytest.raises(MalformedError, match=rf"^line {line} of") as caught:
        parse_env_file(text)
    assert "hunter2" not in str(caught.value)


@given(st.dictionaries(KEYS, VALUES), st.sampled_from("'\""))
def test_quoted_values_survive_whatever_they_hold(values: dict[str, str], quote: str) -> None:
    """One pair of quotes is removed, and no more."""
    text = "\n".join(f"{key}={quote}{value}{quote}" for key, value in values.items())
    assert values == parse_env_file(text)


@given(st.text() | st.from_regex(re.compile("(export )?[A-Z]=[^\0]*\n?['\"]")))
def test_any_text_is_read_or_malformed(text: str) -> None:
    try:
        values = parse_env_file(text)
    except MalformedError:
        return
    assert all(re.fullmatch("[A-Za-z_][A-Za-z0-9_]*", key) and "\n" not in values[key] for key in values)
