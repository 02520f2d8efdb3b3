"""Which row is popular: a skewed order over ids that is scattered over the whole table.

Invariant: a row's rank depends on its id and on the power of two above the largest id, on nothing else. So
the popular rows stay the popular ones while a catalogue grows, and they do not sit next to each other: rows
that changed together on neighbouring pages would flatter every measurement of a delta.
"""

from random import Random
from typing import Final

# 2**32 divided by the golden ratio (Knuth, TAOCP 6.4). It is odd, so multiplying by it permutes every 2**n.
_STRIDE: Final = 0x9E3779B1


class Popularity:
    """Ranks the ids 1 to ``largest_id``; rank 0 is the most popular."""

    def __init__(self, largest_id: int) -> None:
        if largest_id < 1:
            raise ValueError(f"popularity needs at least one row, found {largest_id}")
        self._largest_id = largest_id
        self._size = 1 << (largest_id - 1).bit_length()
        self._mask = self._size - 1
        self._inverse = pow(_STRIDE, -1, 1 << 64) & self._mask

    def pick(self, rng: Random) -> int:
        """Draw an id; squaring gives rank r a chance that falls with the square root of r."""
        while True:
            u = rng.random()
            row_id = (int(u * u * self._size) * _STRIDE & self._mask) + 1
            if row_id <= self._largest_id:
                return row_id

    def rank(self, row_id: int) -> int:
        """The inverse of the scatter: where ``row_id`` stands."""
        return (row_id - 1) * self._inverse & self._mask
