"""The page delta from end to end: what is encoded decodes, and is as small as its prefix promises."""

from __future__ import annotations

import hashlib
import io
import random
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.errors import MalformedError
from contracts.keyframe import EMPTY_SKIPPABLE_FRAME
from contracts.page_delta import MAX_BATCH_PAGES, format_page_list, page_runs, parse_page_list
from contracts.page_delta_encoder import (
    BLOB_BYTES,
    QUICK,
    THOROUGH,
    changed_pages,
    encode_batch,
    encode_delta,
)
from contracts.read_model import PAGE_BYTES
from tests.contracts.page_delta_databases import batch_of, blob_of, database, decode, encode

GOLDEN = (Path(__file__).parent.parent / "vectors" / "page-delta-blob.bin").read_bytes()
GOLDEN_BASE = database(*[1] * 12)
GOLDEN_TARGET_BYTES = 14 * PAGE_BYTES


def test_golden_blob_of_the_zstd_program_applies() -> None:
    """Frames of `zstd --patch-from` 1.5.4, lists by hand; the digests are those of `sha256sum`.

    Two batches, the second with a page before those of the first, a growing base, a skippable frame.
    """
    expected = "3215a983e0135810befca4558f4e56ce3671d60b4e4f8de0fcbd8a8619f3a298"
    assert expected == hashlib.sha256(GOLDEN_BASE).hexdigest()
    target = decode(GOLDEN_BASE, GOLDEN_TARGET_BYTES, [GOLDEN])
    expected = "dd284b13f9f8cf234f1729b0e42f6cad62874ba5a420d25f3e3c2da3ad8cbd07"
    assert expected == hashlib.sha256(target).hexdigest()


@pytest.mark.parametrize(
    ("pages", "content"),
    [
        ([0], "01 00"),
        ([0, 1, 2], "03 00 00 00"),
        ([0, 1, 132], "03 00 00 82 01"),
        ([127], "01 7f"),
        ([128, 16513], "02 80 01 80 80 01"),
        ([(1 << 32) - 1], "01 ff ff ff ff 0f"),
    ],
)
def test_page_list_has_one_spelling(pages: list[int], content: str) -> None:
    """DWARF 5, section 7.6, for the numbers."""
    assert bytes.fromhex(content) == format_page_list(pages)
    assert pages == parse_page_list(bytes.fromhex(content), 1 << 32)


@given(st.sets(st.integers(0, (1 << 32) - 1), min_size=1, max_size=300))
def test_page_list_survives(indexes: set[int]) -> None:
    pages = sorted(indexes)
    assert pages == parse_page_list(format_page_list(pages), 1 << 32)
    assert pages == [first + i for first, count in page_runs(pages) for i in range(count)]


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.integers(1, 3), min_size=1, max_size=30),
    st.lists(st.integers(1, 3), min_size=1, max_size=30),
    st.integers(1, 9),
    st.sampled_from([0, 4096]),
    st.integers(1, 5000),
)
def test_any_target_is_restored_from_any_base(
    old: list[int], new: list[int], batch_pages: int, thorough_pages: int, piece_bytes: int
) -> None:
    """Growing, shrinking and changing, in batches and pieces of any size."""
    base, target = database(*old), database(*new)
    if base == target:
        return
    blobs = encode(base, target, batch_pages, thorough_pages)
    padded = [blob + EMPTY_SKIPPABLE_FRAME * 2 for blob in blobs]
    assert target == decode(base, len(target), padded, piece_bytes)


def test_database_that_only_shrinks_has_a_delta() -> None:
    base = database(1, 1, 1, 1)
    target = base[: 2 * PAGE_BYTES]
    assert target == decode(base, len(target), encode(base, target))


def test_equal_databases_are_refused() -> None:
    with pytest.raises(MalformedError, match="base and target are equal"):
        encode(GOLDEN_BASE, GOLDEN_BASE)


@pytest.mark.parametrize("target", [b"", b"x", GOLDEN_BASE + b"x"], ids=["empty", "byte", "ragged"])
def test_database_of_broken_pages_is_refused(target: bytes) -> None:
    with pytest.raises(MalformedError, match="whole pages"):
        list(encode_delta(io.BytesIO(GOLDEN_BASE), io.BytesIO(target), [0]))


@pytest.mark.parametrize("batch_pages", [0, MAX_BATCH_PAGES + 1])
def test_batch_beyond_the_format_is_refused(batch_pages: int) -> None:
    with pytest.raises(ValueError, match="1 to 4096 are allowed"):
        encode(GOLDEN_BASE, database(2), batch_pages)


