"""``python -m music_cloud.sample``: make a sample catalogue, or age one that is there.

Invariant: bad input costs one line on stderr and exit code 2, and changes nothing.
"""

import argparse
import sqlite3
import sys
from collections.abc import Sequence
from dataclasses import asdict
from io import TextIOWrapper
from pathlib import Path
from typing import NoReturn

from music_cloud.sample.audio import add_playable_tracks
from music_cloud.sample.catalogue import count_rows, create_catalogue
from music_cloud.sample.churn import evolve


class _OneLineParser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code: 0, or 2 for bad input."""
    parser = _build_parser()
    options = parser.parse_args(arguments)
    if options.songs is None and options.evolve is None and options.audio_root is None:
        parser.error("nothing to do: --songs makes a catalogue, --evolve and --audio-root change one")
    try:
        if options.songs is not None:
            create_catalogue(options.out, songs=options.songs, seed=options.seed)
        # Before the audio, so that the counts tell of the catalogue and not of the recordings.
        if options.evolve is not None:
            done = asdict(evolve(options.out, churn=options.evolve, seed=options.seed))
            _say(f"one {options.evolve}: {_listed(done)}")
        if options.audio_root is not None:
            for track in add_playable_tracks(options.out, options.audio_root, seed=options.seed):
                _say(f"song {track.song_id}: {track.path} ({track.size_bytes} bytes)")
        _say(f"{options.out}: {_listed(count_rows(options.out))}")
    except (OSError, ValueError, sqlite3.Error) as error:
        parser.error(str(error))
    return 0


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items())


def _build_parser() -> argparse.ArgumentParser:
    parser = _OneLineParser(
        prog="python -m music_cloud.sample",
        description="Make a sample catalogue, or change one that --out names when --songs is left out.",
    )
    parser.add_argument("--songs", type=int, metavar="N", help="make a new one of N songs, 1 to 5,000,000")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the catalogue")
    parser.add_argument("--seed", type=int, default=1, help="same seed, same rows (default: 1)")
    parser.add_argument("--evolve", choices=("hour", "day", "growth"), help="apply one step of churn")
    parser.add_argument(
        "--audio-root", type=Path, metavar="DIR", help="add four NAS-only tracks, with real audio beneath DIR"
    )
    return parser


if __name__ == "__main__":
    if isinstance(sys.stdout, TextIOWrapper):  # a Windows code page that lacks Chinese is no reason to fail
        sys.stdout.reconfigure(errors="backslashreplace")
    sys.exit(main())
