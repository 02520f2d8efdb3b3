"""The keyframe codec: a segment of a database is one zstd frame in a blob of its own.

Invariant: every frame carries its content size and checksum, so that `cat blobs… | zstd -d` restores the
database with no software of ours; a decoder never produces a byte more than the manifest promised.
`docs/format.md`, "Keyframe", is normative.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from contracts.errors import MalformedError
from contracts.zstd_api import zstd

SEGMENT_BYTES = 16 << 20  # docs/format.md: what a broken upload has to send again at most
KEYFRAME_LEVEL = 9  # benchmarks/keyframe.py: beyond it, seconds grow much faster than bytes fall
# No segment needs a larger window; RFC 8878, section 3.1.1.1.2, leaves the bound to the decoder.
_WINDOW_LOG_MAX = 27
# RFC 8878, section 3.1.2: a skippable frame without content. Appended, it gives a segment a new digest.
EMPTY_SKIPPABLE_FRAME = b"\x50\x2a\x4d\x18\x00\x00\x00\x00"
_OUTPUT_BYTES = 1 << 20  # how much is decompressed at a time


def encode_segment(segment: bytes, level: int = KEYFRAME_LEVEL) -> bytes:
    """One segment (bytes of the database) as one zstd frame with content size and checksum."""
    return zstd.compress(
        segment,
        options={
            zstd.CompressionParameter.compression_level: level,
            zstd.CompressionParameter.content_size_flag: 1,
            zstd.CompressionParameter.checksum_flag: 1,
        },
    )


def decode_segment(stored: Iterable[bytes], size_bytes: int) -> Iterator[bytes]:
    """The bytes of a segment, in pieces of at most 1 MiB, from the pieces of its blob.

    Raises:
        MalformedError: when the blob is not one zstd frame of exactly `size_bytes`, followed at most by
            empty skippable frames. Pieces already yielded are then worthless.
    """
    decompressor = zstd.ZstdDecompressor(
        options={zstd.DecompressionParameter.window_log_max: _WINDOW_LOG_MAX}
    )
    produced = 0
    tail = bytearray()
    for piece in stored:
        if not decompressor.eof:
            for output in _decompress(decompressor, piece):
                produced += len(output)
                if produced > size_bytes:
                    raise MalformedError(f"a blob decompresses to more than its {size_bytes} bytes")
                yield output
            piece = decompressor.unused_data
        tail += piece
        _verify_tail(tail)
        del tail[: len(tail) - len(tail) % len(EMPTY_SKIPPABLE_FRAME)]
    if not decompressor.eof:
        raise MalformedError("a blob ends before its zstd frame does")
    if produced != size_bytes:
        raise MalformedError(f"a blob decompresses to {produced} of {size_bytes} bytes")
    if tail:
        raise MalformedError("a blob ends within a frame")


def _decompress(decompressor: zstd.ZstdDecompressor, piece: bytes) -> Iterator[bytes]:
    """What one more piece of a frame decompresses to, never more than a little at a time."""
    try:
        while output := decompressor.decompress(piece, _OUTPUT_BYTES):
            yield output
            if decompressor.eof or decompressor.needs_input:
                break
            piece = b""
    except zstd.ZstdError as error:
        raise MalformedError(f"a blob is not a zstd frame: {error}") from error


def _verify_tail(tail: bytearray) -> None:
    frames = -(-len(tail) // len(EMPTY_SKIPPABLE_FRAME))
    if not (EMPTY_SKIPPABLE_FRAME * frames).startswith(tail):
        raise MalformedError("a blob holds more than one segment")
