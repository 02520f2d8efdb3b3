"""Databases as plain pages, and deltas between them: what the tests of the page delta share."""

from __future__ import annotations

import io
import random
from collections.abc import Iterable

from contracts.page_delta import BLOB_MAGIC
from contracts.page_delta_decoder import DeltaDecoder
from contracts.page_delta_encoder import QUICK, changed_pages, encode_batch, encode_delta
from contracts.read_model import PAGE_BYTES


def page(index: int, edition: int = 1) -> bytes:
    """A page of text; another edition has another number in every line."""
    return (f"page {index} edition {edition}; " * 400)[:PAGE_BYTES].encode()


def database(*editions: int) -> bytes:
    """A database with one page for each edition given."""
    return b"".join(page(index, edition) for index, edition in enumerate(editions))


def encode(base: bytes, target: bytes, batch_pages: int = 512, thorough_pages: int = 4096) -> list[bytes]:
    """The blobs of the delta between two databases."""
    old, new = io.BytesIO(base), io.BytesIO(target)
    changed = changed_pages(old, new)
    return list(encode_delta(old, new, changed, batch_pages=batch_pages, thorough_pages=thorough_pages))


def decode(base: bytes, target_bytes: int, blobs: Iterable[bytes], piece_bytes: int = 1 << 20) -> bytes:
    """What the blobs make of the base, when they come in pieces of that size."""
    copy = io.BytesIO(base)
    decoder = DeltaDecoder(copy, len(base) // PAGE_BYTES, target_bytes // PAGE_BYTES)
    for blob in blobs:
        decoder.apply(blob[start : start + piece_bytes] for start in range(0, len(blob), piece_bytes))
    decoder.finish()
    return copy.getvalue()


def blob_of(*batches: bytes) -> bytes:
    """A blob that holds these batches."""
    return BLOB_MAGIC + b"".join(batches)


def batch_of(base: bytes, pages: dict[int, bytes]) -> bytes:
    """The batch with these new contents, by page index."""
    indexes = sorted(pages)
    old = b"".join(base[index * PAGE_BYTES : (index + 1) * PAGE_BYTES] for index in indexes)
    return encode_batch(indexes, old, b"".join(pages[index] for index in indexes), QUICK)


def mutate(blob: bytes, dice: random.Random) -> bytes:
    """A blob with a few flipped bits, numbers at their bounds, or parts in the wrong place."""
    mutated = bytearray(blob)
    for _ in range(dice.randrange(1, 4)):
        at = dice.randrange(len(mutated))
        match dice.randrange(3):
            case 0:
                mutated[at] ^= 1 << dice.randrange(8)
            case 1:
                mutated[at] = dice.choice((0, 1, 0x7F, 0x80, 0xFF))
            case _:
                source = dice.randrange(len(mutated))
                mutated[at : at + 8] = mutated[source : source + 8]
    return bytes(mutated)
