"""Blobs of a page delta that lie, break off or never end: a `MalformedError`, or the truth."""

from __future__ import annotations

import io
import random
import struct
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.errors import MalformedError
from contracts.keyframe import EMPTY_SKIPPABLE_FRAME, encode_segment
from contracts.page_delta import BLOB_MAGIC, MAX_BATCH_PAGES, format_page_list, parse_page_list
from contracts.page_delta_decoder import DeltaDecoder
from contracts.read_model import PAGE_BYTES
from contracts.zstd_api import zstd
from tests.contracts.page_delta_databases import batch_of, blob_of, database, decode, encode, mutate, page

MIB = 1 << 20
GOLDEN = (Path(__file__).parent.parent / "vectors" / "page-delta-blob.bin").read_bytes()
GOLDEN_BASE = database(*[1] * 12)
GOLDEN_TARGET_BYTES = 14 * PAGE_BYTES
GOLDEN_ENDS = (88, len(GOLDEN) - 8)  # after the first batch, and before the skippable frame
# A blob that lost its second batch is well-formed too: this one holds every page that the base lacks.
TRUTHS = [decode(GOLDEN_BASE, GOLDEN_TARGET_BYTES, [GOLDEN[:end]]) for end in GOLDEN_ENDS]

BASE = database(1, 1, 1, 1)
BATCH = batch_of(BASE, {1: page(1, 2)})
FULL_SKIPPABLE = b"\x50\x2a\x4d\x18\x01\0\0\0x"


def apply(*blobs: bytes, base: bytes = BASE, target_pages: int | None = None) -> bytes:
    return decode(base, len(base) if target_pages is None else target_pages * PAGE_BYTES, blobs)


def batch_by_hand(listed: bytes, page_frame: bytes) -> bytes:
    frame = encode_segment(listed)
    return len(frame).to_bytes(4, "little") + frame + page_frame


def with_prefix(new: bytes, old: bytes, **flags: int) -> bytes:
    options: dict[int, int] = {zstd.CompressionParameter[name]: value for name, value in flags.items()}
    return zstd.compress(new, options=options, zstd_dict=zstd.ZstdDict(old, is_raw=True).as_prefix)


def test_what_follows_is_otherwise_right() -> None:
    """The blob that the tests below break."""
    old, new = BASE[PAGE_BYTES : 2 * PAGE_BYTES], page(1, 2)
    by_hand = batch_by_hand(b"\x01\x01", with_prefix(new, old, checksum_flag=1))
    assert database(1, 2, 1, 1) == apply(blob_of(BATCH)) == apply(blob_of(by_hand))


@pytest.mark.parametrize("magic", [b"", b"MCDELTA2", b"MCDELTA", EMPTY_SKIPPABLE_FRAME], ids=repr)
def test_wrong_magic_is_malformed(magic: bytes) -> None:
    with pytest.raises(MalformedError):
        apply(magic + BATCH)


@pytest.mark.parametrize("blob", [BLOB_MAGIC, BLOB_MAGIC + EMPTY_SKIPPABLE_FRAME], ids=["end", "tail"])
def test_blob_without_a_batch_is_malformed(blob: bytes) -> None:
    with pytest.raises(MalformedError):
        apply(blob)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "a batch of 0 pages"),
        ("00", "a batch of 0 pages"),
        ("81 20 00", "a batch of 4097 pages"),
        ("ff ff ff ff 7f", "a batch of 34359738367 pages"),
        ("ff ff ff ff ff 01", "does not end"),
        ("01 80 80 80 80 80 00", "does not end"),
        ("01 80 00", "shortest form"),
        ("81 00 01", "shortest form"),
        ("01 80", "ends within a number"),
        ("02 00", "does not list the 2 pages"),
        ("01 00 00", "does not list the 1 pages"),
        ("01 04", "holds page 4 of a database of 4"),
        ("02 03 00", "holds page 4 of a database of 4"),
        ("01 ff ff ff ff 7f", "of a database of 4"),
    ],
)
def test_list_that_lies_is_malformed(content: str, reason: str) -> None:
    with pytest.raises(MalformedError, match=reason):
        apply(blob_of(batch_by_hand(bytes.fromhex(content), b"")))


