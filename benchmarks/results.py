# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""The JSON of the results: for each benchmark its rows, with the date and the machine."""

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
    """The rows of one benchmark.

    :param date: Day of the measurement.
    :param cores: Number of cores of the machine.
    :param python: Version of Python.
    :param airflow: Version of Airflow.
    :param load: Load average of the last minute before the measurement; near 0 on an idle machine.
    :param rows: The rows.
    """

    date: str
    cores: int
    python: str
    airflow: str
    load: float
    rows: tuple[Row, ...]


Results = dict[str, Measured]


def measured_now(rows: Sequence[Row], load: float) -> Measured:
    """Return rows with the date and the machine of now."""
    return Measured(
        date=datetime.datetime.now(datetime.UTC).date().isoformat(),
        cores=os.cpu_count() or 0,
        python=platform.python_version(),
        airflow=importlib.metadata.version("apache-airflow"),
        load=round(load, 1),
        rows=tuple(rows),
    )


def read(path: Path) -> Results:
    """Read a file of results; a missing one has none."""
    if not path.exists():
        return {}
    document = json.loads(path.read_text(encoding="utf-8"))
    return {
        name: Measured(**{**found, "rows": tuple(Row.from_dict(row) for row in found["rows"])})
        for name, found in document.items()
    }


def write(path: Path, results: Mapping[str, Measured]) -> None:
    """Write a file of results."""
    document = {name: asdict(found) for name, found in results.items()}
    path.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
