"""When a keyframe is made, and which deltas stay in a manifest; decides and touches nothing.

Invariant: whatever manifest a mirror meets, a fresh one fetches at most one and a half keyframes, and no
mirror on the chain is stranded by a keyframe. A keyframe is due so early that it can follow on its own when
the delta is live; only a delta that would break the bound by itself has to come together with one.
"""

from __future__ import annotations

from math import isqrt

from contracts.manifest import MAX_DELTAS, Delta, Keyframe, Manifest
from contracts.route import plan_route

# Of a keyframe's bytes: what a fresh mirror fetches on top of it, at most.
_CHAIN_PART = 0.5
# What a delta of one blob takes in a manifest; each is sent twice, under its digest and as the pointer.
_ENTRY_BYTES = 330
_MIN_DELTAS = (
    16  # a mirror that was away for a few publishes should find its place, however small the database
)


def max_deltas(keyframe: Keyframe) -> int:
    """How many deltas a manifest should name.

    A chain of n costs a publish n entries, and a keyframe every n publishes. The sum is least where both
    are equal: at 256 from a keyframe of 43 MB on, at 39 with one of a megabyte.
    """
    return min(MAX_DELTAS, max(_MIN_DELTAS, isqrt(keyframe.stored_bytes // (2 * _ENTRY_BYTES))))


def is_keyframe_due(manifest: Manifest) -> bool:
    """Whether one more delta like the largest would break the bound, or a few more would be too many."""
    since = [delta.stored_bytes for delta in plan_route(manifest, None).deltas]
    # An eighth is left for the publishes until a slow uplink has sent the keyframe.
    return len(since) >= max_deltas(manifest.keyframe) * 7 // 8 or (
        sum(since) + max(since, default=0) > manifest.keyframe.stored_bytes * _CHAIN_PART
    )


def needs_keyframe(manifest: Manifest, delta: Delta) -> bool:
    """Whether this delta after those of the manifest leads too far from its keyframe."""
    since = plan_route(manifest, None).deltas
    stored_bytes = sum(earlier.stored_bytes for earlier in since) + delta.stored_bytes
    return len(since) >= MAX_DELTAS or stored_bytes > manifest.keyframe.stored_bytes * _CHAIN_PART


def is_newer_keyframe(manifest: Manifest, keyframe: Keyframe) -> bool:
    """Whether this keyframe may replace the manifest's own: a later one on the chain that keeps the bound."""
    later = plan_route(manifest, None).deltas
    places = [place for place, delta in enumerate(later, 1) if delta.target == keyframe.database]
    stored_bytes = sum(delta.stored_bytes for delta in later[places[-1] :]) if places else 0
    return bool(places) and stored_bytes <= keyframe.stored_bytes * _CHAIN_PART


def trim_chain(deltas: tuple[Delta, ...], keyframe: Keyframe) -> tuple[Delta, ...]:
    """The newest of these deltas: not too many, of a keyframe's bytes, and all that a fresh mirror needs."""
    stored_bytes = sum(delta.stored_bytes for delta in deltas)
    start = 0
    for number, delta in enumerate(deltas):
        is_short = len(deltas) - number <= max_deltas(keyframe) and stored_bytes <= keyframe.stored_bytes
        if is_short or all(later.target != keyframe.database for later in deltas[number:]):
            break
        stored_bytes -= delta.stored_bytes
        start = number + 1
    return deltas[start:]
