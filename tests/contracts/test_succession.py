"""Succession: what an old key says of the new one, and what nobody else can say for it."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from contracts.errors import MalformedError, SignatureError
from contracts.minisign import SecretKey
from contracts.succession import SignedSuccession, sign_succession, succession_keys, verify_succession

OLD, NEW, EVIL = (SecretKey(number * 8, number * 32) for number in (b"o", b"n", b"e"))


def signed(stored: bytes, key: SecretKey = OLD) -> SignedSuccession:
    return SignedSuccession(stored, key.sign(stored, "c"))


def test_successor_is_whom_the_old_key_has_named() -> None:
    succession = sign_succession(OLD, NEW.public)
    assert verify_succession(succession, OLD.public) == NEW.public
    assert succession == sign_succession(OLD, NEW.public), "a repetition writes the same"


def test_objects_are_named_by_the_old_key() -> None:
    assert succession_keys(OLD.public.key_id) == (
        "keys/6F6F6F6F6F6F6F6F.json",
        "keys/6F6F6F6F6F6F6F6F.minisig",
    )


def test_bytes_are_as_documented() -> None:
    """docs/format.md, "Succession"."""
    stored = sign_succession(OLD, NEW.public).stored
    assert json.loads(stored) == {
        "format": "music-cloud/succession/1",
        "old_key": OLD.public.line,
        "new_key": NEW.public.line,
    }


def test_minisign_verifies_a_succession(tmp_path: Path) -> None:
    if shutil.which("minisign") is None:
        pytest.skip("minisign from Debian's packages")
    succession = sign_succession(OLD, NEW.public)
    (tmp_path / "s").write_bytes(succession.stored)
    (tmp_path / "s.minisig").write_bytes(succession.signature)
    subprocess.run(["minisign", "-Vqm", tmp_path / "s", "-P", OLD.public.line], check=True)


def test_stranger_cannot_name_a_successor() -> None:
    stored = sign_succession(OLD, EVIL.public).stored
    with pytest.raises(SignatureError):
        verify_succession(signed(stored, EVIL), OLD.public)
    borrowed = SecretKey(OLD.public.number, b"e" * 32)
    with pytest.raises(SignatureError):
        verify_succession(signed(stored, borrowed), OLD.public)


def test_signature_of_another_succession_is_refused() -> None:
    good = sign_succession(OLD, NEW.public)
    with pytest.raises(SignatureError):
        verify_succession(
            SignedSuccession(sign_succession(OLD, EVIL.public).stored, good.signature), OLD.public
        )


def test_signed_manifest_is_no_succession() -> None:
    """Whoever can write to the store could put one in the other's place."""
    for stored in (b'{"sequence":1}', b"[]", b"\xff", b"", b"[" * 2000):
        with pytest.raises(MalformedError):
            verify_succession(signed(stored), OLD.public)
    fields = json.loads(sign_succession(OLD, NEW.public).stored)
    for name in fields:
        with pytest.raises(MalformedError):
            verify_succession(signed(json.dumps({**fields, name: "x"}).encode()), OLD.public)
        rest = {other: fields[other] for other in fields if other != name}
        with pytest.raises(MalformedError):
            verify_succession(signed(json.dumps(rest).encode()), OLD.public)


def test_unknown_fields_are_ignored() -> None:
    fields = json.loads(sign_succession(OLD, NEW.public).stored) | {"later": 1}
    assert verify_succession(signed(json.dumps(fields).encode()), OLD.public) == NEW.public


def test_key_names_a_successor_only_for_itself() -> None:
    """A handover of one's other key, signed by this one."""
    with pytest.raises(MalformedError, match="another key"):
        verify_succession(signed(sign_succession(EVIL, NEW.public).stored), OLD.public)


def test_key_does_not_follow_itself() -> None:
    with pytest.raises(MalformedError):
        sign_succession(OLD, OLD.public)
    stored = sign_succession(OLD, NEW.public).stored.replace(
        NEW.public.line.encode(), OLD.public.line.encode()
    )
    with pytest.raises(MalformedError, match="itself"):
        verify_succession(signed(stored), OLD.public)
