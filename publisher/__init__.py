"""The publisher: from the authoritative catalogue to the bucket, on the NAS."""

from publisher.export import export_snapshot
from publisher.plan import EXPIRY
from publisher.publish import Environment, PublishOptions, PublishResult, publish

__all__ = ["EXPIRY", "Environment", "PublishOptions", "PublishResult", "export_snapshot", "publish"]
