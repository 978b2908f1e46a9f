# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Fake images: the first bytes of an image format, followed by random bytes."""

from __future__ import annotations

import random
from pathlib import Path

from airflow_provider_faceki import api

JPEG = b"\xff\xd8\xff\xe0"
PNG = b"\x89PNG\r\n\x1a\n"
WEBP = b"RIFF\x10\x00\x00\x00WEBP"
HEIC = b"\x00\x00\x00\x18ftypheic"


def image_bytes(size: int = 4096, first: bytes = JPEG, seed: int = 1) -> bytes:
    """Return bytes that are recognised as an image; a different seed gives a different face."""
    return (first + random.Random(seed).randbytes(size))[:size]


def write(folder: Path, name: str, content: bytes | None = None) -> str:
    """Write an image and return its URI."""
    place = folder / name
    place.write_bytes(image_bytes() if content is None else content)
    return place.as_uri()


def verification(record_identifier: str, workflow_id: str, **more: object) -> api.PerformKycVerification:
    """Return the verification call, with a selfie and an identity card."""
    arguments: dict[str, object] = {
        "workflow_id": workflow_id,
        "selfie": api.Image.of_bytes("selfie", image_bytes(seed=1)),
        "documents": [
            api.Document(
                api.Image.of_bytes("front", image_bytes(seed=2)),
                api.Image.of_bytes("back", image_bytes(seed=3)),
            )
        ],
        "record_identifier": record_identifier,
        **more,
    }
    return api.PerformKycVerification(**arguments)  # type: ignore[arg-type]  # the type of each argument is not known
