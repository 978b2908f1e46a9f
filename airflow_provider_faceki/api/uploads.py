# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Files and images to upload, and their ``multipart/form-data`` body. The files are read while the body is sent."""

from __future__ import annotations

import io
import re
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import BinaryIO

from airflow_provider_faceki.api.errors import ValidationError

#: Maximum size of an image in bytes. It equals the default of the Connection's field ``max_image_bytes``.
MAX_IMAGE_BYTES = 10 * 1024 * 1024
#: Maximum number of bytes of a file that are read at once. Larger chunks would not be sent faster, because TLS splits
#: all data into records of at most 16 KiB.
CHUNK_BYTES = 64 * 1024

# Image formats, each with the pattern of its first bytes, its media type and its file extension.
_KINDS: tuple[tuple[re.Pattern[bytes], str, str], ...] = (
    (re.compile(rb"\xff\xd8\xff"), "image/jpeg", "jpg"),
    (re.compile(rb"\x89PNG\r\n\x1a\n"), "image/png", "png"),
    (re.compile(rb"RIFF....WEBP", re.DOTALL), "image/webp", "webp"),
    (re.compile(rb"....ftyp(?:heic|heix|hevc|heim|heis|mif1|msf1)", re.DOTALL), "image/heic", "heic"),
)
_SNIFFED_BYTES = 16
_MEDIA_TYPE = re.compile(r"[A-Za-z0-9.+-]{1,60}/[A-Za-z0-9.+-]{1,60}")
_ENDING = re.compile(r"[A-Za-z0-9]{1,10}")


@dataclass(frozen=True, slots=True, repr=False)
class File:
    """A file of any type. Its ``repr`` hides the content.

    :param open: Function that opens the file at its first byte. It is called each time the file is sent.
    :param size: Size of the file in bytes.
    :param media_type: Media type, such as ``application/pdf``.
    :param ending: File extension of that media type, without the dot.
    :param fence: Function that is called after each read while the file is sent. It raises a ``ValidationError`` if
        this process must not send the file any more. This prevents that FACEKI receives the same request from two
        processes. For example, process A is suspended while it sends the file, and process B sends the request in the
        meantime. When process A resumes, ``fence`` raises an error. The request of process A remains incomplete, so
        FACEKI cannot act on it.
    """

    open: Callable[[], BinaryIO]
    size: int
    media_type: str = "application/octet-stream"
    ending: str = "bin"
    fence: Callable[[], None] | None = None

    def __post_init__(self) -> None:
        if not _MEDIA_TYPE.fullmatch(self.media_type) or not _ENDING.fullmatch(self.ending):
            raise ValidationError(
                "a file needs a media type such as application/pdf and an ending such as pdf"
            )

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.media_type}, {self.size} bytes>"


@dataclass(frozen=True, slots=True, repr=False)
class Image(File):
    """An image in a format that FACEKI accepts. Create it with :meth:`checked` or :meth:`of_bytes`.

    The media type is ``image/jpeg``, ``image/png``, ``image/webp`` or ``image/heic``.
    """

    @classmethod
    def of_bytes(cls, name: str, content: bytes, max_bytes: int = MAX_IMAGE_BYTES) -> Image:
        """Check ``content`` and return it as an image. The parameters and errors are those of :meth:`checked`."""
        return cls.checked(name, partial(io.BytesIO, content), len(content), max_bytes)

    @classmethod
    def checked(cls, name: str, opener: Callable[[], BinaryIO], size: int, max_bytes: int) -> Image:
        """Check the size and the first bytes of an image, and return the image.

        :param name: Name of the argument that contains the image, for the error message.
        :param opener: Function that opens the image at its first byte.
        :param size: Size of the image in bytes.
        :param max_bytes: Maximum size in bytes. FACEKI publishes no limit, but it has answered raw camera images
            with HTTP 413.
        :raises ValidationError: if the image is empty, too large, or not a JPEG, PNG, WEBP or HEIC.
        """
        if size <= 0:
            raise ValidationError(f"{name} is empty")
        check_size(name, size, max_bytes)
        with opener() as file:
            first = file.read(_SNIFFED_BYTES)
        for pattern, media_type, ending in _KINDS:
            if pattern.match(first):
                return cls(opener, size, media_type, ending)
        raise ValidationError(f"{name} is not an image of a kind that is recognised: JPEG, PNG, WEBP or HEIC")


