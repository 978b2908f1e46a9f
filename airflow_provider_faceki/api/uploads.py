# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Images on their way out: a ``multipart/form-data`` body that is read as it is sent, 64 KiB at a time."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

from airflow_provider_faceki.api.errors import ValidationError

#: Largest image in bytes, unless somebody says otherwise; the default of the Connection's ``max_image_bytes``.
MAX_IMAGE_BYTES = 10 * 1024 * 1024
#: Bytes read and sent at once. One TLS record holds 16 KiB; beyond 64 KiB nothing is gained.
CHUNK = 64 * 1024

# The first bytes by which an image tells its kind, and the kind's media type and file ending.
_KINDS: tuple[tuple[re.Pattern[bytes], str, str], ...] = (
    (re.compile(rb"\xff\xd8\xff"), "image/jpeg", "jpg"),
    (re.compile(rb"\x89PNG\r\n\x1a\n"), "image/png", "png"),
    (re.compile(rb"RIFF....WEBP", re.DOTALL), "image/webp", "webp"),
    (re.compile(rb"....ftyp(?:heic|heix|hevc|heim|heis|mif1|msf1)", re.DOTALL), "image/heic", "heic"),
)
_SNIFFED = 16


@dataclass(frozen=True, slots=True, repr=False)
class Image:
    """An image that can be opened as often as it is sent. Make one with :meth:`checked` or :meth:`of_bytes`.

    :param open: Opens it at its first byte.
    :param size: Its length in bytes.
    :param media_type: ``image/jpeg``, ``image/png``, ``image/webp`` or ``image/heic``.
    :param ending: The usual file ending of that kind.
    """

    open: Callable[[], BinaryIO]
    size: int
    media_type: str
    ending: str

    @classmethod
    def of_bytes(cls, name: str, content: bytes, max_bytes: int = MAX_IMAGE_BYTES) -> Image:
        """Return the image that ``content`` is; parameters and errors as for :meth:`checked`."""
        return cls.checked(name, lambda: io.BytesIO(content), len(content), max_bytes)

    @classmethod
    def checked(cls, name: str, opener: Callable[[], BinaryIO], size: int, max_bytes: int) -> Image:
        """Look at the first bytes and refuse what FACEKI cannot use, before anything is sent or paid.

        :param name: What the image is for; the error names it.
        :param opener: Opens it at its first byte.
        :param size: Its length in bytes.
        :param max_bytes: Longest length that is sent. FACEKI publishes no limit; raw camera pictures have been
            seen to be answered with HTTP 413.
        :raises ValidationError: it is empty, too large, or not a JPEG, PNG, WEBP or HEIC.
        """
        if size <= 0:
            raise ValidationError(f"{name} is empty")
        check_size(name, size, max_bytes)
        with opener() as file:
            first = file.read(_SNIFFED)
        for pattern, media_type, ending in _KINDS:
            if pattern.match(first):
                return cls(opener, size, media_type, ending)
        raise ValidationError(f"{name} is not an image of a kind that is recognised: JPEG, PNG, WEBP or HEIC")

    def __repr__(self) -> str:
        return f"<Image {self.media_type}, {self.size} bytes>"


def check_size(name: str, size: int, max_bytes: int) -> None:
    """Refuse an image of more than ``max_bytes``."""
    if size > max_bytes:
        raise ValidationError(
            f"{name} has {size} bytes, more than max_image_bytes={max_bytes}; FACEKI answers too large a "
            "picture with HTTP 413, so make it smaller (long side about 1920 pixels) or raise the limit"
        )


def check_image(name: str, value: object) -> None:
    """Refuse what is not an :class:`Image`, such as its path."""
    if not isinstance(value, Image):
        raise ValidationError(
            f"{name} must be an Image (Image.checked, Image.of_bytes), not {type(value).__name__}"
        )


@dataclass(frozen=True, slots=True, repr=False)
class Multipart:
    """Text fields and images as one body whose length is known before it is read.

    :param fields: Names and texts.
    :param images: Names and images.
    :param boundary: What separates the parts; it must occur in none of them, so draw it at random.
    """

    fields: tuple[tuple[str, str], ...]
    images: tuple[tuple[str, Image], ...]
    boundary: str

    @property
    def media_type(self) -> str:
        """The value of the ``content-type`` header."""
        return f"multipart/form-data; boundary={self.boundary}"

    @property
    def length(self) -> int:
        """The length of the body in bytes."""
        heads = len(self._text()) + sum(len(self._head(*part)) + len(b"\r\n") for part in self.images)
        return heads + sum(image.size for _, image in self.images) + len(self._end())

    def chunks(self) -> Iterator[bytes]:
        """Yield the body, in pieces worth a call of the system; each call reads the images anew.

        :raises ValidationError: an image cannot be read, or has changed its length since it was looked at. The body is
            not complete then, so whoever gets it cannot act on it.
        """
        held: list[bytes] = []
        size = 0
        for piece in self._pieces():
            held.append(piece)
            size += len(piece)
            if size >= CHUNK:
                yield b"".join(held)
                held, size = [], 0
        if held:
            yield b"".join(held)

    def _pieces(self) -> Iterator[bytes]:
        yield self._text()
        for name, image in self.images:
            yield self._head(name, image)
            yield from _content(name, image)
            yield b"\r\n"
        yield self._end()

    def _text(self) -> bytes:
        return b"".join(
            f'--{self.boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{text}\r\n'.encode()
            for name, text in self.fields
        )

    def _head(self, name: str, image: Image) -> bytes:
        # FACEKI's SDKs name the file after its field; the name on the user's disk may name a person.
        return (
            f'--{self.boundary}\r\nContent-Disposition: form-data; name="{name}"; filename="{name}.{image.ending}"'
            f"\r\nContent-Type: {image.media_type}\r\n\r\n"
        ).encode()

    def _end(self) -> bytes:
        return f"--{self.boundary}--\r\n".encode()


def _content(name: str, image: Image) -> Iterator[bytes]:
    left = image.size
    try:
        with image.open() as file:
            while left and (chunk := file.read(min(CHUNK, left))):
                left -= len(chunk)
                yield chunk
            has_more = bool(file.read(1))
    except ValidationError:
        raise
    except Exception as problem:
        # Each storage has errors of its own, some of them the same classes as those of the connection that this
        # goes out on; uncaught, such a one would pass for a lost answer.
        raise ValidationError(f"{name} could not be read to its end") from problem
    if left or has_more:
        raise ValidationError(f"{name} became {'shorter' if left else 'longer'} while it was sent")
