# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Draw SVG plots that compare this provider with other programs, from the file of benchmark results."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from benchmarks.page import DOCS, PLOTTED, RESULTS
from benchmarks.results import Measured
from benchmarks.table import number

PLOTS = DOCS / "plots"
OURS = "this provider"
OUR_COLOR, PEER_COLOR = "#12675c", "#b8bfc6"


@dataclass(frozen=True, slots=True)
class Bars:
    """One group of bars in a plot.

    :param title: The measured quantity and its unit.
    :param values: The measured values, by the name of the measured program: our provider or a program that it is
        compared with.
    """

    title: str
    values: Mapping[str, float]


def stamp() -> str:
    """Return an SVG comment with the hash of the results. A test compares the hash, to find outdated plots."""
    return f"<!-- results {hashlib.sha256(RESULTS.read_bytes()).hexdigest()} -->"


def draw_all(results: Mapping[str, Measured]) -> None:
    """Draw all plots for which results exist."""
    PLOTS.mkdir(exist_ok=True)
    for name in PLOTTED:
        if name in results:
            drawn = _draw(GROUPS[name](results[name]))
            (PLOTS / f"{name}.svg").write_text(f"{drawn}{stamp()}\n", encoding="utf-8")


def bars(measured: Measured, measure: str, title: str) -> Bars:
    """Return the bars for one measure: our value and the values of the measured peers and baselines."""
    rows = [row for row in measured.rows if row.measure == measure]
    peers = {row.peer: row.theirs for row in rows if row.theirs is not None}
    return Bars(title, {OURS: rows[0].ours, **peers})


def _tokens(measured: Measured) -> list[Bars]:
    return [
        bars(
            measured,
            "token requests, 100 calls, a new hook each",
            "Token requests for 100 calls in one process",
        ),
        bars(
            measured,
            "token requests, 20 processes starting cold",
            "Token requests for 20 processes that start at the same time",
        ),
    ]


def _waits(measured: Measured) -> list[Bars]:
    return [
        bars(measured, "1 000 waits, CPU of one core", "CPU of 1 000 waits, % of one core"),
        bars(measured, "1 000 waits, memory a wait", "Memory of one wait, KiB"),
    ]


def _uploads(measured: Measured) -> list[Bars]:
    return [
        bars(measured, "upload of 7 x 5 MB, TLS, memory", "Memory for an upload of 7 images of 5 MB, MiB"),
        bars(measured, "upload of 7 x 5 MB, TLS, CPU", "CPU of the same upload, ms"),
    ]


def _batch(measured: Measured) -> list[Bars]:
    return [
        bars(
            measured,
            f"verified, {concurrency} at once, 300 ms server",
            f"Verifications a second, {concurrency} at the same time",
        )
        for concurrency in (16, 64)
    ]


def _first_call(measured: Measured) -> list[Bars]:
    return [bars(measured, "first call of a task, CPU", "CPU until the first answer of a new task, ms")]


def _calls(measured: Measured) -> list[Bars]:
    return [
        bars(measured, f"GET, {which}, TLS", f"GET over TLS, {which}, ms")
        for which in ("one hook", "a new hook each")
    ]


#: The function that returns the bars of a plot, by the name of the benchmark.
GROUPS: dict[str, Callable[[Measured], list[Bars]]] = {
    "tokens": _tokens,
    "waits": _waits,
    "uploads": _uploads,
    "batch": _batch,
    "first_call": _first_call,
    "calls": _calls,
}


def _draw(groups: Sequence[Bars]) -> str:
    heights = [len(group.values) + 1 for group in groups]
    # The same results must produce the same file. Therefore the ids of the SVG elements are created with a fixed salt,
    # and the date is omitted.
    with mpl.rc_context({"svg.hashsalt": "faceki", "font.family": "DejaVu Sans", "font.size": 11}):
        figure = Figure(figsize=(7.4, 0.36 * sum(heights) + 0.3), layout=ConstrainedLayoutEngine(h_pad=0.12))
        axes = figure.subplots(len(groups), 1, squeeze=False, height_ratios=heights)
        for group, (ax,) in zip(groups, axes, strict=True):
            _draw_group(ax, group)
        drawn = io.StringIO()
        figure.savefig(drawn, format="svg", metadata={"Date": None})
    return drawn.getvalue()


def _draw_group(ax: Axes, group: Bars) -> None:
    names = list(group.values)
    values = [group.values[name] for name in names]
    colors = [OUR_COLOR if name == OURS else PEER_COLOR for name in names]
    drawn = ax.barh(names, values, color=colors)
    ax.bar_label(drawn, [number(value, "") for value in values], padding=4)
    ax.set_title(group.title, loc="left", fontsize=11)
    ax.invert_yaxis()
    ax.margins(x=0.12)
    ax.set_xlim(left=0)
    ax.set_xticks([])
    ax.tick_params(length=0)
    for side in ("top", "right", "bottom"):
        ax.spines[side].set_visible(False)
