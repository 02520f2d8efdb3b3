"""The keyframe codec against the real `zstd`, and against blobs that lie, break off or never end."""

from __future__ import annotations

import hashlib
import shutil
import struct
import subprocess
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.errors import MalformedError
from contracts.keyframe import EMPTY_SKIPPABLE_FRAME, decode_segment, encode_segment
from contracts.zstd_api import zstd

MIB = 1 << 20
ZSTD = shutil.which("zstd") or ""
needs_zstd = pytest.mark.skipif(not ZSTD, reason="needs the zstd program (Debian package zstd)")

GOLDEN = (Path(__file__).parent.parent / "vectors" / "keyframe-segment.zst").read_bytes()
SEGMENT = bytes(range(256)) * 64 + bytes(4096)
FRAME = encode_segment(SEGMENT)
# RFC 8878, section 3.1.2: the other magic numbers, and content, make skippable frames that are not ours.
OTHER_SKIPPABLE = b"\x51\x2a\x4d\x18" + bytes(4)
FULL_SKIPPABLE = b"\x50\x2a\x4d\x18" + struct.pack("<I", 1) + b"x"


def decode(stored: bytes, size_bytes: int = len(SEGMENT), piece_bytes: int = 64 << 10) -> bytes:
    return b"".join(decode_segment(pieces(stored, piece_bytes), size_bytes))


def pieces(stored: bytes, piece_bytes: int) -> Iterator[bytes]:
    for start in range(0, len(stored), piece_bytes):
        yield stored[start : start + piece_bytes]


def run_zstd(*arguments: str, given: bytes) -> bytes:
    return subprocess.run([ZSTD, *arguments], input=given, capture_output=True, check=True).stdout


def test_golden_segment_of_the_zstd_program_decodes() -> None:
    """`zstd -19` 1.5.4 made it from a file; the digest is that of `sha256sum`."""
    expected = "28dce788eb19c96a59063abed7a84d78ceb8df667774a9be78e79cd02020b3c7"
    assert expected == hashlib.sha256(decode(GOLDEN)).hexdigest()


@needs_zstd
@pytest.mark.parametrize("level", ["-1", "-19"])
def test_what_the_zstd_program_makes_decodes(level: str, tmp_path: Path) -> None:
    """From a file, and from a pipe, when the frame does not know its content size."""
    path = tmp_path / "segment"
    path.write_bytes(SEGMENT)
    assert decode(run_zstd("-c", level, str(path), given=b"")) == SEGMENT
    assert decode(run_zstd("-c", level, given=SEGMENT)) == SEGMENT


@needs_zstd
def test_zstd_program_restores_blobs_in_order(tmp_path: Path) -> None:
    """`cat blobs… | zstd -d`, also past empty skippable frames; it checks the checksum by itself."""
    blobs = [encode_segment(SEGMENT), encode_segment(b"x" * 5000) + EMPTY_SKIPPABLE_FRAME * 2, FRAME]
    assert run_zstd("-d", "-c", given=b"".join(blobs)) == SEGMENT + b"x" * 5000 + SEGMENT
    path = tmp_path / "blob.zst"
    path.write_bytes(FRAME)
    listed = run_zstd("-lv", str(path), given=b"").decode()
    assert "Check: XXH64" in listed
    assert f"({len(SEGMENT)} B)" in listed


def test_frame_says_its_content_size_and_carries_a_checksum() -> None:
    """RFC 8878, section 3.1.1.1.1: bit 2 of the descriptor is the checksum's, 7-6 and 5 the size's."""
    assert FRAME[:4] == b"\x28\xb5\x2f\xfd"
    assert FRAME[4] & 0b0000_0100
    assert FRAME[4] & 0b1110_0000
    assert len(SEGMENT) == zstd.get_frame_info(FRAME).decompressed_size


@given(st.binary(min_size=1, max_size=5000), st.integers(1, 100), st.integers(1, 999), st.integers(0, 3))
def test_segment_survives_in_pieces_of_any_size(
    content: bytes, repeated: int, piece_bytes: int, skippable: int
) -> None:
    """Empty skippable frames after it change the digest and nothing else."""
    segment = content * repeated
    stored = encode_segment(segment, 1) + EMPTY_SKIPPABLE_FRAME * skippable
    assert segment == decode(stored, len(segment), piece_bytes)


def test_pieces_are_of_a_mebibyte_at_most() -> None:
    """Memory is bounded however well a segment compresses."""
    sizes = [len(piece) for piece in decode_segment([encode_segment(bytes(5 * MIB))], 5 * MIB)]
    assert sum(sizes) == 5 * MIB
    assert max(sizes) <= MIB


