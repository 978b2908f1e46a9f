# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""What is in the manifest: one row a person, read as it is needed, whatever is wrong with single rows."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import BinaryIO, TypeAlias

from airflow_provider_faceki import storage
from airflow_provider_faceki.api.errors import ConfigurationError, InputError

FORMATS = ("ndjson", "csv", "parquet")
#: Longest line in bytes; a row of URIs is some hundred, so more is a file of another kind.
LONGEST_LINE = 1024 * 1024
#: Rows of a Parquet file that are in memory at once.
PARQUET_ROWS = 1024

_ENDINGS = {
    "ndjson": "ndjson",
    "jsonl": "ndjson",
    "csv": "csv",
    "parquet": "parquet",
}
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True, repr=False)
class Row:
    """One row of a manifest.

    :param number: Its place, the first being 1; a header does not count.
    :param values: Texts by column; empty ones are left out.
    :param problem: Why it cannot be read, in which case there are no values.
    """

    number: int
    values: Mapping[str, str]
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class _Unreadable:
    """A row that cannot be read, and why."""

    problem: str


_Read: TypeAlias = Mapping[str, object] | _Unreadable


def rows(
    uri: str,
    columns: Mapping[str, str],
    conn_id: str | None = None,
    format: str | None = None,  # noqa: A002
) -> Iterator[Row]:
    """Yield the rows of a manifest, one after another.

    :param uri: Absolute local path or URI of the manifest.
    :param columns: What each column is called in the file, by what it is called here.
    :param conn_id: Connection for that storage.
    :param format: ``ndjson``, ``csv`` or ``parquet``. Default: by the file's ending.
    :raises InputError: the manifest cannot be read at all.
    """
    kind = format or _ENDINGS.get(uri.rpartition(".")[2].lower(), "")
    if kind not in FORMATS:
        raise InputError(
            f"manifest: name it .ndjson, .csv or .parquet, or give its format ({', '.join(FORMATS)})"
        )
    with storage.open_binary(uri, conn_id) as file:
        found: Iterator[_Read]
        if kind == "parquet":
            found = _parquet(file)
        elif kind == "csv":
            found = _csv(file, columns)
        else:
            found = (_ndjson(line) for line in _lines(file))
        for number, values in enumerate(found, 1):
            if isinstance(values, _Unreadable):
                yield Row(number, {}, values.problem)
            else:
                yield _named(number, values, columns)


def _named(number: int, values: Mapping[str, object], columns: Mapping[str, str]) -> Row:
    named: dict[str, str] = {}
    for name, column in columns.items():
        value = values.get(column)
        if value is None or value == "":
            continue
        if isinstance(value, bool) or not isinstance(value, str | int):
            return Row(number, {}, f"column {column!r} must be text, not {type(value).__name__}")
        named[name] = str(value)
    return Row(number, named)


def _lines(file: BinaryIO) -> Iterator[bytes | _Unreadable]:
    """Yield lines that are not blank; for one that is too long, what is wrong with it."""
    first = True
    while line := file.readline(LONGEST_LINE + 1):
        if len(line) > LONGEST_LINE:
            while not line.endswith(b"\n") and (line := file.readline(LONGEST_LINE)):
                pass
            yield _Unreadable(f"the line is longer than {LONGEST_LINE} bytes")
            first = False
            continue
        if first:
            line, first = line.removeprefix(_BOM), False
        if line.strip():
            yield line


def _ndjson(line: bytes | _Unreadable) -> _Read:
    if isinstance(line, _Unreadable):
        return line
    try:
        values = json.loads(line)
    except (ValueError, RecursionError):
        return _Unreadable("the line is not JSON")
    return values if isinstance(values, dict) else _Unreadable("the line is not a JSON object")


def _csv(file: BinaryIO, columns: Mapping[str, str]) -> Iterator[_Read]:
    text = io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline="")
    reader = csv.reader(text, strict=True)
    header = _csv_row(reader)
    if not isinstance(header, list):
        raise InputError("manifest: the CSV file has no readable header")
    missing = [
        column for name, column in columns.items() if name == "record_identifier" and column not in header
    ]
    if missing:
        raise InputError(
            f"manifest: the CSV header has no column {missing[0]!r}; found {', '.join(header)[:200]}"
        )
    while (row := _csv_row(reader)) is not None:
        if isinstance(row, _Unreadable):
            yield row
        elif len(row) > len(header):
            yield _Unreadable(f"the row has {len(row)} columns, the header {len(header)}")
        elif any(not cell.isprintable() for cell in row):
            yield _Unreadable("the row holds characters that are not UTF-8, or are not printable")
        elif row:
            yield dict(zip(header, row, strict=False))


def _csv_row(reader: Iterator[list[str]]) -> list[str] | _Unreadable | None:
    try:
        return next(reader, None)
    except csv.Error:
        return _Unreadable("the row is not CSV, or a field in it is longer than 128 KiB")


def _parquet(file: BinaryIO) -> Iterator[Mapping[str, object]]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise ConfigurationError("Parquet needs pyarrow: install airflow-provider-faceki[parquet]") from None
    try:
        for batch in parquet.ParquetFile(file).iter_batches(batch_size=PARQUET_ROWS):
            yield from batch.to_pylist()
    except (pyarrow.ArrowException, OSError):
        raise InputError("manifest: not a readable Parquet file") from None
