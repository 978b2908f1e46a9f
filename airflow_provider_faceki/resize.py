# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Make an image smaller before it is sent, in bounded memory. FACEKI has refused large ones (HTTP 413)."""

from __future__ import annotations

import io
import math
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from airflow_provider_faceki.api.errors import ConfigurationError, ValidationError

if TYPE_CHECKING:
    from PIL.Image import Image as PillowImage
    from PIL.ImageFile import ImageFile

    from airflow_provider_faceki.api.uploads import Image

#: Most pixels that are read. The largest cameras of phones have 200 million.
MAX_PIXELS = 250_000_000
#: Memory in bytes that images may take while they are made smaller, in all threads of the process together. A single
#: image that needs more is refused.
MAX_DECODED_BYTES = 256 * 1024 * 1024

# No loss that a person or a text reader would see, at about a tenth of the bytes.
_JPEG_QUALITY = 90
# A JPEG is decoded at a half, a quarter or an eighth, but at no less than so many times the size that is wanted.
_REDUCING_GAP = 2
# Bytes that a pixel takes in Pillow's memory; in all other modes it is 4, in RGB too.
_PIXEL_BYTES = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16B": 2, "I;16L": 2}
# libwebp keeps two canvases beside the one that it returns.
_WEBP_PIXEL_BYTES = 12
# Coefficients of a JPEG of several scans are all kept, in two bytes each.
_COEFFICIENT_BYTES = 2
_SIXTEEN_BIT_WHITE = 65535


def resized(name: str, image: Image, longest: int, max_bytes: int) -> Image:
    """Return ``image`` as a JPEG whose longer side has at most ``longest`` pixels; never enlarged.

    The orientation that the camera noted is applied; all other metadata (place, device) is left out. What is
    transparent becomes white.

    :param name: What the image is for; an error names it.
    :param image: A JPEG, PNG or WEBP.
    :param longest: Pixels.
    :param max_bytes: Largest size in bytes of the result.
    :raises ConfigurationError: Pillow is not installed (extra ``images``).
    :raises ValidationError: Pillow cannot read the image (HEIC it cannot by itself), it has too many pixels, or the
        result is still too large.
    """
    try:
        import PIL.Image  # noqa: F401
    except ImportError:
        raise ConfigurationError("resize_to needs Pillow: install airflow-provider-faceki[images]") from None
    with tempfile.TemporaryFile() as file:
        # Copied before Pillow reads it: a storage that fails is not an image that is broken.
        with image.open() as source:
            shutil.copyfileobj(source, file)
        file.seek(0)
        try:
            content = _encode(_reduced(name, file, image.media_type, longest))
        except ValidationError:
            raise
        except Exception as problem:
            # For a broken image Pillow raises whatever its readers meet: OSError, SyntaxError, struct.error and more.
            raise ValidationError(f"{name} cannot be made smaller: Pillow cannot read it") from problem
    return image.of_bytes(name, content, max_bytes)


def _encode(picture: PillowImage) -> bytes:
    # Pillow writes a comment that it has read, unasked.
    picture.info.clear()
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=_JPEG_QUALITY)
    return buffer.getvalue()


def _reduced(name: str, file: BinaryIO, media_type: str, longest: int) -> PillowImage:
    if media_type == "image/webp":
        # Pillow takes the memory for a WEBP when it is opened, so the size is read before.
        size = _webp_size(file)
        needed = size[0] * size[1] * (_WEBP_PIXEL_BYTES + 2 * 4) + _averaging_bytes(size, longest, 4)
        _check_pixels(name, size, needed)
        with _budget.reserve(needed), _open(file, media_type) as picture:
            return _shrink(picture, longest)
    with _open(file, media_type) as picture:
        size = picture.size
        _check_pixels(name, size, 0)
        if media_type == "image/jpeg":
            _decode_reduced(picture, longest)
        needed = _needed_bytes(picture, size, file)
        needed += _averaging_bytes(picture.size, longest, 1 if picture.mode == "L" else 4)
        _check_pixels(name, size, needed)
        with _budget.reserve(needed):
            return _shrink(picture, longest)


def _open(file: BinaryIO, media_type: str) -> ImageFile:
    """Open an image of one of the three formats; no pixel is read yet, except of a WEBP."""
    # Not by Image.open: it tries every format that it knows, and refuses by a limit that is the whole process's.
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


def _decode_reduced(picture: ImageFile, longest: int) -> None:
    """Have a JPEG decoded at a fraction of its size that is still larger than what is wanted."""
    factor = _REDUCING_GAP * longest / max(picture.size)
    if factor < 1:
        picture.draft(None, (math.ceil(picture.width * factor), math.ceil(picture.height * factor)))


