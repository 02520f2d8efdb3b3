"""A sample catalogue: what the demo publishes, what the tests export, what the benchmarks measure.

Invariant: everything here is made up and deterministic; no row, name or sound comes from a real catalogue.
"""

from music_cloud.sample.audio import PlayableTrack, add_playable_tracks, write_wav
from music_cloud.sample.catalogue import create_catalogue
from music_cloud.sample.churn import Churn, ChurnCounts, evolve
from music_cloud.sample.songs import SECRET_MARKER

__all__ = [
    "SECRET_MARKER",
    "Churn",
    "ChurnCounts",
    "PlayableTrack",
    "add_playable_tracks",
    "create_catalogue",
    "evolve",
    "write_wav",
]
