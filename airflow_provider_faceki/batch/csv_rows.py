# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""The rows of a CSV file. A quote that is never closed spoils its own row and no other."""

from __future__ import annotations

import csv
import io
from collections import deque
from collections.abc import Collection, Iterator
from typing import BinaryIO

from airflow_provider_faceki.api.errors import ValidationError
from airflow_provider_faceki.batch.raw import Raw, Unreadable, lines

#: Lines over which a quoted field may go on; a longer one is a quote that was forgotten.
LONGEST_FIELD = 100


def read(file: BinaryIO, columns: Collection[str], needed: Collection[str]) -> Iterator[Raw]:
    """Yield the rows, in UTF-8, with or without a byte order mark, lines ended in either way.

    :param file: The file.
    :param columns: Columns that are wanted.
    :param needed: Columns that must be there.
    :raises ValidationError: the header does not have them, or has one of those wanted twice.
    """
    records = _records(lines(file))
    header = next(records, None)
    if not isinstance(header, list):
        raise ValidationError("manifest: the CSV file has no readable header")
    header = [name.strip() for name in header]
    check_header(header, columns, needed)
    for record in records:
        if isinstance(record, Unreadable):
            yield record
        elif len(record) > len(header):
            yield Unreadable(f"the row has {len(record)} columns, the header {len(header)}")
        else:
            yield dict(zip(header, record, strict=False))


def check_header(header: Collection[str], columns: Collection[str], needed: Collection[str]) -> None:
    """Refuse a file without the columns that must be there, or with one of those wanted twice.

    :raises ValidationError: it is one.
    """
    names = list(header)
    # Not their names: where there is no header, these are the first person's data.
    told = f"it has {len(names)} column(s); is the first line a header?"
    if missing := [column for column in needed if column not in names]:
        raise ValidationError(f"manifest: there is no column {', '.join(map(repr, missing))}; {told}")
    if twice := [column for column in columns if names.count(column) > 1]:
        raise ValidationError(
            f"manifest: there is more than one column {', '.join(map(repr, twice))}; {told}"
        )


def _records(found: Iterator[bytes | Unreadable]) -> Iterator[list[str] | Unreadable]:
    waiting: deque[bytes | Unreadable] = deque()
    while True:
        line = waiting.popleft() if waiting else next(found, None)
        if line is None:
            return
        if isinstance(line, Unreadable):
            yield line
            continue
        record, also = _record(line, waiting, found)
        if record is None:
            # The lines that it might have gone on over are rows of their own.
            waiting.extendleft(reversed(also))
            yield Unreadable(
                "the row is not CSV: a quote that is not closed, or a field of more than 128 KiB"
            )
        else:
            yield record


def _record(
    line: bytes, waiting: deque[bytes | Unreadable], found: Iterator[bytes | Unreadable]
) -> tuple[list[str] | None, list[bytes | Unreadable]]:
    """Return the record that begins with ``line``, or ``None`` and the lines that were looked at for it."""
    also: list[bytes | Unreadable] = []
    text = _text(line)
    while (record := _parsed(text)) is None and text.count('"') % 2 and len(also) < LONGEST_FIELD:
        more = waiting.popleft() if waiting else next(found, None)
        if more is None:
            break
        also.append(more)
        if isinstance(more, Unreadable):
            break
        text += _text(more)
    return record, also


def _parsed(text: str) -> list[str] | None:
    try:
        records = list(csv.reader(io.StringIO(text, newline="\n"), strict=True))
    except csv.Error:
        return None
    return records[0] if len(records) == 1 else None


def _text(line: bytes) -> str:
    # What is no UTF-8 is found out column by column: only those that are wanted matter.
    return line.decode("utf-8", errors="surrogateescape")
