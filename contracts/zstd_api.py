"""The standard library's zstd, wherever this Python keeps it (PEP 784)."""

import sys

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

__all__ = ["zstd"]
