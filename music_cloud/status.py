"""Whether what is published, and each mirror of it, is as it should be; decides and touches nothing.

Invariant: "good" means that every question was answered; one that could not be answered needs attention. That
a rollback holds the store is somebody's will and needs none.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any, Literal, NamedTuple

from contracts.errors import HistoryError, StoreError
from contracts.manifest import Manifest
from mirror import Current
from music_cloud.options import printable
from music_cloud.screen import format_bytes
from music_cloud.tables import align, format_age
from publisher.history import Link

# A publisher renews at the first run after half of the expiry; by three quarters a weekly timer has run too
# (14 days: 3.5 days later it would have missed every shorter interval).
_LATE_PART = 0.75
_DUE_PART = 0.5


class Signature(NamedTuple):
    """What is known of the pointer's signature: who signed, or why that is not believed."""

    state: Literal["good", "bad", "unchecked", "none"]
    key_id: str | None = None
    problem: str | None = None


class MirrorState(NamedTuple):
    """What a mirror's folder says. `behind_since`: when the first snapshot that it lacks was published."""

    folder: str
    current: Current | None
    problem: str | None = None
    behind_since: datetime | None = None


class Status(NamedTuple):
    """All that was found out about one store.

    `extended_at`: when the manifest's expiry was set (`find_extended_at`); None: when it was published.
    """

    manifest: Manifest
    now: datetime
    signature: Signature
    mirrors: Sequence[MirrorState]
    max_lag: timedelta
    held_since: datetime | None = None
    extended_at: datetime | None = None

    @property
    def problems(self) -> list[str]:
        """Each thing that needs attention, in a sentence; none when all is good."""
        return [
            *self._published_problems(),
            *(line for mirror in self.mirrors for line in self._lags(mirror)),
        ]

    @property
    def remarks(self) -> list[str]:
        """What somebody may want to know, and need do nothing about."""
        remarks = []
        if self.held_since is not None:
            remarks.append(
                f"held by a rollback since {format_moment(self.held_since)}; "
                "`music-cloud publish --resume` goes on"
            )
        if _DUE_PART <= self._spent_part < _LATE_PART:
            remarks.append("half of the time to its expiry is gone: the next publish renews it")
        return remarks

    @property
    def _spent_part(self) -> float:
        """How much of the life that a publisher gave it is gone; 1 and more when it has expired."""
        since = self.extended_at or self.manifest.published_at
        return (self.now - since) / (self.manifest.expires_at - since)

    def _published_problems(self) -> Iterator[str]:
        manifest = self.manifest
        if self.now >= manifest.expires_at:
            age = format_age(self.now - manifest.expires_at)
            yield f"snapshot {manifest.sequence} expired {age} ago; the publisher has not renewed it"
        elif self._spent_part >= _LATE_PART:
            left = format_age(manifest.expires_at - self.now)
            yield (
                f"snapshot {manifest.sequence} expires in {left} and was not renewed; "
                "is the publisher running?"
            )
        if self.signature.problem is not None:
            yield self.signature.problem

    def _lags(self, mirror: MirrorState) -> Iterator[str]:
        current, newest = mirror.current, self.manifest
        if mirror.problem is not None or current is None:
            yield f"mirror {mirror.folder}: {mirror.problem or 'was never synced'}"
        elif current.sequence > newest.sequence:
            yield (
                f"mirror {mirror.folder} has snapshot {current.sequence}, which is newer than what the store "
                f"serves ({newest.sequence})"
            )
        elif current.sequence == newest.sequence and current.database != newest.database:
            yield f"mirror {mirror.folder} serves another database as snapshot {newest.sequence}"
        elif mirror.behind_since is not None and self.now - mirror.behind_since > self.max_lag:
            lag = format_age(self.now - mirror.behind_since)
            yield (
                f"mirror {mirror.folder} has lagged for {lag}: it serves snapshot {current.sequence} "
                f"of {newest.sequence}"
            )


def find_extended_at(history: Iterable[Link]) -> datetime | None:
    """When the expiry of the newest of these manifests was set, newest first; None when there are none.

    A prune publishes a manifest and copies the expiry: a publisher that is dead must not look alive by it. No
    more is read than it takes; where what was before is pruned or broken, the oldest that is left counts.
    """
    oldest: Manifest | None = None
    try:
        for link in history:
            if oldest is not None and link.manifest.expires_at != oldest.expires_at:
                break
            oldest = link.manifest
    except (HistoryError, StoreError):  # `verify` tells of it
        pass
    return None if oldest is None else oldest.published_at


