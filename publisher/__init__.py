"""The publisher: from the authoritative catalogue to the bucket, on the NAS."""

from publisher.differences import TableChanges
from publisher.export import export_snapshot
from publisher.options import Environment, PublishOptions
from publisher.plan import EXPIRY
from publisher.publish import publish
from publisher.result import PublishResult

__all__ = [
    "EXPIRY",
    "Environment",
    "PublishOptions",
    "PublishResult",
    "TableChanges",
    "export_snapshot",
    "publish",
]
