"""Object stores, behind one small protocol; each wraps nothing or another store."""

from stores.base import (
    Create,
    ListedObject,
    ObjectInfo,
    Overwrite,
    PutMode,
    ReadableStore,
    Reading,
    Store,
    Update,
)
from stores.folder import FolderStore
from stores.http import HttpStore
from stores.memory import MemoryStore
from stores.progress import Progress
from stores.retrying import Backoff, RetryingReader, RetryingStore

__all__ = [
    "Backoff",
    "Create",
    "FolderStore",
    "HttpStore",
    "ListedObject",
    "MemoryStore",
    "ObjectInfo",
    "Overwrite",
    "Progress",
    "PutMode",
    "ReadableStore",
    "Reading",
    "RetryingReader",
    "RetryingStore",
    "Store",
    "Update",
]
