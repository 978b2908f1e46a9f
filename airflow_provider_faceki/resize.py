# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Make a picture smaller before it is sent: FACEKI's own SDKs do, since large ones have been refused (HTTP 413)."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from airflow_provider_faceki.api.errors import ConfigurationError, ValidationError

if TYPE_CHECKING:
    from airflow_provider_faceki.api.uploads import Image

#: JPEG quality: no loss that a person or a text reader would see, at about a tenth of the bytes.
_QUALITY = 90


def resized(name: str, image: Image, longest: int, max_bytes: int) -> Image:
    """Return ``image`` as a JPEG whose longer side has at most ``longest`` pixels; never enlarged.

    What the camera says about how it was held is applied, and all other metadata (place, device) is left behind.

    :param name: What the image is for; an error names it.
    :param image: The picture.
    :param longest: Pixels.
    :param max_bytes: Largest size in bytes of what comes out.
    :raises ConfigurationError: Pillow is not installed (extra ``images``).
    :raises ValidationError: Pillow cannot read the picture (for HEIC it cannot by itself), or it is still too large.
    """
    try:
        from PIL import Image as Pillow
        from PIL import ImageOps
    except ImportError:
        raise ConfigurationError("resize_to needs Pillow: install airflow-provider-faceki[images]") from None
    # Read before Pillow looks at it: a storage that fails is another matter than a picture that is broken.
    with image.open() as file:
        original = io.BytesIO(file.read())
    try:
        with Pillow.open(original) as picture:
            upright = ImageOps.exif_transpose(picture).convert("RGB")
            upright.thumbnail((longest, longest))
            # Pillow writes a comment that it has read, unasked.
            upright.info.clear()
            buffer = io.BytesIO()
            upright.save(buffer, "JPEG", quality=_QUALITY)
    except Exception as problem:
        # For broken pictures Pillow's readers raise whatever they stumble over: OSError, SyntaxError, struct.error …
        raise ValidationError(f"{name} cannot be made smaller: Pillow cannot read it") from problem
    return image.of_bytes(name, buffer.getvalue(), max_bytes)
