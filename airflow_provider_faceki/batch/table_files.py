# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Tables as files: NDJSON, or Parquet with the columns' own types."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

from airflow_provider_faceki.api.errors import ConfigurationError
from airflow_provider_faceki.batch.tables import Column

FORMATS = ("ndjson", "parquet")


def encoded(rows: Sequence[Mapping[str, object]], columns: Sequence[Column], format: str) -> bytes:  # noqa: A002
    """Return ``rows`` as the content of one file.

    :param rows: Values by column.
    :param columns: Which columns, in order.
    :param format: ``ndjson`` (dates and times in ISO 8601) or ``parquet`` (extra ``parquet``).
    :raises ConfigurationError: pyarrow is not installed.
    """
    if format == "parquet":
        return _parquet(rows, columns)
    return "".join(f"{json.dumps(row, default=_iso, allow_nan=False)}\n" for row in rows).encode()


def _iso(value: object) -> str:
    if isinstance(value, date):
        return value.isoformat()
    raise TypeError(f"no JSON form for {type(value).__name__}")


def _parquet(rows: Sequence[Mapping[str, object]], columns: Sequence[Column]) -> bytes:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise ConfigurationError("Parquet needs pyarrow: install airflow-provider-faceki[parquet]") from None
    types: dict[str, Any] = {
        "text": pyarrow.string(),
        "int": pyarrow.int64(),
        "float": pyarrow.float64(),
        "bool": pyarrow.bool_(),
        "date": pyarrow.date32(),
        "time": pyarrow.timestamp("us", tz="UTC"),
        "json": pyarrow.string(),
    }
    schema = pyarrow.schema([(column.name, types[column.type]) for column in columns])
    buffer = io.BytesIO()
    parquet.write_table(pyarrow.Table.from_pylist(list(rows), schema=schema), buffer)
    return buffer.getvalue()
