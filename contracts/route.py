"""The way to the newest database of a manifest: from the database that is held, or from the keyframe.

Invariant: a route's deltas begin where its start ends, each goes on from the one before, and the last ends at
the manifest's database. Nothing is fetched here: stores/restore.py goes the way.
"""

from __future__ import annotations

from typing import NamedTuple

from contracts.manifest import Database, Delta, Keyframe, Manifest


class Route(NamedTuple):
    """Where to start and which deltas to apply, in order, to end at `database`.

    `keyframe` is None when the start is the database that is held.
    """

    keyframe: Keyframe | None
    deltas: tuple[Delta, ...]
    database: Database

    @property
    def stored_bytes(self) -> int:
        """What is downloaded on it."""
        start_bytes = self.keyframe.stored_bytes if self.keyframe else 0
        return start_bytes + sum(delta.stored_bytes for delta in self.deltas)

    @property
    def start(self) -> Database:
        """The database to which the deltas are applied."""
        return self.deltas[0].base if self.deltas else self.database


def plan_route(manifest: Manifest, held: Database | None) -> Route:
    """The way that downloads the fewest bytes; when both take as many, the deltas from `held`.

    With `held` None, or not on the manifest's chain, the way from the keyframe: the one that a mirror whose
    own database is no good falls back to. A database may be on the chain twice, after a rollback; the deltas
    between the two are then left out.
    """
    keyframe = manifest.keyframe
    from_keyframe = Route(keyframe, _deltas_after(manifest, keyframe.database), manifest.database)
    if held is None or held not in manifest.nodes:
        return from_keyframe
    from_held = Route(None, _deltas_after(manifest, held), manifest.database)
    return min(from_held, from_keyframe, key=lambda route: route.stored_bytes)  # of equals, the first


def _deltas_after(manifest: Manifest, database: Database) -> tuple[Delta, ...]:
    """The deltas that lead from the last occurrence of `database` to the end."""
    last = max(index for index, node in enumerate(manifest.nodes) if node == database)
    return manifest.deltas[last:]