def test_bomb_stops_at_the_promised_size() -> None:
    """200 MB of zeros are a frame of some 20 KB; one that was promised as 1 MiB yields no more than that."""
    bomb = encode_segment(bytes(200_000_000), 1)
    assert len(bomb) < 100_000
    yielded = 0
    tracemalloc.start()
    try:
        with pytest.raises(MalformedError, match="more than its 1048576 bytes"):
            for piece in decode_segment([bomb], MIB):
                yielded += len(piece)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert yielded <= MIB
    assert peak < 16 * MIB


@pytest.mark.parametrize("kept", [*range(18), len(FRAME) // 2, *range(len(FRAME) - 6, len(FRAME))])
def test_truncated_blob_is_malformed(kept: int) -> None:
    """Within the magic number, the header, a block, and the checksum."""
    with pytest.raises(MalformedError):
        decode(FRAME[:kept])


@pytest.mark.parametrize("kept", range(1, 8))
def test_truncated_skippable_frame_is_malformed(kept: int) -> None:
    with pytest.raises(MalformedError, match="within a frame"):
        decode(FRAME + EMPTY_SKIPPABLE_FRAME + EMPTY_SKIPPABLE_FRAME[:kept])


@pytest.mark.parametrize(
    "after",
    [b"\0", b"garbage", FRAME, OTHER_SKIPPABLE, FULL_SKIPPABLE, EMPTY_SKIPPABLE_FRAME + FRAME],
    ids=["zero", "garbage", "second frame", "other skippable", "full skippable", "frame after skippable"],
)
@pytest.mark.parametrize("piece_bytes", [1, 7, 1 << 20])
def test_anything_else_after_the_frame_is_malformed(after: bytes, piece_bytes: int) -> None:
    """Two implementations that read different databases from one blob would both be right otherwise."""
    with pytest.raises(MalformedError, match="more than one segment"):
        decode(FRAME + after, piece_bytes=piece_bytes)


@pytest.mark.parametrize("before", [EMPTY_SKIPPABLE_FRAME, b"\0", b"garbage"], ids=repr)
def test_anything_before_the_frame_is_malformed(before: bytes) -> None:
    with pytest.raises(MalformedError):
        decode(before + FRAME)


@pytest.mark.parametrize("size_bytes", [0, 1, len(SEGMENT) - 1, len(SEGMENT) + 1])
def test_segment_of_another_size_is_malformed(size_bytes: int) -> None:
    with pytest.raises(MalformedError, match="decompresses to"):
        decode(FRAME, size_bytes)


def test_wrong_checksum_is_malformed() -> None:
    damaged = FRAME[:-1] + bytes([FRAME[-1] ^ 1])
    with pytest.raises(MalformedError, match="not a zstd frame"):
        decode(damaged)


def _frame_with_window(log: int) -> bytes:
    """A frame by hand (RFC 8878, section 3.1.1): window descriptor, one empty last block."""
    return b"\x28\xb5\x2f\xfd" + bytes([0b0000_0000, (log - 10) << 3]) + b"\x01\x00\x00"


def test_window_above_128_mib_is_malformed() -> None:
    """A few bytes must not make a mirror on a small server reserve gigabytes."""
    assert decode(_frame_with_window(27), 0) == b""
    for log in (28, 31, 41):
        with pytest.raises(MalformedError, match="not a zstd frame"):
            decode(_frame_with_window(log), 0)


def test_frame_that_needs_a_dictionary_is_malformed() -> None:
    """A keyframe is rebuilt with nothing else."""
    dictionary = zstd.train_dict([bytes([i, j]) * 40 for i in range(50) for j in range(50)], 1024)
    with pytest.raises(MalformedError, match="not a zstd frame"):
        decode(zstd.compress(SEGMENT, zstd_dict=dictionary))


def test_long_tail_of_skippable_frames_costs_no_memory() -> None:
    """Their number is bounded by the size of the blob alone."""
    tail = (EMPTY_SKIPPABLE_FRAME * 8192 for _ in range(256))
    tracemalloc.start()
    try:
        decoded = b"".join(
            decode_segment((piece for part in ([FRAME], tail) for piece in part), len(SEGMENT))
        )
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert decoded == SEGMENT
    assert peak < 4 * MIB


@given(st.binary(max_size=200), st.integers(0, len(GOLDEN)), st.integers(0, len(GOLDEN)))
def test_damaged_blob_is_malformed_or_right(noise: bytes, start: int, end: int) -> None:
    """The checksum leaves nothing in between."""
    stored = GOLDEN[:start] + noise + GOLDEN[end:]
    try:
        decoded = decode(stored)
    except MalformedError:
        return
    assert decoded == SEGMENT
