"""The picture of the table: bytes for each churn, and what an hour costs the publisher and the mirror."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.peers.measure import Result
from benchmarks.peers.report import Measured
from benchmarks.peers.scenario import FIRST_HOUR

# Okabe and Ito's palette, which the colour-blind can tell apart: https://jfly.uni-koeln.de/color/
_COLOURS = {"hour": "#0072B2", "day": "#E69F00", "growth": "#B5B5B5"}
_DARK = "#222222"
_OURS = "music-cloud"


def draw(measured: Sequence[Measured], path: Path) -> None:
    """Write the picture of the steps of one size, without the first after an export.

    Raises:
        ImportError: without matplotlib, which the dependency group `bench` has.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter

    steps = [step for step in measured if step.step != FIRST_HOUR]
    results = [_results(step) for step in steps]
    first = results[0]
    names = sorted(first, key=lambda name: first[name].uploaded_bytes)
    places = range(len(names))

    figure = Figure(figsize=(10, 8.4), dpi=100, layout="constrained", facecolor="white")
    sizes, seconds, memory = figure.subplots(1, 3, sharey=True, width_ratios=(2.6, 1, 1))
    height = 0.84 / len(steps)
    for number, (step, found) in enumerate(zip(steps, results, strict=True)):
        middles = [place + ((len(steps) - 1) / 2 - number) * height for place in places]
        widths = [found[name].uploaded_bytes for name in names]
        sizes.barh(middles, widths, height, color=_COLOURS[step.step], label=step.step)
        for middle, width in zip(middles, widths, strict=True):
            sizes.annotate(
                _format_bytes(width),
                (width, middle),
                xytext=(3, 0),
                textcoords="offset points",
                verticalalignment="center_baseline",
                fontsize=7,
                color=_DARK,
            )
    sizes.set_xscale("log")
    smallest, *_, largest = sorted(result.uploaded_bytes for found in results for result in found.values())
    sizes.set_xlim(smallest / 3, largest * 4)  # room for the labels; a logarithmic axis has no zero
    sizes.set_ylim(-0.6, len(names) - 0.4)
    sizes.set_yticks(places, names)
    sizes.get_yticklabels()[names.index(_OURS)].set_fontweight("bold")
    sizes.xaxis.set_major_formatter(FuncFormatter(lambda size, _: _format_bytes(size)))
    sizes.legend(frameon=False, loc="lower right")
    sizes.set_title("bytes to upload", loc="left", fontsize=10)

    hour = steps[0].step
    panels = ((seconds, f"seconds, {hour}", "seconds"), (memory, f"peak MiB, {hour}", "peak_mib"))
    for axes, title, field in panels:
        style = {"linestyle": "none", "markersize": 6, "color": _COLOURS[steps[0].step]}
        publisher = [getattr(first[name].publisher, field) for name in names]
        mirror = [getattr(first[name].mirror, field) for name in names]
        axes.plot(publisher, places, marker="o", label="publisher", **style)
        axes.plot(mirror, places, marker="o", fillstyle="none", label="mirror", **style)
        alone = getattr(steps[0].ours.encode, field)
        axes.plot([alone], [names.index(_OURS)], marker="|", label="its delta alone", **style)
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.grid(axis="y", color="#E4E4E4", linewidth=0.6)
        axes.tick_params(axis="y", length=0)
        axes.set_title(title, loc="left", fontsize=10)
    figure.legend(*seconds.get_legend_handles_labels(), frameon=False, loc="outside lower right", ncols=3)
    for axes in (sizes, seconds, memory):
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(
        f"One publish of {steps[0].songs:,} songs, a database of {steps[0].database_bytes / 1e6:.0f} MB",
        x=0.01,
        horizontalalignment="left",
    )
    figure.savefig(path)


def _results(step: Measured) -> dict[str, Result]:
    """By the name of the peer, ours among them."""
    rows = {f"{row.peer.name}, {row.peer.basis}": row.result for row in step.rows if row.result is not None}
    return {**rows, _OURS: step.ours.result}


def _format_bytes(size: float) -> str:
    return f"{size / 1e6:.3g} MB" if size >= 1e6 else f"{size / 1e3:.3g} kB"
