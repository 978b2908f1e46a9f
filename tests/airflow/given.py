# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Input of the tasks of `every_image` and of the examples: images and manifests that contain personal data.

The personal data is in the bytes of the images, in manifest columns that the provider does not read, and in the names
of images in the manifests. Task arguments contain no personal data, because Airflow displays them.
"""

from __future__ import annotations

import json
from pathlib import Path

from PIL import Image

from tests.airflow.canaries import PERSON

_WORDS = " ".join(PERSON.values())
_NAME = PERSON["last_name"]
_JPEG = b"\xff\xd8\xff\xe0"


def images(folder: Path) -> None:
    """Write four files with only a JPEG header (one is named after the person), a text file, and a real image."""
    folder.mkdir(parents=True)
    for number, name in enumerate(("selfie", "front", "back", _NAME)):
        content = _JPEG + f"{number} {_WORDS} ".encode() * 100
        (folder / f"{name}.jpg").write_bytes(content)
    (folder / "text.jpg").write_text(f"no image of {_WORDS}")
    exif = Image.Exif()
    exif[0x010E] = _WORDS  # tag ImageDescription
    Image.new("RGB", (64, 48)).save(folder / "large.jpg", exif=exif)


def people(folder: Path, name: str, kind: str) -> None:
    """Write a manifest of three people; the last person's image does not exist.

    `kind` makes the identifiers unique.
    """
    card = {f"document_1_{side}": (folder / f"{side}.jpg").as_uri() for side in ("front", "back")}
    selfies = {f"accepted-{kind}": _NAME, f"code-5004-{kind}": _NAME, f"missing-{kind}": f"{_NAME}-missing"}
    _write(
        folder / f"{name}.ndjson",
        [
            {
                "record_identifier": identifier,
                "selfie": (folder / f"{selfie}.jpg").as_uri(),
                **card,
                **PERSON,
            }
            for identifier, selfie in selfies.items()
        ],
    )


def links(folder: Path, *known: str) -> None:
    """Write a manifest of links, with one row that has no link."""
    _write(folder / "links.ndjson", [*({"link": link, **PERSON} for link in known), PERSON])


def _write(path: Path, rows: list[dict[str, str]]) -> None:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
