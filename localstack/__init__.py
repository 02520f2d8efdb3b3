"""A real S3 server and a caching web server on this machine, without Docker, for tests and for trying out.

Nothing here is part of the product, and nothing of the product is imported here.
"""

from __future__ import annotations

from localstack.errors import LocalStackError
from localstack.nginx import CachingProxy, find_nginx
from localstack.seaweed import Bucket, SeaweedFS

__all__ = ["Bucket", "CachingProxy", "LocalStackError", "SeaweedFS", "find_nginx"]
