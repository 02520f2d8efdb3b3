"""Digests against FIPS 180-4's examples, and pieces that are checked while they pass."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.digests import digest_bytes, digest_stream, verify_pieces
from contracts.errors import DigestMismatchError

# FIPS 180-4, the examples published with it.
EXAMPLES = {
    b"": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    b"abc": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
}


@pytest.mark.parametrize("content", EXAMPLES, ids=repr)
def test_digest_is_sha256_in_lower_case(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"skipped" + content)
    with path.open("rb") as stream:
        stream.seek(7)
        assert EXAMPLES[content] == digest_stream(stream)
    assert EXAMPLES[content] == digest_bytes(content)


@given(st.lists(st.binary(max_size=50), max_size=8))
def test_right_pieces_pass_unchanged(pieces: list[bytes]) -> None:
    whole = b"".join(pieces)
    passed = verify_pieces(pieces, "it", hashlib.sha256(whole).hexdigest(), len(whole))
    assert pieces == list(passed)


@pytest.mark.parametrize(
    ("pieces", "found"),
    [
        ([b"ab"], " in 2 bytes"),
        ([], " in 0 bytes"),
        ([b"ab", b"d"], " in 3 bytes"),
        ([b"ab", b"cd"], "more bytes"),
    ],
    ids=["short", "empty", "other", "long"],
)
def test_wrong_pieces_are_refused_with_what_was_found(pieces: list[bytes], found: str) -> None:
    with pytest.raises(DigestMismatchError) as caught:
        list(verify_pieces(pieces, "blobs/it", EXAMPLES[b"abc"], 3))
    assert caught.value.name == "blobs/it"
    assert caught.value.expected == f"{EXAMPLES[b'abc']} in 3 bytes"
    assert caught.value.found.endswith(found)


def test_endless_pieces_are_refused_as_soon_as_there_are_too_many() -> None:
    """Nothing is passed on beyond what was promised."""
    endless = iter(lambda: b"x" * 10, None)
    passed = []
    with pytest.raises(DigestMismatchError):
        for piece in verify_pieces(endless, "it", EXAMPLES[b"abc"], 25):
            passed.append(piece)
    assert passed == [b"x" * 10] * 2
