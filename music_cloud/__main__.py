"""`python -m music_cloud` is `music-cloud`."""

from music_cloud.cli import main

main()
