"""Env files: `KEY=value` lines, as systemd's EnvironmentFile, Docker and shells read them alike.

Invariant: a line is an assignment, a comment or blank; nothing is guessed and nothing is expanded.
"""

from __future__ import annotations

import re

from contracts.errors import MalformedError

_ASSIGNMENT = re.compile(r"(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=\s*(.*)")


def parse_env_file(text: str) -> dict[str, str]:
    """The assignments of an env file; of two for one key the last counts.

    A value may stand in single or double quotes, which are removed; a `#` begins a comment only at the
    start of a line, so that secrets may hold one.
    Raises:
        MalformedError: naming the first line that is neither; never its content, which may be a secret.
    """
    values: dict[str, str] = {}
    for number, line in enumerate(text.removeprefix("\ufeff").split("\n"), 1):
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        match = _ASSIGNMENT.fullmatch(stripped)
        if match is None:
            raise MalformedError(f"line {number} of the env file is not KEY=value")
        value = match[2]
        if value[:1] in ("'", '"'):
            if len(value) < 2 or value[-1] != value[0]:
                raise MalformedError(f"line {number} of the env file has an unclosed quote")
            value = value[1:-1]
        values[match[1]] = value
    return values
