# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""What is in the manifest: one row a person, read as it is needed, whatever is wrong with single rows."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import BinaryIO

from airflow_provider_faceki import storage
from airflow_provider_faceki.api.errors import ValidationError
from airflow_provider_faceki.batch import csv_rows, parquet_rows
from airflow_provider_faceki.batch.formats import MANIFEST_FORMATS
from airflow_provider_faceki.batch.raw import Raw, Unreadable, lines

_ENDINGS = {"ndjson": "ndjson", "jsonl": "ndjson", "csv": "csv", "parquet": "parquet"}
# What a shard (see shards.py) says of a row beside its values, called as no column is.
_NUMBER, _PROBLEM = "airflow_provider_faceki:row", "airflow_provider_faceki:problem"


@dataclass(frozen=True, slots=True, repr=False)
class Row:
    """One row of a manifest.

    :param number: Its place, the first being 1; a header and blank lines do not count.
    :param values: Texts by column, without spaces around them; empty ones are left out.
    :param problem: Why it cannot be read, in which case there are no values.
    """

    number: int
    values: Mapping[str, str]
    problem: str | None = None

    def shard_line(self) -> bytes:
        """Return it as a line of NDJSON that is read back as the same row, whatever its place there."""
        told = {_NUMBER: self.number, **({_PROBLEM: self.problem} if self.problem else self.values)}
        return json.dumps(told).encode() + b"\n"


def rows(
    uri: str,
    columns: Mapping[str, str],
    conn_id: str | None = None,
    format: str | None = None,  # noqa: A002
    required: Collection[str] = ("record_identifier",),
) -> Iterator[Row]:
    """Yield the rows of a manifest, one after another.

    :param uri: Absolute local path or URI of the manifest.
    :param columns: What each column is called in the file, by what it is called here.
    :param conn_id: Connection for that storage.
    :param format: ``ndjson``, ``csv`` or ``parquet``. Default: by the file's ending.
    :param required: Columns, by what they are called here, that a file with a header must have.
    :raises ValidationError: the manifest cannot be read at all.
    """
    if not isinstance(uri, str):
        raise ValidationError(f"manifest must be a URI, not {type(uri).__name__}")
    kind = format or _ENDINGS.get(uri.rpartition(".")[2].lower(), "")
    if kind not in MANIFEST_FORMATS:
        raise ValidationError(
            f"manifest: name it .ndjson, .csv or .parquet, or give its format ({', '.join(MANIFEST_FORMATS)})"
        )
    needed = [columns[name] for name in required]
    with storage.open_binary(uri, conn_id) as file:
        for place, raw in enumerate(_raw(file, kind, columns, needed), 1):
            yield raw if isinstance(raw, Row) else _named(place, raw, columns)


def _raw(file: BinaryIO, kind: str, columns: Mapping[str, str], needed: list[str]) -> Iterator[Raw | Row]:
    if kind == "parquet":
        yield from parquet_rows.read(file, columns.values(), needed)
    elif kind == "csv":
        yield from csv_rows.read(file, columns.values(), needed)
    else:
        for line in lines(file):
            yield _ndjson(line, columns)


def _ndjson(line: bytes | Unreadable, columns: Mapping[str, str]) -> Raw | Row:
    if isinstance(line, Unreadable):
        return line
    try:
        values = json.loads(line)
    except (ValueError, RecursionError):
        return Unreadable("the line is not JSON")
    if not isinstance(values, dict):
        return Unreadable("the line is not a JSON object")
    number = values.get(_NUMBER)
    if isinstance(number, int) and not isinstance(number, bool):
        problem = values.get(_PROBLEM)
        return _named(number, Unreadable(problem) if isinstance(problem, str) else values, columns)
    return values


def _named(number: int, raw: Raw, columns: Mapping[str, str]) -> Row:
    if isinstance(raw, Unreadable):
        return Row(number, {}, raw.problem)
    named: dict[str, str] = {}
    for name, column in columns.items():
        value = raw.get(column)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, str | int):
            return Row(number, {}, f"column {column!r} must be text, not {type(value).__name__}")
        text = str(value).strip()
        if not text.isprintable():
            return Row(number, {}, f"column {column!r} holds what is not UTF-8, or not printable")
        if text:
            named[name] = text
    return Row(number, named)
