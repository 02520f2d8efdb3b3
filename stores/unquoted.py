"""A store whose server compares entity tags without their quotes.

Invariant: only the condition of an update is spelt differently. RFC 9110, section 13.1.1, wants the quotes;
Ceph RGW 16 answers 412 to a tag that has them (docs/providers.md). That such a server refuses another tag,
spelt so, was asked before this is used (publisher/probe.py): one that ignored what it cannot parse would
overwrite.
"""

from __future__ import annotations

from typing import BinaryIO

from stores.base import PutMode, Update
from stores.wrapped import WrappedStore


class UnquotedStore(WrappedStore):
    """The store behind it, told entity tags without quotes."""

    def put(self, key: str, body: bytes | BinaryIO, mode: PutMode) -> str:
        return self._store.put(key, body, unquote(mode))


def unquote(mode: PutMode) -> PutMode:
    """The same mode, its entity tag without quotes."""
    return Update(mode.etag.strip('"')) if isinstance(mode, Update) else mode
