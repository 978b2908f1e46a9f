# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Read the sizes of the pages of a Parquet column from the headers of the pages.

pyarrow decompresses a whole page at once, and allocates as many bytes as the header of the page says. So these sizes
show whether a file would need too much memory. Such a file is refused before pyarrow reads its values. The sizes in the
footer of the file are not used, because the footer of a malicious file can contain wrong sizes.

The format of the headers is described at https://parquet.apache.org/docs/file-format/data-pages/ and
https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

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