def check_size(name: str, size: int, max_bytes: int) -> None:
    """Raise an error if the size of an image in bytes is larger than ``max_bytes``.

    :param name: Name of the argument that contains the image, for the error message.
    :raises ValidationError: if the image is too large.
    """
    if size > max_bytes:
        raise ValidationError(
            f"{name} has {size} bytes, more than max_image_bytes={max_bytes}; FACEKI answers an image that "
            "is too large with HTTP 413, so make it smaller (long side about 1920 pixels) or raise the limit"
        )


def check_image(name: str, value: object) -> None:
    """Raise an error if ``value`` is not an :class:`Image`. For example, a path to an image is not accepted."""
    if not isinstance(value, Image):
        raise ValidationError(
            f"{name} must be an Image (Image.checked, Image.of_bytes), not {type(value).__name__}"
        )


@dataclass(frozen=True, slots=True, repr=False)
class Multipart:
    """A ``multipart/form-data`` body of text fields and files. Its length is known before the files are read.

    :param fields: Pairs of name and text.
    :param files: Pairs of name and file.
    :param boundary: Separator of the parts. Default: a random text, so that no part contains it.
    """

    fields: tuple[tuple[str, str], ...]
    files: tuple[tuple[str, File], ...]
    boundary: str = field(default_factory=partial(secrets.token_hex, 16))

    @property
    def media_type(self) -> str:
        """The value of the ``content-type`` header."""
        return f"multipart/form-data; boundary={self.boundary}"

    @property
    def length(self) -> int:
        """The length of the body in bytes."""
        heads = len(self._text()) + sum(len(self._head(*part)) + len(b"\r\n") for part in self.files)
        return heads + sum(file.size for _, file in self.files) + len(self._end())

    def chunks(self) -> Iterator[bytes]:
        """Yield the body in chunks. Each chunk except the last has at least 64 KiB.

        Each call opens and reads the files again.

        :raises ValidationError: if a file cannot be read, or the size of a file has changed. The body is then
            incomplete, so FACEKI cannot act on it.
        """
        held: list[bytes] = []
        size = 0
        for piece in self._pieces():
            held.append(piece)
            size += len(piece)
            if size >= CHUNK_BYTES:
                yield b"".join(held)
                held, size = [], 0
        if held:
            yield b"".join(held)

    def _pieces(self) -> Iterator[bytes]:
        yield self._text()
        for name, file in self.files:
            yield self._head(name, file)
            yield from _content(name, file)
            yield b"\r\n"
        yield self._end()

    def _text(self) -> bytes:
        return b"".join(
            f'--{self.boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{text}\r\n'.encode()
            for name, text in self.fields
        )

    def _head(self, name: str, file: File) -> bytes:
        # The file name is the field name, as in FACEKI's SDKs. The original file name is not sent, because it possibly
        # contains a person's name.
        return (
            f'--{self.boundary}\r\nContent-Disposition: form-data; name="{name}"; filename="{name}.{file.ending}"'
            f"\r\nContent-Type: {file.media_type}\r\n\r\n"
        ).encode()

    def _end(self) -> bytes:
        return f"--{self.boundary}--\r\n".encode()


def _content(name: str, file: File) -> Iterator[bytes]:
    left, fence = file.size, file.fence or (lambda: None)
    try:
        with file.open() as opened:
            while left and (chunk := opened.read(min(CHUNK_BYTES, left))):
                left -= len(chunk)
                fence()
                yield chunk
            has_more = bool(opened.read(1))
            fence()
    except ValidationError:
        raise
    except Exception as problem:
        # This exception comes from the storage of the file, which is read while the request is sent. Some storages
        # raise the same exception classes as the HTTP connection. If the exception were not converted into a
        # ValidationError, the client would treat it as a lost answer of FACEKI.
        raise ValidationError(f"{name} could not be read to its end") from problem
    if left or has_more:
        raise ValidationError(f"{name} became {'shorter' if left else 'longer'} while it was sent")
