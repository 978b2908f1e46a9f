# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""The parser of form bodies, which stores no files."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header

from airflow_provider_faceki.sandbox.messages import Upload

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks


MAX_TEXT_BYTES = 64 * 1024
MAX_PARTS = 100
MAX_BOUNDARY_BYTES = 200


class FormError(ValueError):
    """Exception: a request has no form as its body, or the form is incomplete, broken or larger than a limit."""


class FormReader:
    """A parser of one form body. `feed` accepts the body in pieces, and `parts` is complete after the call of `end`.

    Files are not stored. Only the hash and the size of each file are computed. python-multipart's `FormParser` would
    write the files to disk, so this class uses `MultipartParser`, which passes the pieces of a file to callbacks.

    :param content_type: the header `Content-Type` of the request.
    :raises FormError: if the content type is not that of a form. `feed` and `end` raise the same error if the body is
        invalid.
    """

    def __init__(self, content_type: str) -> None:
        self.parts: dict[str, str | Upload] = {}
        self._urlencoded = bytearray()
        self._parser: MultipartParser | None = None
        kind, options = parse_options_header(content_type)
        if kind == b"multipart/form-data":
            boundary = options.get(b"boundary", b"")
            if not 0 < len(boundary) <= MAX_BOUNDARY_BYTES:
                raise FormError("multipart without a boundary")
            self._parser = MultipartParser(boundary, self._callbacks())
        elif kind != b"application/x-www-form-urlencoded":
            raise FormError("not a form")

    def feed(self, data: bytes) -> None:
        if self._parser is None:
            self._urlencoded += data
            if len(self._urlencoded) > MAX_TEXT_BYTES:
                raise FormError("form too long")
            return
        try:
            self._parser.write(data)
        except MultipartParseError:
            raise FormError("broken multipart") from None

    def end(self) -> None:
        if self._parser is None:
            self.parts.update(parse_qsl(self._urlencoded.decode("utf-8", "replace")))
        elif not self._finished:
            raise FormError("multipart ends too early")

    def _callbacks(self) -> MultipartCallbacks:
        self._finished = False
        self._header_name = bytearray()
        self._header_value = bytearray()
        return {
            "on_part_begin": self._begin_part,
            "on_part_data": self._part_data,
            "on_part_end": self._end_part,
            "on_header_field": self._header_field,
            "on_header_value": self._header_piece,
            "on_header_end": self._end_header,
            "on_end": self._end,
        }

    def _begin_part(self) -> None:
        if len(self.parts) >= MAX_PARTS:
            raise FormError("too many parts")
        self._options: dict[bytes, bytes] = {}
        self._text = bytearray()
        self._digest = hashlib.sha256()
        self._size = 0

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def _header_piece(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def _end_header(self) -> None:
        if self._header_name.lower() == b"content-disposition":
            self._options = parse_options_header(bytes(self._header_value))[1]
        self._header_name.clear()
        self._header_value.clear()

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        self._size += end - start
        if b"filename" in self._options:
            self._digest.update(memoryview(data)[start:end])
            return
        self._text += data[start:end]
        if len(self._text) > MAX_TEXT_BYTES:
            raise FormError("text field too long")

    def _end_part(self) -> None:
        name = self._options.get(b"name", b"").decode("utf-8", "replace")
        if not name:
            raise FormError("part without a name")
        if b"filename" in self._options:
            self.parts[name] = Upload(self._size, self._digest.hexdigest())
        else:
            self.parts[name] = self._text.decode("utf-8", "replace")

    def _end(self) -> None:
        self._finished = True
