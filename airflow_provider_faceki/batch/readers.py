# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Read CSV, NDJSON and Parquet files row by row in bounded memory. An unreadable row does not stop the reading."""

from __future__ import annotations

import csv
import io
import json
from collections import deque
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO, TypeAlias

from airflow_provider_faceki.api.errors import ConfigurationError, ValidationError
from airflow_provider_faceki.batch.parquet_pages import PageError, read_pages
from airflow_provider_faceki.storage_errors import StorageError

#: Maximum length of a line in bytes. A longer line is an unreadable row. The maximum is much larger than a row of URIs,
#: which has a few hundred bytes.
MAX_LINE_BYTES = 1024 * 1024
#: If more than this number of consecutive bytes contain no row, reading stops with an error. Such bytes are one endless
#: line, or blank lines.
MAX_BYTES_WITHOUT_ROW = 64 * 1024 * 1024
#: In the check of ``MAX_BYTES_WITHOUT_ROW``, each blank line counts as at least this number of bytes, although it is
#: shorter. The reason is that a blank line takes as much time to read as any other line.
BLANK_LINE_BYTES = 1024
#: A CSV row continues on the next line if a field contains a line break. At most this number of lines is added to the
#: first line of a row. If the row is longer than ``MAX_LINE_BYTES``, no further line is added. If the row is not
#: complete after the last added line, it is unreadable, because a closing quote is probably missing.
MAX_FIELD_LINES = 100
#: Maximum number of Parquet rows that are converted to Python objects at once. If the values are large, fewer rows are
#: converted at once; see ``MAX_BATCH_BYTES``.
PARQUET_BATCH_ROWS = 1024
#: Number of bytes of a Parquet column that are read at once. Without this limit, pyarrow would read all values that the
#: column has in a row group at once.
PARQUET_BUFFER_BYTES = 256 * 1024
#: Maximum length in bytes of one value in a Parquet column.
MAX_CELL_BYTES = 64 * 1024
#: A compressed Parquet file of 3 kB can contain gigabytes. Therefore the total size in bytes of the values of one
#: column in one row group has two limits. ``MAX_AVERAGE_CELL_BYTES`` limits the average: the total size must not exceed
#: this number multiplied by the number of values, plus ``MAX_CELL_BYTES``. The addition allows a small file to contain
#: one long value. ``MAX_COLUMN_BYTES`` limits the total size, whatever the number of values.
MAX_AVERAGE_CELL_BYTES = 4 * 1024
MAX_COLUMN_BYTES = 256 * 1024 * 1024
#: Maximum memory in bytes for the pages of a Parquet file. pyarrow keeps one page of each used column in memory. In the
#: worst case, this is the largest page of each column. Therefore the sizes of these largest pages are added, and the
#: sum must not exceed this number.
MAX_PAGES_BYTES = 256 * 1024 * 1024
#: Maximum memory in bytes for the Parquet rows that are converted at once. The calculation assumes that each row
#: contains a value of the size of the largest dictionary page. A dictionary page contains the different values of a
#: column.
MAX_BATCH_BYTES = 64 * 1024 * 1024

# Arrow types whose values can have any length.
_SIZED_TYPES = {"string", "large_string", "binary", "large_binary"}
_VIEW_TYPES = {"string_view", "binary_view"}
# Some programs write this byte order mark before the first line of a UTF-8 file.
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class UnreadableRow:
    """A row that cannot be read.

    :param problem: Reason why the row cannot be read.
    :param content: Text or bytes of the row, as far as they are known. The content distinguishes this row from other
        unreadable rows.
    """

    problem: str
    content: str | bytes = field(default=b"", repr=False)


ParsedRow: TypeAlias = "Mapping[str, object] | UnreadableRow"


def read_ndjson(file: BinaryIO) -> Iterator[ParsedRow]:
    """Yield the JSON object of each line. If a line contains no JSON object, yield an :class:`UnreadableRow`."""
    for line in _lines(file):
        yield line if isinstance(line, UnreadableRow) else _parse_json(line)


