# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Write tables of FACEKI records as NDJSON or Parquet, and define which columns are written, dropped or hashed."""

from __future__ import annotations

import hashlib
import hmac
import json
import tempfile
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, BinaryIO, Protocol

from airflow_provider_faceki.api.errors import ConfigurationError, ValidationError
from airflow_provider_faceki.api.tables import TABLES, Column

COLUMN_CHOICES = ("keep", "drop", "hash")

#: Maximum size in bytes of an NDJSON table in memory. A larger table is moved to a temporary file on disk.
_MAX_MEMORY_BYTES = 1024 * 1024
#: Number of Parquet rows that are collected as Python objects, before they are converted to Arrow's compact format.
_ROWS_PER_BATCH = 1000
#: Number of rows in a Parquet row group. Large groups are faster to read, but all rows of a group are in memory until
#: the group is written.
_ROWS_PER_GROUP = 10_000


@dataclass(frozen=True, slots=True)
class ColumnPolicy:
    """Rules that define which columns of the tables are written, dropped or hashed.

    :param choices: Mapping from ``table.column`` or ``table.*`` to ``keep`` (write), ``drop`` or ``hash``. ``table.*``
        stands for those columns of the table that contain personal data. A choice for a single column has priority over
        ``table.*``. If a column has no choice, the default applies: ids, decisions, codes, flags and times are written,
        and all data about the person is dropped.
    :param hash_key: Secret key for ``hash``. The same value and the same key give the same hash in every run.
    :raises ValidationError: if the name of a column or a choice is unknown.
    :raises ConfigurationError: if a column has to be hashed, and there is no key.
    """

    choices: Mapping[str, str]
    hash_key: str | None = None

    def __post_init__(self) -> None:
        check_choices(self.choices)
        if "hash" in self.choices.values() and not self.hash_key:
            raise ConfigurationError(
                "personal_data hashes a column: set pii_hash_secret, 32 or more characters, in the "
                "Connection's extra"
            )

    def choice(self, table: str, column: Column) -> str:
        """Return what happens to a column of an exported table.

        ``keep`` writes the values of the column, ``drop`` omits the column, and ``hash`` writes a hash of each value.
        """
        default = "drop" if column.personal else "keep"
        # ``table.*`` stands for those columns of the table that contain personal data. It has no effect on the other
        # columns, because some of them contain the ids that join the tables.
        starred = self.choices.get(f"{table}.*", default) if column.personal else default
        return self.choices.get(f"{table}.{column.name}", starred)

    def columns(self, table: str) -> tuple[Column, ...]:
        """Return the columns that are written to a table. A hashed column has the type ``text``."""
        return tuple(
            column._replace(type="text") if self.choice(table, column) == "hash" else column
            for column in TABLES[table]
            if self.choice(table, column) != "drop"
        )

    def row(self, table: str, values: Mapping[str, object]) -> dict[str, object]:
        """Return one row of a table as a mapping from column names to the written values.

        Dropped columns are missing, and hashed columns contain the hash. Dates and times become ISO 8601 text.
        """
        row: dict[str, object] = {}
        for column in TABLES[table]:
            choice = self.choice(table, column)
            if choice != "drop":
                value = values.get(column.name)
                text_or_value = value.isoformat() if isinstance(value, date) else value
                row[column.name] = self._hash(text_or_value) if choice == "hash" else text_or_value
        return row

    def _hash(self, value: object) -> str | None:
        if value is None:
            return None
        # Values that differ only in case, in whitespace or in the Unicode form of letters get the same hash.
        text = " ".join(unicodedata.normalize("NFKC", str(value)).casefold().split())
        return hmac.new((self.hash_key or "").encode(), text.encode(), hashlib.sha256).hexdigest()


def check_choices(choices: Mapping[str, str]) -> None:
    """Check the choices of a column policy.

    :param choices: Mapping from a column (``table.column`` or ``table.*``) to ``keep``, ``drop`` or ``hash``.
    :raises ValidationError: if a column or a choice is unknown.
    """
    names = {f"{table}.{column.name}" for table, columns in TABLES.items() for column in columns}
    names |= {f"{table}.*" for table in TABLES}
    for name, choice in choices.items():
        if name not in names:
            raise ValidationError(f"personal_data: no column {name!r}; write table.column or table.*")
        if choice not in COLUMN_CHOICES:
            raise ValidationError(
                f"personal_data: {name} must be one of {', '.join(COLUMN_CHOICES)}, not {choice!r}"
            )


class TableWriter(Protocol):
    """Writer that writes one table to a temporary file."""

    def add(self, row: Mapping[str, object]) -> None:
        """Write a row to the file of the table. Dates and times in ``row`` are ISO 8601 text."""

    def finish(self) -> BinaryIO:
        """Return the complete file, positioned at its beginning. The file is deleted when the caller closes it."""


class NdjsonWriter:
    """:class:`TableWriter` that writes one JSON object per line."""

    def __init__(self) -> None:
        self._file: Any = tempfile.SpooledTemporaryFile(_MAX_MEMORY_BYTES)  # noqa: SIM115 - finish() returns it

    def add(self, row: Mapping[str, object]) -> None:
        self._file.write(json.dumps(row, allow_nan=False).encode() + b"\n")

    def finish(self) -> BinaryIO:
        self._file.seek(0)
        file: BinaryIO = self._file
        return file


class ParquetWriter:
    """:class:`TableWriter` that writes a Parquet file with typed columns.

    :raises ConfigurationError: if pyarrow is not installed.
    """

    def __init__(self, columns: Sequence[Column]) -> None:
        try:
            import pyarrow
            from pyarrow import parquet
        except ImportError:
            raise ConfigurationError("Parquet needs pyarrow: install the extra 'parquet'") from None
        self._arrow = pyarrow
        self._schema = pyarrow.schema([(column.name, _arrow_type(pyarrow, column)) for column in columns])
        self._parsers = {column.name: _PARSERS[column.type] for column in columns if column.type in _PARSERS}
        self._file: Any = tempfile.TemporaryFile()  # noqa: SIM115 - finish() returns it
        self._writer = parquet.ParquetWriter(self._file, self._schema)
        self._rows: list[dict[str, object]] = []
        self._batches: list[Any] = []

    def add(self, row: Mapping[str, object]) -> None:
        self._rows.append({**row, **{name: self._parse(name, row[name]) for name in self._parsers}})
        if len(self._rows) >= _ROWS_PER_BATCH:
            self._write_rows()

    def finish(self) -> BinaryIO:
        self._write_rows(is_last=True)
        self._writer.close()
        self._file.seek(0)
        file: BinaryIO = self._file
        return file

    def _parse(self, name: str, value: object) -> object:
        return self._parsers[name](value) if isinstance(value, str) else None

    def _write_rows(self, *, is_last: bool = False) -> None:
        if self._rows:
            self._batches.append(self._arrow.RecordBatch.from_pylist(self._rows, schema=self._schema))
            self._rows = []
        if self._batches and (is_last or sum(batch.num_rows for batch in self._batches) >= _ROWS_PER_GROUP):
            table = self._arrow.Table.from_batches(self._batches, schema=self._schema)
            self._writer.write_table(table, row_group_size=_ROWS_PER_GROUP)
            self._batches = []


_PARSERS: dict[str, Callable[[str], object]] = {
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