@pytest.mark.parametrize("effort", [QUICK, THOROUGH], ids=["quick", "thorough"])
@pytest.mark.parametrize("pages", [1, 2, 7, 64, 512, 1024])
def test_prefix_is_used_in_batches_of_every_size(pages: int, effort: dict[int, int]) -> None:
    """Random pages that differ in one byte each: without a working prefix they would not compress at all."""
    old, new = _random_pages(pages)
    assert len(encode_batch(range(pages), old, new, effort)) < 100 + len(new) // 100


def test_prefix_is_used_in_the_largest_batch() -> None:
    old, new = _random_pages(MAX_BATCH_PAGES)
    assert len(encode_batch(range(MAX_BATCH_PAGES), old, new, QUICK)) < len(new) // 100


def test_wrong_prefix_is_noticed() -> None:
    """By the frame's own checksum; a difference that no match touches does not matter."""
    base, target = _random_pages(3)
    other = base[:-9] + bytes(9)
    with pytest.raises(MalformedError, match="made for another base"):
        decode(other, len(target), encode(base, target))


def test_large_delta_is_cut_into_blobs() -> None:
    """No batch is ever cut; the last blob is what is left."""
    target = random.Random(1).randbytes(3 * BLOB_BYTES // 2)
    blobs = encode(b"\0" * PAGE_BYTES, target, thorough_pages=0)
    assert len(blobs) == 2
    assert target == decode(b"\0" * PAGE_BYTES, len(target), blobs)


def test_same_databases_make_the_same_blobs() -> None:
    """Whichever worker is first."""
    base, target = database(*[1] * 60), database(*[1, 2, 3] * 20, *[4] * 9)
    assert encode(base, target, 4) == encode(base, target, 4)


def test_changed_pages_are_exactly_those_that_differ() -> None:
    """Across the pieces in which the files are compared, and past the end of a shorter base."""
    old = bytearray(600 * PAGE_BYTES)
    new = bytearray(602 * PAGE_BYTES)
    for changed in (0, 255, 256, 511, 599):
        new[changed * PAGE_BYTES + changed] = 1
    assert changed_pages(io.BytesIO(old), io.BytesIO(new)) == [0, 255, 256, 511, 599, 600, 601]
    assert changed_pages(io.BytesIO(new), io.BytesIO(old)) == [0, 255, 256, 511, 599]


def test_delta_of_a_real_database_in_small_batches_is_small(tmp_path: Path) -> None:
    """Split pages travel with their origin: pages moved to the file's end cost next to nothing."""
    base, target = _split_pages(tmp_path)
    changed = len(changed_pages(io.BytesIO(base), io.BytesIO(target)))
    assert changed > 100
    blobs = encode(base, target, batch_pages=16)
    assert target == decode(base, len(target), blobs)
    by_number = _encode_by_number(base, target, batch_pages=16)
    assert sum(map(len, blobs)) < 0.3 * by_number


def _random_pages(count: int) -> tuple[bytes, bytes]:
    old = random.Random(count).randbytes(count * PAGE_BYTES)
    new = bytearray(old)
    for at in range(1000, len(new), PAGE_BYTES):
        new[at] ^= 1
    return old, bytes(new)


def _split_pages(folder: Path) -> tuple[bytes, bytes]:
    """A table of incompressible rows in full pages, before and after rows were put between them."""
    path = folder / "rows.db"
    dice = random.Random(7)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, text BLOB)")
        connection.execute("BEGIN")
        rows = [(10 * number, dice.randbytes(100)) for number in range(8000)]
        connection.executemany("INSERT INTO t VALUES (?, ?)", rows)
        connection.execute("COMMIT")
        base = path.read_bytes()
        connection.execute("BEGIN")
        rows = [(10 * number + 1, dice.randbytes(10)) for number in range(0, 8000, 100)]
        connection.executemany("INSERT INTO t VALUES (?, ?)", rows)
        connection.execute("COMMIT")
    return base, path.read_bytes()


def _encode_by_number(base: bytes, target: bytes, batch_pages: int) -> int:
    changed = changed_pages(io.BytesIO(base), io.BytesIO(target))
    size_bytes = 0
    for start in range(0, len(changed), batch_pages):
        pages = changed[start : start + batch_pages]
        contents = {index: target[index * PAGE_BYTES : (index + 1) * PAGE_BYTES] for index in pages}
        size_bytes += len(blob_of(batch_of(base, contents)))
    return size_bytes
