"""What was measured as Markdown, and which of the project's limits it keeps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.peers.measure import Cost, Peer, Result
from benchmarks.peers.ours import Ours

LIMITS_SONGS = 1_000_000  # the limits are set for this size
SMALLEST_FULL = {"hour": 450, "day": 45}
SMALLEST_CHUNKS, SMALLEST_LITESTREAM = 200, 30
LARGEST_OF_XDELTA = {"hour": 0.8, "day": 0.95}
LARGEST_COST_OF_XDELTA = 0.5
PUBLISH_LIMIT = Cost(4.0, 200)
APPLY_LIMIT_S = 1.2

MIB = 1 << 20


@dataclass
class Row:
    """One peer; without a result, the reason why it was skipped."""

    peer: Peer
    result: Result | None
    skipped: str = ""


@dataclass
class Measured:
    """One step by all peers."""

    songs: int
    step: str
    database_bytes: int
    export_cost: Cost
    listed_bytes: int
    ours: Ours
    rows: list[Row]

    def find(self, name: str, basis: str) -> Result | None:
        return next(
            (row.result for row in self.rows if (row.peer.name, row.peer.basis) == (name, basis)), None
        )


def format_table(measured: Measured) -> str:
    """The step's table and a line of the parts of ours."""
    ours = measured.ours
    lines = [
        f"**{measured.songs:,} songs, {measured.database_bytes / 1e6:.0f} MB, {measured.step}**",
        "",
        "| | database | bytes up | times ours | publisher, s | MiB | bytes down | mirror, s | MiB |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in measured.rows:
        name = f"| {row.peer.name} | {row.peer.basis} "
        if row.result is None:
            lines.append(f"{name}| skipped: {row.skipped} | | | | | | |")
        else:
            lines.append(f"{name}| {_format_result(row.result, ours)}")
    lines.append(f"| **music-cloud** | refreshed | {_format_result(ours.result, ours)}")
    listed = measured.listed_bytes
    lines.append(
        f"| the changed rows, listed | | {listed:,} | {listed / ours.result.uploaded_bytes:.2f} | | | | | |"
    )
    lines += [
        "",
        f"music-cloud publishes in: {_format_steps(ours.publish_steps)}; compare and encode alone, in a "
        f"process of their own: {_format_cost(ours.encode)}. Its mirror: {_format_steps(ours.apply_steps)}. "
        f"A fresh export, which comes before all that is rebuilt: {_format_cost(measured.export_cost)}.",
    ]
    return "\n".join(lines)


def _format_result(result: Result, ours: Ours) -> str:
    ratio = result.uploaded_bytes / ours.result.uploaded_bytes
    up = f"{result.uploaded_bytes:,} | {ratio:.{1 if ratio < 20 else 0}f}"
    publisher, mirror = result.publisher, result.mirror
    return (
        f"{up} | {publisher.seconds:.2f} | {publisher.peak_mib:.0f} | "
        f"{result.downloaded_bytes:,} | {mirror.seconds:.2f} | {mirror.peak_mib:.0f} |"
    )


def _format_cost(cost: Cost) -> str:
    return f"{cost.seconds:.2f} s, {cost.peak_mib:.0f} MiB"


def _format_steps(steps: dict[str, float]) -> str:
    return ", ".join(f"{name} {seconds:.2f} s" for name, seconds in steps.items())


def format_limits(measured: Measured) -> list[str]:
    """A line for each limit of this step: what was asked, what was found, and whether it was reached."""
    return [
        f"- {measured.step}: {text}: {'reached' if is_reached else '**NOT reached**'}"
        for text, is_reached in _limits(measured)
    ]


def _limits(measured: Measured) -> Iterator[tuple[str, bool]]:
    step, ours = measured.step, measured.ours
    if step not in SMALLEST_FULL:
        return
    sent = ours.result.uploaded_bytes

    def at_most(part: int, name: str, basis: str) -> Iterator[tuple[str, bool]]:
        if peer := measured.find(name, basis):
            found = peer.uploaded_bytes / sent
            yield f"bytes at most 1/{part} of {name} ({basis}): 1/{found:.0f}", found >= part

    yield from at_most(SMALLEST_FULL[step], "full zstd -3", "rebuilt")
    if step == "hour":
        for basis in ("rebuilt", "refreshed"):
            yield from at_most(SMALLEST_CHUNKS, "zchunk", basis)
            yield from at_most(SMALLEST_CHUNKS, "casync", basis)
        yield from at_most(SMALLEST_LITESTREAM, "Litestream", "refreshed")
    for name in ("xdelta3", "xdelta3 -9"):
        if peer := measured.find(name, "refreshed"):
            found = sent / peer.uploaded_bytes
            limit = LARGEST_OF_XDELTA[step]
            yield f"bytes at most {limit:g} of {name} (refreshed): {found:.2f}", found <= limit
            seconds = ours.encode.seconds / peer.publisher.seconds
            memory = ours.encode.peak_mib / peer.publisher.peak_mib
            limit = LARGEST_COST_OF_XDELTA
            yield f"its time at most {limit:g} of {name}: {seconds:.2f}", seconds <= limit
            yield f"its memory at most {limit:g} of {name}: {memory:.2f}", memory <= limit
    steps = ours.publish_steps
    seconds = sum(steps[name] for name in ("refresh", "compare", "encode"))
    yield (
        f"refresh and delta at most {PUBLISH_LIMIT.seconds:g} s: {seconds:.2f} s "
        f"({seconds + steps['copy']:.2f} s with the copy)",
        seconds <= PUBLISH_LIMIT.seconds,
    )
    peak_mib = ours.result.publisher.peak_mib
    limit = PUBLISH_LIMIT.peak_mib
    yield f"refresh and delta at most {limit:g} MiB: {peak_mib:.0f} MiB", peak_mib <= limit
    seconds = ours.apply_steps["apply"] + ours.apply_steps["verify"]
    yield (
        f"apply and verify at most {APPLY_LIMIT_S:g} s: {seconds:.2f} s "
        f"({seconds + ours.apply_steps['copy']:.2f} s with the copy)",
        seconds <= APPLY_LIMIT_S,
    )
