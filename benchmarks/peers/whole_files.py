"""Peers that compare two whole files: zstd and xdelta3; and the full upload, which compares nothing."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from benchmarks.peers.measure import Basis, Cost, Peer, Result, run, verify_same


def full_upload(old: Path, new: Path, scratch: Path) -> Result:
    packed, restored = scratch / "full.zst", scratch / "restored.db"
    publisher = run("zstd", "-q", "-3", new, "-o", packed)
    mirror = run("zstd", "-q", "-d", packed, "-o", restored)
    return _verified(packed, publisher, mirror, restored, new)


def zstd_patch(level: tuple[str, ...], old: Path, new: Path, scratch: Path) -> Result:
    """The window must hold the whole older file, which zstd itself sees to; 31 is the largest there is."""
    packed, restored = scratch / "patch.zst", scratch / "restored.db"
    common = ("-q", "--long=31", f"--patch-from={old}")
    publisher = run("zstd", *level, *common, new, "-o", packed)
    mirror = run("zstd", "-d", *common, packed, "-o", restored)
    return _verified(packed, publisher, mirror, restored, new)


def xdelta(level: tuple[str, ...], old: Path, new: Path, scratch: Path) -> Result:
    """Its window on the older file, 64 MiB unless told, is the whole file: nothing that moved is missed."""
    packed, restored = scratch / "patch.vcdiff", scratch / "restored.db"
    common = ("-B", str(max(old.stat().st_size, 1 << 20)), "-s", old)
    publisher = run("xdelta3", "-e", *level, *common, new, packed)
    mirror = run("xdelta3", "-d", *common, packed, restored)
    return _verified(packed, publisher, mirror, restored, new)


def _verified(packed: Path, publisher: Cost, mirror: Cost, restored: Path, new: Path) -> Result:
    verify_same(restored, new)
    size_bytes = packed.stat().st_size
    return Result(size_bytes, publisher, size_bytes, mirror)


def _patch_peers(basis: Basis) -> list[Peer]:
    return [
        Peer("zstd -3 --patch-from", basis, ("zstd",), partial(zstd_patch, ("-3",))),
        Peer("xdelta3", basis, ("xdelta3",), partial(xdelta, ())),
        Peer("xdelta3 -9", basis, ("xdelta3",), partial(xdelta, ("-9",))),
    ]


# The smallest that was found, and smaller than level 19, at a third of its time: as that it finds optimal
# paths, but searches larger tables less deeply. These logs are for files up to 512 MB.
_THOROUGH = (
    "--single-thread",
    "--zstd=strategy=9,searchLog=3,minMatch=6,chainLog=29,hashLog=28,targetLength=256",
)
FULL_UPLOAD = Peer("full zstd -3", "rebuilt", ("zstd",), full_upload)
PATCHES_OF_REBUILT = [
    *_patch_peers("rebuilt"),
    Peer("zstd --patch-from, thorough", "rebuilt", ("zstd",), partial(zstd_patch, _THOROUGH), is_slow=True),
]
PATCHES_OF_REFRESHED = _patch_peers("refreshed")
