# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Tables as files: NDJSON, or Parquet with the columns' own types. Put together on this machine's disk, since a store
shows a file when it is whole."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime
from typing import Any, BinaryIO, Protocol

from airflow_provider_faceki.api.errors import ConfigurationError
from airflow_provider_faceki.api.tables import Column

#: Bytes of a file that are in memory before it goes to disk.
_IN_MEMORY = 1024 * 1024
#: Rows of a Parquet file that are Python objects at once, and those that make one row group: large enough to be read
#: fast, small enough to be held.
_ROWS_AT_ONCE = 1000
_ROWS_A_GROUP = 10_000


class TableFile(Protocol):
    """One table in the making."""

    def add(self, row: Mapping[str, object]) -> None:
        """Add a row, dates and times in it as ISO 8601."""

    def finish(self) -> BinaryIO:
        """Return the whole file, at its beginning. It is gone when it is closed."""


def table_file(columns: Sequence[Column], format: str) -> TableFile:  # noqa: A002
    """Return an empty table.

    :param columns: Which columns, in order.
    :param format: ``ndjson`` or ``parquet`` (extra ``parquet``).
    :raises ConfigurationError: pyarrow is not installed.
    """
    return ParquetFile(columns) if format == "parquet" else NdjsonFile()


class NdjsonFile:
    """One JSON object a line."""

    def __init__(self) -> None:
        self._file: Any = tempfile.SpooledTemporaryFile(_IN_MEMORY)  # noqa: SIM115 - finish() hands it over

    def add(self, row: Mapping[str, object]) -> None:
        """Add a row."""
        self._file.write(json.dumps(row, allow_nan=False).encode() + b"\n")

    def finish(self) -> BinaryIO:
        """Return the file."""
        self._file.seek(0)
        file: BinaryIO = self._file
        return file


class ParquetFile:
    """Columns of their own types, in row groups."""

    def __init__(self, columns: Sequence[Column]) -> None:
        try:
            import pyarrow
            from pyarrow import parquet
        except ImportError:
            raise ConfigurationError(
                "Parquet needs pyarrow: install airflow-provider-faceki[parquet]"
            ) from None
        self._arrow = pyarrow
        self._schema = pyarrow.schema([(column.name, _arrow_type(pyarrow, column)) for column in columns])
        self._read = {column.name: _FROM_TEXT[column.type] for column in columns if column.type in _FROM_TEXT}
        self._file: Any = tempfile.TemporaryFile()  # noqa: SIM115 - finish() hands it over
        self._writer = parquet.ParquetWriter(self._file, self._schema)
        self._rows: list[dict[str, object]] = []
        self._batches: list[Any] = []

    def add(self, row: Mapping[str, object]) -> None:
        """Add a row."""
        self._rows.append({**row, **{name: self._typed(name, row[name]) for name in self._read}})
        if len(self._rows) >= _ROWS_AT_ONCE:
            self._pack()

    def finish(self) -> BinaryIO:
        """Return the file."""
        self._pack(last=True)
        self._writer.close()
        self._file.seek(0)
        file: BinaryIO = self._file
        return file

    def _typed(self, name: str, value: object) -> object:
        return self._read[name](value) if isinstance(value, str) else None

    def _pack(self, *, last: bool = False) -> None:
        if self._rows:
            self._batches.append(self._arrow.RecordBatch.from_pylist(self._rows, schema=self._schema))
            self._rows = []
        if self._batches and (last or sum(batch.num_rows for batch in self._batches) >= _ROWS_A_GROUP):
            table = self._arrow.Table.from_batches(self._batches, schema=self._schema)
            self._writer.write_table(table, row_group_size=_ROWS_A_GROUP)
            self._batches = []


_FROM_TEXT: dict[str, Callable[[str], object]] = {
    "date": date.fromisoformat,
    "time": datetime.fromisoformat,
}


def _arrow_type(pyarrow: Any, column: Column) -> Any:
    types: dict[str, Any] = {
        "int": pyarrow.int64(),
        "float": pyarrow.float64(),
        "bool": pyarrow.bool_(),
        "date": pyarrow.date32(),
        "time": pyarrow.timestamp("us", tz="UTC"),
    }
    return types.get(column.type, pyarrow.string())