@given(st.binary(max_size=40))
def test_any_bytes_are_a_list_in_its_one_spelling_or_malformed(content: bytes) -> None:
    try:
        pages = parse_page_list(content, 1 << 32)
    except MalformedError:
        return
    assert content == format_page_list(pages)


def test_page_in_two_batches_is_malformed() -> None:
    """In one blob or in two; within a list a repetition cannot even be written."""
    for blobs in ([blob_of(BATCH, BATCH)], [blob_of(BATCH), blob_of(BATCH)]):
        with pytest.raises(MalformedError, match="holds a page twice"):
            apply(*blobs)


def test_growth_that_leaves_a_hole_is_malformed() -> None:
    """A page that neither base nor delta has would hold whatever the file system gives."""
    with pytest.raises(MalformedError, match="lacks page 4"):
        apply(blob_of(batch_of(BASE, {1: page(1, 2), 5: page(5)})), target_pages=6)


@pytest.mark.parametrize("size_bytes", [0, PAGE_BYTES - 1, PAGE_BYTES + 1, 2 * PAGE_BYTES])
def test_batch_of_another_size_is_malformed(size_bytes: int) -> None:
    frame = with_prefix(bytes(size_bytes), BASE[PAGE_BYTES : 2 * PAGE_BYTES], checksum_flag=1)
    with pytest.raises(MalformedError, match=r"for 1 pages|are allowed"):
        apply(blob_of(batch_by_hand(b"\x01\x01", frame)))


@pytest.mark.parametrize("flags", [{"content_size_flag": 0, "checksum_flag": 1}, {"checksum_flag": 0}])
def test_frame_without_size_or_checksum_is_malformed(flags: dict[str, int]) -> None:
    """A wrong base would otherwise go unnoticed until the digest of the database."""
    frame = with_prefix(page(1, 2), BASE[PAGE_BYTES : 2 * PAGE_BYTES], **flags)
    with pytest.raises(MalformedError, match="lacks its content size or its checksum"):
        apply(blob_of(batch_by_hand(b"\x01\x01", frame)))


def test_frame_whose_declared_size_lies_is_malformed() -> None:
    """A bomb of 200 MB that says it is a page, and one that says what it is."""
    bomb = encode_segment(bytes(200_000_000), 1)
    # RFC 8878, section 3.1.1.1: descriptor, window, four bytes of content size.
    assert (bomb[4], bomb[6:10]) == (0b1000_0100, struct.pack("<I", 200_000_000))
    lying = bomb[:6] + struct.pack("<I", PAGE_BYTES) + bomb[10:]
    for frame in (bomb, lying):
        tracemalloc.start()
        try:
            with pytest.raises(MalformedError):
                apply(blob_of(batch_by_hand(b"\x01\x01", frame)))
            assert tracemalloc.get_traced_memory()[1] < 8 * MIB
        finally:
            tracemalloc.stop()


def test_bomb_for_a_list_is_malformed() -> None:
    """Its stored size is bounded, and so is what it may hold."""
    for listed, reason in ((bytes(MIB), "are allowed"), (random.Random(1).randbytes(MIB), "a list of pages")):
        with pytest.raises(MalformedError, match=reason):
            apply(blob_of(batch_by_hand(listed, b"")))


def test_window_above_the_bound_is_malformed() -> None:
    """A frame by hand (RFC 8878, section 3.1.1): not one segment, a window of 2 GiB, 4,096 bytes."""
    frame = (
        b"\x28\xb5\x2f\xfd\x44" + bytes([(31 - 10) << 3]) + b"\x00\x0f" + b"\x03\x80\x00" + b"x" + bytes(4)
    )
    with pytest.raises(MalformedError, match="damaged"):
        apply(blob_of(batch_by_hand(b"\x01\x01", frame)))


