"""What a person sees of work in progress: a bar on a terminal, plain lines elsewhere, always on stderr."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import Self, TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

_LINE_EVERY_S = 10.0  # often enough to see life in a log, seldom enough to keep it readable
STAGES = {
    "refresh": "comparing with the catalogue",
    "export": "exporting the catalogue",
    "compare": "looking for changed pages",
    "encode": "compressing them",
    "compress": "compressing",
    "upload": "uploading",
    "proof": "proving it",
    "swap": "moving the pointer",
    "download": "downloading",
    "verify": "verifying",
    "list": "listing the store",
    "delete": "deleting",
}


def format_bytes(size_bytes: float) -> str:
    """A size for people, in powers of 1024 (IEC 80000-13): "355 B", "1.4 MiB"."""
    if size_bytes < 1024:
        return f"{size_bytes:.0f} B"
    units = ["KiB", "MiB", "GiB"]
    size_bytes /= 1024
    while size_bytes >= 1024 and len(units) > 1:
        size_bytes /= 1024
        units.pop(0)
    return f"{size_bytes:.1f} {units[0]}"


def format_count(count: int, noun: str) -> str:
    """A number of things for people: "1 object", "1,200 objects"."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


class Screen:
    """An observer for `stores.progress.Progress`, and a context that tidies up after it."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._bar = _bar(stream) if stream.isatty() else None
        self._task: TaskID | None = None
        self._stage = ""
        self._began_s = self._told_s = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def observe(self, stage: str, done_bytes: int, total_bytes: int) -> None:
        """Show how far a stage is."""
        if self._bar is not None:
            self._draw(self._bar, stage, done_bytes, total_bytes)
        else:
            self._tell(stage, done_bytes, total_bytes)

    def _draw(self, bar: Progress, stage: str, done_bytes: int, total_bytes: int) -> None:
        if stage != self._stage or self._task is None:
            self._stage = stage
            bar.start()
            if self._task is not None:
                bar.remove_task(self._task)
            self._task = bar.add_task(STAGES.get(stage, stage), total=total_bytes or None)
        bar.update(self._task, completed=done_bytes)

    def _tell(self, stage: str, done_bytes: int, total_bytes: int) -> None:
        now_s = self._clock()
        if stage != self._stage:
            self._stage, self._began_s, self._told_s = stage, now_s, now_s
            size = f" {format_bytes(total_bytes)}" if total_bytes else ""
            self._stream.write(f"{STAGES.get(stage, stage)}{size}\n")
        elif total_bytes and done_bytes and now_s - self._told_s >= _LINE_EVERY_S:
            self._told_s = now_s
            rate = done_bytes / (now_s - self._began_s)
            self._stream.write(
                f"  {format_bytes(done_bytes)} of {format_bytes(total_bytes)}, {format_bytes(rate)}/s, "
                f"{(total_bytes - done_bytes) / rate:.0f} s left\n"
            )
        self._stream.flush()


def _bar(stream: TextIO) -> Progress:
    return Progress(
        TextColumn("{task.description:<24}"),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=Console(file=stream),
        transient=True,
    )
