# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Read the rows of a Parquet file in bounded memory.

pyarrow decompresses a whole page at once, and allocates as many bytes as the header of the page says. So the sizes in
these headers show whether a file would need too much memory. Such a file is refused before pyarrow reads its values.
The sizes in the footer of the file are not enough, because the footer of a malicious file can contain wrong sizes.

The format of the headers is described at https://parquet.apache.org/docs/file-format/data-pages/ and
https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

from airflow_provider_faceki.api.errors import ConfigurationError, ValidationError
from airflow_provider_faceki.batch.rows import ParsedRow, UnreadableRow
from airflow_provider_faceki.storage_interface import StorageError

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
#: Maximum length in bytes of the header of a Parquet page. The limit is large, because the header can contain the
#: smallest and the largest value of the page.
MAX_HEADER_BYTES = 1024 * 1024
_FIRST_READ_BYTES = 1024
_MAX_DEPTH = 8

_DICTIONARY_PAGE = 2
# Numbers of the encodings DELTA_LENGTH_BYTE_ARRAY and DELTA_BYTE_ARRAY. A small page with one of these encodings can
# decode to text of any size.
_DELTA_ENCODINGS = frozenset({6, 7})
# Type numbers of Thrift's compact protocol.
_TRUE, _FALSE, _BYTE, _DOUBLE, _BINARY, _LIST, _SET, _STRUCT = 1, 2, 3, 7, 8, 9, 10, 12
_INTEGERS = (4, 5, 6)

# Arrow types whose values can have any length.
_SIZED_TYPES = {"string", "large_string", "binary", "large_binary"}
_VIEW_TYPES = {"string_view", "binary_view"}


def read_parquet(
    file: BinaryIO, columns: Collection[str], check_header: Callable[[Sequence[str]], None]
) -> Iterator[ParsedRow]:
    """Yield the rows of a Parquet file.

    :param file: The Parquet file.
    :param columns: Names of the columns that are used. Only these columns are read.
    :param check_header: Function that receives the names of all columns, and raises an error if one is missing.
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
        check_header(header)
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


class PageError(Exception):
    """Error: the header of a Parquet page is corrupt."""


@dataclass(frozen=True, slots=True)
class Page:
    """A page of a Parquet column.

    :param size: Number of bytes that the page needs: the maximum of its compressed and its decompressed size.
    :param is_dictionary: Whether the page contains the values to which the other pages of the column refer.
    :param is_delta: Whether the page has a delta encoding, which can decode to text of any size.
    """

    size: int
    is_dictionary: bool
    is_delta: bool


def read_pages(file: BinaryIO, start: int, size: int) -> Iterator[Page]:
    """Yield the pages of a column chunk, that is the part of a column in one row group.

    :param file: The Parquet file.
    :param start: Offset of the chunk in the file, in bytes.
    :param size: Length of the chunk in the file, in bytes.
    :raises PageError: if a header is corrupt.
    """
    end = start + size
    if start < 0:
        raise PageError
    while start < end:
        header, length = _read_header(file, start)
        kind, decompressed, compressed = (header.get(number) for number in (1, 2, 3))
        if not (isinstance(kind, int) and isinstance(decompressed, int) and isinstance(compressed, int)):
            raise PageError
        if decompressed < 0 or compressed < 0:
            raise PageError
        # In the header of a data page of version 1, field 5 is a struct whose field 2 is the encoding. In the header of
        # a data page of version 2, field 8 is a struct whose field 4 is the encoding.
        is_delta = {_field(header.get(5), 2), _field(header.get(8), 4)} & _DELTA_ENCODINGS
        yield Page(max(decompressed, compressed), kind == _DICTIONARY_PAGE, bool(is_delta))
        start += length + compressed


def _field(struct: object, number: int) -> int | None:
    value = struct.get(number) if isinstance(struct, dict) else None
    return value if isinstance(value, int) else None


def _read_header(file: BinaryIO, offset: int) -> tuple[dict[int, object], int]:
    """Read the header of the Parquet page that begins at the byte ``offset``.

    :returns: The fields of the header by field number, and the length of the header in bytes.
    """
    wanted = _FIRST_READ_BYTES
    while wanted <= MAX_HEADER_BYTES:
        file.seek(offset)
        parser = _CompactParser(file.read(wanted))
        try:
            return parser.struct(), parser.position
        except IndexError:
            # The page header is longer than the bytes that were read, so more bytes are read.
            wanted *= 32
    raise PageError


class _CompactParser:
    """Parser of one struct in Thrift's compact protocol. It returns integers and structs, and skips all other values.

    :raises IndexError: if the data is too short.
    :raises PageError: if the data is corrupt.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.position = 0

    def struct(self, depth: int = 0) -> dict[int, object]:
        """Read the Thrift struct at the current position, and return its fields by field number.

        Each page header of a Parquet file is a Thrift struct. A field of a struct can contain another struct.
        """
        found: dict[int, object] = {}
        number = 0
        while (head := self._byte()) != 0:
            kind, step = head & 0x0F, head >> 4
            number = number + step if step else self._integer()
            # The type of a boolean field already contains its value, so no further byte follows.
            found[number] = None if kind in (_TRUE, _FALSE) else self._value(kind, depth)
        return found

    def _value(self, kind: int, depth: int) -> object:
        if depth > _MAX_DEPTH:
            raise PageError
        if kind in _INTEGERS:
            return self._integer()
        if kind == _STRUCT:
            return self.struct(depth + 1)
        if kind in (_TRUE, _FALSE, _BYTE):
            self._skip(1)
        elif kind == _DOUBLE:
            self._skip(8)
        elif kind == _BINARY:
            self._skip(self._varint())
        elif kind in (_LIST, _SET):
            self._list(depth)
        else:
            raise PageError
        return None

    def _list(self, depth: int) -> None:
        head = self._byte()
        count = head >> 4
        for _ in range(self._varint() if count == 0x0F else count):
            self._value(head & 0x0F, depth + 1)

    def _byte(self) -> int:
        byte = self._data[self.position]
        self.position += 1
        return byte

    def _skip(self, count: int) -> None:
        self.position += count
        if self.position > len(self._data):
            raise IndexError

    def _varint(self) -> int:
        value, shift = 0, 0
        while True:
            byte = self._byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7
            if shift > 63:
                raise PageError

    def _integer(self) -> int:
        """Decode and return an integer in zigzag encoding, in which the lowest bit is the sign."""
        value = self._varint()
        return (value >> 1) ^ -(value & 1)
