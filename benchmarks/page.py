# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""The tables of docs/performance.md, from the file of results."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from benchmarks.frame import Row
from benchmarks.results import Measured
from benchmarks.table import number, target_text

DOCS = Path(__file__).resolve().parents[1] / "docs"
#: The committed results.
RESULTS = DOCS / "benchmarks.json"
PAGE = DOCS / "performance.md"
#: Everything between these two comments is generated.
_GENERATED = re.compile(r"(<!-- results of (\w+) -->\n).*?(<!-- end of results -->)", re.DOTALL)


def fill(page: str, results: Mapping[str, Measured]) -> str:
    """Return the page with the tables of these results.

    :raises ValueError: a benchmark has no place on the page, or a place has no results.
    """
    places = [name for _, name, _ in _GENERATED.findall(page)]
    if set(places) != set(results):
        raise ValueError(
            f"{PAGE.name} has places for {sorted(places)}; there are results of {sorted(results)}"
        )
    return _GENERATED.sub(lambda place: f"{place[1]}{table(results[place[2]])}\n{place[3]}", page)


def table(measured: Measured) -> str:
    """Return the table of one benchmark, one line for each measure, and below it when and where it was taken."""
    lines = ["| measure | this provider | others, measured in the same run | target |", "|---|---|---|---|"]
    by_measure: dict[str, list[Row]] = {}
    for row in measured.rows:
        by_measure.setdefault(row.measure, []).append(row)
    lines += [_line(measure, rows) for measure, rows in by_measure.items()]
    place = f"{measured.date}, {measured.cores} cores, Python {measured.python}, Airflow {measured.airflow}"
    return "\n".join(
        ["", *lines, "", f"{place}. Load average before the measurement: {measured.load:g}.", ""]
    )


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
