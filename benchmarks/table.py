# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Format the rows of benchmark results as a Markdown table."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.frame import Row, Target

HEADINGS = ("measure", "peer or baseline", "ours", "ratio", "target", "ok")


def table(rows: Sequence[Row]) -> str:
    """Return the rows as an aligned Markdown table.

    If consecutive rows have the same text in the column *measure*, only the first of them shows this text.
    """
    cells = [HEADINGS]
    before = ""
    for row in rows:
        cells.append(
            (
                row.measure if row.measure != before else "",
                _peer(row),
                number(row.ours, row.unit) + (f" ({row.remark})" if row.remark else ""),
                _ratio(row),
                target_text(row.target, row.unit),
                "-" if row.target is None else "yes" if row.ok else "NO",
            )
        )
        before = row.measure
    widths = [max(len(line[column]) for line in cells) for column in range(len(HEADINGS))]
    lines = [_line(line, widths) for line in cells]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "| " + " | ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)) + " |"


def _peer(row: Row) -> str:
    if not row.peer:
        return "-"
    return f"{row.peer}: {'not taken' if row.theirs is None else number(row.theirs, row.unit)}"


def _ratio(row: Row) -> str:
    if row.ratio is None:
        return "-"
    middle_half = f" ({row.quartiles[0]:.2f}-{row.quartiles[1]:.2f})" if row.quartiles else ""
    return f"{row.ratio:.2f}{middle_half}"


def target_text(target: Target | None, unit: str) -> str:
    """Return the short text of a benchmark's target (a limit for a measured number), for example ``≤ 4 %``."""
    if target is None:
        return "-"
    return f"{target.sign} {target.limit:g}" + (f" {unit}".rstrip() if target.of == "ours" else " x")


def number(value: float, unit: str) -> str:
    """Return the text of a value with its unit.

    The value is rounded to three significant digits. From 100, it is rounded to an integer.
    """
    figures = f"{value:.0f}" if value >= 100 or value == int(value) else f"{value:.3g}"
    return f"{figures} {unit}".strip()
