# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Read and write the JSON file of benchmark results: the rows of each benchmark, the date and the machine."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.frame import Row


@dataclass(frozen=True, slots=True)
class Measured:
    """The result of one benchmark.

    :param date: Day of the measurement, in the form YYYY-MM-DD, in UTC.
    :param cores: Number of CPU cores of the machine.
    :param python: Version of Python.
    :param airflow: Version of Airflow.
    :param load: Load average of the last minute before the measurement. It is near 0 on an idle machine.
    :param rows: The rows of the result table.
    """

    date: str
    cores: int
    python: str
    airflow: str
    load: float
    rows: tuple[Row, ...]


Results = dict[str, Measured]


def measured_now(rows: Sequence[Row], load: float) -> Measured:
    """Return the result of a benchmark that has just run: its rows, today's date, and the data of this machine."""
    return Measured(
        date=datetime.datetime.now(datetime.UTC).date().isoformat(),
        cores=os.cpu_count() or 0,
        python=platform.python_version(),
        airflow=importlib.metadata.version("apache-airflow"),
        load=round(load, 1),
        rows=tuple(rows),
    )


def read(path: Path) -> Results:
    """Read the results of benchmarks from a JSON file. If the file does not exist, return no results."""
    if not path.exists():
        return {}
    document = json.loads(path.read_text(encoding="utf-8"))
    return {
        name: Measured(**{**found, "rows": tuple(Row.from_dict(row) for row in found["rows"])})
        for name, found in document.items()
    }


def write(path: Path, results: Mapping[str, Measured]) -> None:
    """Write the results of benchmarks to a JSON file.

    :param results: The result of each benchmark, by the name of the benchmark.
    """
    document = {name: asdict(found) for name, found in results.items()}
    path.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
