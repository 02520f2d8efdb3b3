"""What must not pass for a signature or a key: changed, cut, misspelt, oversized, or of somebody else."""

from __future__ import annotations

import base64
from collections.abc import Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from contracts.errors import ContractError, MalformedError, SignatureError, UnsupportedError
from contracts.minisign import (
    SIGNATURE_MAX_BYTES,
    PublicKey,
    SecretKey,
    parse_public_key,
    parse_secret_key,
    parse_signature,
    verify_signature,
)

KEY = SecretKey(b"12345678", b"s" * 32)
OTHER = SecretKey(b"12345678", b"t" * 32)  # the same number: it is chosen by whoever makes a key
MESSAGE = b'{"sequence":1}'
GOOD = KEY.sign(MESSAGE, "timestamp:1\tfile:m\thashed")
LINES = GOOD.split(b"\n")
ORDER = 2**252 + 27742317777372353535851937790883648493  # L of RFC 8032, section 5.1


def verify(stored: bytes, message: bytes = MESSAGE) -> None:
    verify_signature(message, parse_signature(stored), KEY.public)


def with_line(number: int, line: bytes) -> bytes:
    lines = [*LINES]
    lines[number] = line
    return b"\n".join(lines)


def recoded(number: int, change: Callable[[bytes], bytes]) -> bytes:
    """The signature file, with the bytes behind one of its base64 lines changed."""
    return with_line(number, base64.b64encode(change(base64.b64decode(LINES[number]))))


