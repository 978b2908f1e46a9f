# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Reduce the size of an image before it is sent, in limited memory. FACEKI has refused large images (HTTP 413)."""

from __future__ import annotations

import io
import math
import mmap
import os
import re
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, BinaryIO

from airflow_provider_faceki.api.errors import ConfigurationError, ValidationError

if TYPE_CHECKING:
    from PIL.Image import Image as PillowImage
    from PIL.ImageFile import ImageFile

    from airflow_provider_faceki.api.uploads import Image

#: Maximum number of pixels of an image that is resized. The largest phone cameras have 200 million pixels.
MAX_PIXELS = 250_000_000
#: Maximum memory in bytes for the pixels of resized images, in all threads of the process together. A single image
#: that needs more is refused.
MAX_DECODED_BYTES = 256 * 1024 * 1024

#: Maximum number of scans of a JPEG, and maximum number of its segments. A JPEG file consists of segments. A scan is a
#: segment with image data. Encoders write at most a few dozen scans and a few dozen segments. The decoding time grows
#: with both numbers. For example, decoding a file of 100 kB with 1000 scans of a large image would take a minute.
MAX_SCANS = 100
MAX_SEGMENTS = 1000

# Pillow's JPEG quality of a resized image. At this quality, neither a person nor text recognition (OCR) notices a
# loss, and the file has a tenth of the size of the original file.
_JPEG_QUALITY = 90
# Pillow can decode a JPEG at a half, a quarter or an eighth of its size. To preserve the quality, the decoded size is
# at least this many times the requested size.
_REDUCING_GAP = 2
# Bytes for each pixel in Pillow's memory, by Pillow's image mode. All other modes, including RGB, use 4 bytes.
_PIXEL_BYTES = {"1": 1, "L": 1, "P": 1, "I;16": 2}
# Bytes that libwebp needs for each pixel of a WEBP. It allocates three buffers with 4 bytes for each pixel: one for the
# decoded image, and two for its own use.
_WEBP_PIXEL_BYTES = 12
# Bytes for each coefficient of a JPEG. If the JPEG has several scans, all coefficients remain in memory while it is
# decoded.
_COEFFICIENT_BYTES = 2
_SIXTEEN_BIT_WHITE = 65535
# A JPEG file consists of segments, and a scan is a segment with image data. This is the maximum number of bytes between
# two segments before the first scan. Pillow reads such bytes one by one, which is slow.
_MAX_PADDING_BYTES = 4096
# A JPEG file consists of segments. Each segment begins with a marker of two bytes, and a marker stands at the end of
# the file. The pattern finds these markers. It does not match other markers, such as the restart markers inside image
# data.
_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd8\xff]")
_SCAN, _END = b"\xff\xda", b"\xff\xd9"
_FRAMES = {bytes([0xFF, kind]) for kind in range(0xC0, 0xD0)} - {b"\xff\xc4", b"\xff\xc8", b"\xff\xcc"}
_PROGRESSIVE_FRAMES = {b"\xff\xc2", b"\xff\xc6", b"\xff\xca", b"\xff\xce"}