def test_frame_that_needs_a_dictionary_is_malformed() -> None:
    """Nothing but the old pages may be needed."""
    dictionary = zstd.train_dict([bytes([i, j]) * 40 for i in range(50) for j in range(50)], 1024)
    checked: dict[int, int] = {zstd.CompressionParameter.checksum_flag: 1}
    frame = zstd.compress(page(1, 2), options=checked, zstd_dict=dictionary)
    with pytest.raises(MalformedError, match="damaged"):
        apply(blob_of(batch_by_hand(b"\x01\x01", frame)))


@pytest.mark.parametrize(
    "after",
    [b"\0", b"\x50\x2a\x4d\x18", b"garbage!", FULL_SKIPPABLE, EMPTY_SKIPPABLE_FRAME + BATCH],
    ids=["zero", "half a skippable", "garbage", "full skippable", "batch after skippable"],
)
def test_anything_else_after_the_batches_is_malformed(after: bytes) -> None:
    with pytest.raises(MalformedError):
        apply(blob_of(BATCH) + after)


def test_anything_after_the_list_within_its_size_is_malformed() -> None:
    listed = encode_segment(b"\x01\x01") + EMPTY_SKIPPABLE_FRAME
    with pytest.raises(MalformedError, match="longer than its frame"):
        apply(blob_of(len(listed).to_bytes(4, "little") + listed))


@pytest.mark.parametrize("kept", range(len(GOLDEN)))
def test_truncated_blob_is_malformed(kept: int) -> None:
    """Anywhere, but where a shorter blob ends: then the digest, in its name, tells that it is another."""
    if kept in GOLDEN_ENDS:
        assert decode(GOLDEN_BASE, GOLDEN_TARGET_BYTES, [GOLDEN[:kept]]) in TRUTHS
        return
    with pytest.raises(MalformedError):
        decode(GOLDEN_BASE, GOLDEN_TARGET_BYTES, [GOLDEN[:kept]])


def test_nothing_is_written_before_the_checksum_was_good() -> None:
    copy = io.BytesIO(BASE)
    damaged = blob_of(BATCH[:-1] + bytes([BATCH[-1] ^ 1]))
    with pytest.raises(MalformedError, match="made for another base"):
        DeltaDecoder(copy, 4, 4).apply([damaged])
    assert copy.getvalue() == BASE


def test_base_shorter_than_promised_is_malformed() -> None:
    with pytest.raises(MalformedError, match="ends before page 1"):
        DeltaDecoder(io.BytesIO(BASE[:PAGE_BYTES]), 4, 4).apply([blob_of(BATCH)])


def test_many_small_batches_and_a_long_tail_take_little_time_and_memory() -> None:
    """Every batch of one page, and a mebibyte of empty frames, in a single piece."""
    pages = MAX_BATCH_PAGES // 4
    base, target = bytes(pages * PAGE_BYTES), b"\1" * (pages * PAGE_BYTES)
    (blob,) = encode(base, target, batch_pages=1, thorough_pages=0)
    stored = blob + EMPTY_SKIPPABLE_FRAME * (MIB // 8)
    copy = io.BytesIO(base)
    decoder = DeltaDecoder(copy, pages, pages)
    tracemalloc.start()
    try:
        decoder.apply([stored])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert target == copy.getvalue()
    assert peak < len(base) + MIB  # the copy itself is in memory here


@settings(deadline=None)
@given(st.binary(max_size=60), st.integers(0, len(GOLDEN)), st.integers(0, len(GOLDEN)))
def test_damaged_blob_is_malformed_or_right(noise: bytes, start: int, end: int) -> None:
    _apply_damaged(GOLDEN[:start] + noise + GOLDEN[end:])


def test_seeded_fuzz_sample() -> None:
    """`tests/fuzz/page_delta.py` goes on for as long as one likes."""
    dice = random.Random(20261122)
    for _ in range(5000):
        _apply_damaged(mutate(GOLDEN, dice))


def _apply_damaged(blob: bytes) -> None:
    """The checksums leave nothing in between."""
    try:
        restored = decode(GOLDEN_BASE, GOLDEN_TARGET_BYTES, [blob])
    except MalformedError:
        return
    assert restored in TRUTHS