def read_csv(file: BinaryIO, columns: Collection[str], required: Collection[str]) -> Iterator[ParsedRow]:
    """Yield the rows of a CSV file in UTF-8. A byte order mark is allowed, and lines can end with LF or CRLF.

    If a quote is not closed, only the row with this quote is unreadable.

    :param file: The CSV file.
    :param columns: Names of the columns that are used.
    :param required: Names of the columns that the header must contain.
    :raises ValidationError: if the header is not readable, lacks a required column or contains a used column twice, or
        if ``MAX_BYTES_WITHOUT_ROW`` bytes contain no row.
    """
    records = _csv_records(_lines(file))
    header = next(records, None)
    if not isinstance(header, list):
        raise ValidationError("manifest: the CSV file has no readable header")
    header = [name.strip() for name in header]
    _check_header(header, columns, required, "; is the first line a header, in UTF-8 and with commas?")
    for record in records:
        if isinstance(record, UnreadableRow):
            yield record
        elif len(record) > len(header):
            problem = f"the row has {len(record)} columns, the header {len(header)}"
            yield UnreadableRow(problem, "\0".join(record))
        else:
            yield dict(zip(header, record, strict=False))


def read_parquet(file: BinaryIO, columns: Collection[str], required: Collection[str]) -> Iterator[ParsedRow]:
    """Yield the rows of a Parquet file. Only the used columns are read. The parameters are those of :func:`read_csv`.

    :raises ValidationError: if the file is not readable, or would need too much memory.
    :raises ConfigurationError: if pyarrow is not installed.
    :raises StorageError: if the storage failed.
    """
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise ConfigurationError("Parquet needs pyarrow: install the extra 'parquet'") from None
    try:
        table = parquet.ParquetFile(file, buffer_size=PARQUET_BUFFER_BYTES, pre_buffer=False)
        header = table.schema_arrow.names
        _check_header(header, columns, required)
        used = [column for column in columns if column in header]
        _check_no_lists(table.schema, used)
        for chunk in _chunks(table.metadata, used):
            _check_chunk(chunk)
        largest = _check_pages(_chunks(table.metadata, used), file)
        rows = max(1, min(PARQUET_BATCH_ROWS, MAX_BATCH_BYTES // (largest or 1)))
        for batch in table.iter_batches(batch_size=rows, columns=used, use_threads=False):
            yield from _batch_rows(batch)
    except StorageError:
        # pyarrow raises OSError for a corrupt file, and raises the errors of the storage unchanged. StorageError is an
        # OSError too. It is raised again here, so that the code below does not report it as a corrupt file.
        raise
    # UnicodeDecodeError: the name of a column is not UTF-8.
    except (pyarrow.ArrowException, OSError, PageError, UnicodeDecodeError):
        raise ValidationError("manifest: not a readable Parquet file") from None


def _lines(file: BinaryIO) -> Iterator[bytes | UnreadableRow]:
    """Yield the lines of a file that are not blank.

    :raises ValidationError: if one line, or a sequence of blank lines, has more than ``MAX_BYTES_WITHOUT_ROW`` bytes.
    """
    is_first, without_row = True, 0
    while line := file.readline(MAX_LINE_BYTES + 1):
        without_row += max(len(line), BLANK_LINE_BYTES)
        if len(line) > MAX_LINE_BYTES:
            head = line
            while not line.endswith(b"\n") and (line := file.readline(MAX_LINE_BYTES)):
                without_row += len(line)
                _check_has_rows(without_row)
            without_row = 0
            yield UnreadableRow(f"the line is longer than {MAX_LINE_BYTES} bytes", head)
        else:
            line = line.removeprefix(_BOM) if is_first else line
            if line.strip():
                without_row = 0
                yield line
        is_first = False
        _check_has_rows(without_row)


def _check_has_rows(without_row: int) -> None:
    if without_row > MAX_BYTES_WITHOUT_ROW:
        raise ValidationError(
            f"manifest: {MAX_BYTES_WITHOUT_ROW // 2**20} MiB without a row, only one very long line or "
            f"blank lines (each counts as {BLANK_LINE_BYTES} bytes); is the file CSV or NDJSON?"
        )


def _parse_json(line: bytes) -> ParsedRow:
    try:
        values = json.loads(line, object_pairs_hook=_unique)
    except _RepeatedNameError:
        # If a JSON object contains a name twice, with two values, JSON does not define which value is valid. With the
        # wrong value, the wrong person would be verified. Therefore the row is unreadable.
        return UnreadableRow("the line contains a name twice", line)
    except (ValueError, RecursionError):
        return UnreadableRow("the line is not JSON", line)
    return values if isinstance(values, dict) else UnreadableRow("the line is not a JSON object", line)


class _RepeatedNameError(Exception):
    """Error: a JSON object contains the same name twice."""


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    values = dict(pairs)
    if len(values) < len(pairs):
        raise _RepeatedNameError
    return values


def _check_header(
    header: Collection[str], columns: Collection[str], required: Collection[str], hint: str = ""
) -> None:
    names = list(header)
    # An error message contains the number of columns, but not the header of the file. If the file has no header, its
    # first row is read as the header, and this row contains personal data.
    found = f"it has {len(names)} column(s){hint}"
    if missing := [column for column in required if column not in names]:
        raise ValidationError(
            f"manifest: there is no column {', '.join(map(repr, missing))}; {found}; see the parameter columns"
        )
    if repeated := [column for column in columns if names.count(column) > 1]:
        raise ValidationError(
            f"manifest: there is more than one column {', '.join(map(repr, repeated))}; {found}"
        )


def _csv_records(lines: Iterator[bytes | UnreadableRow]) -> Iterator[list[str] | UnreadableRow]:
    pushed_back: deque[bytes | UnreadableRow] = deque()
    while True:
        line = pushed_back.popleft() if pushed_back else next(lines, None)
        if line is None:
            return
        if isinstance(line, UnreadableRow):
            yield line
            continue
        record, lookahead = _csv_record(line, pushed_back, lines)
        if record is None:
            # If a quote is not closed, the following lines are read again as separate rows.
            pushed_back.extendleft(reversed(lookahead))
            problem = "the row is not CSV: a quote that is not closed, or a field of more than 128 KiB"
            yield UnreadableRow(problem, line)
        else:
            yield record


def _csv_record(
    line: bytes, pushed_back: deque[bytes | UnreadableRow], lines: Iterator[bytes | UnreadableRow]
) -> tuple[list[str] | None, list[bytes | UnreadableRow]]:
    """Read the CSV record that begins with ``line``. The record possibly continues on further lines.

    :param line: First line of the record.
    :param pushed_back: Lines that follow ``line`` and that an earlier call has already taken from ``lines``. They are
        read before ``lines``.
    :param lines: The remaining lines of the file.
    :returns: The record, and a list of the lines that were read after ``line``. If the text is not valid CSV, the
        record is ``None``. The caller then puts the lines of the list back into ``pushed_back``.
    """
    lookahead: list[bytes | UnreadableRow] = []
    text = _decode(line)
    while (record := _parse_csv(text)) is None and text.count('"') % 2:
        if len(lookahead) >= MAX_FIELD_LINES or len(text) > MAX_LINE_BYTES:
            break
        following = pushed_back.popleft() if pushed_back else next(lines, None)
        if following is None:
            break
        lookahead.append(following)
        if isinstance(following, UnreadableRow):
            break
        text += _decode(following)
    return record, lookahead


def _parse_csv(text: str) -> list[str] | None:
    try:
        records = list(csv.reader(io.StringIO(text, newline="\n"), strict=True))
    except csv.Error:
        return None
    return records[0] if len(records) == 1 else None


def _decode(line: bytes) -> str:
    # This function accepts bytes that are not UTF-8. If a used column contains them, a later check refuses the row.
    return line.decode("utf-8", errors="surrogateescape")


def _chunks(metadata: Any, used: Collection[str]) -> Iterator[Any]:
    """Yield the column chunks of the used columns. A Parquet column has one chunk in each row group."""
    for group in map(metadata.row_group, range(metadata.num_row_groups)):
        for chunk in map(group.column, range(group.num_columns)):
            if _is_used(chunk.path_in_schema, used):
                yield chunk


def _is_used(path: str, used: Collection[str]) -> bool:
    # A dot in a path separates the names of nested columns, but it can also be a part of a name. Therefore the path is
    # not split at its dots.
    return any(f"{path}.".startswith(f"{name}.") for name in used)


def _check_no_lists(schema: Any, used: Collection[str]) -> None:
    # List columns are refused, because a list can need any amount of memory. A list of a few bytes in the file can have
    # any number of values, and pyarrow reads a list as a whole.
    for column in map(schema.column, range(len(schema))):
        if column.max_repetition_level and _is_used(column.path, used):
            raise ValidationError(
                f"manifest: column {column.path!r} of the Parquet file contains lists, not text"
            )


def _check_chunk(chunk: Any) -> None:
    """Refuse a column chunk that would need too much memory according to the footer of the file."""
    size: int = chunk.total_uncompressed_size
    if size > min(MAX_COLUMN_BYTES, MAX_CELL_BYTES + chunk.num_values * MAX_AVERAGE_CELL_BYTES):
        raise ValidationError(
            f"manifest: column {chunk.path_in_schema!r} of the Parquet file contains {size} bytes in "
            f"{chunk.num_values} value(s); at most {MAX_AVERAGE_CELL_BYTES} bytes for each value are "
            "read"
        )


def _check_pages(chunks: Iterator[Any], file: BinaryIO) -> int:
    """Refuse Parquet pages that would need too much memory. Return the size in bytes of the largest dictionary page.

    A dictionary page contains the different values of a column. The sizes are read from the headers of the pages,
    because the sizes in the footer of the file can be wrong.
    """
    largest_pages: dict[str, int] = {}
    largest_value = 0
    for chunk in chunks:
        # A column chunk is the part of a Parquet column in one row group. If it has a dictionary page, this page comes
        # first. The footer of the file contains the offset of the dictionary page and the offset of the first data
        # page. Reading starts at the smaller of the two, so that a wrong offset in the footer cannot hide the
        # dictionary page.
        offsets = (chunk.dictionary_page_offset, chunk.data_page_offset)
        start = min((offset for offset in offsets if offset), default=0)
        for page in read_pages(file, start, chunk.total_compressed_size):
            name = chunk.path_in_schema
            largest_pages[name] = max(page.size, largest_pages.get(name, 0))
            if sum(largest_pages.values()) > MAX_PAGES_BYTES:
                raise ValidationError(
                    f"manifest: the pages of the Parquet file's columns need more than {MAX_PAGES_BYTES // 2**20} MiB; "
                    "write it with smaller pages or row groups"
                )
            if page.is_delta:
                raise ValidationError(
                    f"manifest: column {name!r} of the Parquet file has a delta encoding, which is not read because "
                    "its memory has no limit; write it with the encoding PLAIN, or with a dictionary"
                )
            # A dictionary page contains each different value of a Parquet column once. A row needs only a few bytes in
            # the file to refer to such a value. In the worst case, every row refers to the largest value. A value is
            # never larger than its dictionary page. Therefore the caller assumes that each row contains a value of the
            # size of the largest dictionary page.
            if page.is_dictionary:
                largest_value = max(largest_value, page.size)
    return largest_value


def _batch_rows(batch: Any) -> Iterator[ParsedRow]:
    names = batch.schema.names
    columns = [_cells(name, column) for name, column in zip(names, batch.columns, strict=True)]
    for cells in zip(*columns, strict=True):
        problem = next((cell for cell in cells if isinstance(cell, UnreadableRow)), None)
        yield problem or dict(zip(names, cells, strict=True))


def _cells(name: str, column: Any) -> list[object]:
    """Return the values of a column. An unreadable value is replaced by an :class:`UnreadableRow`."""
    sizes = _sizes(column)
    if all(size is None or size <= MAX_CELL_BYTES for size in sizes):
        try:
            cells: list[object] = column.to_pylist()
        except (ValueError, OverflowError):
            # One invalid value makes the conversion of the whole column fail. In this case, the values are converted
            # one by one, so that only the row with the invalid value is unreadable.
            pass
        else:
            return cells
    return [_cell(name, value, size) for value, size in zip(column, sizes, strict=True)]


def _sizes(column: Any) -> list[int | None]:
    from pyarrow import compute, types

    if types.is_dictionary(column.type):
        sizes = _sizes(column.dictionary)
        return [None if index is None else sizes[index] for index in column.indices.to_pylist()]
    if str(column.type) in _VIEW_TYPES:
        # Arrow cannot compute the lengths of values of these types, so the column is converted to another type.
        column = column.cast("large_binary")
    if str(column.type) not in _SIZED_TYPES:
        return [None] * len(column)
    lengths: list[int | None] = compute.binary_length(column).to_pylist()
    return lengths


def _cell(name: str, value: Any, size: int | None) -> object:
    if size is not None and size > MAX_CELL_BYTES:
        return UnreadableRow(f"column {name!r} contains {size} bytes, more than {MAX_CELL_BYTES}")
    try:
        return value.as_py()
    except (ValueError, OverflowError):
        return UnreadableRow(f"column {name!r} contains text that is not UTF-8, or cannot be read")
