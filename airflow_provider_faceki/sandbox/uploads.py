# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""How is a form read without holding its files? Each file is hashed and counted as it streams past."""

from __future__ import annotations

import hashlib
from email.message import Message
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser

from airflow_provider_faceki.sandbox.messages import Upload

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

LONGEST_TEXT = 64 * 1024
MOST_PARTS = 100


class BadForm(ValueError):
    """The body is not the form it claims to be."""


class Form:
    """Feed it the body in pieces; `parts` is complete after `end`."""

    def __init__(self, content_type: str) -> None:
        self.parts: dict[str, str | Upload] = {}
        header = Message()
        header["content-type"] = content_type
        self._plain = bytearray()
        self._parser: MultipartParser | None = None
        kind = header.get_content_type()
        if kind == "multipart/form-data":
            boundary = header.get_param("boundary")
            if not isinstance(boundary, str) or not 0 < len(boundary) <= 200:
                raise BadForm("multipart without a boundary")
            self._parser = MultipartParser(boundary.encode("latin-1", "replace"), self._callbacks())
        elif kind != "application/x-www-form-urlencoded":
            raise BadForm("not a form")

    def feed(self, data: bytes) -> None:
        if self._parser is None:
            self._plain += data
            if len(self._plain) > LONGEST_TEXT:
                raise BadForm("form too long")
            return
        try:
            self._parser.write(data)
        except MultipartParseError:
            raise BadForm("broken multipart") from None

    def end(self) -> None:
        if self._parser is None:
            self.parts.update(parse_qsl(self._plain.decode("utf-8", "replace")))
            return
        if not self._finished:
            raise BadForm("multipart ends too early")

    # What python-multipart calls while it reads.

    def _callbacks(self) -> MultipartCallbacks:
        self._finished = False
        self._header_name = bytearray()
        self._header_value = bytearray()
        return {
            "on_part_begin": self._begin,
            "on_part_data": self._data,
            "on_part_end": self._end_part,
            "on_header_field": self._field,
            "on_header_value": self._value,
            "on_header_end": self._end_header,
            "on_end": self._end,
        }

    def _begin(self) -> None:
        if len(self.parts) >= MOST_PARTS:
            raise BadForm("too many parts")
        self._disposition = Message()
        self._text = bytearray()
        self._digest = hashlib.sha256()
        self._size = 0

    def _field(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def _value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def _end_header(self) -> None:
        if self._header_name.lower() == b"content-disposition":
            self._disposition["content-disposition"] = self._header_value.decode("utf-8", "replace")
        self._header_name.clear()
        self._header_value.clear()

    def _data(self, data: bytes, start: int, end: int) -> None:
        self._size += end - start
        if self._disposition.get_filename() is not None:
            self._digest.update(memoryview(data)[start:end])
            return
        self._text += data[start:end]
        if len(self._text) > LONGEST_TEXT:
            raise BadForm("text field too long")

    def _end_part(self) -> None:
        name = self._disposition.get_param("name", header="content-disposition")
        if not isinstance(name, str) or not name:
            raise BadForm("part without a name")
        if self._disposition.get_filename() is not None:
            self.parts[name] = Upload(self._size, self._digest.hexdigest())
        else:
            self.parts[name] = self._text.decode("utf-8", "replace")

    def _end(self) -> None:
        self._finished = True
