"""origin: tokens in, bytes out. Runs on the NAS, beside the authoritative catalogue and the files."""

from __future__ import annotations

from contracts.best_source import STREAM_PATH
from origin.app import build_app, create_app
from origin.catalog import CATALOG_PATH
from origin.serve import serve, serving
from origin.settings import OriginSettings, parse_roots

__all__ = [
    "CATALOG_PATH",
    "STREAM_PATH",
    "OriginSettings",
    "build_app",
    "create_app",
    "parse_roots",
    "serve",
    "serving",
]
