# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""The rows of a Parquet file, only the columns that are wanted, some at a time."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import BinaryIO

from airflow_provider_faceki.api.errors import ConfigurationError, InputError
from airflow_provider_faceki.batch.csv_rows import check_header
from airflow_provider_faceki.batch.raw import Raw

#: Rows that are Python objects at once.
ROWS_AT_ONCE = 1024
#: Bytes of a column that are in memory at once; without it, all of the column's row group is.
BUFFER = 256 * 1024


def read(file: BinaryIO, columns: Collection[str], needed: Collection[str]) -> Iterator[Raw]:
    """Yield the rows; parameters and errors as for :func:`csv_rows.read`.

    :raises ConfigurationError: pyarrow is not installed.
    """
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise ConfigurationError("Parquet needs pyarrow: install airflow-provider-faceki[parquet]") from None
    try:
        table = parquet.ParquetFile(file, buffer_size=BUFFER, pre_buffer=False)
        header = table.schema_arrow.names
        check_header(header, columns, needed)
        wanted = [column for column in columns if column in header]
        for batch in table.iter_batches(batch_size=ROWS_AT_ONCE, columns=wanted, use_threads=False):
            yield from batch.to_pylist()
    except pyarrow.ArrowException:
        raise InputError("manifest: not a readable Parquet file") from None
