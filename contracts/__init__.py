"""What the roles agree on: the manifest, the bucket's layout, the read model, tokens, errors. No I/O."""

from contracts.manifest import Manifest, SnapshotManifest, format_manifest, parse_manifest
from contracts.tokens import OriginClaims, TokenKind, create_origin_token, verify_origin_token

__all__ = [
    "Manifest",
    "OriginClaims",
    "SnapshotManifest",
    "TokenKind",
    "create_origin_token",
    "format_manifest",
    "parse_manifest",
    "verify_origin_token",
]