def resized(name: str, image: Image, longest: int, max_bytes: int) -> Image:
    """Return ``image`` as a JPEG whose longer side has at most ``longest`` pixels. Small images are not enlarged.

    The orientation in the camera's metadata is applied. All other metadata, such as location and device, is removed.
    Transparent pixels become white.

    :param name: Purpose of the image. Errors contain this name.
    :param image: A JPEG, PNG or WEBP image.
    :param longest: Maximum length of the longer side in pixels.
    :param max_bytes: Maximum size of the result in bytes.
    :raises ConfigurationError: if Pillow is not installed (extra ``images``).
    :raises ValidationError: if the image exceeds :data:`MAX_PIXELS`, :data:`MAX_SCANS` or :data:`MAX_SEGMENTS`, if it
        would need too much memory, or if the result is larger than ``max_bytes``. The error is also raised for an image
        that Pillow cannot read, such as a HEIC image.
    :raises OSError: if the storage of the image fails.
    """
    try:
        import PIL.Image  # noqa: F401
    except ImportError:
        raise ConfigurationError("resize_to needs Pillow: install the extra 'images'") from None
    with tempfile.TemporaryFile() as file:
        # The image is copied before Pillow reads it. Otherwise a storage failure would be reported as a corrupt
        # image.
        with image.open() as source:
            shutil.copyfileobj(source, file)
        file.seek(0)
        try:
            with _strict_decoding.active():
                content = _encode(_reduced(name, file, image.media_type, longest))
        except ValidationError:
            raise
        except Exception as problem:
            # For a corrupt image, Pillow has no common error class. It raises the error of the code that reads the
            # image format, such as OSError, SyntaxError or struct.error. Therefore every exception is caught.
            raise ValidationError(f"{name} cannot be made smaller: Pillow cannot read it") from problem
    return image.of_bytes(name, content, max_bytes)


def _encode(image: PillowImage) -> bytes:
    # If the metadata remained, Pillow would copy the comment of the input file to the output.
    image.info.clear()
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=_JPEG_QUALITY)
    return buffer.getvalue()


def _reduced(name: str, file: BinaryIO, media_type: str, longest: int) -> PillowImage:
    if media_type == "image/webp":
        # Pillow allocates the memory for a WEBP when it opens the file. Therefore the size is checked before the file
        # is opened.
        size = _webp_size(file)
        needed = size[0] * size[1] * (_WEBP_PIXEL_BYTES + 2 * 4) + _averaging_bytes(size, longest, 4)
        _check_pixels(name, size, needed)
        with _budget.reserve(needed), _open(file, media_type) as image:
            return _shrink(image, longest)
    # A scan is a part of a JPEG with image data. Decoding one scan takes as long as decoding a whole image. Therefore
    # the scans are counted before Pillow reads the file, and a JPEG with too many scans is refused.
    scans = _scan_count(name, file) if media_type == "image/jpeg" else 1
    with _open(file, media_type) as image:
        size = image.size
        _check_pixels(name, size, 0)
        if media_type == "image/jpeg":
            _decode_reduced(image, longest)
        needed = _needed_bytes(image, size, has_many_scans=scans > 1)
        needed += _averaging_bytes(image.size, longest, 1 if image.mode == "L" else 4)
        _check_pixels(name, size, needed)
        with _budget.reserve(needed):
            return _shrink(image, longest)


def _open(file: BinaryIO, media_type: str) -> ImageFile:
    """Open a JPEG, PNG or WEBP image with Pillow.

    For a WEBP, Pillow reads the whole file and allocates the memory for its pixels. For a JPEG or PNG, Pillow reads
    only the part of the file before the pixels.
    """
    # Image.open is not used, because it tries every format and applies a pixel limit that the whole process shares.
    from PIL import JpegImagePlugin, PngImagePlugin, WebPImagePlugin

    formats: dict[str, Any] = {
        "image/jpeg": JpegImagePlugin.JpegImageFile,
        "image/png": PngImagePlugin.PngImageFile,
        "image/webp": WebPImagePlugin.WebPImageFile,
    }
    if media_type not in formats:
        raise OSError("Pillow has no reader for it")
    file.seek(0)
    opened: ImageFile = formats[media_type](file)
    return opened


def _check_pixels(name: str, size: tuple[int, int], needed_bytes: int) -> None:
    pixels = size[0] * size[1]
    found = f"{name} cannot be made smaller: it has {size[0]} x {size[1]} pixels"
    if pixels > MAX_PIXELS:
        raise ValidationError(f"{found}, more than {MAX_PIXELS // 10**6} million")
    if needed_bytes > MAX_DECODED_BYTES:
        raise ValidationError(
            f"{found}, which would take {needed_bytes // 2**20} MiB of memory in this format, more than "
            f"{MAX_DECODED_BYTES // 2**20} MiB; a JPEG that is not progressive takes the least"
        )