@given(st.integers(0, len(GOOD) * 8 - 1))
def test_any_flipped_bit_is_refused_or_in_the_untrusted_comment(bit: int) -> None:
    changed = bytearray(GOOD)
    changed[bit // 8] ^= 1 << bit % 8
    if bit // 8 < len(LINES[0]):  # that comment is free, but for its prefix and the end of its line
        try:
            verify(bytes(changed))
        except SignatureError:
            return
        assert bytes(changed).split(b"\n")[1:] == LINES[1:]
        return
    with pytest.raises(SignatureError):
        verify(bytes(changed))


@given(st.integers(0, len(GOOD) - 1))
def test_truncated_signature_is_refused(length: int) -> None:
    with pytest.raises(SignatureError):
        verify(GOOD[:length])


@given(st.binary(min_size=1, max_size=50))
@example(b"\n")
@example(b"\r")
@example(b" ")
@example(GOOD)
def test_anything_after_the_signature_is_refused(garbage: bytes) -> None:
    with pytest.raises(SignatureError, match="four lines"):
        verify(GOOD + garbage)


@given(st.binary(max_size=400))
def test_noise_is_refused_by_name(noise: bytes) -> None:
    with pytest.raises(SignatureError):
        verify(noise)
    with pytest.raises((MalformedError, UnsupportedError)):
        parse_secret_key(noise)
    with pytest.raises(MalformedError):
        parse_public_key(noise.decode("latin-1"))


@pytest.mark.parametrize("number", [1, 3])
def test_second_spelling_of_the_base64_is_refused(number: int) -> None:
    """The last letter has unused bits, which Python's decoder ignores; 74 and 64 bytes both leave some."""
    line = LINES[number]
    alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    letter = line.rstrip(b"=")[-1:]
    other = alphabet[alphabet.index(letter) ^ 1 :][:1]
    misspelt = line.replace(letter + b"=", other + b"=")
    assert base64.b64decode(misspelt) == base64.b64decode(line)
    for wrong in (
        misspelt,
        line + b"=",
        line.rstrip(b"="),
        b" " + line,
        line + b"\r",
        line.replace(b"=", b"\0"),
    ):
        with pytest.raises(SignatureError):
            verify(with_line(number, wrong))


def test_scalar_beyond_the_order_is_refused() -> None:
    """RFC 8032, section 5.1.7: a second signature that anyone could make of the first."""

    def malleate(content: bytes) -> bytes:
        scalar = int.from_bytes(content[-32:], "little") + ORDER
        return content[:-32] + scalar.to_bytes(32, "little")

    for number in (1, 3):
        with pytest.raises(SignatureError):
            verify(recoded(number, malleate))


def test_legacy_signature_is_refused_even_over_the_same_hash() -> None:
    with pytest.raises(SignatureError, match="legacy"):
        verify(recoded(1, lambda content: b"Ed" + content[2:]))


def test_unknown_algorithm_is_refused() -> None:
    with pytest.raises(SignatureError, match="does not know"):
        verify(recoded(1, lambda content: b"EX" + content[2:]))


def test_another_number_is_another_key() -> None:
    with pytest.raises(SignatureError, match="signed by key"):
        verify(recoded(1, lambda content: content[:2] + b"87654321" + content[10:]))


def test_key_with_a_borrowed_number_is_not_believed() -> None:
    with pytest.raises(SignatureError, match="not what key"):
        verify(OTHER.sign(MESSAGE, "timestamp:1\tfile:m\thashed"))


def test_signature_of_another_message_is_refused() -> None:
    with pytest.raises(SignatureError, match="not what key"):
        verify(KEY.sign(MESSAGE + b" ", "c"))


def test_trusted_comment_of_another_signature_is_refused() -> None:
    other = KEY.sign(b"another", "another comment").split(b"\n")
    for lines in ([*LINES[:2], *other[2:]], [*LINES[:2], other[2], *LINES[3:]], [*LINES[:3], *other[3:]]):
        with pytest.raises(SignatureError, match="trusted comment"):
            verify(b"\n".join(lines))


def test_untrusted_comment_decides_nothing() -> None:
    verify(with_line(0, b"untrusted comment: " + bytes(range(11, 256))))


def test_oversized_signature_is_refused_unread() -> None:
    padded = with_line(0, b"untrusted comment: " + b"x" * SIGNATURE_MAX_BYTES)
    with pytest.raises(SignatureError, match="are allowed"):
        verify(padded)


SMALL_ORDER = [
    # The y of the points whose order divides 8, from the curve's equation: -x^2 + y^2 = 1 + d x^2 y^2.
    (0).to_bytes(32, "little"),
    (1).to_bytes(32, "little"),
    (2**255 - 20).to_bytes(32, "little"),
    bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"),
    bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"),
    # Second spellings of 0 and 1, and the largest there is.
    (2**255 - 19).to_bytes(32, "little"),
    (2**255 - 18).to_bytes(32, "little"),
    (2**255 - 1).to_bytes(32, "little"),
]


@pytest.mark.parametrize("sign", [0, 0x80])
@pytest.mark.parametrize("point", SMALL_ORDER, ids=bytes.hex)
def test_point_under_which_anyone_can_sign_is_no_key(point: bytes, sign: int) -> None:
    """libsodium refuses the same (ge25519_has_small_order, ge25519_is_canonical)."""
    with pytest.raises(MalformedError, match="anyone could sign"):
        PublicKey(b"12345678", point[:-1] + bytes([point[-1] | sign]))


def test_points_of_order_eight_are_what_they_are_called() -> None:
    """Twice such a point has the y 0, which is of order 4: y(2P) = (y^2 + x^2) / (2 - y^2 + x^2)."""
    p = 2**255 - 19
    d = -121665 * pow(121666, -1, p) % p  # RFC 8032, section 5.1
    for point in SMALL_ORDER[3:5]:
        y2 = pow(int.from_bytes(point, "little"), 2, p)
        x2 = (y2 - 1) * pow(d * y2 + 1, -1, p) % p
        assert (y2 + x2) % p == 0


@pytest.mark.parametrize(
    "text",
    [
        "",
        "RW",
        KEY.public.line[:-1],
        KEY.public.line + "=",
        KEY.public.line + "AAAA",
        f"{KEY.public.line}\n{KEY.public.line}",
        f"comment\n{KEY.public.line}",
        KEY.public.line.replace("RW", "RU"),
        "密钥",
        "\ud800",
    ],
)
def test_what_is_no_public_key_is_refused(text: str) -> None:
    with pytest.raises(MalformedError):
        parse_public_key(text)


@given(st.integers(0, 157), st.integers(1, 255))
def test_damaged_secret_key_never_signs_as_the_whole_one(position: int, difference: int) -> None:
    """Only what means nothing without a password may differ: salt and limits."""
    comment, line, _ = KEY.format().split(b"\n")
    content = bytearray(base64.b64decode(line))
    content[position] ^= difference
    stored = comment + b"\n" + base64.b64encode(content) + b"\n"
    if 6 <= position < 54:
        assert parse_secret_key(stored).public == KEY.public
        return
    with pytest.raises(ContractError):
        parse_secret_key(stored)


def test_secret_key_with_another_public_half_is_refused() -> None:
    """To sign with one half and hash the other gives the secret away."""
    comment, line, _ = KEY.format().split(b"\n")
    content = bytearray(base64.b64decode(line))
    content[94:126] = OTHER.public.point
    content[126:] = bytes(32)  # as minisign -W leaves the checksum
    with pytest.raises(MalformedError, match="do not belong together"):
        parse_secret_key(comment + b"\n" + base64.b64encode(content))


@pytest.mark.parametrize("number", [b"", b"1234567", b"123456789"])
def test_number_of_another_length_is_refused(number: bytes) -> None:
    with pytest.raises(MalformedError):
        SecretKey(number, b"s" * 32)
    with pytest.raises(MalformedError):
        SecretKey(b"12345678", b"s" * 31)
