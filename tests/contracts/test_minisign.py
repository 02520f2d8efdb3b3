"""Signatures against the real minisign, both ways, and against vectors that it has made."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.errors import MalformedError, SignatureError, UnsupportedError
from contracts.minisign import (
    PublicKey,
    SecretKey,
    format_public_key,
    parse_public_key,
    parse_secret_key,
    parse_signature,
    verify_signature,
)

VECTORS: dict[str, str] = json.loads(
    (Path(__file__).parent.parent / "vectors" / "minisign.json").read_text("utf-8")
)
MESSAGE = VECTORS["message"].encode()
KEY = SecretKey(b"12345678", b"s" * 32)

Minisign = Callable[..., str]


@pytest.fixture
def minisign(tmp_path: Path) -> Minisign:
    """The real one, in a folder of its own; gives what it prints."""
    program = shutil.which("minisign")
    if program is None:
        pytest.skip("minisign from Debian's packages")

    def run(*arguments: str) -> str:
        return subprocess.run(
            [program, *arguments], cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60
        ).stdout

    return run


def verify(message: bytes, stored: bytes, key: PublicKey) -> None:
    verify_signature(message, parse_signature(stored), key)


def test_golden_signature_verifies() -> None:
    """Made by minisign 0.11."""
    key = parse_public_key(VECTORS["key.pub"])
    verify(MESSAGE, VECTORS["good.minisig"].encode(), key)
    comment = parse_signature(VECTORS["good.minisig"].encode()).trusted_comment
    assert comment == b"timestamp:1795348800\tfile:manifest.json\thashed"


def test_golden_key_signs_as_minisign_does() -> None:
    """Ed25519 is deterministic: all but the untrusted comment is the same."""
    key = parse_secret_key(VECTORS["plain.key"].encode())
    signed = key.sign(MESSAGE, "timestamp:1795348800\tfile:manifest.json\thashed")
    assert signed.split(b"\n")[1:] == VECTORS["good.minisig"].encode().split(b"\n")[1:]


def test_golden_key_id_is_as_minisign_shows_it() -> None:
    assert parse_public_key(VECTORS["key.pub"]).key_id == VECTORS["key_id"]
    assert parse_secret_key(VECTORS["plain.key"].encode()).public == parse_public_key(VECTORS["key.pub"])


def test_key_whose_password_was_removed_is_read() -> None:
    """As our refusal of the encrypted one says: `minisign -C -W`; such a key has a checksum."""
    opened = parse_secret_key(VECTORS["opened.key"].encode())
    assert opened.public == parse_public_key(VECTORS["encrypted.pub"])
    with pytest.raises(UnsupportedError, match="minisign -C -W"):
        parse_secret_key(VECTORS["encrypted.key"].encode())


def test_golden_legacy_signature_is_refused() -> None:
    with pytest.raises(SignatureError, match="legacy"):
        parse_signature(VECTORS["legacy.minisig"].encode())


def test_golden_signature_by_another_key_is_refused() -> None:
    with pytest.raises(SignatureError, match="signed by key A17791CAA29F2389, not by 97609ED012EE9655"):
        verify(MESSAGE, VECTORS["other.minisig"].encode(), parse_public_key(VECTORS["key.pub"]))


def test_minisign_verifies_ours(minisign: Minisign, tmp_path: Path) -> None:
    (tmp_path / "m").write_bytes(MESSAGE)
    (tmp_path / "m.minisig").write_bytes(KEY.sign(MESSAGE, "timestamp:1\tfile:m\thashed"))
    assert "Trusted comment: timestamp:1\tfile:m\thashed" in minisign("-Vm", "m", "-P", KEY.public.line)
    (tmp_path / "ours.pub").write_bytes(format_public_key(KEY.public))
    minisign("-Vm", "m", "-p", "ours.pub")
    (tmp_path / "m").write_bytes(MESSAGE + b"!")
    with pytest.raises(subprocess.CalledProcessError):
        minisign("-Vm", "m", "-P", KEY.public.line)


def test_minisign_signs_with_our_key_and_knows_its_public_half(minisign: Minisign, tmp_path: Path) -> None:
    (tmp_path / "m").write_bytes(MESSAGE)
    (tmp_path / "ours.key").write_bytes(KEY.format())
    minisign("-S", "-s", "ours.key", "-m", "m")
    verify(MESSAGE, (tmp_path / "m.minisig").read_bytes(), KEY.public)
    minisign("-R", "-s", "ours.key", "-p", "ours.pub")
    assert (tmp_path / "ours.pub").read_bytes() == format_public_key(KEY.public)


def test_fresh_key_of_minisign_signs_here_and_verifies_there(minisign: Minisign, tmp_path: Path) -> None:
    minisign("-G", "-W", "-p", "theirs.pub", "-s", "theirs.key")
    key = parse_secret_key((tmp_path / "theirs.key").read_bytes())
    assert key.public == parse_public_key((tmp_path / "theirs.pub").read_text())
    (tmp_path / "m").write_bytes(MESSAGE)
    (tmp_path / "m.minisig").write_bytes(key.sign(MESSAGE, "x"))
    minisign("-Vm", "m", "-p", "theirs.pub")


def test_minisign_shows_the_same_key_id_but_for_leading_zeros(minisign: Minisign, tmp_path: Path) -> None:
    key = SecretKey(b"\x08" + bytes(7), b"s" * 32)
    (tmp_path / "k.key").write_bytes(key.format())
    minisign("-R", "-s", "k.key", "-p", "k.pub")
    shown = (tmp_path / "k.pub").read_text().split("\n")[0].split()[-1]
    assert (shown, key.public.key_id) == ("8", "0000000000000008")


@pytest.mark.parametrize("number", [b"12345678", VECTORS["key_id"][:8].encode()])
def test_same_input_gives_the_same_signature(number: bytes) -> None:
    """So that a publish which is repeated finds its own object."""
    first, second = SecretKey(number, b"s" * 32), SecretKey(number, b"s" * 32)
    assert first.sign(b"m", "c") == second.sign(b"m", "c")


@given(st.binary(min_size=8, max_size=8), st.binary(min_size=32, max_size=32), st.binary(max_size=200))
def test_whatever_is_signed_verifies_and_keys_survive_their_files(
    number: bytes, seed: bytes, message: bytes
) -> None:
    key = SecretKey(number, seed)
    again = parse_secret_key(key.format())
    assert again.public == key.public == parse_public_key(format_public_key(key.public).decode())
    assert again.public == parse_public_key(key.public.line)
    verify(message, again.sign(message, "c"), key.public)


@pytest.mark.parametrize("text", ["{}", "{}\n", "  {}\r\n", "untrusted comment: mine\r\n{}\r\n"])
def test_public_key_may_be_pasted(text: str) -> None:
    assert parse_public_key(text.format(KEY.public.line)) == KEY.public


@pytest.mark.parametrize("comment", ["a\nb", "a\rb", "a\0b", "\x1b[2J", "a\u2028b", "x" * 8001])
def test_trusted_comment_that_is_no_line_is_not_signed(comment: str) -> None:
    with pytest.raises(MalformedError):
        KEY.sign(MESSAGE, comment)


def test_secret_key_shows_nothing_of_itself() -> None:
    secret = KEY.format().split(b"\n")[1].decode()
    assert repr(KEY) == str(KEY) == "<SecretKey 3837363534333231>"
    with pytest.raises(MalformedError, match="secret key; it never leaves") as caught:
        parse_public_key(secret)
    assert secret[100:120] not in str(caught.value)