def _decode_reduced(image: ImageFile, longest: int) -> None:
    """Configure the JPEG decoder to produce a smaller image, which needs less memory.

    The decoder can produce a half, a quarter or an eighth of the full size. It uses the smallest size that is at least
    ``_REDUCING_GAP`` times the requested size ``longest``. If none of these sizes is large enough, the decoder produces
    the full size.
    """
    factor = _REDUCING_GAP * longest / max(image.size)
    if factor < 1:
        image.draft(None, (math.ceil(image.width * factor), math.ceil(image.height * factor)))


def _needed_bytes(image: ImageFile, full_size: tuple[int, int], *, has_many_scans: bool) -> int:
    """Return the memory in bytes that Pillow needs to decode an opened JPEG or PNG and to convert its pixels."""
    a_pixel = _PIXEL_BYTES.get(image.mode, 4)
    if _has_transparency(image):
        # Pillow copies an image with transparency before it shrinks the image, and the copies need memory too. If the
        # mode is not RGBA, the first copy converts the image to RGBA. In the second copy, the colours are multiplied by
        # alpha.
        a_pixel += 4 + (0 if image.mode == "RGBA" else 4)
    elif image.mode == "I;16":
        a_pixel += 4 + 4
    elif image.mode not in {"L", "RGB", "CMYK", "YCbCr"}:
        a_pixel += 4
    needed = image.width * image.height * a_pixel
    if has_many_scans:
        layers = [(layer[1], layer[2]) for layer in image.layer]  # type: ignore[attr-defined]
        share = sum(h * v for h, v in layers) / (max(h for h, _ in layers) * max(v for _, v in layers))
        needed += math.ceil(full_size[0] * full_size[1] * share * _COEFFICIENT_BYTES)
    return needed


def _averaging_bytes(size: tuple[int, int], longest: int, pixel_bytes: int) -> int:
    """Return the memory in bytes that Pillow needs to shrink decoded pixels.

    Pillow first shrinks the width. Then it shrinks the height of the result.
    """
    width, height = size
    factor = min(1, longest / max(size))
    return math.ceil(width * factor * (height + height * factor)) * pixel_bytes


def _scan_count(name: str, file: BinaryIO) -> int:
    """Return the number of scans that a decoder reads from a JPEG.

    A JPEG file consists of segments, and a scan is a segment with image data. If the first scan contains the whole
    image, a decoder reads only this scan. Like decoders, this function skips bytes that belong to no segment.

    :raises ValidationError: if the JPEG has too many scans or segments.
    :raises OSError: if the JPEG has no scan, or too many bytes between its segments.
    """
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        position, scans, layers, is_progressive = 2, 0, 0, False
        for _ in range(MAX_SEGMENTS):
            marker = _MARKER.search(data, position)
            if marker is None or marker[0] == _END:
                if scans:
                    return scans
                raise OSError("a JPEG without a scan")
            if not scans and marker.start() - position > _MAX_PADDING_BYTES:
                raise OSError("a JPEG with many bytes outside of its segments")
            position = marker.end()
            if marker[0] in _FRAMES:
                layers, is_progressive = data[position + 7], marker[0] in _PROGRESSIVE_FRAMES
            elif marker[0] == _SCAN:
                scans += 1
                if scans == 1 and not is_progressive and data[position + 2] >= layers:
                    return 1
                if scans > MAX_SCANS:
                    break
            position += max(2, int.from_bytes(data[position : position + 2], "big"))
    raise ValidationError(
        f"{name} cannot be made smaller: it has more than {MAX_SCANS} scans or {MAX_SEGMENTS} segments; "
        "a JPEG that is not progressive has one scan"
    )