def _needed_bytes(picture: ImageFile, full_size: tuple[int, int], file: BinaryIO) -> int:
    """Return how much memory the pixels of an opened JPEG or PNG take until they are averaged."""
    a_pixel = _PIXEL_BYTES.get(picture.mode, 4)
    if _has_transparency(picture):
        # RGBA, and once more to be averaged by its alpha.
        a_pixel += 4 + (0 if picture.mode == "RGBA" else 4)
    elif picture.mode.startswith("I;16"):
        a_pixel += 4 + 4
    elif picture.mode not in {"L", "RGB", "CMYK", "YCbCr"}:
        a_pixel += 4
    needed = picture.width * picture.height * a_pixel
    if picture.format == "JPEG" and (picture.info.get("progressive") or _has_many_scans(picture, file)):
        layers = [(layer[1], layer[2]) for layer in picture.layer]  # type: ignore[attr-defined]
        share = sum(h * v for h, v in layers) / (max(h for h, _ in layers) * max(v for _, v in layers))
        needed += math.ceil(full_size[0] * full_size[1] * share * _COEFFICIENT_BYTES)
    return needed


def _averaging_bytes(size: tuple[int, int], longest: int, pixel_bytes: int) -> int:
    """Return how much memory Pillow takes to average: first along the rows, then along the columns."""
    width, height = size
    factor = min(1, longest / max(size))
    return math.ceil(width * factor * (height + height * factor)) * pixel_bytes


def _has_many_scans(picture: ImageFile, file: BinaryIO) -> bool:
    """Return whether the first scan of a JPEG holds only some of its colour components."""
    position = file.tell()
    try:
        file.seek(2)
        while True:
            marker = file.read(2)
            if len(marker) < 2 or marker[0] != 0xFF:
                return True
            if marker[1] == 0xFF:
                file.seek(-1, os.SEEK_CUR)
            elif marker[1] == 0xDA:
                return file.read(3)[2:] < bytes([picture.layers])  # type: ignore[attr-defined]
            elif not (marker[1] == 0x01 or 0xD0 <= marker[1] <= 0xD8):
                file.seek(int.from_bytes(file.read(2), "big") - 2, os.SEEK_CUR)
    finally:
        file.seek(position)


def _webp_size(file: BinaryIO) -> tuple[int, int]:
    """Return the size of a WEBP, from its first chunk.

    https://developers.google.com/speed/webp/docs/riff_container
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


def _has_transparency(picture: PillowImage) -> bool:
    return picture.mode in {"LA", "PA", "RGBA", "La", "RGBa"} or "transparency" in picture.info


def _shrink(picture: PillowImage, longest: int) -> PillowImage:
    from PIL import Image, ImageOps

    size = (longest, longest)
    if picture.mode.startswith(("I", "F")):
        # Averages of large whole numbers would overflow.
        small = (picture.convert("I") if picture.mode.startswith("I;16") else picture).convert("F")
        small.thumbnail(size)
        small = _to_eight_bits(small, (1, 255) if picture.mode == "F" else ())
    elif _has_transparency(picture):
        small = picture if picture.mode == "RGBA" else picture.convert("RGBA")
        small.thumbnail(size)
        small = Image.alpha_composite(Image.new("RGBA", small.size, "white"), small)
    else:
        # Averages of palette indices, or of single bits, mean nothing.
        small = picture.convert("RGB") if picture.mode in {"1", "P"} else picture
        small.thumbnail(size)
    small.info.setdefault("exif", picture.info.get("exif", b""))
    return ImageOps.exif_transpose(small).convert("RGB")


def _to_eight_bits(picture: PillowImage, scales: tuple[int, ...]) -> PillowImage:
    """Return an image of large or broken numbers in the 256 shades of the picture that they show.

    :param picture: In mode ``F``.
    :param scales: Numbers that may be white, beside that of 16 bits. The file does not say which of them is.
    """
    low, high = cast("tuple[float, float]", picture.getextrema())
    white = next((scale for scale in (*scales, _SIXTEEN_BIT_WHITE) if high <= scale), high)
    black = min(low, 0)
    factor = 255 / ((white - black) or 1)
    return picture.point(lambda value: value * factor - black * factor).convert("L")


class _MemoryBudget:
    """Memory that the threads of a process share; a thread waits until there is enough for it."""

    def __init__(self, size: int) -> None:
        self._free = size
        self._changed = threading.Condition()

    @contextmanager
    def reserve(self, needed: int) -> Iterator[None]:
        """Hold ``needed`` bytes."""
        with self._changed:
            self._changed.wait_for(lambda: self._free >= needed)
            self._free -= needed
        try:
            yield
        finally:
            with self._changed:
                self._free += needed
                self._changed.notify_all()


_budget = _MemoryBudget(MAX_DECODED_BYTES)


def _reset_budget() -> None:
    global _budget
    _budget = _MemoryBudget(MAX_DECODED_BYTES)


# A forked process has none of the threads that hold memory.
os.register_at_fork(after_in_child=_reset_budget)
