"""What a store was found to do, and the store as it has to be spoken to because of that.

Invariant: a profile is believed only for the address, and by the version of this program, that it was made
for. One that says that preconditions do not hold is not believed: a store is refused for what it does now.
Only what nobody but the doctor asks counts until he asks again: whether of several writers at once one wins.
"""

from __future__ import annotations

from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Literal

import msgspec

from stores.base import Store
from stores.single_publisher import SinglePublisherStore
from stores.unquoted import UnquotedStore

Preconditions = Literal["quoted", "unquoted", "none"]


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """What was found at `store`, an address, at `probed_at`, by this version of the program.

    `preconditions`: how an update has to spell entity tags, "none" when conditions do not hold. `deletes`:
    what is deleted is gone. `checks_sums`: a write whose SHA-256 is wrong is refused; None: nobody asked, as
    a publish does not. Where it is False, only reading back tells whether what was sent is what is stored.
    `excludes`: of several writers at the same moment only one is told "written"; None: nobody asked.
    """

    store: str
    probed_at: datetime
    program: str
    preconditions: Preconditions
    deletes: bool
    checks_sums: bool | None = None
    excludes: bool | None = None

    def is_of(self, address: str, program: str) -> bool:
        """Whether it was made of this address by this version."""
        return (self.store, self.program) == (address, program)

    def is_believed(self, address: str, program: str) -> bool:
        """Whether a publish by this version to this address may go by it without asking the store."""
        return self.is_of(address, program) and self.is_suitable

    @property
    def is_suitable(self) -> bool:
        """Whether several publishers are safe from each other on this store."""
        return self.preconditions != "none" and self.deletes and self.excludes is not False


def adapt_store(store: Store, profile: Profile) -> Store:
    """The store, spoken to as its profile says; one without preconditions has a single publisher."""
    if profile.preconditions == "none":
        return SinglePublisherStore(store)
    return UnquotedStore(store) if profile.preconditions == "unquoted" else store


def program_version() -> str:
    """The version of this program; "unknown" in a checkout that was not installed."""
    try:
        return version("music-cloud")
    except PackageNotFoundError:
        return "unknown"
