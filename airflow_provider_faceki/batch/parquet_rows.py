# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""The rows of a Parquet file, only the columns that are wanted, some at a time. A value that cannot be read spoils its
own row and no other."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any, BinaryIO

from airflow_provider_faceki.api.errors import ConfigurationError, ValidationError
from airflow_provider_faceki.batch.csv_rows import check_header
from airflow_provider_faceki.batch.raw import Raw, Unreadable

#: Rows that are Python objects at once.
ROWS_AT_ONCE = 1024
#: Bytes of a column that are in memory at once; without it, all of the column's row group is.
BUFFER = 256 * 1024


def read(file: BinaryIO, columns: Collection[str], needed: Collection[str]) -> Iterator[Raw]:
    """Yield the rows; parameters and errors as for :func:`csv_rows.read`.

    :raises ConfigurationError: pyarrow is not installed.
    :raises OSError: the storage fails.
    """
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise ConfigurationError("Parquet needs pyarrow: install airflow-provider-faceki[parquet]") from None
    watched = _Watched(file)
    try:
        table = parquet.ParquetFile(watched, buffer_size=BUFFER, pre_buffer=False)
        header = table.schema_arrow.names
        check_header(header, columns, needed)
        wanted = [column for column in columns if column in header]
        for batch in table.iter_batches(batch_size=ROWS_AT_ONCE, columns=wanted, use_threads=False):
            yield from _rows(batch)
    except (pyarrow.ArrowException, OSError):
        # Of a damaged page pyarrow says what a storage says that fails.
        if watched.failure is not None:
            raise watched.failure from None
        raise ValidationError("manifest: not a readable Parquet file") from None


def _rows(batch: Any) -> Iterator[Raw]:
    try:
        rows: list[Raw] = batch.to_pylist()
    except (ValueError, OverflowError):
        # One value spoils the whole batch, so they are looked at one by one.
        rows = [_row(batch, number) for number in range(batch.num_rows)]
    yield from rows


def _row(batch: Any, number: int) -> Raw:
    row: dict[str, object] = {}
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        try:
            row[name] = column[number].as_py()
        except (ValueError, OverflowError):
            return Unreadable(f"column {name!r} holds what is not UTF-8, or cannot be read")
    return row


class _Watched:
    """A file as pyarrow reads it, and whether it was the file that failed."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.failure: OSError | None = None
        self.closed = False
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int = -1) -> bytes:
        try:
            return self._file.read(size)
        except OSError as error:
            self.failure = error
            raise

    def close(self) -> None:
        self.closed = True
