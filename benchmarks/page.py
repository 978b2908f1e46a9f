# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Generate the tables of docs/performance.md from the file of results."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from benchmarks.frame import Row
from benchmarks.results import Measured
from benchmarks.table import number, target_text

DOCS = Path(__file__).resolve().parents[1] / "docs"
#: The file with the results of all benchmarks. It belongs to the repository.
RESULTS = DOCS / "benchmarks.json"
PAGE = DOCS / "performance.md"
#: The alternative text of each plot (plots.py), by the name of the benchmark.
PLOTTED = {
    "tokens": "Token requests for 100 calls, and for 20 processes; the provider makes one in each case",
    "waits": "CPU and memory of 1 000 waits in one triggerer, with the provider and with two other programs",
    "uploads": "Memory and CPU of an upload of seven images of 5 MB",
    "batch": "Verifications per second, with 16 and with 64 concurrent requests",
    "first_call": "CPU time of a task's first call: this provider, plain requests, and the http provider",
    "calls": "Time of a GET with one hook and with a new hook for each call",
}
#: Matches a generated part of docs/performance.md. Each such part is between two HTML comments: the first contains the
#: name of a benchmark, and the second marks the end.
_GENERATED = re.compile(r"(<!-- results of (\w+) -->\n).*?(<!-- end of results -->)", re.DOTALL)


def fill(page: str, results: Mapping[str, Measured]) -> str:
    """Return the text of docs/performance.md with its old plots and tables replaced by those of ``results``.

    :param page: The old text of docs/performance.md.
    :param results: The result of each benchmark, by the name of the benchmark.
    :raises ValueError: if ``page`` has no place for the results of a benchmark.
    """
    places = {name for _, name, _ in _GENERATED.findall(page)}
    if missing := sorted(set(results) - places):
        raise ValueError(f"{PAGE.name} has no place for the results of {', '.join(missing)}")
    return _GENERATED.sub(lambda place: f"{place[1]}\n{_shown(place[2], results)}\n{place[3]}", page)


def _shown(name: str, results: Mapping[str, Measured]) -> str:
    if name not in results:
        return "There are no results yet.\n"
    plot = f"![{PLOTTED[name]}](plots/{name}.svg)\n\n" if name in PLOTTED else ""
    return plot + table(results[name])


def table(measured: Measured) -> str:
    """Return the table of one benchmark, with one line for each measure. Below the table are date and machine."""
    lines = ["| measure | this provider | others, measured in the same run | target |", "|---|---|---|---|"]
    by_measure: dict[str, list[Row]] = {}
    for row in measured.rows:
        by_measure.setdefault(row.measure, []).append(row)
    lines += [_line(measure, rows) for measure, rows in by_measure.items()]
    place = f"{measured.date}, {measured.cores} cores, Python {measured.python}, Airflow {measured.airflow}"
    return "\n".join([*lines, "", f"{place}. Load average before the measurement: {measured.load:g}.", ""])


def _line(measure: str, rows: list[Row]) -> str:
    first = rows[0]
    ours = number(first.ours, first.unit) + (f" ({first.remark})" if first.remark else "")
    others = "<br>".join(_other(row) for row in rows if row.peer) or "-"
    targets = [
        f"{target_text(row.target, row.unit)}: {'kept' if row.ok else '**missed**'}"
        for row in rows
        if row.target is not None
    ]
    return f"| {measure} | {ours} | {others} | {'<br>'.join(dict.fromkeys(targets)) or '-'} |"


def _other(row: Row) -> str:
    if row.theirs is None:
        return f"{row.peer}: not taken"
    value = f"{row.peer}: {number(row.theirs, row.unit)}"
    if row.ratio is None or not row.ours:
        return value
    return f"{value} (ratio {row.ratio:.2f})" if row.ratio >= 0.1 else f"{value} (ratio {row.ratio:.2g})"
