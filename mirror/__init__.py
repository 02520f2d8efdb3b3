"""The mirror: a verified copy of the catalogue on the public server, swapped under live readers."""

from mirror.follow import follow
from mirror.generations import Current
from mirror.mirror import Mirror, SyncResult

__all__ = ["Current", "Mirror", "SyncResult", "follow"]