def _webp_size(file: BinaryIO) -> tuple[int, int]:
    """Return the size of a WEBP in pixels, as the first chunk of the file states it.

    The format is defined at https://developers.google.com/speed/webp/docs/riff_container
    """
    file.seek(12)
    kind, data = file.read(4), file.read(14)[4:]
    if kind == b"VP8X":
        return 1 + int.from_bytes(data[4:7], "little"), 1 + int.from_bytes(data[7:10], "little")
    if kind == b"VP8L":
        bits = int.from_bytes(data[1:5], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if kind == b"VP8 ":
        return int.from_bytes(data[6:8], "little") & 0x3FFF, int.from_bytes(data[8:10], "little") & 0x3FFF
    raise OSError("not a WEBP")


def _has_transparency(image: PillowImage) -> bool:
    return image.mode in {"LA", "RGBA"} or "transparency" in image.info


def _shrink(image: PillowImage, longest: int) -> PillowImage:
    from PIL import Image, ImageOps

    size = (longest, longest)
    if image.mode == "I;16":
        # Pillow computes averages of pixels to shrink an image. Averages of large integers would overflow. Therefore
        # the image is converted to floats.
        small = image.convert("I").convert("F")
        small.thumbnail(size)
        small = small.point(lambda value: value * (255 / _SIXTEEN_BIT_WHITE)).convert("L")
    elif _has_transparency(image):
        small = image if image.mode == "RGBA" else image.convert("RGBA")
        small.thumbnail(size)
        small = Image.alpha_composite(Image.new("RGBA", small.size, "white"), small)
    else:
        # Pillow computes averages of pixels to shrink an image. Averages of palette indices or of single bits have no
        # meaning. Therefore the image is converted to RGB.
        small = image.convert("RGB") if image.mode in {"1", "P"} else image
        small.thumbnail(size)
    small.info.setdefault("exif", image.info.get("exif", b""))
    return ImageOps.exif_transpose(small).convert("RGB")


class _MemoryBudget:
    """Memory budget that the threads of a process share. A thread waits until enough memory is free."""

    def __init__(self, size: int) -> None:
        self._free = size
        self._changed = threading.Condition()

    @contextmanager
    def reserve(self, needed: int) -> Iterator[None]:
        """Wait until ``needed`` bytes are free, and reserve them while the context is active."""
        with self._changed:
            self._changed.wait_for(lambda: self._free >= needed)
            self._free -= needed
        try:
            yield
        finally:
            with self._changed:
                self._free += needed
                self._changed.notify_all()


class _StrictDecoding:
    """Make Pillow refuse truncated images while at least one thread of the process resizes an image.

    Other code of the process possibly sets Pillow's ``LOAD_TRUNCATED_IMAGES``. With this setting, Pillow replaces the
    missing part of an image by grey. The incomplete image would then be sent and billed.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._threads = 0
        self._setting = False

    @contextmanager
    def active(self) -> Iterator[None]:
        """Make Pillow refuse truncated images while the context is active.

        When the last thread leaves the context, Pillow's original setting is restored.
        """
        import PIL.ImageFile

        with self._lock:
            if self._threads == 0:
                self._setting = PIL.ImageFile.LOAD_TRUNCATED_IMAGES
            self._threads += 1
            PIL.ImageFile.LOAD_TRUNCATED_IMAGES = False
        try:
            yield
        finally:
            with self._lock:
                self._threads -= 1
                if self._threads == 0:
                    PIL.ImageFile.LOAD_TRUNCATED_IMAGES = self._setting


_budget = _MemoryBudget(MAX_DECODED_BYTES)
_strict_decoding = _StrictDecoding()


def _reset() -> None:
    global _budget, _strict_decoding
    _budget, _strict_decoding = _MemoryBudget(MAX_DECODED_BYTES), _StrictDecoding()


# After a fork, the child process does not have the parent's threads. Bytes of the memory budget that these threads had
# reserved would never be released. A lock that one of them held would stay locked. Therefore the child process creates
# a new memory budget and a new lock.
os.register_at_fork(after_in_child=_reset)
