"""The publisher: from the authoritative catalogue to the bucket, on the NAS."""

from publisher.export import export_snapshot
from publisher.options import Environment, PublishOptions
from publisher.plan import EXPIRY
from publisher.publish import PublishResult, publish
from publisher.refresh import TableChanges

__all__ = [
    "EXPIRY",
    "Environment",
    "PublishOptions",
    "PublishResult",
    "TableChanges",
    "export_snapshot",
    "publish",
]