def format_moment(moment: datetime) -> str:
    """A time for people, in UTC."""
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"


def status_fields(status: Status) -> dict[str, Any]:
    """The fields of `status --json`."""
    manifest = status.manifest
    return {
        "is_good": not status.problems,
        "problems": status.problems,
        "remarks": status.remarks,
        "repository": manifest.repository,
        "sequence": manifest.sequence,
        "snapshot_id": manifest.snapshot_id,
        "published_at": manifest.published_at,
        "age_s": int((status.now - manifest.published_at).total_seconds()),
        "expires_at": manifest.expires_at,
        "expires_in_s": int((manifest.expires_at - status.now).total_seconds()),
        "playlist_count": manifest.playlist_count,
        "track_count": manifest.track_count,
        "file_count": manifest.file_count,
        "cover_count": manifest.cover_count,
        "database_bytes": manifest.database.size_bytes,
        "held_since": status.held_since,
        "signature": status.signature.state,
        "signed_by": status.signature.key_id,
        "mirrors": [_mirror_fields(status, mirror) for mirror in status.mirrors],
    }


def _mirror_fields(status: Status, mirror: MirrorState) -> dict[str, Any]:
    current, newest = mirror.current, status.manifest
    lag = None if mirror.behind_since is None else status.now - mirror.behind_since
    return {
        "folder": mirror.folder,
        "sequence": current and current.sequence,
        "snapshot_id": current and current.snapshot_id,
        "published_at": current and current.published_at,
        "behind": None if current is None else max(0, newest.sequence - current.sequence),
        "lag_s": int(lag.total_seconds()) if lag is not None else (None if current is None else 0),
        "is_published_database": current is not None and current.database == newest.database,
        "problem": mirror.problem,
    }


def status_lines(status: Status) -> Iterator[str]:
    """What `status` prints; monitoring systems show the first line."""
    manifest, problems = status.manifest, status.problems
    age = format_age(status.now - manifest.published_at)
    summary = f"snapshot {manifest.sequence}, {printable(manifest.snapshot_id)}, published {age} ago"
    yield printable(f"ATTENTION: {problems[0]}" if problems else f"OK: {summary}")
    rows = [
        ("published", summary) if problems else ("published", format_moment(manifest.published_at)),
        ("expires", _describe_expiry(status)),
        (
            "catalogue",
            f"{manifest.playlist_count:,} playlists, {manifest.track_count:,} tracks, "
            f"{manifest.file_count:,} files; {format_bytes(manifest.database.size_bytes)}",
        ),
        ("signature", _describe_signature(status.signature)),
        *((f"mirror {mirror.folder}", _describe_mirror(status, mirror)) for mirror in status.mirrors),
        *(("remark", remark) for remark in status.remarks),
        *(("attention", problem) for problem in problems),
    ]
    for line in align([[printable(cell) for cell in row] for row in rows]):
        yield f"  {line}"


def _describe_expiry(status: Status) -> str:
    left = status.manifest.expires_at - status.now
    when = f"in {format_age(left)}" if left > timedelta() else f"{format_age(-left)} ago"
    return f"{format_moment(status.manifest.expires_at)}, {when}"


def _describe_signature(signature: Signature) -> str:
    if signature.state == "good":
        return f"good, by key {signature.key_id}"
    if signature.state == "bad":
        return "not to be believed"
    if signature.state == "none":
        return "none"
    return f"by key {signature.key_id}, not checked: give its public key with --public-key"


def _describe_mirror(status: Status, mirror: MirrorState) -> str:
    current, newest = mirror.current, status.manifest
    if current is None:
        return mirror.problem or "never synced"
    behind = newest.sequence - current.sequence
    if behind <= 0:
        return f"snapshot {current.sequence}" + (", up to date" if behind == 0 else ", newer than the store")
    lag = "" if mirror.behind_since is None else f" for {format_age(status.now - mirror.behind_since)}"
    same = ", which only renew it" if current.database == newest.database else ""
    return f"snapshot {current.sequence}, {behind} behind{lag}{same}"
